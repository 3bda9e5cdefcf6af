//! What it costs to measure the host's part in a workload's times: the same work with a signal on and off, in turns.

pub mod block;
pub mod io;
pub mod tcp;

use std::{path::PathBuf, process::Command};

use crate::{net::free_port, observer::Observer, stats, worker::Worker};

/// One kind of work.
#[derive(Debug)]
pub struct Cost {
    /// What was done, and by whom.
    pub name: &'static str,
    /// Ratio, or difference in nanoseconds, that it shall keep.
    pub target: f64,
    /// Nanoseconds with the signal off, by round.
    pub without: Vec<f64>,
    /// Nanoseconds with it on.
    pub with: Vec<f64>,
}

impl Cost {
    /// With by without, each at its [`QUIET`] quantile.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        quiet(&self.with) / quiet(&self.without)
    }

    /// How much longer it takes, in nanoseconds.
    #[must_use]
    pub fn difference(&self) -> f64 {
        quiet(&self.with) - quiet(&self.without)
    }

    /// Both with their ranges, and what 50,000 a second would take.
    #[must_use]
    pub fn note(&self) -> String {
        let side = |samples: &[f64]| {
            let mut all = samples.to_vec();
            let [least, most] = [0.0, 1.0].map(|quantile| stats::quantile(&mut all, quantile));
            format!("{:.0} ns ({least:.0} to {most:.0})", quiet(samples))
        };
        let (without, with) = (side(&self.without), side(&self.with));
        let (off, on) = (quiet(&self.without), quiet(&self.with));
        // 50,000 a second, of which each costs the difference.
        let share = (on - off) * 50_000.0 / 1e9 * 100.0;
        format!("{with} with, {without} without: {share:.1} % of a core at 50,000 a second")
    }
}

/// Rounds fall into fast and slow ones, as the machine's neighbours have it: compared are fast ones.
const QUIET: f64 = 0.2;

fn quiet(samples: &[f64]) -> f64 {
    stats::quantile(&mut samples.to_vec(), QUIET)
}

/// Keeps this thread on the first of its CPUs: no two CPUs are equally fast.
pub fn pin() {
    // SAFETY: zeroes are a valid, empty set; both calls are given its true size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        libc::sched_getaffinity(0, size, &raw mut set);
        let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &set));
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(first.unwrap_or(0), &mut set);
        libc::sched_setaffinity(0, size, &raw const set);
    }
}

/// A program of this package, beside the one that runs.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("it runs");
    own.parent().expect("a folder").join(name)
}

/// A variable, and what it is when a signal is on and off.
type Setting = (&'static str, [&'static str; 2]);

const SWITCH: [&str; 2] = ["true", "false"];
const SCHEDULER: Setting = ("OBSERVER_SIGNALS_SCHEDULER", SWITCH);
/// All signals, each as it is by default.
const ALL: &[Setting] = &[
    SCHEDULER,
    ("OBSERVER_SIGNALS_TCP", SWITCH),
    ("OBSERVER_SIGNALS_BLOCK", SWITCH),
    ("OBSERVER_SIGNALS_IO", ["auto", "off"]),
];

/// Context switches of a workload's processes, and of others, by turns with `signals.scheduler` on and off.
///
/// # Panics
/// If something cannot be started, or says no number.
#[must_use]
pub fn scheduler(rounds: usize) -> [Cost; 2] {
    switches(rounds, ["context switch of a workload", "context switch of others"], &[SCHEDULER])
}

/// The same with all signals on and off.
///
/// # Panics
/// As [`scheduler`].
#[must_use]
pub fn all(rounds: usize) -> [Cost; 2] {
    switches(rounds, ["all signals, switch of a workload", "all signals, switch of others"], ALL)
}

fn switches(rounds: usize, names: [&'static str; 2], signals: &[Setting]) -> [Cost; 2] {
    const SWITCHES: u32 = 100_000;
    let path = program("switches");
    let path = path.to_str().expect("a plain path");
    let cost = |name, target| Cost { name, target, without: Vec::new(), with: Vec::new() };
    let (mut own, mut others) = (cost(names[0], 1.2), cost(names[1], 1.05));
    let number = |text: &str| -> f64 { text.trim().parse().expect("nanoseconds") };
    for round in 0..2 * rounds {
        let on = round % 2 == 1;
        let mut settings: Vec<_> = signals.iter().map(|(name, values)| (*name, values[usize::from(!on)])).collect();
        settings.push(("OBSERVER_GOVERNOR_BUDGET", "0"));
        let worker = Worker::start(path, &settings);
        if on {
            let _measured = worker.measured();
        } else {
            worker.work("nap", 100);
        }
        let samples = if on { &mut own.with } else { &mut own.without };
        samples.push(number(&worker.work("run", SWITCHES)));
        drop(worker);
        let observer = Observer::tuned(&["--ports", &free_port().to_string()], &settings);
        let output = Command::new(path).arg(SWITCHES.to_string()).output().expect("it runs");
        let samples = if on { &mut others.with } else { &mut others.without };
        samples.push(number(&String::from_utf8_lossy(&output.stdout)));
        drop(observer);
    }
    [own, others]
}

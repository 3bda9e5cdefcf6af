//! `observer overhead`: what a running observer costs this host, measured from outside.

mod text;

use std::{
    collections::BTreeSet,
    io, thread,
    time::{Duration, Instant},
};

use procfs::process::{Process, Stat};
use serde::Serialize;

pub use self::text::print;
use crate::kernel::{
    Holder, OtherObserver,
    hook_cost::{self, HookKind},
    statistics::{self, ProbeCost, Statistics},
};

/// How often it is looked whether the observer still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub enum OverheadError {
    /// Programs cannot be listed.
    #[error("cannot list the kernel's BPF programs ({error}): run this as root, or with CAP_SYS_ADMIN")]
    NotPermitted {
        /// What the kernel said.
        error: io::Error,
    },
    /// Statistics cannot be turned on.
    #[error(
        "cannot turn BPF run statistics on ({error}): that takes CAP_SYS_ADMIN and Linux 5.8 or later; run this as root"
    )]
    NoStatistics {
        /// What the kernel said.
        error: io::Error,
    },
    /// There is no observer.
    #[error("no observer runs on this host: start one with `observer run`, then measure it")]
    NoneRuns,
    /// There is one, and not here.
    #[error(
        "programs of an observer are loaded, and no process here holds them: run this in the host's PID namespace, as \
         root"
    )]
    Hidden,
    /// There are several.
    #[error("several observers run ({found}): name one of them with --pid")]
    Several {
        /// Which.
        found: String,
    },
    /// Another process was named.
    #[error("process {pid} holds no programs of an observer; those that do: {found}")]
    NotAnObserver {
        /// As named.
        pid: u32,
        /// Which do.
        found: String,
    },
    /// It ended while it was measured.
    #[error("the observer (pid {pid}) ended meanwhile: measure one that keeps running")]
    Ended {
        /// Which.
        pid: u32,
    },
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The observer.
    pub observer: OtherObserver,
    /// For how long.
    pub seconds: f64,
    /// `kernel.bpf_stats_enabled` is set, so that statistics were on before and stay on.
    pub statistics_stay_on: bool,
    /// Each of its programs that can run.
    pub programs: Vec<ProgramReport>,
    /// All programs: share of one core, hooks included.
    pub programs_core_ratio: f64,
    /// The process.
    pub process: ProcessReport,
    /// Both: share of one core.
    pub core_ratio: f64,
    /// What each kind of hook that is in place costs besides its program.
    pub hooks: Vec<HookReport>,
    /// What statistics count for a program that does nothing, in nanoseconds a run: so much of each
    /// [`ProgramReport::nanoseconds_per_run`] is the counting. `None`: it could not be measured.
    pub empty_run_nanoseconds: Option<f64>,
}

/// One program.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramReport {
    /// The probe, as in the metrics' labels.
    pub probe: &'static str,
    /// The program, as the kernel lists it.
    pub program: &'static str,
    /// The kernel's number of it.
    pub id: u32,
    /// How it is hooked in.
    pub mechanism: &'static str,
    /// To what.
    pub target: &'static str,
    /// Whether it was hooked in when this began; iterators run when somebody asks.
    pub attached: bool,
    /// Runs meanwhile.
    pub runs: u64,
    /// Mean time of a run, as the kernel counts it; `None`: it did not run.
    pub nanoseconds_per_run: Option<f64>,
    /// What its hook costs besides, each run.
    pub hook_nanoseconds: f64,
    /// Share of one core, the hook included.
    pub core_ratio: f64,
    /// Runs that were skipped, since it would have interrupted itself.
    pub recursion_misses: u64,
}

/// The observer's process, all its threads.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProcessReport {
    /// Share of one core in its own code.
    pub user_core_ratio: f64,
    /// Share of one core in the kernel, on its behalf.
    pub system_core_ratio: f64,
    /// Both.
    pub core_ratio: f64,
}

/// What one kind of hook costs besides its program.
#[derive(Clone, Debug, Serialize)]
pub struct HookReport {
    /// Which.
    pub kind: HookKind,
    /// Nanoseconds a run.
    pub nanoseconds: f64,
    /// Whether that was measured here, just now; else it is a constant from the documentation.
    pub measured: bool,
    /// Where the number is from.
    pub source: String,
}

/// Measures an observer for some time; `pid`: which, where several run.
///
/// # Errors
/// See [`OverheadError`].
pub fn measure(pid: Option<u32>, time: Duration) -> Result<Report, OverheadError> {
    let found = crate::kernel::holders().map_err(|error| OverheadError::NotPermitted { error })?;
    let (holder, pid) = choose(found, pid)?;
    let ids: Vec<u32> = holder.programs.iter().map(|program| program.id).collect();
    let costs = || statistics::of_programs(&ids).map_err(|error| OverheadError::NotPermitted { error });
    let statistics_stay_on = statistics::are_on_for_everybody();
    let on = Statistics::enable().map_err(|error| OverheadError::NoStatistics { error })?;
    let (begun, before, process_before) = (Instant::now(), costs()?, stat(pid)?);
    while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        thread::sleep(left.min(LOOK));
        stat(pid)?;
    }
    let (elapsed, after, process_after) = (begun.elapsed(), costs()?, stat(pid)?);
    // Trials of hooks come after it, and without them: what they count themselves is no cost of a hook.
    drop(on);
    let costs: Option<Vec<ProbeCost>> =
        after.iter().zip(before).map(|(after, before)| Some((*after)?.since(before?))).collect();
    let costs = costs.ok_or(OverheadError::Ended { pid })?;
    let (hooks, empty_run_nanoseconds) = hooks(&holder, &costs);
    let measured = Measured {
        elapsed,
        costs,
        user: process_after.utime - process_before.utime,
        system: process_after.stime - process_before.stime,
    };
    Ok(report(holder, &measured, statistics_stay_on, hooks, empty_run_nanoseconds))
}

/// The observer that is meant, and its process.
fn choose(mut found: Vec<Holder>, pid: Option<u32>) -> Result<(Holder, u32), OverheadError> {
    let names = |found: &[Holder]| {
        let name = |holder: &Holder| match (holder.observer.pid, holder.observer.listens.first()) {
            (Some(pid), Some(address)) => format!("pid {pid} at {address}"),
            (Some(pid), None) => format!("pid {pid}"),
            (None, _) => "one that is hidden".to_owned(),
        };
        found.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    if found.is_empty() {
        return Err(OverheadError::NoneRuns);
    }
    if let Some(pid) = pid {
        let error = OverheadError::NotAnObserver { pid, found: names(&found) };
        let at = found.iter().position(|holder| holder.observer.pid == Some(pid));
        return at.map(|at| (found.swap_remove(at), pid)).ok_or(error);
    }
    if found.len() > 1 {
        return Err(OverheadError::Several { found: names(&found) });
    }
    let only = found.swap_remove(0);
    match only.observer.pid {
        Some(pid) => Ok((only, pid)),
        None => Err(OverheadError::Hidden),
    }
}

/// Of a process that still runs.
fn stat(pid: u32) -> Result<Stat, OverheadError> {
    let stat = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()?.stat().ok());
    stat.filter(|stat| !matches!(stat.state, 'Z' | 'X')).ok_or(OverheadError::Ended { pid })
}

/// What the kinds of hooks cost that are in place, or were, and what statistics count for nothing.
fn hooks(holder: &Holder, costs: &[ProbeCost]) -> (Vec<HookReport>, Option<f64>) {
    let programs = holder.programs.iter().zip(costs).filter(|(program, cost)| program.attached || cost.runs > 0);
    let kinds: BTreeSet<HookKind> = programs.filter_map(|(program, _)| HookKind::of(program.probe)).collect();
    let mut empty_run = None;
    let hooks = kinds
        .into_iter()
        .map(|kind| {
            let constant = |why: &str| HookReport {
                kind,
                nanoseconds: kind.documented(),
                measured: false,
                source: format!("a constant from docs/overhead.md: {why}"),
            };
            if kind.is_shared() {
                return constant("while the observer hooks system calls, another hook there says too little");
            }
            match hook_cost::measure(kind) {
                Ok(measured) => {
                    empty_run = empty_run.or(measured.empty_run);
                    let source = "measured here: an empty program where a thread's name is set".to_owned();
                    HookReport { kind, nanoseconds: measured.nanoseconds, measured: true, source }
                }
                Err(reason) => constant(&reason),
            }
        })
        .collect();
    (hooks, empty_run)
}

/// What was counted.
struct Measured {
    elapsed: Duration,
    /// In the order of the programs.
    costs: Vec<ProbeCost>,
    /// Ticks of the process.
    user: u64,
    system: u64,
}

#[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
fn report(
    holder: Holder,
    measured: &Measured,
    statistics_stay_on: bool,
    hooks: Vec<HookReport>,
    empty_run_nanoseconds: Option<f64>,
) -> Report {
    let seconds = measured.elapsed.as_secs_f64();
    let hook = |kind| hooks.iter().find(|hook| Some(hook.kind) == kind).map_or(0.0, |hook| hook.nanoseconds);
    let programs: Vec<ProgramReport> = holder
        .programs
        .iter()
        .zip(&measured.costs)
        .map(|(held, cost)| {
            let hook_nanoseconds = hook(HookKind::of(held.probe));
            let nanoseconds = cost.nanoseconds as f64 + cost.runs as f64 * hook_nanoseconds;
            ProgramReport {
                probe: held.probe.name,
                program: held.probe.program,
                id: held.id,
                mechanism: held.probe.mechanism.as_str(),
                target: held.probe.target,
                attached: held.attached,
                runs: cost.runs,
                nanoseconds_per_run: (cost.runs > 0).then(|| cost.nanoseconds as f64 / cost.runs as f64),
                hook_nanoseconds,
                core_ratio: nanoseconds / 1e9 / seconds,
                recursion_misses: cost.recursion_misses,
            }
        })
        .collect();
    let programs_core_ratio = programs.iter().map(|program| program.core_ratio).sum();
    let ratio = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64 / seconds;
    let (user_core_ratio, system_core_ratio) = (ratio(measured.user), ratio(measured.system));
    let process = ProcessReport { user_core_ratio, system_core_ratio, core_ratio: user_core_ratio + system_core_ratio };
    Report {
        observer: holder.observer,
        seconds,
        statistics_stay_on,
        programs,
        programs_core_ratio,
        process,
        core_ratio: programs_core_ratio + process.core_ratio,
        hooks,
        empty_run_nanoseconds,
    }
}

#[cfg(test)]
mod tests;

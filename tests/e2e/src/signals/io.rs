//! What the signal of reads and writes costs: workloads, and everybody else while there is one.

use std::process::Command;

use super::{Cost, program};
use crate::worker::Worker;

/// Calls of each kind in a round.
const CALLS: u32 = 100_000;

/// By what is switched on.
const SETTINGS: [[(&str, &str); 2]; 4] = [
    [("OBSERVER_SIGNALS_IO", "off"), ("OBSERVER_SIGNALS_IO_LATENCY", "true")],
    [("OBSERVER_SIGNALS_IO", "auto"), ("OBSERVER_SIGNALS_IO_LATENCY", "true")],
    [("OBSERVER_SIGNALS_IO", "on"), ("OBSERVER_SIGNALS_IO_LATENCY", "false")],
    [("OBSERVER_SIGNALS_IO", "on"), ("OBSERVER_SIGNALS_IO_LATENCY", "true")],
];

/// What is compared with the signal off: which setting, whose calls, which call, most nanoseconds that each may cost.
const COSTS: [(&str, usize, bool, usize, f64); 10] = [
    ("io = on: file read of a workload", 3, true, 0, 400.0),
    ("io = on, not timed: file read of a workload", 2, true, 0, 400.0),
    ("io = on: getppid of others", 3, false, 1, 250.0),
    ("io = on, not timed: getppid of others", 2, false, 1, 150.0),
    ("io = on: file read of others", 3, false, 0, 300.0),
    ("io = auto: getppid of others", 1, false, 1, 5.0),
    ("io = auto: file read of others", 1, false, 0, 100.0),
    ("io = auto: TCP write and read of others", 1, false, 2, 150.0),
    ("io = auto: TCP write and read of a workload", 1, true, 2, 200.0),
    ("io = auto: page new to the cache, of others", 1, false, 3, 200.0),
];

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().map(|word| word.parse().expect("nanoseconds")).collect()
}

/// Calls of a workload, and of others while there is one, by turns with the signal off and on in several ways.
///
/// # Panics
/// If something cannot be started, or says no number.
#[must_use]
pub fn costs(rounds: usize) -> Vec<Cost> {
    let path = program("calls");
    let path = path.to_str().expect("a plain path");
    // By setting and whose calls: each round's numbers.
    let mut samples: [[Vec<Vec<f64>>; 2]; SETTINGS.len()] = Default::default();
    for _ in 0..rounds {
        for (settings, samples) in SETTINGS.iter().zip(&mut samples) {
            let worker = Worker::start(path, settings);
            let _measured = worker.measured();
            samples[1].push(numbers(&worker.work("run", CALLS)));
            let output = Command::new(path).arg(CALLS.to_string()).output().expect("it runs");
            samples[0].push(numbers(&String::from_utf8_lossy(&output.stdout)));
        }
    }
    let of = |setting: usize, own: bool, call: usize| -> Vec<f64> {
        samples[setting][usize::from(own)].iter().map(|numbers| numbers[call]).collect()
    };
    let cost = |(name, setting, own, call, target)| Cost {
        name,
        target,
        without: of(0, own, call),
        with: of(setting, own, call),
    };
    COSTS.map(cost).into()
}

//! What the signal of block devices costs: what the kernel itself says of its probes, while a loop device is read.

use std::{fs, process::Command};

use crate::{disk::Loop, metrics::Metrics, require, scratch::Scratch, worker::Worker};

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Reads of 4 KiB, one after another.
const OPTIONS: &str = "--name=job --direct=1 --ioengine=psync --rw=randread --bs=4k --size=64m --loops=2";

/// The kernel's statistics of programs, on for as long as this lives, as they were before afterwards.
struct Statistics(String);

impl Statistics {
    fn on() -> Self {
        let before = fs::read_to_string(STATISTICS).expect("every kernel has it");
        fs::write(STATISTICS, "1").expect("this is root");
        Self(before)
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(STATISTICS, &self.0) {
            println!("{STATISTICS}: {error}");
        }
    }
}

/// Nanoseconds that all probes of a request take, and how many requests that is the mean of.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Of a workload.
    pub own: f64,
    /// Of anybody else.
    pub others: f64,
    /// Requests of each.
    pub count: u64,
}

/// Time in all probes of requests so far.
fn spent(metrics: &Metrics) -> f64 {
    let probes = ["block_start", "block_issue", "block_merge", "block_complete"];
    probes.map(|probe| metrics.sum("observer_probe_run_seconds_total", &[("probe", probe)])).iter().sum::<f64>() * 1e9
}

/// What a request costs.
///
/// # Panics
/// If something cannot be started.
#[must_use]
pub fn per_request() -> Request {
    let (device, scripts) = (Loop::new(64), Scratch::new());
    let fio = require::tool("fio").expect("required");
    let options = format!("--filename={} {OPTIONS}", device.path());
    let script = scripts.program("run", &format!("#!/bin/sh\nexec {} {options}\n", fio.display()));
    let worker = Worker::start(script.to_str().expect("text"), &[]);
    let _measured = worker.measured();
    let _statistics = Statistics::on();
    let measure = |work: &dyn Fn()| {
        let (spent_before, books) = (spent(&worker.observer.metrics()), device.books());
        work();
        let count = device.books().since(books).read.done;
        ((spent(&worker.observer.metrics()) - spent_before) / count as f64, count)
    };
    let (own, count) = measure(&|| drop(worker.work("run", 0)));
    let (others, _) = measure(&|| {
        let output = Command::new(&fio).args(options.split(' ')).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
    });
    Request { own, others, count }
}

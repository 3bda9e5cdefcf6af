//! A real Prometheus that scrapes a fleet, and what it takes.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::nodes::Nodes;
use crate::{
    process::{cpu_nanos, status_kib},
    prometheus::Prometheus,
    scratch::Scratch,
    wait,
};

/// What one Prometheus took for so many nodes.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Nodes that were scraped.
    pub nodes: usize,
    /// Series in the head, those of Prometheus's own about its scrapes among them.
    pub series: f64,
    /// Samples taken in per second.
    pub rate: f64,
    /// CPU seconds of Prometheus per second.
    pub cpu: f64,
    /// Resident memory of Prometheus at the end, in KiB.
    pub resident_kib: u64,
}

const SAMPLES: &str = "prometheus_tsdb_head_samples_appended_total";

/// Scrapes the first `count` nodes at this interval (whole seconds), and measures for `duration` once each node was
/// scraped.
///
/// # Panics
/// If a node is not scraped.
#[must_use]
pub fn run(nodes: &Nodes, count: usize, interval: Duration, duration: Duration) -> Live {
    let scratch = Scratch::new();
    let seconds = interval.as_secs();
    let config = scratch.write(
        "prometheus.yml",
        &format!(
            "global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s}}\nscrape_configs:\n  - job_name: observer\n    \
             static_configs:\n{}",
            nodes.targets(count)
        ),
    );
    let data = scratch.file("tsdb");
    let prometheus = Prometheus::start(&config, &[format!("--storage.tsdb.path={}", data.display())]);
    wait::until("every node to be scraped", interval * 3 + Duration::from_secs(20), || {
        (prometheus.value("count(up == 1)") == Some(count as f64)).then_some(())
    });
    let appended = || prometheus.own(SAMPLES).or_else(|| labelled(&prometheus)).expect("it counts samples");
    let (before, cpu, begun) = (appended(), cpu_nanos(prometheus.pid()), Instant::now());
    thread::sleep(duration);
    let (after, cpu_after, elapsed) = (appended(), cpu_nanos(prometheus.pid()), begun.elapsed().as_secs_f64());
    let live = Live {
        nodes: count,
        series: prometheus.own("prometheus_tsdb_head_series").expect("it counts series"),
        rate: (after - before) / elapsed,
        cpu: (cpu_after - cpu) as f64 / 1e9 / elapsed,
        resident_kib: status_kib(prometheus.pid(), "VmRSS"),
    };
    assert_eq!(prometheus.value("count(up == 1)"), Some(count as f64), "a node was lost");
    prometheus.stop();
    live
}

/// Later releases tell samples by their type.
fn labelled(prometheus: &Prometheus) -> Option<f64> {
    prometheus.own(&format!("{SAMPLES}{{type=\"float\"}}"))
}

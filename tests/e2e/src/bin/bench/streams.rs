//! A server of streams, without an observer, with one that measures something else, and measured: what its clients see of
//! the difference, and what the observer takes.

use std::{thread, time::Duration};

use observer_e2e::{
    net::free_port,
    observer::Observer,
    process,
    servers::Server,
    stats::{self, Interval},
};

use crate::{
    finding::{Finding, Results, Table},
    load::{self, Pace, Run},
};

const ROUNDS: usize = 5;
const SECONDS: u64 = 4;

/// A load, and what the observer may take of it.
struct Case {
    name: &'static str,
    pace: Pace,
    cores: Option<(&'static str, f64)>,
}

const CASES: [Case; 4] = [
    Case {
        name: "64 streams, 10,000 events/s",
        pace: Pace { streams: 64, interval_ms: 6, tokens: 200, seconds: SECONDS },
        cores: Some(("observer CPU at 10,000 token events/s", 0.02)),
    },
    Case {
        name: "1,000 streams, 10,000 events/s",
        pace: Pace { streams: 1000, interval_ms: 100, tokens: 30, seconds: SECONDS },
        cores: None,
    },
    Case {
        name: "1,000 streams, 50,000 events/s",
        pace: Pace { streams: 1000, interval_ms: 20, tokens: 100, seconds: SECONDS },
        cores: Some(("observer CPU at 50,000 token events/s", 0.10)),
    },
    Case {
        name: "64 streams, as fast as can be",
        pace: Pace { streams: 64, interval_ms: 0, tokens: 400, seconds: SECONDS },
        cores: None,
    },
];

/// What is observed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Nothing,
    Others,
    Server,
}

/// What one round with an observer told of the observer.
struct Own {
    /// Cores for each token event a second.
    cores: f64,
    lost: f64,
    resident: f64,
    missing: f64,
}

fn one(server: &Server, case: &Case, way: Way) -> (Run, Option<Own>) {
    let port = if way == Way::Server { server.port() } else { free_port() };
    let observer = (way != Way::Nothing).then(|| Observer::bare(&["--ports", &port.to_string()]));
    thread::sleep(Duration::from_millis(300));
    let mut watched = vec![server.process.pid()];
    watched.extend(observer.as_ref().map(Observer::pid));
    let run = load::run(server.address, case.pace, &watched);
    let own = observer.filter(|_| way == Way::Server).map(|observer| {
        thread::sleep(Duration::from_millis(300));
        let metrics = observer.metrics();
        Own {
            cores: run.cores[1] / run.rate,
            lost: metrics.sum("observer_events_lost_total", &[]),
            resident: process::status_kib(observer.pid(), "VmHWM") as f64 / 1024.0,
            missing: run.events - metrics.sum("llm_output_chunks_total", &[]),
        }
    });
    (run, own)
}

/// All cases.
pub(crate) fn measure(results: &mut Results) {
    let head =
        ["load", "observed", "throughput", "TTFT p50", "TTFT p99", "gap p50", "gap p99", "server's CPU for each event"];
    let mut clients = Table::new("streams", &head);
    let mut own = Table::new("own", &["load", "events/s", "observer's CPU", "resident", "lost", "not counted"]);
    for case in &CASES {
        measure_case(case, results, &mut clients, &mut own);
    }
    results.tables.extend([clients, own]);
}

fn measure_case(case: &Case, results: &mut Results, clients: &mut Table, own: &mut Table) {
    let server = Server::sample(&[]);
    // Its memory is touched, its code is in the caches.
    let _warm = load::run(server.address, Pace { seconds: 1, ..case.pace }, &[]);
    let (mut runs, mut owns): ([Vec<Run>; 3], Vec<Own>) = (Default::default(), Vec::new());
    for _ in 0..ROUNDS {
        for (index, way) in [Way::Nothing, Way::Others, Way::Server].into_iter().enumerate() {
            let (run, found) = one(&server, case, way);
            runs[index].push(run);
            owns.extend(found);
        }
    }
    let values: [fn(&Run) -> f64; 6] = [
        |run| run.rate,
        |run| run.ttft[0],
        |run| run.ttft[1],
        |run| run.gap[0],
        |run| run.gap[1],
        |run| run.cores[0] / run.rate,
    ];
    for (way, name) in [(1, "something else"), (2, "this server")] {
        let ratio = |value: &fn(&Run) -> f64| -> Interval {
            let ratios: Vec<f64> = runs[way].iter().zip(&runs[0]).map(|(with, off)| value(with) / value(off)).collect();
            stats::interval(&ratios)
        };
        let ratios: Vec<Interval> = values.iter().map(ratio).collect();
        let mut row = vec![case.name.to_owned(), name.to_owned()];
        row.extend(ratios.iter().map(|interval| interval.to_string()));
        clients.rows.push(row);
        if way == 2 {
            let note = |interval: Interval| format!("{}: {}", case.name, interval);
            // As findings are to be at most their target: what is lost of the throughput.
            let finding = |name, target, value, note| Finding { name, target, value, unit: "ratio", note };
            results.findings.push(finding("throughput lost", 0.01, 1.0 - ratios[0].high, note(ratios[0])));
            results.findings.push(finding("TTFT p99, least of interval", 1.02, ratios[2].low, note(ratios[2])));
            results.findings.push(finding("gap p99, least of interval", 1.02, ratios[4].low, note(ratios[4])));
        }
    }
    let of = |value: fn(&Own) -> f64| stats::median(&mut owns.iter().map(value).collect::<Vec<_>>());
    let (cores, resident) = (of(|own| own.cores), of(|own| own.resident));
    let sum = |value: fn(&Own) -> f64| owns.iter().map(value).sum::<f64>();
    let (lost, missing) = (sum(|own| own.lost), sum(|own| own.missing));
    let rate = stats::median(&mut runs[2].iter().map(|run| run.rate).collect::<Vec<_>>());
    own.rows.push(vec![
        case.name.to_owned(),
        format!("{rate:.0}"),
        format!("{:.2} % of a core", 100.0 * cores * rate),
        format!("{resident:.1} MiB"),
        format!("{lost:.0}"),
        format!("{missing:.0}"),
    ]);
    if let Some((name, target)) = case.cores {
        let stated = if target < 0.05 { 10_000.0 } else { 50_000.0 };
        let note = format!("at {rate:.0} events/s, {lost} lost, {missing} not counted");
        results.findings.push(Finding { name, target, value: cores * stated, unit: "cores", note });
    }
    let note = format!("{}, {ROUNDS} rounds", case.name);
    results.findings.push(Finding { name: "events lost", target: 0.0, value: lost, unit: "events", note });
}

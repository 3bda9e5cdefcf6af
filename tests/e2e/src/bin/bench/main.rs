//! What the observer costs, as ratios within one run: medians of interleaved measurements with and without it.
//! Prints tables, and writes `target/bench/results.json`. With `--check`, a missed target is a failure; with `--document`,
//! the tables go into `docs/overhead.md`.

mod calls;
mod finding;
mod load;
mod neighbours;
mod peers;
mod streams;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{net::free_port, observer::Observer, process, require, servers::Server, signals, stats};
use serde_json::Value;

use self::{
    finding::{Finding, Results, target_folder},
    load::Pace,
};

/// Measurements with and without a signal, in turns.
const ROUNDS: usize = 9;
const STREAMS: u64 = 1000;

/// Memory with a thousand streams under way, and whether anything was lost then.
fn memory(results: &mut Results) {
    let server = Server::sample(&[]);
    let observer = Observer::bare(&["--ports", &server.port().to_string()]);
    let pace = Pace { streams: STREAMS, interval_ms: 200, tokens: 40, seconds: 0 };
    let mut load = load::start(server.address, pace, &["--requests", &STREAMS.to_string()]);
    let (mut in_flight, begun) = (0.0_f64, Instant::now());
    while load.exited().is_none() && begun.elapsed() < Duration::from_secs(60) {
        in_flight = in_flight.max(observer.metrics().sum("llm_requests_in_flight", &[]));
        thread::sleep(Duration::from_millis(500));
    }
    thread::sleep(Duration::from_millis(500));
    let metrics = observer.metrics();
    let ok = metrics.sum("llm_requests_total", &[("outcome", "ok")]);
    let note = format!("{in_flight} in flight at the most, {ok} of {STREAMS} requests ok");
    let resident = process::status_kib(observer.pid(), "VmHWM") as f64 / 1024.0;
    let name = "resident memory with 1,000 streams";
    results.findings.push(Finding { name, target: 64.0, value: resident, unit: "MiB", note: note.clone() });
    let name = "events lost with 1,000 streams";
    let lost = metrics.sum("observer_events_lost_total", &[]);
    results.findings.push(Finding { name, target: 0.0, value: lost, unit: "events", note });
    let name = "requests not ok with 1,000 streams";
    let value = STREAMS as f64 - ok;
    results.findings.push(Finding { name, target: 0.0, value, unit: "requests", note: String::new() });
}

fn cold_start(results: &mut Results) {
    let start = |_| Observer::bare(&["--ports", &free_port().to_string()]).attached_after().as_secs_f64();
    let mut samples: Vec<f64> = (0..5).map(start).collect();
    let (value, most) = (stats::median(&mut samples), stats::quantile(&mut samples, 1.0));
    let note = format!("{most:.3} s at the most");
    results.findings.push(Finding { name: "cold start to attached", target: 1.0, value, unit: "seconds", note });
}

/// What `cargo bench -p observer --bench tracker` measured last.
fn tracker(results: &mut Results) {
    let read = |file: &str| -> Option<Value> {
        let file = target_folder().join("criterion/tracker/whole/new").join(file);
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    };
    let estimates = read("estimates.json");
    let time = |key: &str| estimates.as_ref().and_then(|found| found["median"][key].as_f64());
    let events = read("benchmark.json").and_then(|found| found["throughput"]["Elements"].as_f64());
    let (value, note) = match (time("point_estimate"), events) {
        (Some(nanoseconds), Some(events)) => {
            let each = nanoseconds / events;
            (each, format!("{:.2} million events/s on one core", 1e3 / each))
        }
        _ => (f64::INFINITY, "not measured: cargo bench -p observer --bench tracker".to_owned()),
    };
    // 1.5 million a second.
    results.findings.push(Finding {
        name: "tracker, streamed completions",
        target: 1e3 / 1.5,
        value,
        unit: "ns/event",
        note,
    });
}

/// What measuring the host's part costs the workload itself, and others.
fn signals(results: &mut Results) {
    switches(results, signals::scheduler(ROUNDS));
}

/// The same of all signals together.
fn signals_all(results: &mut Results) {
    switches(results, signals::all(ROUNDS));
}

fn switches(results: &mut Results, costs: [signals::Cost; 2]) {
    for cost in costs {
        let (name, target, value, note) = (cost.name, cost.target, cost.ratio(), cost.note());
        results.findings.push(Finding { name, target, value, unit: "ratio", note });
    }
}

/// What TCP's signal costs writes, and scrapes.
fn signal_tcp(results: &mut Results) {
    let cost = signals::tcp::cost(ROUNDS);
    let (name, target, value, note) = (cost.name, cost.target, cost.ratio(), cost.note());
    results.findings.push(Finding { name, target, value, unit: "ratio", note });
    let (value, sockets) = signals::tcp::per_socket(3);
    let note = format!("a look at {sockets} sockets takes {:.2} ms", value * sockets as f64 / 1e6);
    results.findings.push(Finding { name: "scrape, for each TCP socket", target: 3000.0, value, unit: "ns", note });
}

/// What the signal of reads and writes costs: each call, so many nanoseconds. 400 are 2 % of a core at 50,000 a second.
fn signal_io(results: &mut Results) {
    for cost in signals::io::costs(ROUNDS) {
        let (name, target, value, note) = (cost.name, cost.target, cost.difference(), cost.note());
        results.findings.push(Finding { name, target, value, unit: "ns", note });
    }
}

/// What the signal of block devices costs a request: at most 2 % of a core at 20,000 a second.
fn signal_block(results: &mut Results) {
    if let Some(reason) = require::missing("loop_device").or_else(|| require::missing("fio")) {
        println!("skipped: {reason}");
        return;
    }
    let request = signals::block::per_request();
    let note = |value: f64| format!("{:.1} % of a core at 20,000 a second, {} requests", value * 2e-3, request.count);
    for (name, value) in [("block request of a workload", request.own), ("block request of others", request.others)] {
        results.findings.push(Finding { name, target: 1000.0, value, unit: "ns", note: note(value) });
    }
}

type Measurement = (&'static str, fn(&mut Results));

const MEASUREMENTS: [Measurement; 12] = [
    ("tracker", tracker),
    ("cold start", cold_start),
    ("system calls with and without", calls::measure),
    ("streams of a server", streams::measure),
    ("neighbours", neighbours::measure),
    ("peers", peers::measure),
    ("signals of the host", signals),
    ("signals of the host: TCP", signal_tcp),
    ("signals of the host: I/O", signal_io),
    ("signals of the host: block", signal_block),
    ("signals of the host: all", signals_all),
    ("memory", memory),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == neighbours::ECHO) {
        neighbours::echo();
    }
    let (flags, wanted): (Vec<String>, Vec<String>) =
        arguments.into_iter().partition(|argument| argument.starts_with('-'));
    if flags.iter().any(|flag| flag != "--check" && flag != "--document") || wanted.len() > 1 {
        println!(
            "usage: bench [--check] [--document] [WHAT]\n\nWHAT: only measurements with this in their names:\n  {}",
            MEASUREMENTS.map(|(name, _)| name).join("\n  ")
        );
        return ExitCode::from(2);
    }
    let has = |name: &str| flags.iter().any(|flag| flag == name);
    for need in ["kernel", "sample"] {
        if let Some(reason) = require::missing(need) {
            println!("skipped: {reason}");
            return if has("--check") { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    }
    let mut results = Results::default();
    for (name, measure) in MEASUREMENTS {
        if wanted.first().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        println!("measuring: {name}");
        measure(&mut results);
    }
    results.report();
    if has("--document") {
        results.document();
    }
    if has("--check") && !results.met() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

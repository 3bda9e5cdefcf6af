//! What the observer costs, as ratios within one run: medians of interleaved measurements with and without it.
//! Prints a table, and writes `target/bench/results.json`. With `--check`, a missed target is a failure.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    net::free_port,
    observer::Observer,
    process::{self, Process},
    require,
    servers::Server,
    signals, stats,
};
use serde_json::{Value, json};

/// Measurements with and without an observer, in turns.
const ROUNDS: usize = 9;
const BATCHES: u32 = 500;
const STREAMS: u64 = 1000;
/// Token events per second that the CPU target is stated for.
const TOKEN_RATE: f64 = 10_000.0;

/// One target and what was measured.
struct Finding {
    name: &'static str,
    target: f64,
    value: f64,
    unit: &'static str,
    note: String,
}

impl Finding {
    fn met(&self) -> bool {
        self.value <= self.target
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "target": self.target, "value": self.value, "unit": self.unit,
            "met": self.met(), "note": self.note,
        })
    }
}

/// Nanoseconds per call: a low quantile over many batches, each shorter than a turn of the scheduler, since whatever
/// disturbs a batch makes it longer.
fn per_call(calls: u32, mut call: impl FnMut()) -> f64 {
    let batch = |_| {
        let begun = Instant::now();
        (0..calls).for_each(|_| call());
        begun.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    let mut batches: Vec<f64> = (0..BATCHES).map(batch).collect();
    stats::quantile(&mut batches, 0.05)
}

/// Keeps this thread on the first of its CPUs: no two CPUs are equally fast.
fn pin() {
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

/// A loopback connection that no scope names.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).expect("the port is free");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("a connection waits");
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("TCP_NODELAY");
    }
    (client, server)
}

const CALLS: [(&str, f64); 4] = [
    ("getppid, unrelated", 1.02),
    ("write to /dev/null, unrelated", 1.02),
    ("read of /dev/zero, unrelated", 1.02),
    ("TCP send and receive, untracked", 1.10),
];

/// Nanoseconds of each of [`CALLS`].
fn costs() -> [f64; 4] {
    pin();
    let (mut null, mut zero) =
        (File::create("/dev/null").expect("it is there"), File::open("/dev/zero").expect("it is there"));
    let (mut client, mut server) = pair();
    let mut buffer = [0; 100];
    [
        per_call(2000, || {
            // SAFETY: getppid takes nothing and cannot fail.
            std::hint::black_box(unsafe { libc::getppid() });
        }),
        per_call(1000, || null.write_all(&[1; 64]).expect("it takes all")),
        per_call(1000, || zero.read_exact(&mut buffer[..64]).expect("it gives all")),
        per_call(40, || {
            client.write_all(&[1; 100]).expect("the peer lives");
            server.read_exact(&mut buffer).expect("the peer lives");
        }),
    ]
}

/// What others pay: system calls that have nothing to do with what is observed.
fn bystanders(findings: &mut Vec<Finding>) {
    // By call: without an observer, with one.
    let mut samples: [[Vec<f64>; 2]; 4] = Default::default();
    for round in 0..2 * ROUNDS {
        let with = round % 2;
        let observer = (with == 1).then(|| Observer::bare(&["--ports", &free_port().to_string()]));
        // In a thread of its own: a pinned one would start its observers pinned.
        let costs = thread::spawn(costs).join().expect("a measurement");
        for (call, cost) in costs.into_iter().enumerate() {
            samples[call][with].push(cost);
        }
        drop(observer);
    }
    for ((name, target), [without, with]) in CALLS.into_iter().zip(&mut samples) {
        let (without, with) = (stats::median(without), stats::median(with));
        let note = format!("{without:.1} ns without, {with:.1} ns with");
        findings.push(Finding { name, target, value: with / without, unit: "ratio", note });
    }
}

fn load(server: &Server, concurrency: u64, arguments: &[&str], sample: &Value) -> Process {
    let mut command = Command::new(require::sample());
    command.args(["load", "--url", &format!("http://{}", server.address)]);
    command.args(["--concurrency", &concurrency.to_string(), "--sample", &sample.to_string()]).args(arguments);
    Process::spawn("sample-llm load", command)
}

/// CPU time at a known rate of token events, scaled to the rate of the target.
fn cpu(findings: &mut Vec<Finding>) {
    let server = Server::sample(&[]);
    let observer = Observer::bare(&["--ports", &server.port().to_string()]);
    // 100 streams of 100 events a second.
    let sample = json!({"ttft_ms": 20, "interval_ms": 10, "tokens": 100});
    let before = process::cpu_nanos(observer.pid());
    let mut load = load(&server, 100, &["--for", "10s"], &sample);
    let status = load.wait(Duration::from_secs(60));
    let used = process::cpu_nanos(observer.pid()) - before;
    // The load's own account, on its standard output.
    let account = load.line(Duration::from_secs(1), |line| line.contains("token_events_per_second"));
    let account: Value = serde_json::from_str(&account).unwrap_or_default();
    let number = |key: &str| account[key].as_f64().unwrap_or(0.0);
    let (rate, events, seconds) = (number("token_events_per_second"), number("token_events"), number("seconds"));
    thread::sleep(Duration::from_millis(500));
    let metrics = observer.metrics();
    let seen = metrics.sum("llm_output_chunks_total", &[]);
    let lost = metrics.sum("observer_events_lost_total", &[]);
    let share = if seconds > 0.0 { used as f64 / 1e9 / seconds } else { f64::INFINITY };
    findings.push(Finding {
        name: "observer CPU at 10,000 token events/s",
        target: 0.03,
        value: if rate > 0.0 { share * TOKEN_RATE / rate } else { f64::INFINITY },
        unit: "cores",
        note: format!(
            "{share:.4} cores at {rate:.0} token events/s; saw {seen} of {events}, {lost} events lost, load: {status}"
        ),
    });
}

/// Memory with a thousand streams under way, and whether anything was lost then.
fn memory(findings: &mut Vec<Finding>) {
    let server = Server::sample(&[]);
    let observer = Observer::bare(&["--ports", &server.port().to_string()]);
    let sample = json!({"ttft_ms": 500, "interval_ms": 200, "tokens": 40});
    let mut load = load(&server, STREAMS, &["--requests", &STREAMS.to_string()], &sample);
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
    findings.push(Finding { name, target: 64.0, value: resident, unit: "MiB", note: note.clone() });
    let name = "events lost with 1,000 streams";
    let lost = metrics.sum("observer_events_lost_total", &[]);
    findings.push(Finding { name, target: 0.0, value: lost, unit: "events", note });
    let name = "requests not ok with 1,000 streams";
    let value = STREAMS as f64 - ok;
    findings.push(Finding { name, target: 0.0, value, unit: "requests", note: String::new() });
}

fn cold_start(findings: &mut Vec<Finding>) {
    let start = |_| Observer::bare(&["--ports", &free_port().to_string()]).attached_after().as_secs_f64();
    let mut samples: Vec<f64> = (0..5).map(start).collect();
    let (value, most) = (stats::median(&mut samples), stats::quantile(&mut samples, 1.0));
    let note = format!("{most:.3} s at the most");
    findings.push(Finding { name: "cold start to attached", target: 1.0, value, unit: "seconds", note });
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| require::workspace().join("target"), PathBuf::from)
}

/// What `cargo bench -p observer --bench tracker` measured last.
fn tracker(findings: &mut Vec<Finding>) {
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
    findings.push(Finding { name: "tracker, streamed completions", target: 1e3 / 1.5, value, unit: "ns/event", note });
}

/// What measuring the host's part costs the workload itself, and others.
fn signals(findings: &mut Vec<Finding>) {
    switches(findings, signals::scheduler(ROUNDS));
}

/// The same of all signals together.
fn signals_all(findings: &mut Vec<Finding>) {
    switches(findings, signals::all(ROUNDS));
}

fn switches(findings: &mut Vec<Finding>, costs: [signals::Cost; 2]) {
    for cost in costs {
        let (name, target, value, note) = (cost.name, cost.target, cost.ratio(), cost.note());
        findings.push(Finding { name, target, value, unit: "ratio", note });
    }
}

/// What TCP's signal costs writes, and scrapes.
fn signal_tcp(findings: &mut Vec<Finding>) {
    let cost = signals::tcp::cost(ROUNDS);
    let (name, target, value, note) = (cost.name, cost.target, cost.ratio(), cost.note());
    findings.push(Finding { name, target, value, unit: "ratio", note });
    let (value, sockets) = signals::tcp::per_socket(3);
    let note = format!("a look at {sockets} sockets takes {:.2} ms", value * sockets as f64 / 1e6);
    findings.push(Finding { name: "scrape, for each TCP socket", target: 3000.0, value, unit: "ns", note });
}

/// What the signal of reads and writes costs: each call, so many nanoseconds. 400 are 2 % of a core at 50,000 a second.
fn signal_io(findings: &mut Vec<Finding>) {
    for cost in signals::io::costs(ROUNDS) {
        let (name, target, value, note) = (cost.name, cost.target, cost.difference(), cost.note());
        findings.push(Finding { name, target, value, unit: "ns", note });
    }
}

/// What the signal of block devices costs a request: at most 2 % of a core at 20,000 a second.
fn signal_block(findings: &mut Vec<Finding>) {
    if let Some(reason) = require::missing("loop_device").or_else(|| require::missing("fio")) {
        println!("skipped: {reason}");
        return;
    }
    let request = signals::block::per_request();
    let note = |value: f64| format!("{:.1} % of a core at 20,000 a second, {} requests", value * 2e-3, request.count);
    for (name, value) in [("block request of a workload", request.own), ("block request of others", request.others)] {
        findings.push(Finding { name, target: 1000.0, value, unit: "ns", note: note(value) });
    }
}

fn report(findings: &[Finding]) {
    println!("{:38} {:>10} {:>10} {:9} {:7} ", "", "target", "measured", "", "");
    for finding in findings {
        let Finding { name, target, value, unit, note } = finding;
        let verdict = if finding.met() { "met" } else { "MISSED" };
        println!("{name:38} {target:>10.3} {value:>10.3} {unit:9} {verdict:7} {note}");
    }
    let folder = target_folder().join("bench");
    let file = folder.join("results.json");
    std::fs::create_dir_all(&folder).expect("the target directory is ours");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let results = Value::from_iter(findings.iter().map(Finding::json));
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let whole = json!({"kernel": kernel.trim(), "cores": cores, "results": results});
    std::fs::write(&file, format!("{whole:#}\n")).expect("the target directory is ours");
    println!("written to {}", file.display());
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, wanted): (Vec<String>, Vec<String>) =
        arguments.into_iter().partition(|argument| argument.starts_with('-'));
    if flags.iter().any(|flag| flag != "--check") || wanted.len() > 1 {
        println!("usage: bench [--check] [WHAT]\n\nWHAT: only measurements with this in their names");
        return ExitCode::from(2);
    }
    let check = !flags.is_empty();
    for need in ["kernel", "sample"] {
        if let Some(reason) = require::missing(need) {
            println!("skipped: {reason}");
            return if check { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    }
    let mut findings = Vec::new();
    for (name, measure) in [
        ("tracker", tracker as fn(&mut Vec<Finding>)),
        ("cold start", cold_start),
        ("system calls with and without", bystanders),
        ("signals of the host", signals),
        ("signals of the host: TCP", signal_tcp),
        ("signals of the host: I/O", signal_io),
        ("signals of the host: block", signal_block),
        ("signals of the host: all", signals_all),
        ("CPU", cpu),
        ("memory", memory),
    ] {
        if wanted.first().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        println!("measuring: {name}");
        measure(&mut findings);
    }
    report(&findings);
    let met = findings.iter().all(Finding::met);
    if check && !met { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

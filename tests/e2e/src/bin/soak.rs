//! 10,000 token events a second for minutes: memory and descriptors stay what they are, and nothing is lost. Prints a
//! line every ten seconds and a table in the end; what is not as it shall be is a failure.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    bpf::Objects,
    observer::Observer,
    process::{self, Process},
    request_log::RequestLog,
    require,
    servers::Server,
    stats,
    wait::{self, SOON},
};
use serde_json::{Value, json};

/// 100 streams of 100 token events a second, each 10 ms after the one before.
const STREAMS: u32 = 100;
const TOKENS: u32 = 200;
const INTERVAL_MS: u32 = 10;
const TTFT_MS: u32 = 20;
/// Token events a second: 200 in 2.01 s, of each stream, as far as the machine keeps up.
const RATE: f64 = 10_000.0;
/// Less is no soak at that rate.
const RATE_LEAST: f64 = 0.8 * RATE;
/// How often it is looked at, and how often the log is rotated.
const LOOK: Duration = Duration::from_secs(10);
const ROTATE_LOOKS: usize = 6;
/// What is not looked at: caches fill, and the allocator gets its size.
const SETTLING: f64 = 0.1;
/// Memory may grow by so much from the first third to the last, and by no more than this in an hour as a straight line
/// through the looks of the second half has it.
const GROWTH_MOST: f64 = 0.02;
const SLOPE_MOST_KIB: f64 = 2048.0;
/// Short soaks have a few pages' noise in their slope.
const SLOPE_FROM: Duration = Duration::from_secs(900);

struct Look {
    seconds: f64,
    resident_kib: f64,
    descriptors: usize,
}

/// What the log's files held that were rotated away.
#[derive(Default)]
struct Logged {
    requests: u64,
    tokens: u64,
    other: u64,
}

impl Logged {
    fn add(&mut self, log: PathBuf) {
        for line in RequestLog(log.clone()).read() {
            if line.outcome == "ok" {
                self.requests += 1;
                self.tokens += line.token_events.unwrap_or(0);
            } else {
                self.other += 1;
            }
        }
        fs::remove_file(&log).expect("ours to remove");
    }

    /// Has the observer begin a new file, and reads the old one.
    fn rotate(&mut self, observer: &mut Observer) {
        let (log, old) = (observer.log().0.clone(), observer.scratch().file("rotated.jsonl"));
        fs::rename(&log, &old).expect("ours to rename");
        observer.signal(libc::SIGHUP);
        wait::until("a new log", SOON, || log.exists().then_some(()));
        self.add(old);
    }
}

fn load(server: &Server, time: Duration) -> Process {
    let sample = json!({"ttft_ms": TTFT_MS, "interval_ms": INTERVAL_MS, "tokens": TOKENS});
    let mut command = Command::new(require::sample());
    command.args(["load", "--url", &server.url(), "--concurrency", &STREAMS.to_string()]);
    command.args(["--sample", &sample.to_string(), "--for", &format!("{}s", time.as_secs())]);
    Process::spawn("sample-llm load", command)
}

/// One line of the table: whether it is as it shall be.
fn finding(holds: bool, name: &str, value: &str) -> bool {
    println!("{name:44} {:6} {value}", if holds { "met" } else { "MISSED" });
    holds
}

fn mean(looks: &[Look]) -> f64 {
    looks.iter().map(|look| look.resident_kib).sum::<f64>() / looks.len().max(1) as f64
}

fn soak(time: Duration) -> bool {
    let server = Server::sample(&[]);
    let mut observer = Observer::with(&["--ports", &server.port().to_string()]);
    let pid = observer.pid();
    let used = process::cpu_nanos(pid);
    let (mut load, begun) = (load(&server, time), Instant::now());
    let (mut looks, mut logged) = (Vec::<Look>::new(), Logged::default());
    while load.exited().is_none() {
        let due = LOOK * (looks.len() as u32 + 1);
        while begun.elapsed() < due && load.exited().is_none() {
            thread::sleep(Duration::from_millis(100));
        }
        if load.exited().is_some() {
            break;
        }
        // First: a scrape has a connection of its own.
        let (resident_kib, descriptors) = (process::status_kib(pid, "VmRSS"), process::descriptors(pid));
        let look = Look { seconds: begun.elapsed().as_secs_f64(), resident_kib: resident_kib as f64, descriptors };
        let metrics = observer.metrics();
        println!(
            "{:6.0} s: {:.0} token events, {:.0} requests, {:.0} lost, {:.1} MiB, {descriptors} descriptors",
            look.seconds,
            metrics.sum("llm_output_chunks_total", &[]),
            metrics.sum("llm_requests_total", &[]),
            metrics.sum("observer_events_lost_total", &[]),
            look.resident_kib / 1024.0,
        );
        looks.push(look);
        if looks.len().is_multiple_of(ROTATE_LOOKS) {
            logged.rotate(&mut observer);
        }
    }
    let status = load.wait(SOON);
    let account = load.line(SOON, |line| line.contains("token_events_per_second"));
    let account: Value = serde_json::from_str(&account).expect("the load's account");
    let cpu = (process::cpu_nanos(pid) - used) as f64 / 1e9 / begun.elapsed().as_secs_f64();
    observer.settle();
    thread::sleep(Duration::from_secs(1));
    let metrics = observer.metrics();
    let held = Objects::held_by(pid);
    logged.rotate(&mut observer);
    observer.stop(libc::SIGTERM);
    let gone = wait::try_until(SOON, || held.left().is_empty().then_some(())).is_some();

    let number = |key: &str| account[key].as_f64().unwrap_or(f64::NAN);
    let (asked, ok, tokens) = (number("requests"), number("ok"), number("token_events"));
    let rate = number("token_events_per_second");
    let settled = &looks[(looks.len() as f64 * SETTLING).ceil() as usize..];
    let third = settled.len() / 3;
    let growth = mean(&settled[settled.len() - third..]) / mean(&settled[..third]) - 1.0;
    let second = &settled[settled.len() / 2..];
    let points: Vec<_> = second.iter().map(|look| (look.seconds / 3600.0, look.resident_kib)).collect();
    let slope = stats::slope(&points);
    let flat = growth <= GROWTH_MOST && (slope <= SLOPE_MOST_KIB || time < SLOPE_FROM);
    let most = settled.iter().map(|look| look.descriptors).max().unwrap_or(0);
    let least = settled.iter().map(|look| look.descriptors).min().unwrap_or(0);
    let lost = ["observer_events_lost_total", "observer_request_log_dropped_total", "observer_stream_gap_bytes_total"];
    let lost = lost.map(|name| metrics.sum(name, &[]));
    let measured = metrics.sum("llm_requests_total", &[("outcome", "ok")]);
    // Streams that the end of the time cut off have no part in the comparison of tokens.
    let cut = asked - ok;
    println!(
        "\n{:.0} s, {asked} requests, {tokens} token events, {cut} requests cut off by the end",
        number("seconds")
    );
    let findings = [
        finding(status.success() && rate >= RATE_LEAST, "token events a second", &format!("{rate:.0}")),
        finding(lost == [0.0; 3], "events, lines and bytes lost", &format!("{lost:?}")),
        finding(measured == ok, "requests measured of those that ended", &format!("{measured} of {ok}")),
        finding(logged.requests as f64 == ok, "requests in the log", &format!("{} of {ok}", logged.requests)),
        finding(logged.other as f64 <= cut, "others in the log", &format!("{} of {cut}", logged.other)),
        finding(
            logged.tokens == (ok * f64::from(TOKENS)) as u64,
            "token events in the log of these",
            &format!("{} of {}", logged.tokens, ok * f64::from(TOKENS)),
        ),
        finding(
            flat && third > 0,
            "memory, last third against first",
            &format!("{:+.2} %, {slope:+.0} KiB an hour, {:.1} MiB", growth * 100.0, mean(settled) / 1024.0),
        ),
        // A look may find a file in `/proc` open, or the scrape before still closing.
        finding(
            most - least <= 4 && settled.last().map(|look| look.descriptors) <= Some(least + 2),
            "descriptors",
            &format!("{least} to {most}"),
        ),
        finding(gone, "nothing attached after the end", ""),
        finding(cpu <= 0.5, "CPU of the observer, in cores", &format!("{cpu:.3}")),
    ];
    findings.iter().all(|met| *met)
}

fn main() -> ExitCode {
    let minutes = std::env::args().nth(1).map_or(Some(30), |text| text.parse::<u64>().ok().filter(|count| *count > 0));
    let Some(minutes) = minutes else {
        println!("usage: soak [MINUTES]");
        return ExitCode::from(2);
    };
    for need in ["kernel", "sample"] {
        if let Some(reason) = require::missing(need) {
            println!("cannot: {reason}");
            return ExitCode::FAILURE;
        }
    }
    if soak(Duration::from_secs(60 * minutes)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

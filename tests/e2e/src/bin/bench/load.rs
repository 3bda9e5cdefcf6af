//! One run of a load: what its clients saw, and what it took of the CPU.

use std::{net::SocketAddr, process::Command, thread, time::Duration};

use observer_e2e::{process, process::Process, require};
use serde_json::Value;

/// Streams at a steady pace.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) streams: u64,
    /// Milliseconds between two token events of a stream; 0: as fast as can be.
    pub(crate) interval_ms: u64,
    pub(crate) tokens: u64,
    pub(crate) seconds: u64,
}

/// What one run gave.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Token events a second, as the clients saw them.
    pub(crate) rate: f64,
    pub(crate) events: f64,
    /// Seconds: medians and 99th percentiles of the time to first token and of the gaps between reads.
    pub(crate) ttft: [f64; 2],
    pub(crate) gap: [f64; 2],
    /// CPU time of the watched processes, cores.
    pub(crate) cores: Vec<f64>,
}

/// Starts the sample client.
pub(crate) fn start(address: SocketAddr, pace: Pace, more: &[&str]) -> Process {
    let sample = serde_json::json!({ "ttft_ms": 20, "interval_ms": pace.interval_ms, "tokens": pace.tokens });
    let mut command = Command::new(require::sample());
    command.args(["load", "--url", &format!("http://{address}"), "--sample", &sample.to_string()]);
    command.args(["--concurrency", &pace.streams.to_string(), "--tokens", &pace.tokens.to_string()]).args(more);
    Process::spawn("sample-llm load", command)
}

/// Runs the sample client against `address` for its time, and says what the processes of `watched` used meanwhile.
pub(crate) fn run(address: SocketAddr, pace: Pace, watched: &[u32]) -> Run {
    let before: Vec<u64> = watched.iter().map(|pid| process::cpu_nanos(*pid)).collect();
    let mut load = start(address, pace, &["--for", &format!("{}s", pace.seconds)]);
    let status = load.wait(Duration::from_secs(pace.seconds + 60));
    assert!(status.success(), "sample-llm load: {status}");
    let used: Vec<u64> = watched.iter().map(|pid| process::cpu_nanos(*pid)).collect();
    let account = load.line(Duration::from_secs(20), |line| line.contains("token_events_per_second"));
    let account: Value = serde_json::from_str(&account).expect("its account is JSON");
    let number = |key: &str| account[key].as_f64().unwrap_or(f64::NAN);
    let seconds = number("seconds");
    let cores = used.iter().zip(&before).map(|(used, before)| (used - before) as f64 / 1e9 / seconds).collect();
    // Connections that this run leaves behind are closed before the next one.
    thread::sleep(Duration::from_millis(200));
    Run {
        rate: number("token_events_per_second"),
        events: number("token_events"),
        ttft: [number("ttft_p50_seconds"), number("ttft_p99_seconds")],
        gap: [number("inter_chunk_p50_seconds"), number("inter_chunk_p99_seconds")],
        cores,
    }
}

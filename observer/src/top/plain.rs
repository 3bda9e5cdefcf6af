//! Lines for pipes, logs and `grep`. Each begins with the time (UTC, RFC 3339) and the kind of line; then
//! `key=value` in an order that stays:
//!
//! ```text
//! <time> server workload= port= model= requests_per_second= in_flight=
//!     ttft_p50_seconds= ttft_p95_seconds= ttft_p99_seconds= ttft_count=
//!     inter_chunk_p50_seconds= inter_chunk_p95_seconds= inter_chunk_p99_seconds= inter_chunk_count=
//!     output_tokens_per_second= token_events_per_second=
//!     ok= http_error= error_in_stream= cancelled= truncated= incomplete= [other outcomes]
//! <time> observer version= uptime_seconds= window_seconds= events_per_second= events= lost= [lost.<reason>=]…
//!     incomplete= [incomplete.<reason>=]… opaque= [opaque.<reason>=]… connections= cpu_ratio= resident_bytes=
//!     probes= scope=
//! <time> no_answer for_seconds= error=
//! ```
//! (each is one line). At every interval there is one `server` line for each workload, port and model, then one
//! `observer` line; or one `no_answer` line. Times are seconds, memory is bytes, `-` is "not known". `in_flight` is of
//! the workload and port, whatever the model. Outcomes, events and losses count from the observer's start; rates and
//! quantiles are of the last `window_seconds`. A value with spaces, quotes, `=` or control characters is quoted, with
//! backslash escapes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write},
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{FetchError, format::UNKNOWN};
use crate::export::summary::{ObserverSummary, Quantiles, ServerSummary, Summary};

/// Outcomes in the order in which they are printed.
const OUTCOMES: [&str; 6] = ["ok", "http_error", "error_in_stream", "cancelled", "truncated", "incomplete"];

/// Prints `first`, then what `fetch` says every `interval`, until `run_for` is over or nobody reads.
pub(super) fn run(
    mut fetch: impl FnMut() -> Result<Summary, FetchError>,
    first: &Summary,
    interval: Duration,
    run_for: Option<Duration>,
    mut out: impl Write,
) -> io::Result<()> {
    let start = Instant::now();
    let mut answered = start;
    let mut due = start;
    let mut text = answer(SystemTime::now(), first);
    loop {
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
        // Intervals that a slow answer used up are skipped, not made up for.
        let now = Instant::now();
        while due <= now {
            due += interval;
        }
        if let Some(end) = run_for.map(|run_for| start + run_for)
            && due > end
        {
            thread::sleep(end.saturating_duration_since(now));
            return Ok(());
        }
        thread::sleep(due - now);
        text = match fetch() {
            Ok(summary) => {
                answered = Instant::now();
                answer(SystemTime::now(), &summary)
            }
            Err(error) => no_answer(SystemTime::now(), answered.elapsed(), &error),
        };
    }
}

/// All lines of one answer.
fn answer(time: SystemTime, summary: &Summary) -> String {
    let mut text = String::new();
    for server in &summary.servers {
        line(&mut text, time, "server", |line| server_values(line, server));
    }
    line(&mut text, time, "observer", |line| observer_values(line, summary, &summary.observer));
    text
}

fn no_answer(time: SystemTime, silence: Duration, error: &FetchError) -> String {
    let mut text = String::new();
    line(&mut text, time, "no_answer", |line| {
        line.put("for_seconds", number(silence.as_secs_f64()));
        line.put("error", quoted(&error.to_string()));
    });
    text
}

fn server_values(line: &mut Line<'_>, server: &ServerSummary) {
    line.put("workload", quoted(&server.workload));
    line.put("port", quoted(&server.server_port));
    line.put("model", quoted(&server.model));
    line.put("requests_per_second", number(server.requests_per_second));
    line.put("in_flight", server.in_flight);
    quantiles(line, "ttft", &server.ttft);
    quantiles(line, "inter_chunk", &server.inter_chunk);
    line.put("output_tokens_per_second", optional(server.output_tokens_per_second));
    line.put("token_events_per_second", number(server.token_events_per_second));
    for outcome in OUTCOMES {
        line.put(outcome, server.outcomes.get(outcome).copied().unwrap_or(0));
    }
    for (outcome, count) in &server.outcomes {
        if !OUTCOMES.contains(&outcome.as_str()) {
            line.put(outcome, count);
        }
    }
}

fn quantiles(line: &mut Line<'_>, what: &str, quantiles: &Quantiles) {
    for (name, value) in [("p50", quantiles.p50), ("p95", quantiles.p95), ("p99", quantiles.p99)] {
        line.put(&format!("{what}_{name}_seconds"), optional(value));
    }
    line.put(&format!("{what}_count"), quantiles.count);
}

fn observer_values(line: &mut Line<'_>, summary: &Summary, observer: &ObserverSummary) {
    line.put("version", quoted(&summary.version));
    line.put("uptime_seconds", number(summary.uptime_seconds));
    line.put("window_seconds", number(summary.window_seconds));
    line.put("events_per_second", number(observer.events_per_second));
    line.put("events", observer.events);
    by_reason(line, "lost", &observer.lost);
    by_reason(line, "incomplete", &observer.incomplete);
    by_reason(line, "opaque", &observer.opaque);
    line.put("connections", observer.connections);
    line.put("cpu_ratio", number(observer.cpu_ratio));
    line.put("resident_bytes", observer.resident_bytes);
    line.put("probes", observer.probes.len());
    line.put("scope", quoted(&observer.scope));
}

fn by_reason(line: &mut Line<'_>, what: &str, counts: &BTreeMap<String, u64>) {
    line.put(what, counts.values().fold(0, |sum: u64, count| sum.saturating_add(*count)));
    for (reason, count) in counts.iter().filter(|(_, count)| **count > 0) {
        line.put(&format!("{what}.{reason}"), count);
    }
}

/// A line in the making.
struct Line<'a>(&'a mut String);

impl Line<'_> {
    fn put(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _written = write!(self.0, " {key}={value}");
    }
}

fn line(text: &mut String, time: SystemTime, kind: &str, fill: impl FnOnce(&mut Line<'_>)) {
    let _written = write!(text, "{} {kind}", humantime::format_rfc3339_seconds(time));
    fill(&mut Line(text));
    text.push('\n');
}

/// Four significant digits, no exponent.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return UNKNOWN.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(3 - magnitude).unwrap_or(0).min(9);
    let text = format!("{value:.decimals$}");
    if decimals == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), number)
}

/// A value that stays one word, whatever a client called its model; nothing is `-`.
fn quoted(text: &str) -> String {
    let awkward = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\');
    if text.is_empty() {
        UNKNOWN.to_owned()
    } else if text == UNKNOWN || text.contains(awkward) {
        format!("{text:?}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045)
    }

    fn summary() -> Summary {
        Summary {
            version: "0.1.0".into(),
            uptime_seconds: 3605.25,
            window_seconds: 60.0,
            servers: vec![ServerSummary {
                workload: "vllm:8000".into(),
                server_port: "8000".into(),
                model: "Qwen/Qwen3-8B".into(),
                requests_per_second: 12.345_67,
                in_flight: 8,
                ttft: Quantiles { p50: Some(0.123_456), p95: Some(1.5), p99: None, count: 740 },
                inter_chunk: Quantiles { p50: Some(0.012), p95: Some(0.02), p99: Some(0.000_25), count: 9000 },
                output_tokens_per_second: None,
                token_events_per_second: 1234.56,
                outcomes: [("ok".into(), 7), ("cancelled".into(), 2), ("new_kind".into(), 1)].into(),
            }],
            observer: ObserverSummary {
                events_per_second: 2500.0,
                events: 9_000_000,
                lost: [("ring_full".into(), 12), ("recursion".into(), 0)].into(),
                connections: 9,
                cpu_ratio: 0.0081,
                resident_bytes: 47_395_635,
                probes: vec!["sock_send_length".into(), "sock_recv_length".into()],
                scope: "ports 8000, 8001".into(),
                ..ObserverSummary::default()
            },
            ..Summary::default()
        }
    }

    #[test]
    fn lines_of_an_answer() {
        assert_eq!(
            answer(time(), &summary()),
            "2026-01-02T03:04:05Z server workload=vllm:8000 port=8000 model=Qwen/Qwen3-8B requests_per_second=12.35 \
             in_flight=8 ttft_p50_seconds=0.1235 ttft_p95_seconds=1.5 ttft_p99_seconds=- ttft_count=740 \
             inter_chunk_p50_seconds=0.012 inter_chunk_p95_seconds=0.02 inter_chunk_p99_seconds=0.00025 \
             inter_chunk_count=9000 output_tokens_per_second=- token_events_per_second=1235 ok=7 http_error=0 \
             error_in_stream=0 cancelled=2 truncated=0 incomplete=0 new_kind=1\n\
             2026-01-02T03:04:05Z observer version=0.1.0 uptime_seconds=3605 window_seconds=60 \
             events_per_second=2500 events=9000000 lost=12 lost.ring_full=12 incomplete=0 opaque=0 connections=9 \
             cpu_ratio=0.0081 resident_bytes=47395635 probes=2 scope=\"ports 8000, 8001\"\n"
        );
    }

    #[test]
    fn without_servers_the_observer_still_speaks() {
        assert_eq!(
            answer(time(), &Summary::default()),
            "2026-01-02T03:04:05Z observer version=- uptime_seconds=0 window_seconds=0 events_per_second=0 events=0 \
             lost=0 incomplete=0 opaque=0 connections=0 cpu_ratio=0 resident_bytes=0 probes=0 scope=-\n"
        );
    }

    #[test]
    fn silence_is_a_line() {
        let refused = FetchError::Io(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        assert_eq!(
            no_answer(time(), Duration::from_millis(3200), &refused),
            "2026-01-02T03:04:05Z no_answer for_seconds=3.2 error=\"connection refused\"\n"
        );
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let mut summary = summary();
        summary.servers[0].model = "x\n2026 server ok=1 \"\x1b[2J".into();
        let text = answer(time(), &summary);
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(r#" model="x\n2026 server ok=1 \"\u{1b}[2J" requests"#), "{text}");
        assert_eq!(quoted("-"), "\"-\"");
    }

    /// Fails as a closed pipe does, from the given write on.
    struct Pipe {
        lines: Vec<u8>,
        writes_left: usize,
        then: io::ErrorKind,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes_left = self.writes_left.checked_sub(1).ok_or(self.then)?;
            self.lines.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn run_into(writes_left: usize, then: io::ErrorKind) -> (io::Result<()>, String) {
        let mut pipe = Pipe { lines: Vec::new(), writes_left, then };
        let result = run(|| Ok(summary()), &summary(), Duration::from_millis(1), None, &mut pipe);
        (result, String::from_utf8(pipe.lines).unwrap())
    }

    #[test]
    fn a_closed_pipe_ends_it_quietly_and_other_failures_do_not() {
        let (result, text) = run_into(2, io::ErrorKind::BrokenPipe);
        result.unwrap();
        assert_eq!(text.lines().count(), 4);
        assert_eq!(run_into(1, io::ErrorKind::StorageFull).0.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn ends_by_itself_and_goes_on_after_a_failure() {
        let mut out = Vec::new();
        let mut asked = 0;
        let start = Instant::now();
        let fetch = || {
            asked += 1;
            if asked == 1 { Err(FetchError::Status { code: 503 }) } else { Ok(Summary::default()) }
        };
        let run_for = Some(Duration::from_millis(300));
        run(fetch, &Summary::default(), Duration::from_millis(120), run_for, &mut out).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(300));
        let text = String::from_utf8(out).unwrap();
        let kinds: Vec<_> = text.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
        assert_eq!(kinds, ["observer", "no_answer", "observer"]);
        assert!(text.contains(" error=\"HTTP status 503\"\n"), "{text}");
    }

    #[test]
    fn no_time_at_all_is_one_answer() {
        let mut out = Vec::new();
        run(|| unreachable!(), &Summary::default(), Duration::from_secs(60), Some(Duration::ZERO), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 1);
    }
}

//! Finished requests as a table for people and as comma-separated values.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use crate::{request::record::RequestRecord, time::KernelTime};

/// What one request has in each column; empty: unknown, or not reached.
struct Row {
    time: String,
    workload: String,
    port: String,
    operation: &'static str,
    model: String,
    outcome: &'static str,
    status: String,
    ttft: Option<Duration>,
    duration: Option<Duration>,
    input: Option<u64>,
    output: Option<u64>,
    events: Option<u64>,
    gap: Option<Duration>,
}

impl Row {
    fn of(record: &RequestRecord, clock: &dyn Fn(KernelTime) -> SystemTime) -> Self {
        let line = &record.timeline;
        // As everywhere: nothing that was measured on an incomplete timeline.
        let since = |time: Option<KernelTime>| match record.incomplete {
            None => time?.since(line.start()?),
            Some(_) => None,
        };
        let time = line.start().or(line.end);
        let model = record.request_model.as_ref().or(record.response_model.as_ref());
        Self {
            time: time.map(|time| humantime::format_rfc3339_micros(clock(time)).to_string()).unwrap_or_default(),
            workload: record.connection.workload.to_string(),
            port: record.connection.server_port(),
            operation: record.operation.as_str(),
            model: model.map(ToString::to_string).unwrap_or_default(),
            outcome: record.outcome.as_str(),
            status: record.status.map(|status| status.to_string()).unwrap_or_default(),
            ttft: since(line.first),
            duration: since(line.end),
            input: record.usage.input,
            output: record.usage.output,
            events: record.token_events,
            gap: Some(record.gaps.max).filter(|_| record.gaps.count > 0 && record.incomplete.is_none()),
        }
    }
}

const TABLE: &str = "TIME (UTC)    WORKLOAD              PORT  OPERATION         MODEL                     OUTCOME         \
    CODE      TTFT  DURATION    MAX GAP     IN    OUT  EVENTS";

/// The names of the table's columns.
#[must_use]
pub fn table_head() -> &'static str {
    TABLE
}

/// A request's line of the table.
#[must_use]
pub fn table_line(record: &RequestRecord, clock: &dyn Fn(KernelTime) -> SystemTime) -> String {
    let row = Row::of(record, clock);
    let time = row.time.get(11..23).unwrap_or("-");
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        line,
        "{time:<12}  {:<20}  {:>4}  {:<16}  {:<24}  {:<15} {:>4}  {:>8}  {:>8}  {:>9}  {:>5}  {:>5}  {:>6}",
        cut(&row.workload, 20),
        row.port,
        row.operation,
        cut(&row.model, 24),
        row.outcome,
        row.status,
        seconds(row.ttft),
        seconds(row.duration),
        seconds(row.gap),
        number(row.input),
        number(row.output),
        number(row.events),
    );
    line
}

fn seconds(time: Option<Duration>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < Duration::from_millis(10) => format!("{:.2} ms", time.as_secs_f64() * 1e3),
        Some(time) if time < Duration::from_secs(1) => format!("{:.0} ms", time.as_secs_f64() * 1e3),
        Some(time) => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// Names come from clients and servers: no control character of theirs reaches a terminal.
fn cut(name: &str, width: usize) -> String {
    let clean = name.chars().map(|c| if c.is_control() { '?' } else { c });
    if name.chars().count() <= width {
        return clean.collect();
    }
    clean.take(width - 1).chain(['…']).collect()
}

/// The names of the columns of [`csv_line`].
#[must_use]
pub fn csv_head() -> &'static str {
    "time,workload,server_port,operation,model,outcome,status,ttft_seconds,duration_seconds,input_tokens,output_tokens,\
     token_events,max_gap_seconds"
}

/// A request's line of comma-separated values (RFC 4180); times in seconds.
#[must_use]
pub fn csv_line(record: &RequestRecord, clock: &dyn Fn(KernelTime) -> SystemTime) -> String {
    let row = Row::of(record, clock);
    let time = |time: Option<Duration>| time.map(|time| time.as_secs_f64().to_string()).unwrap_or_default();
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    [
        row.time.clone(),
        quote(&row.workload),
        row.port,
        row.operation.to_owned(),
        quote(&row.model),
        row.outcome.to_owned(),
        row.status,
        time(row.ttft),
        time(row.duration),
        number(row.input),
        number(row.output),
        number(row.events),
        time(row.gap),
    ]
    .join(",")
}

fn quote(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_harmless() {
        assert_eq!(cut("a\u{1b}[2J", 20), "a?[2J");
        assert_eq!(cut("0123456789", 5), "0123…");
        assert_eq!(quote("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quote("plain"), "plain");
    }

    #[test]
    fn times_fit_their_column() {
        let texts = [0.0001, 0.0099, 0.5, 0.9999, 12.5, 999.0].map(|s| seconds(Some(Duration::from_secs_f64(s))));
        assert_eq!(texts, ["0.10 ms", "9.90 ms", "500 ms", "1000 ms", "12.50 s", "999.00 s"]);
        assert_eq!(seconds(None), "-");
    }
}

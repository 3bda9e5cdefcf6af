//! The observer's request log, read by its documented keys.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

/// One line. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[expect(missing_docs, reason = "the keys are documented with the log, and these are those keys")]
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RequestLine {
    pub t_arrive_ns: Option<u64>,
    pub t_read_ns: Option<u64>,
    pub t_ready_ns: Option<u64>,
    pub t_header_ns: Option<u64>,
    pub t_first_ns: Option<u64>,
    pub t_first_content_ns: Option<u64>,
    pub t_last_ns: Option<u64>,
    pub t_end_ns: Option<u64>,
    pub wall_time: Option<serde_json::Value>,
    pub client: Option<String>,
    pub server: Option<String>,
    pub pid: u32,
    pub comm: String,
    pub workload: String,
    pub operation: String,
    pub api: String,
    pub role: Option<String>,
    pub request_model: Option<String>,
    pub response_model: Option<String>,
    pub stream: Option<bool>,
    pub outcome: String,
    pub incomplete_reason: Option<String>,
    pub status: Option<u16>,
    pub token_events: Option<u64>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cached_input_tokens: Option<u64>,
    pub reasoning_output_tokens: Option<u64>,
    pub finish_reasons: Vec<String>,
    pub request_bytes: Option<u64>,
    pub response_bytes: Option<u64>,
    pub write_blocked_ns: Option<u64>,
    pub cancelled_work_ns: Option<u64>,
    pub unsent_stamps: Option<u64>,
    /// As it stands there.
    #[serde(default)]
    pub gpu: Option<serde_json::Value>,
    pub request_id: Option<String>,
    pub trace_id: Option<String>,
    pub labels: BTreeMap<String, Option<String>>,
    pub chunk_times_ns: Vec<u64>,
    pub chunk_unsent: Vec<usize>,
}

impl RequestLine {
    /// Demands that the phases are there and in order; `streamed`: with tokens among them.
    ///
    /// # Panics
    /// If one is missing or precedes the one before it.
    pub fn expect_order(&self, streamed: bool) {
        let mut points = vec![
            ("arrive", self.t_arrive_ns),
            ("read", self.t_read_ns),
            ("ready", self.t_ready_ns),
            ("header", self.t_header_ns),
        ];
        if streamed {
            points.extend([("first", self.t_first_ns), ("last", self.t_last_ns)]);
        }
        points.push(("end", self.t_end_ns));
        for pair in points.windows(2) {
            let [(earlier, a), (later, b)] = [pair[0], pair[1]];
            let (a, b) = (a.unwrap_or_else(|| panic!("no {earlier}: {self:#?}")), b);
            let b = b.unwrap_or_else(|| panic!("no {later}: {self:#?}"));
            assert!(a <= b, "{earlier} is after {later}: {self:#?}");
        }
        if streamed {
            let times = &self.chunk_times_ns;
            assert!(times.is_sorted(), "chunk times are out of order: {self:#?}");
            assert_eq!((times.first(), times.last()), (self.t_first_ns.as_ref(), self.t_last_ns.as_ref()), "{self:#?}");
            assert_eq!(Some(times.len() as u64), self.token_events, "{self:#?}");
        }
    }
}

/// The log's file.
#[derive(Clone, Debug)]
pub struct RequestLog(pub PathBuf);

impl RequestLog {
    /// All whole lines that it holds now.
    ///
    /// # Panics
    /// On a line that is not such JSON.
    #[must_use]
    pub fn read(&self) -> Vec<RequestLine> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in line {line}"));
        whole.lines().map(parse).collect()
    }
}

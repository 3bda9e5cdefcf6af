//! Requests to test with.

use std::{sync::Arc, time::Duration};

use crate::{
    event::Cookie,
    request::record::{ConnectionInfo, Gaps, Operation, Outcome, RequestRecord, Role, Timeline, Usage},
    time::KernelTime,
};

/// The moment `milliseconds` after an arbitrary one.
pub(crate) fn at(milliseconds: u64) -> Option<KernelTime> {
    Some(KernelTime::from_nanos(1_000_000_000_000 + milliseconds * 1_000_000))
}

pub(crate) fn connection(workload: &str, port: u16) -> Arc<ConnectionInfo> {
    Arc::new(ConnectionInfo {
        cookie: Cookie(1),
        server: Some(([127, 0, 0, 1], port).into()),
        client: Some(([10, 0, 0, 2], 40_000).into()),
        pid: 42,
        comm: "vllm".into(),
        workload: workload.into(),
        identity: None,
    })
}

/// A streamed chat that went well: arrives at 0, is read at 2 ms to 5 ms, answered from 10 ms, first token at
/// 100 ms, reasoning until 300 ms, last token at 1100 ms, ends at 1101 ms; 11 of its 21 tokens' events.
pub(crate) fn request() -> RequestRecord {
    RequestRecord {
        connection: connection("vllm:8000", 8000),
        operation: Operation::Chat,
        api: "openai",
        role: Role::Server,
        request_model: Some("m".into()),
        response_model: Some("m".into()),
        stream: Some(true),
        outcome: Outcome::Ok,
        incomplete: None,
        status: Some(200),
        timeline: Timeline {
            arrive: at(0),
            read: at(2),
            ready: at(5),
            header: at(10),
            first: at(100),
            first_content: at(300),
            last: at(1100),
            end: at(1101),
            head_of_line_until: None,
            turn_unknown: false,
            arrival_unknown: false,
        },
        token_events: Some(11),
        coalesced: 1,
        gaps: gaps(&[(14, 9)], Duration::from_secs(1)),
        chunk_times: Vec::new(),
        chunk_unsent: Vec::new(),
        unsent_stamps: 0,
        usage: Usage { input: Some(50), output: Some(21), cached_input: Some(16), reasoning_output: Some(5) },
        finish_reasons: vec!["stop".into()],
        request_bytes: 300,
        response_bytes: 3000,
        write_blocked: Duration::ZERO,
        cancelled_work: None,
        first_read: None,
        request_id: None,
        trace_id: None,
        labels: Box::new([]),
    }
}

/// Gaps in the default buckets: bucket and count.
pub(crate) fn gaps(counts: &[(usize, u32)], sum: Duration) -> Gaps {
    let mut buckets = vec![0; crate::config::Buckets::default().gap.len() + 1];
    for (bucket, count) in counts {
        buckets[*bucket] = *count;
    }
    let count = counts.iter().map(|(_, count)| u64::from(*count)).sum();
    Gaps { buckets: buckets.into(), count, sum, max: sum }
}

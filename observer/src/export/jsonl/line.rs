//! One line of the request log. Its keys are a contract.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use crate::{
    correlate::{GpuUse, History},
    request::record::{HeaderLabel, RequestRecord},
    time::KernelTime,
};

/// A finished request. Times are nanoseconds of `CLOCK_MONOTONIC`; `null` is unknown, or not reached.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    t_arrive_ns: Option<u64>,
    t_read_ns: Option<u64>,
    t_ready_ns: Option<u64>,
    t_header_ns: Option<u64>,
    t_first_ns: Option<u64>,
    t_first_content_ns: Option<u64>,
    t_last_ns: Option<u64>,
    t_end_ns: Option<u64>,
    /// When the request arrived (else: was read, else ended), RFC 3339 in UTC.
    wall_time: Option<String>,
    client: Option<SocketAddr>,
    server: Option<SocketAddr>,
    pid: u32,
    comm: &'a str,
    workload: &'a str,
    operation: &'static str,
    api: &'static str,
    role: Option<&'static str>,
    request_model: Option<&'a str>,
    response_model: Option<&'a str>,
    stream: Option<bool>,
    outcome: &'static str,
    incomplete_reason: Option<&'static str>,
    status: Option<u16>,
    token_events: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cached_input_tokens: Option<u64>,
    reasoning_output_tokens: Option<u64>,
    #[serde(serialize_with = "texts")]
    finish_reasons: &'a [Arc<str>],
    request_bytes: u64,
    response_bytes: u64,
    write_blocked_ns: u64,
    cancelled_work_ns: Option<u64>,
    unsent_stamps: u64,
    request_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    /// Its workload's GPUs over the request's time.
    gpu: Option<Gpu>,
    /// Only where some are configured.
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "labels")]
    labels: &'a [HeaderLabel],
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_times_ns: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_unsent: Option<&'a [u32]>,
}

/// What the GPUs of the request's workload did from its start to its end: means over them and over the moments that
/// were looked at, power summed over the GPUs. The workload's, and not the request's alone.
#[derive(Serialize)]
struct Gpu {
    utilization: Option<f64>,
    memory_utilization: Option<f64>,
    throttled: Option<bool>,
    power_watts: Option<f64>,
    samples: usize,
}

impl Gpu {
    fn of(record: &RequestRecord, history: &History) -> Option<Self> {
        let (start, end) = record.timeline.start().zip(record.timeline.end)?;
        let GpuUse { utilization, memory_utilization, throttled, power, samples } =
            history.over(&record.connection.workload, start, end)?;
        Some(Self { utilization, memory_utilization, throttled, power_watts: power, samples })
    }
}

/// Nanoseconds.
fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn texts<S: Serializer>(texts: &&[Arc<str>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(texts.iter().map(|text| &**text))
}

fn labels<S: Serializer>(labels: &&[HeaderLabel], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().map(|label| (&*label.name, label.value.as_deref())))
}

impl<'a> Line<'a> {
    pub(super) fn of(
        record: &'a RequestRecord,
        chunks: bool,
        clock: &dyn Fn(KernelTime) -> SystemTime,
        gpus: Option<&History>,
    ) -> Self {
        let line = &record.timeline;
        let nanoseconds = |time: Option<KernelTime>| time.map(KernelTime::as_nanos);
        let wall = |time| humantime::format_rfc3339_micros(clock(time)).to_string();
        Self {
            t_arrive_ns: nanoseconds(line.arrive),
            t_read_ns: nanoseconds(line.read),
            t_ready_ns: nanoseconds(line.ready),
            t_header_ns: nanoseconds(line.header),
            t_first_ns: nanoseconds(line.first),
            t_first_content_ns: nanoseconds(line.first_content),
            t_last_ns: nanoseconds(line.last),
            t_end_ns: nanoseconds(line.end),
            wall_time: line.start().or(line.end).map(wall),
            client: record.connection.client,
            server: record.connection.server,
            pid: record.connection.pid,
            comm: &record.connection.comm,
            workload: &record.connection.workload,
            operation: record.operation.as_str(),
            api: record.api,
            role: Some(record.role.as_str()).filter(|role| !role.is_empty()),
            request_model: record.request_model.as_deref(),
            response_model: record.response_model.as_deref(),
            stream: record.stream,
            outcome: record.outcome.as_str(),
            incomplete_reason: record.incomplete.map(|reason| reason.as_str()),
            status: record.status,
            token_events: record.token_events,
            input_tokens: record.usage.input,
            output_tokens: record.usage.output,
            cached_input_tokens: record.usage.cached_input,
            reasoning_output_tokens: record.usage.reasoning_output,
            finish_reasons: &record.finish_reasons,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            write_blocked_ns: whole(record.write_blocked),
            cancelled_work_ns: record.cancelled_work.map(whole),
            unsent_stamps: record.unsent_stamps,
            request_id: record.request_id.as_deref(),
            trace_id: record.trace_id.as_deref(),
            gpu: gpus.and_then(|history| Gpu::of(record, history)),
            labels: &record.labels,
            chunk_times_ns: chunks.then(|| record.chunk_times.iter().map(|time| time.as_nanos()).collect()),
            chunk_unsent: chunks.then_some(&record.chunk_unsent),
        }
    }
}

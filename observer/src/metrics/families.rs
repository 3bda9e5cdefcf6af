//! Every family, declared once: the registry, the exposition and `docs/metrics.md` are made from this table.

use crate::config::Buckets;

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows.
    Counter,
    /// Only grows; kept in nanoseconds, exposed in seconds.
    SecondsCounter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket.
    Histogram(BucketSet),
}

/// Which configured bucket bounds a histogram has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketSet {
    /// `metrics.buckets.ttft`.
    Ttft,
    /// `metrics.buckets.gap`.
    Gap,
    /// `metrics.buckets.duration`.
    Duration,
    /// `metrics.buckets.tokens`.
    Tokens,
}

impl BucketSet {
    /// Its bounds.
    #[must_use]
    pub fn bounds(self, buckets: &Buckets) -> &[f64] {
        match self {
            Self::Ttft => &buckets.ttft,
            Self::Gap => &buckets.gap,
            Self::Duration => &buckets.duration,
            Self::Tokens => &buckets.tokens,
        }
    }

    /// The setting that holds them.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Ttft => "metrics.buckets.ttft",
            Self::Gap => "metrics.buckets.gap",
            Self::Duration => "metrics.buckets.duration",
            Self::Tokens => "metrics.buckets.tokens",
        }
    }
}

/// One family.
#[derive(Debug)]
pub struct Family {
    /// Its name, with `_total` where it counts.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Its exact definition.
    pub help: &'static str,
    /// Whether it is of requests: [`COMMON`] precedes its own labels, and labels from request headers follow them.
    pub of_requests: bool,
    /// Names of its own labels.
    pub own: &'static [&'static str],
}

/// Labels that all families of requests share.
pub const COMMON: [&str; 6] =
    ["workload", "server_port", "gen_ai_operation_name", "gen_ai_request_model", "gen_ai_response_model", "role"];

impl Family {
    /// Names of its labels, but for those from request headers. A label whose value is empty is left out.
    pub fn labels(&self) -> impl Iterator<Item = &'static str> {
        let common: &[&str] = if self.of_requests { &COMMON } else { &[] };
        common.iter().chain(self.own).copied()
    }
}

macro_rules! families {
    ($of_requests:literal: $($name:ident: $kind:expr, $text:literal, [$($label:literal),*], $help:literal;)+) => {
        $(#[doc = concat!("`", $text, "`: ", $help)]
        pub static $name: Family = Family {
            name: $text,
            kind: $kind,
            help: $help,
            of_requests: $of_requests,
            own: &[$($label),*],
        };)+
        const TABLE: &[&Family] = &[$(&$name),+];
    };
}

/// Of requests.
pub mod requests {
    use super::{BucketSet, Family, Type};

    /// All of this group.
    pub static ALL: &[&Family] = TABLE;

    families! { true:
        DURATION: Type::Histogram(BucketSet::Duration), "gen_ai_server_request_duration_seconds", ["error_type"],
            "Time from the arrival of a request's first byte (t0) to the last byte of its response handed to the socket, or to its cancellation. error_type is the status code of an HTTP error, error_in_stream, cancelled or truncated; absent on success. Incomplete requests are left out.";
        TTFT: Type::Histogram(BucketSet::Ttft), "gen_ai_server_time_to_first_token_seconds", [],
            "Time from t0 to the first token event handed to the socket, of streamed requests that succeeded, or were cancelled after it.";
        TPOT: Type::Histogram(BucketSet::Gap), "gen_ai_server_time_per_output_token_seconds", [],
            "Time from the first to the last token event, divided by the output tokens less one, of streamed requests that succeeded, or were cancelled after the first token; only where the server reported more than one output token.";
        TTFB: Type::Histogram(BucketSet::Ttft), "llm_time_to_first_byte_seconds", [],
            "Time from t0 to the first byte of the response handed to the socket, of all requests that had a response and are not incomplete, errors among them.";
        FIRST_CONTENT: Type::Histogram(BucketSet::Ttft), "llm_time_to_first_content_seconds", [],
            "Time from t0 to the first token event that is not reasoning, where reasoning came first, of streamed requests that succeeded, or were cancelled after it.";
        GAP: Type::Histogram(BucketSet::Gap), "llm_inter_chunk_latency_seconds", [],
            "Time between successive token events of one stream. Events that shared a write are no gap: see llm_coalesced_chunks_total. Incomplete requests are left out.";
        COALESCED: Type::Counter, "llm_coalesced_chunks_total", [],
            "Token events that shared a write with an earlier one: the server's event loop lagged.";
        PHASE: Type::Histogram(BucketSet::Duration), "llm_request_phase_seconds", ["phase"],
            "Time in each phase of a request: head_of_line (t0 to the end of the previous response on the connection; no other phase counts that time), socket_wait (t0 to the server's first read), receive (to its last read), queue_and_prefill (to the first token event), decode (to the last one), finish (to the end). Only phases whose two ends are known; none of requests that are incomplete, answered before they were read whole, or behind a response whose end was lost.";
        WRITE_BLOCKED: Type::SecondsCounter, "llm_write_blocked_seconds_total", [],
            "Time in which a response could not be handed over because the client read slowly: from a failed or short write to the next successful one.";
        REQUESTS: Type::Counter, "llm_requests_total", ["outcome", "http_response_status_code"],
            "Requests that ended, by outcome: ok, http_error, error_in_stream, cancelled (the client left before the response was complete), truncated (the server did), incomplete (the timeline has a gap; see observer_incomplete_requests_total).";
        TOKENS: Type::Counter, "llm_tokens_total", ["gen_ai_token_type"],
            "Tokens as reported by the server, never counted here; cached_input is a part of input, reasoning_output of output.";
        FINISH_REASONS: Type::Counter, "llm_finish_reasons_total", ["finish_reason"],
            "Reasons to finish as the server said, one per choice.";
        CANCELLED_WORK: Type::SecondsCounter, "llm_cancelled_work_seconds_total", [],
            "Time from the client's leaving (FIN or reset) to the server's last write of that request.";
        CHUNKS: Type::Counter, "llm_output_chunks_total", [],
            "Token events seen (events, not tokens: one may carry several).";
        PROMPT_TOKENS: Type::Histogram(BucketSet::Tokens), "llm_prompt_tokens", [],
            "Input tokens of a request, where the server reported them.";
        COMPLETION_TOKENS: Type::Histogram(BucketSet::Tokens), "llm_completion_tokens", [],
            "Output tokens of a request, where the server reported them.";
        SLO: Type::Counter, "llm_slo_requests_total", ["slo", "result"],
            "Requests judged by each configured objective: good if what it measures was at most its limit, else bad. ttft and tpot judge what enters those histograms, duration judges successful requests.";
    }
}

/// Of requests that have not ended.
pub mod live {
    use super::{Family, Type};

    /// All of this group.
    pub static ALL: &[&Family] = TABLE;

    families! { false:
        IN_FLIGHT: Type::Gauge, "llm_requests_in_flight", ["workload", "server_port"],
            "Requests whose first byte arrived and that have not ended, counted at the scrape. The model is not known yet.";
    }
}

/// Of the observer itself.
pub mod own {
    use super::{Family, Type};

    /// All of this group.
    pub static ALL: &[&Family] = TABLE;

    families! { false:
        EVENTS: Type::Counter, "observer_events_total", ["source"], "Events of the kernel side, by source.";
        EVENTS_LOST: Type::Counter, "observer_events_lost_total", ["source", "reason"],
            "Events that should have reached the observer and did not, by source and reason.";
        INCOMPLETE: Type::Counter, "observer_incomplete_requests_total", ["reason"],
            "Requests whose timeline has a gap: they are in no latency histogram.";
        JOINED_MID_REQUEST: Type::Counter, "observer_joined_mid_request_total", [],
            "Requests that were under way when their connection became known: they are in no other family.";
        OTHER_REQUESTS: Type::Counter, "observer_other_requests_total", [],
            "HTTP requests to observed servers that are not for a language model: health checks, lists of models and the like.";
        OPAQUE: Type::Counter, "observer_opaque_connections_total", ["reason"],
            "Connections to observed servers whose bytes say nothing to the observer.";
        CONNECTIONS: Type::Gauge, "observer_connections", [], "Connections known now.";
        STREAM_GAP: Type::Counter, "observer_stream_gap_bytes_total", ["direction"],
            "Bytes of tracked connections that no event accounted for: lost events.";
        UNCAPTURED: Type::Counter, "observer_uncaptured_bytes_total", ["direction"],
            "Bytes of tracked connections that events accounted for without their content: beyond the captured length, or not readable.";
        UNPARSED: Type::Counter, "observer_unparsed_bytes_total", ["direction"],
            "Bytes of tracked connections that could not be understood.";
        UNSENT: Type::Counter, "observer_unsent_at_stamp_total", [],
            "Measured writes whose bytes had not all left for the network when the time was taken (Nagle, a full window): packets left later.";
        SERIES_DROPPED: Type::Counter, "observer_series_dropped_total", ["label"],
            "Values of this label that became _other, because it has as many distinct values as it may have.";
        REQUEST_LOG_DROPPED: Type::Counter, "observer_request_log_dropped_total", ["reason"],
            "Requests that are missing from the request log: the queue was full, or a write failed.";
        MAP_ENTRIES: Type::Gauge, "observer_map_entries", ["map"], "Entries of a bounded map: of the kernel side, or clients (connections whose client is a process of this host).";
        MAP_CAPACITY: Type::Gauge, "observer_map_capacity", ["map"], "Most entries that the map can hold.";
        MAP_INSERT_FAILURES: Type::Counter, "observer_map_insert_failures_total", ["map"],
            "Entries that the map refused, or gave up for others.";
        PROBE_ATTACHED: Type::Gauge, "observer_probe_attached", ["probe", "mechanism"],
            "1 if the probe is attached by this mechanism, 0 if it should be and is not.";
        PROBE_RUNS: Type::Counter, "observer_probe_runs_total", ["probe"],
            "Runs of the probe, while the kernel's BPF statistics are on.";
        PROBE_RUN_TIME: Type::SecondsCounter, "observer_probe_run_seconds_total", ["probe"],
            "Time spent in the probe, while the kernel's BPF statistics are on.";
        RING_USED: Type::Gauge, "observer_ring_used_ratio", [],
            "Most of the ring of events found in use by one drain, 0 to 1, within the last 15 to 30 seconds.";
        RING_WAKEUPS: Type::Counter, "observer_ring_wakeups_total", [],
            "Times that the filling ring woke the observer ahead of its next drain.";
        IGNORED_CALLS: Type::Counter, "observer_ignored_calls_total", [],
            "Reads and writes on discovered ports that are left alone for a minute, because they served much and no LLM request.";
        UNSTAMPED: Type::Counter, "observer_unstamped_arrivals_total", [],
            "Stretches of received bytes without an arrival stamp, because too many came before a read: a request that begins in one has the read as its t0.";
        LEFT_ALONE: Type::Counter, "observer_left_alone_connections_total", [],
            "Connections to ports in scope that speak something other than HTTP, and are not looked at any further.";
        ARRIVAL_TIME: Type::Gauge, "observer_arrival_time_available", [],
            "1 if t0 is the arrival of the request in the kernel, 0 if it is the server's first read; which it always is on Unix sockets, and for what had arrived before a connection became known.";
        GPU_JOIN: Type::Gauge, "observer_gpu_join_available", [],
            "1 if workloads can be joined with the GPUs they use.";
        CPU: Type::SecondsCounter, "observer_cpu_seconds_total", [], "CPU time of the observer, user and system.";
        MEMORY: Type::Gauge, "observer_resident_memory_bytes", [], "Resident memory of the observer.";
        SCRAPE: Type::Gauge, "observer_scrape_duration_seconds", [], "How long the previous scrape took to answer.";
        BUILD: Type::Gauge, "observer_build_info", ["version"], "1; the labels say what was built.";
    }
}

/// Groups as `docs/metrics.md` shows them: title, introduction, families.
pub static GROUPS: &[(&str, &[&Family])] =
    &[("Requests", requests::ALL), ("Requests in flight", live::ALL), ("The observer itself", own::ALL)];

/// All families.
pub fn all() -> impl Iterator<Item = &'static Family> {
    GROUPS.iter().flat_map(|(_, families)| families.iter().copied())
}

//! The body of `GET /api/v1/summary`: what `observer top` shows, and a contract for scripts.
//! Latencies are seconds. Quantiles and rates are of the last `window_seconds`; `null`: nothing to tell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Of the observer.
    pub version: String,
    /// How long the observer has been observing.
    pub uptime_seconds: f64,
    /// What quantiles and rates look back on.
    pub window_seconds: f64,
    /// One for each workload, port and model, busiest first.
    pub servers: Vec<ServerSummary>,
    /// Time to first token over all servers, one column per `heatmap_seconds`, oldest first.
    pub ttft_heatmap: Heatmap,
    /// The observer's own state.
    pub observer: ObserverSummary,
}

/// One workload, port and model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerSummary {
    /// As in the metrics' label.
    pub workload: String,
    /// As in the metrics' label.
    pub server_port: String,
    /// Response model, else request model, else empty.
    pub model: String,
    /// Finished requests per second.
    pub requests_per_second: f64,
    /// Requests begun and not ended, of this workload and port (the model is not known before the end).
    pub in_flight: u64,
    /// Time to first token.
    pub ttft: Quantiles,
    /// Gaps between token events.
    pub inter_chunk: Quantiles,
    /// Reported output tokens per second; `None` where servers report no usage.
    pub output_tokens_per_second: Option<f64>,
    /// Token events per second.
    pub token_events_per_second: f64,
    /// Requests since start, by outcome.
    pub outcomes: BTreeMap<String, u64>,
}

/// Quantiles estimated from histogram buckets, as PromQL's `histogram_quantile` does.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Median.
    pub p50: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// Samples in the window.
    pub count: u64,
}

/// Counts by bucket over time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Heatmap {
    /// Upper bounds in seconds; a last, unbounded one is implied.
    pub bounds: Vec<f64>,
    /// Width of one column.
    pub column_seconds: f64,
    /// Oldest first; each has `bounds.len() + 1` counts.
    pub columns: Vec<Vec<u64>>,
}

/// The observer's own state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ObserverSummary {
    /// Events from the kernel per second.
    pub events_per_second: f64,
    /// Events since start.
    pub events: u64,
    /// Events lost since start, by reason; empty: none.
    pub lost: BTreeMap<String, u64>,
    /// Requests that could not be timed, by reason.
    pub incomplete: BTreeMap<String, u64>,
    /// Connections that cannot be read, by reason.
    pub opaque: BTreeMap<String, u64>,
    /// Connections known now.
    pub connections: u64,
    /// Share of one core that the observer used.
    pub cpu_ratio: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Probes attached, by name.
    pub probes: Vec<String>,
    /// What is observed, in words: ports, pids, cgroups or everything.
    pub scope: String,
}

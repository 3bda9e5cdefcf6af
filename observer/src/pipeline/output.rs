//! Where finished requests and everything countable go, whatever the events came from.

use std::sync::Arc;

use super::ports::Ports;
use crate::{
    config::Config,
    event::{Direction, OpaqueReason},
    export::jsonl::RequestLog,
    metrics::{Metrics, RequestRecorder},
    request::{
        labels::HeaderLabels,
        record::{ConnectionInfo, RequestRecord},
        tracker::{Sink, TrackerConfig},
    },
    time::KernelTime,
};

/// The tracker's settings. `chunk_times`: somebody wants to see the time of each token event.
pub(super) fn tracker_config(config: &Config, labels: HeaderLabels, chunk_times: bool) -> TrackerConfig {
    TrackerConfig {
        gap_bounds: config.metrics.buckets.gap.as_slice().into(),
        chunk_times,
        labels,
        ..TrackerConfig::default()
    }
}

/// Where finished requests and everything countable go.
pub(super) struct Output {
    pub(super) recorder: RequestRecorder,
    pub(super) metrics: Arc<Metrics>,
    pub(super) request_log: Option<RequestLog>,
    pub(super) ports: Ports,
    pub(super) now: KernelTime,
}

impl Output {
    pub(super) fn new(metrics: &Arc<Metrics>, request_log: Option<RequestLog>, now: KernelTime) -> Self {
        let (recorder, metrics) = (metrics.recorder(), metrics.clone());
        Self { recorder, metrics, request_log, ports: Ports::default(), now }
    }
}

impl Sink for Output {
    fn request(&mut self, record: RequestRecord) {
        if let Some(server) = record.connection.server {
            self.ports.llm(server.port());
        }
        self.recorder.record(&record);
        if let Some(log) = &self.request_log {
            log.write(record);
        }
    }

    fn other_request(&mut self, connection: &ConnectionInfo) {
        self.metrics.own().other_requests.add(1);
        if let Some(server) = connection.server {
            self.ports.other(server.port(), self.now);
        }
    }

    fn opaque(&mut self, _connection: &ConnectionInfo, reason: OpaqueReason) {
        self.metrics.own().opaque(reason).add(1);
    }

    fn joined_mid_request(&mut self, _connection: &ConnectionInfo) {
        self.metrics.own().joined_mid_request.add(1);
    }

    fn gap(&mut self, direction: Direction, bytes: u64) {
        self.metrics.own().stream_gap_bytes(direction).add(bytes);
    }

    fn uncaptured(&mut self, direction: Direction, bytes: u64) {
        self.metrics.own().uncaptured_bytes(direction).add(bytes);
    }

    fn unparsed(&mut self, direction: Direction, bytes: u64) {
        self.metrics.own().unparsed_bytes(direction).add(bytes);
    }
}

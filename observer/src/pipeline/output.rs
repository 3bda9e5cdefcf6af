//! Where finished requests and everything countable go, whatever the events came from.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{host::Served, ports::Ports};
use crate::{
    config::Config,
    event::{Content, Direction, OpaqueReason},
    export::jsonl::RequestLog,
    metrics::{Metrics, RequestRecorder},
    request::{
        labels::HeaderLabels,
        record::{ConnectionInfo, RequestRecord},
        tracker::{Sink, TrackerConfig},
    },
    time::KernelTime,
    workload::Key,
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
    /// Connections on which a request to a language model was read since somebody looked here last.
    pub(super) asked: Vec<Arc<ConnectionInfo>>,
    pub(super) serving: Serving,
}

/// Tells of workloads that serve requests to a language model.
#[derive(Default)]
pub(super) struct Serving {
    tell: Option<Box<dyn Fn(Served) + Send>>,
    told: HashSet<(Key, Option<u16>)>,
    since: KernelTime,
}

/// What was told is told again after this time: whoever was told may have forgotten a workload that was idle.
const TELL_AGAIN: Duration = Duration::from_secs(60);

impl Serving {
    pub(super) fn new(tell: Box<dyn Fn(Served) + Send>) -> Self {
        Self { tell: Some(tell), ..Self::default() }
    }

    pub(super) fn seen(&mut self, connection: &ConnectionInfo, now: KernelTime) {
        let Some(tell) = &self.tell else { return };
        if now.saturating_since(self.since) > TELL_AGAIN {
            self.told.clear();
            self.since = now;
        }
        // Of one that is known by its name alone nobody could say which processes it has.
        let Some(identity) = &connection.identity else { return };
        let port = connection.server.map(|server| server.port());
        let key = (identity.key.clone(), port);
        if !self.told.contains(&key) {
            self.told.insert(key);
            tell(Served { identity: identity.clone(), pid: connection.pid, port });
        }
    }
}

impl Output {
    pub(super) fn new(metrics: &Arc<Metrics>, request_log: Option<RequestLog>, now: KernelTime) -> Self {
        let (recorder, metrics) = (metrics.recorder(), metrics.clone());
        Self {
            recorder,
            metrics,
            request_log,
            ports: Ports::default(),
            now,
            asked: Vec::new(),
            serving: Serving::default(),
        }
    }
}

impl Sink for Output {
    fn asked(&mut self, connection: &Arc<ConnectionInfo>) {
        self.asked.push(Arc::clone(connection));
    }

    fn request(&mut self, record: RequestRecord) {
        if let Some(server) = record.connection.server {
            self.ports.llm(server.port());
        }
        self.serving.seen(&record.connection, self.now);
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

    fn bytes(&mut self, content: Content, direction: Direction, bytes: u64) {
        self.metrics.own().traffic(content, direction).add(bytes);
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

//! Settings: defaults < file < environment < flags.
//!
//! [`settings::SETTINGS`] is the one table of all keys; the loader, `--print-config`, the messages about
//! unknown keys and `docs/configuration.md` are made from it.

mod duration;
mod header_labels;
mod load;
mod print;
pub mod settings;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use self::header_labels::TAKEN;
pub use self::{
    header_labels::{HeaderLabel, MOST as MAX_HEADER_LABELS},
    load::{ConfigError, Flag, Loaded, Sources, load},
    print::document,
};

/// All settings. Field names are the TOML keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the HTTP server listens.
    pub listen: SocketAddr,
    /// What to observe.
    pub scope: Scope,
    /// The observer's own log.
    pub log: LogConfig,
    /// One line of JSON per request.
    pub request_log: RequestLogConfig,
    /// Metrics.
    pub metrics: MetricsConfig,
    /// The kernel side.
    pub kernel: KernelSettings,
    /// Objectives.
    pub slo: SloConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9478)),
            scope: Scope::default(),
            log: LogConfig::default(),
            request_log: RequestLogConfig::default(),
            metrics: MetricsConfig::default(),
            kernel: KernelSettings::default(),
            slo: SloConfig::default(),
        }
    }
}

/// What to observe; an empty list is no restriction, all lists that are not empty must be satisfied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// Local (server) TCP ports.
    pub ports: Vec<u16>,
    /// Processes, with all their descendants.
    pub pids: Vec<u32>,
    /// Cgroup directories, with everything below them.
    pub cgroups: Vec<PathBuf>,
}

impl Scope {
    /// The scope in words, as the landing page and the summary show it.
    #[must_use]
    pub fn describe(&self) -> String {
        fn list<T: ToString>(name: &str, items: &[T]) -> Option<String> {
            (!items.is_empty())
                .then(|| format!("{name} {}", items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")))
        }
        let cgroups: Vec<_> = self.cgroups.iter().map(|path| path.display().to_string()).collect();
        let parts: Vec<_> = [list("ports", &self.ports), list("pids", &self.pids), list("cgroups", &cgroups)]
            .into_iter()
            .flatten()
            .collect();
        if parts.is_empty() { "everything on this host".to_owned() } else { parts.join("; ") }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; colours only on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The observer's own log, on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// A level, or directives as `info,observer::kernel=debug`.
    pub level: String,
    /// Also log rare diagnostics of the kernel side.
    pub kernel: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned(), kernel: false }
    }
}

/// One line of JSON per request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestLogConfig {
    /// A file to append to, `-` for standard output; `None`: no request log.
    #[serde(deserialize_with = "print::path_or_none")]
    pub path: Option<PathBuf>,
    /// Also the time of each token event.
    pub chunks: bool,
    /// Requests that may wait for the writer; more are dropped and counted.
    pub queue: usize,
}

impl Default for RequestLogConfig {
    fn default() -> Self {
        Self { path: None, chunks: false, queue: 8192 }
    }
}

/// Metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Most distinct values of each model label; more become `_other`.
    pub max_models: usize,
    /// How long the series of a workload stay after it was last used.
    #[serde(with = "duration")]
    pub series_ttl: Duration,
    /// Request headers whose values become labels; at most [`MAX_HEADER_LABELS`].
    pub header_labels: Vec<HeaderLabel>,
    /// A file with the key of those that are hashed; `None`: the hash has no key.
    #[serde(deserialize_with = "print::path_or_none")]
    pub hash_key_file: Option<PathBuf>,
    /// Bucket bounds.
    pub buckets: Buckets,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            max_models: 64,
            series_ttl: Duration::from_secs(600),
            header_labels: Vec::new(),
            hash_key_file: None,
            buckets: Buckets::default(),
        }
    }
}

/// Bucket bounds of histograms, ascending; an unbounded bucket is always added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Buckets {
    /// Time to first token, byte and content, in seconds.
    pub ttft: Vec<f64>,
    /// Gap between token events and time per output token, in seconds.
    pub gap: Vec<f64>,
    /// Duration of requests and of their phases, in seconds.
    pub duration: Vec<f64>,
    /// Tokens per request.
    pub tokens: Vec<f64>,
}

impl Default for Buckets {
    /// A superset of the edges that vLLM and OpenTelemetry use, so that both can be laid over ours.
    fn default() -> Self {
        Self {
            ttft: vec![
                0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5,
                5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
            ],
            gap: vec![
                0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15,
                0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
            ],
            duration: vec![
                0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.16, 0.2, 0.3, 0.32, 0.5, 0.64, 0.8, 1.0, 1.28, 1.5, 2.0,
                2.5, 2.56, 5.0, 5.12, 10.0, 10.24, 15.0, 20.0, 20.48, 30.0, 40.0, 40.96, 50.0, 60.0, 81.92, 120.0,
                240.0, 480.0, 960.0, 1920.0, 7680.0,
            ],
            tokens: vec![1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0],
        }
    }
}

/// The kernel side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KernelSettings {
    /// Size of the ring of events, in bytes: a power of two.
    pub ring_bytes: u32,
    /// How often the ring is drained, in milliseconds.
    pub drain_interval_ms: u64,
    /// Fill of the ring (0 to 1) above which an event wakes the observer at once.
    pub wakeup_ratio: f64,
}

impl Default for KernelSettings {
    fn default() -> Self {
        Self { ring_bytes: observer_common::limits::RING_BYTES, drain_interval_ms: 20, wakeup_ratio: 0.25 }
    }
}

/// Service level objectives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SloConfig {
    /// Each judges every request that reached what it measures.
    pub objectives: Vec<Objective>,
}

/// One objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Value of the `slo` label.
    pub name: String,
    /// What is measured.
    pub kind: ObjectiveKind,
    /// A request is good if the measured time is at most this.
    pub seconds: f64,
}

/// What an objective measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveKind {
    /// Time to first token.
    Ttft,
    /// Time per output token.
    Tpot,
    /// Duration of the request.
    Duration,
}

#[cfg(test)]
mod tests;

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
    /// Who may ask it, and how.
    pub web: WebSettings,
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
    /// What to measure of workloads besides their requests.
    pub signals: Signals,
    /// What optional probes may cost.
    pub governor: GovernorSettings,
    /// The host around.
    pub host: HostConfig,
    /// GPUs.
    pub gpu: GpuSettings,
    /// Objectives.
    pub slo: SloConfig,
    /// What the observer itself may do.
    pub security: SecurityConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9478)),
            web: WebSettings::default(),
            scope: Scope::default(),
            log: LogConfig::default(),
            request_log: RequestLogConfig::default(),
            metrics: MetricsConfig::default(),
            kernel: KernelSettings::default(),
            signals: Signals::default(),
            governor: GovernorSettings::default(),
            host: HostConfig::default(),
            gpu: GpuSettings::default(),
            slo: SloConfig::default(),
            security: SecurityConfig::default(),
        }
    }
}

/// Who may ask the HTTP server, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSettings {
    /// A file with TLS and users, as Prometheus' exporters take it; `None`: neither.
    #[serde(deserialize_with = "print::path_or_none")]
    pub config_file: Option<PathBuf>,
    /// A file with the token of `/api/…`; `None`: only this host may ask there.
    #[serde(deserialize_with = "print::path_or_none")]
    pub token_file: Option<PathBuf>,
}

/// What the observer itself may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// Give up, once attached, what is not needed any more.
    pub sandbox: bool,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self { sandbox: true }
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
    /// Where reads and writes of sockets are seen.
    pub socket_hook: SocketHook,
}

impl Default for KernelSettings {
    fn default() -> Self {
        Self {
            ring_bytes: observer_common::limits::RING_BYTES,
            drain_interval_ms: 20,
            wakeup_ratio: 0.25,
            socket_hook: SocketHook::Auto,
        }
    }
}

/// Where reads and writes of sockets are seen. One at a time: two would see each call twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketHook {
    /// At the first of the others that this kernel takes.
    #[default]
    Auto,
    /// At the tracepoints for it, since Linux 6.3.
    Tracepoint,
    /// At the kernel's functions that send and receive.
    Fexit,
    /// At the end of every system call of the host.
    SysExit,
}

impl SocketHook {
    /// As it is written in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tracepoint => "tracepoint",
            Self::Fexit => "fexit",
            Self::SysExit => "sys-exit",
        }
    }
}

/// What to measure of workloads besides their requests. What is off costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Signals {
    /// Run-queue latency, time on and off CPU, page faults.
    pub scheduler: bool,
    /// Retransmits, round-trip times, closed windows, unsent bytes, listen-queue overflows.
    pub tcp: bool,
    /// Files, pipes and sockets: bytes, calls, how long they took; what came into the page cache.
    pub io: IoMode,
    /// How long calls took.
    pub io_latency: bool,
    /// Requests to block devices.
    pub block: bool,
}

impl Default for Signals {
    fn default() -> Self {
        Self { scheduler: true, tcp: true, io: IoMode::Auto, io_latency: true, block: true }
    }
}

/// How calls that read or write files and pipes are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IoMode {
    /// Where the kernel's own functions can be hooked, so that no other call pays.
    #[default]
    Auto,
    /// Else at every system call of the host.
    On,
    /// Not at all; nor what came into the page cache, nor sockets.
    Off,
}

/// What optional probes may cost, and what happens above that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GovernorSettings {
    /// Share of one core that they may take together; 0: nothing is measured and nothing shed.
    pub budget: f64,
    /// From one sample of their cost to the next.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// How long what was shed is away at least.
    #[serde(with = "duration")]
    pub restore_after: Duration,
}

impl Default for GovernorSettings {
    fn default() -> Self {
        Self { budget: 0.02, interval: Duration::from_secs(60), restore_after: Duration::from_secs(300) }
    }
}

/// The host around.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Where its root directory is; `None`: found by itself.
    #[serde(deserialize_with = "print::path_or_none")]
    pub root: Option<PathBuf>,
}

/// Whether GPUs are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuMode {
    /// If there are any; they may come later.
    #[default]
    Auto,
    /// Never.
    Off,
    /// A start without one fails.
    Require,
}

/// GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuSettings {
    /// Whether they are asked.
    pub mode: GpuMode,
    /// The driver's library; `None`: it is looked for.
    #[serde(deserialize_with = "print::path_or_none")]
    pub library: Option<PathBuf>,
    /// Between two polls of values that change fast.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// Between two polls of values that change slowly.
    #[serde(with = "duration")]
    pub slow_interval: Duration,
    /// Also which processes are on which GPU.
    pub processes: bool,
    /// Also performance counters, of GPUs that have them.
    pub gpm: bool,
}

impl Default for GpuSettings {
    fn default() -> Self {
        Self {
            mode: GpuMode::Auto,
            library: None,
            interval: Duration::from_secs(1),
            slow_interval: Duration::from_secs(15),
            processes: true,
            gpm: true,
        }
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

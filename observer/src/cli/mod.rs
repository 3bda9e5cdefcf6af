//! The command line.

pub mod logging;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};

use crate::config::{Config, ConfigError, Flag, Loaded, Sources, load};

/// Exit status after success.
pub const EXIT_OK: u8 = 0;
/// Exit status after a failure while working.
pub const EXIT_FAILURE: u8 = 1;
/// Exit status where the command line or the configuration cannot be used (clap's own, too).
pub const EXIT_USAGE: u8 = 2;

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 the command line or the configuration cannot be used.";

const DOCTOR_EXIT_CODES: &str = "Exit codes: 0 `observer run` can observe this host (there may be warnings), 1 it cannot: \
                                 something is marked as error, 2 the command line or the configuration cannot be used.";

/// Measures every request to the LLM servers of this host from the kernel, and exports Prometheus metrics.
#[derive(Clone, Debug, Parser)]
#[command(name = "observer", version, about, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Observe this host and serve metrics (needs root, or CAP_BPF and CAP_PERFMON)
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Say what this kernel permits, what would be seen and what not, and what to do about it
    #[command(after_help = DOCTOR_EXIT_CODES)]
    Doctor(DoctorArgs),
    /// Observe as `run` does, and record all that is seen to a file, for `replay`
    #[command(after_help = EXIT_CODES)]
    Record(RecordArgs),
    /// Show the requests of a recording; needs no privileges
    #[command(after_help = EXIT_CODES)]
    Replay(ReplayArgs),
    /// Let a running observer let go of the GPU driver, so that it can be unloaded, and take it back
    #[command(after_help = EXIT_CODES)]
    Gpu(GpuArgs),
    /// Exit with 0 if the observer answers at its address, else with 1 (for the health check of a container)
    #[command(after_help = EXIT_CODES)]
    Health(HealthArgs),
    /// Show a running observer's view in the terminal
    #[command(after_help = EXIT_CODES)]
    Top(TopArgs),
    /// Measure what a running observer costs this host (needs root, or CAP_SYS_ADMIN)
    #[command(after_help = EXIT_CODES)]
    Overhead(OverheadArgs),
}

/// Where settings come from, and what to observe.
#[derive(Args, Clone, Debug, Default)]
pub struct ScopeArgs {
    /// Read settings from this TOML file [env: OBSERVER_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Observe servers on these TCP ports only [default: every port that serves an LLM route]
    #[arg(long, value_name = "PORT,...")]
    pub ports: Option<String>,
    /// Observe these processes and their descendants only
    #[arg(long, value_name = "PID,...")]
    pub pids: Option<String>,
    /// Observe processes below these cgroup (v2) directories only
    #[arg(long, value_name = "DIR,...")]
    pub cgroups: Option<String>,
}

/// Arguments of `observer run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// Scope and file.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Serve metrics here [default: 127.0.0.1:9478]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Read TLS and users from this YAML file, in the form that Prometheus' exporters share
    #[arg(long, alias = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<String>,
    /// Format of the log on standard error
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["text", "json"]))]
    pub log_format: Option<String>,
    /// error, warn, info, debug, trace, or directives such as info,observer::kernel=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Also log rare diagnostics of the kernel side
    #[arg(long)]
    pub log_kernel: bool,
    /// Stop after this time, for example 20s or 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub run_for: Option<Duration>,
    /// Append one line of JSON per finished request to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    pub request_log: Option<String>,
    /// Also write the time of each token event to the request log
    #[arg(long)]
    pub request_log_chunks: bool,
    /// Whether to ask GPUs
    #[arg(long, value_name = "MODE", value_parser = PossibleValuesParser::new(["auto", "off", "require"]))]
    pub gpu: Option<String>,
    /// Where reads and writes of sockets are seen [default: auto, the first that this kernel takes]
    #[arg(long, value_name = "HOOK", value_parser = PossibleValuesParser::new(["auto", "tracepoint", "fexit", "sys-exit"]))]
    pub socket_hook: Option<String>,
    /// Check the configuration and exit
    #[arg(long)]
    pub check_config: bool,
    /// Print the settings in effect and where each came from, and exit
    #[arg(long)]
    pub print_config: bool,
}

/// Arguments of `observer record`.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// The file to make; only its owner may read it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Keep the captured bytes as they are, text and all; else text is blanked
    #[arg(long)]
    pub payload: bool,
    /// Overwrite FILE if it exists
    #[arg(long)]
    pub force: bool,
    /// Stop when FILE has this size in bytes; K, M, G for binary multiples
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    pub max_bytes: u64,
    /// As of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Arguments of `observer replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The recording; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How to print requests: a table, lines of JSON as in the request log, or comma-separated values
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = PossibleValuesParser::new(["table", "json", "csv"]))]
    pub format: String,
    /// Write the metrics of the requests to this file; - is standard output, in place of the requests
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Read settings from this TOML file: buckets, objectives, limits [env: OBSERVER_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// With --format json: also the time of each token event
    #[arg(long)]
    pub request_log_chunks: bool,
}

/// A number of bytes: `1048576`, `1024K`, `1M`.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number of bytes, such as 500M".to_owned())?;
    let bytes = number.checked_mul(1 << shift).ok_or("too large")?;
    if bytes < 4096 { Err("at least 4096 bytes".to_owned()) } else { Ok(bytes) }
}

/// Arguments of `observer doctor`.
#[derive(Args, Clone, Debug, Default)]
pub struct DoctorArgs {
    /// Scope and file.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Whether to look for GPUs
    #[arg(long, value_name = "MODE", value_parser = PossibleValuesParser::new(["auto", "off", "require"]))]
    pub gpu: Option<String>,
    /// Where reads and writes of sockets are seen [default: auto, the first that this kernel takes]
    #[arg(long, value_name = "HOOK", value_parser = PossibleValuesParser::new(["auto", "tracepoint", "fexit", "sys-exit"]))]
    pub socket_hook: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Also count for this time, for example 5s, what passes in scope, and say what share of the bytes cannot be read
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub count_for: Option<Duration>,
}

/// Arguments of `observer gpu`.
#[derive(Args, Clone, Debug)]
pub struct GpuArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: GpuCommand,
}

/// What `observer gpu` does.
#[derive(Clone, Debug, Subcommand)]
pub enum GpuCommand {
    /// Let go of the GPU driver: nothing of it stays open or loaded, and families of GPUs have no samples meanwhile
    Release(GpuTarget),
    /// Take it back
    Acquire(GpuTarget),
    /// Say whether it is open
    Status(GpuTarget),
}

/// What an observer may want of who asks it.
#[derive(Args, Clone, Debug, Default)]
pub struct CredentialsArgs {
    /// Believe certificates of the authorities in this PEM file, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Show the user and password in this file, as user:password, and no token
    #[arg(long, value_name = "FILE")]
    pub user_file: Option<PathBuf>,
    /// Show the token in this file
    #[arg(long, value_name = "FILE", env = "OBSERVER_WEB_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
}

/// Which observer `observer gpu` talks to.
#[derive(Args, Clone, Debug)]
pub struct GpuTarget {
    /// Where the observer serves; it takes such commands from its own host only
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9478")]
    pub url: String,
    /// For an observer that wants them.
    #[command(flatten)]
    pub credentials: CredentialsArgs,
}

/// Arguments of `observer health`.
#[derive(Args, Clone, Debug, Default)]
pub struct HealthArgs {
    /// Read the address from this TOML file, as `run` does [env: OBSERVER_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the observer serves [default: as `run` is configured to]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Believe certificates of the authorities in this PEM file; without --url, the configured certificate is believed
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Ask whether it observes, rather than whether it lives
    #[arg(long)]
    pub ready: bool,
}

/// Arguments of `observer top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Where the observer serves
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9478")]
    pub url: String,
    /// For an observer that wants them.
    #[command(flatten)]
    pub credentials: CredentialsArgs,
    /// Time between two refreshes
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// Stop after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub run_for: Option<Duration>,
    /// Print plain text, one block per refresh, instead of drawing on the terminal
    #[arg(long)]
    pub plain: bool,
}

/// Arguments of `observer overhead`.
#[derive(Args, Clone, Debug)]
pub struct OverheadArgs {
    /// Measure for this time; BPF run statistics are on meanwhile
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = measuring_time)]
    pub time: Duration,
    /// The observer's process [default: the only one that runs]
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// How to print it
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = PossibleValuesParser::new(["table", "json"]))]
    pub format: String,
}

/// A time in which something can be counted.
fn measuring_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_millis(100) { Err("at least 100ms".to_owned()) } else { Ok(time) }
}

impl ScopeArgs {
    fn flags(&self) -> Vec<Flag> {
        let flag = |key, value: &Option<String>| value.clone().map(|value| Flag { key, value });
        [flag("scope.ports", &self.ports), flag("scope.pids", &self.pids), flag("scope.cgroups", &self.cgroups)]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl RunArgs {
    fn flags(&self) -> Vec<Flag> {
        let flag = |key, value: &Option<String>| value.clone().map(|value| Flag { key, value });
        let switch = |key, on: bool| on.then(|| Flag { key, value: "true".to_owned() });
        let own = [
            flag("listen", &self.listen),
            flag("web.config_file", &self.web_config_file),
            flag("log.format", &self.log_format),
            flag("log.level", &self.log_level),
            switch("log.kernel", self.log_kernel),
            flag("request_log.path", &self.request_log),
            switch("request_log.chunks", self.request_log_chunks),
            flag("gpu.mode", &self.gpu),
            flag("kernel.socket_hook", &self.socket_hook),
        ];
        self.scope.flags().into_iter().chain(own.into_iter().flatten()).collect()
    }

    /// The settings in effect: this command line over this process's environment.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        load(&Sources::of_process(self.scope.config.clone(), self.flags()))
    }
}

impl ReplayArgs {
    /// The settings in effect: this command line over this process's environment.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let chunks = self.request_log_chunks.then(|| Flag { key: "request_log.chunks", value: "true".to_owned() });
        load(&Sources::of_process(self.config.clone(), chunks.into_iter().collect()))
    }
}

impl DoctorArgs {
    /// The settings in effect: this command line over this process's environment.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let flag = |key, value: &Option<String>| value.clone().map(|value| Flag { key, value });
        let own = [flag("gpu.mode", &self.gpu), flag("kernel.socket_hook", &self.socket_hook)];
        let flags = self.scope.flags().into_iter().chain(own.into_iter().flatten());
        load(&Sources::of_process(self.scope.config.clone(), flags.collect()))
    }
}

impl HealthArgs {
    /// The settings of the observer whose health it is; `None`: another URL was given.
    ///
    /// # Errors
    /// As [`load`].
    pub fn settings(&self) -> Result<Option<Config>, ConfigError> {
        match &self.url {
            Some(_) => Ok(None),
            None => load(&Sources::of_process(self.config.clone(), Vec::new())).map(|loaded| Some(loaded.config)),
        }
    }
}

/// An address for clients: that of all interfaces is for listening only.
#[must_use]
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let loopback = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(loopback, listen.port())
}

#[cfg(test)]
mod tests;

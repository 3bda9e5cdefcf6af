//! The one table of settings.

use figment::value::{Dict, Value};

/// What a setting holds, and how its text in a variable or flag is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, taken as it is.
    Text,
    /// `true` or `false`.
    Bool,
    /// An integer.
    Integer,
    /// A number.
    Number,
    /// Integers, comma-separated.
    Integers,
    /// Numbers, comma-separated.
    Numbers,
    /// Texts, comma-separated.
    Texts,
    /// `name:kind:seconds`, comma-separated.
    Objectives,
    /// `header[:label[:max_values[:hash]]]`, comma-separated.
    HeaderLabels,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its TOML key, dotted.
    pub key: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// Its flag of `observer run`; empty: none.
    pub flag: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it is, one sentence or two.
    pub help: &'static str,
}

/// All settings, in the order in which `--print-config` shows them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        env: "OBSERVER_LISTEN",
        flag: "--listen",
        kind: Kind::Text,
        help: "Address and port of the HTTP server. The answers name models and workloads: think before you open it to a network.",
    },
    Setting {
        key: "web.config_file",
        env: "OBSERVER_WEB_CONFIG_FILE",
        flag: "--web-config-file",
        kind: Kind::Text,
        help: "YAML file with TLS and users, in the form that Prometheus' exporters share (--web.config.file): tls_server_config with cert_file, key_file, client_ca_file, client_auth_type, min_version and max_version; basic_auth_users with bcrypt hashes. Paths in it are relative to it; changes are put in force within seconds. /healthz and /readyz ask nobody for a password. Empty: plain HTTP, for everybody.",
    },
    Setting {
        key: "web.token_file",
        env: "OBSERVER_WEB_TOKEN_FILE",
        flag: "",
        kind: Kind::Text,
        help: "File with a token of 16 characters or more: whoever asks for /api/... must have it (Authorization: Bearer TOKEN), from wherever. Empty: /api/... is for this host alone.",
    },
    Setting {
        key: "scope.ports",
        env: "OBSERVER_PORTS",
        flag: "--ports",
        kind: Kind::Integers,
        help: "TCP ports of servers to observe. Empty: every port on which a process in scope listens.",
    },
    Setting {
        key: "scope.pids",
        env: "OBSERVER_PIDS",
        flag: "--pids",
        kind: Kind::Integers,
        help: "Server processes to observe, with all their descendants. Empty: all processes.",
    },
    Setting {
        key: "scope.cgroups",
        env: "OBSERVER_CGROUPS",
        flag: "--cgroups",
        kind: Kind::Texts,
        help: "Cgroup (v2) directories to observe, with everything below them. Empty: all cgroups.",
    },
    Setting {
        key: "log.format",
        env: "OBSERVER_LOG_FORMAT",
        flag: "--log-format",
        kind: Kind::Text,
        help: "How the observer's own log on standard error looks: text or json.",
    },
    Setting {
        key: "log.level",
        env: "OBSERVER_LOG_LEVEL",
        flag: "--log-level",
        kind: Kind::Text,
        help: "error, warn, info, debug or trace, or directives such as info,observer::kernel=debug.",
    },
    Setting {
        key: "log.kernel",
        env: "OBSERVER_LOG_KERNEL",
        flag: "--log-kernel",
        kind: Kind::Bool,
        help: "Also log rare diagnostics of the kernel side.",
    },
    Setting {
        key: "request_log.path",
        env: "OBSERVER_REQUEST_LOG_PATH",
        flag: "--request-log",
        kind: Kind::Text,
        help: "File to which one line of JSON per finished request is appended, - for standard output. Empty: none. Lines hold addresses, model names and times, never text of prompts or answers.",
    },
    Setting {
        key: "request_log.chunks",
        env: "OBSERVER_REQUEST_LOG_CHUNKS",
        flag: "--request-log-chunks",
        kind: Kind::Bool,
        help: "Also write the time of each token event to the request log.",
    },
    Setting {
        key: "request_log.queue",
        env: "OBSERVER_REQUEST_LOG_QUEUE",
        flag: "",
        kind: Kind::Integer,
        help: "Requests that may wait for the writer of the request log; more are dropped and counted.",
    },
    Setting {
        key: "metrics.max_models",
        env: "OBSERVER_METRICS_MAX_MODELS",
        flag: "",
        kind: Kind::Integer,
        help: "Most distinct values of each model label; further names, which clients choose, become _other.",
    },
    Setting {
        key: "metrics.series_ttl",
        env: "OBSERVER_METRICS_SERIES_TTL",
        flag: "",
        kind: Kind::Text,
        help: "How long the series of a workload stay after it was last used, for example 10m.",
    },
    Setting {
        key: "metrics.header_labels",
        env: "OBSERVER_METRICS_HEADER_LABELS",
        flag: "",
        kind: Kind::HeaderLabels,
        help: "Request headers whose values become labels of all families of requests and go to the request log, at most three, none that may carry a secret. Series multiply with each, up to the product of all max_values. Each has: header, label (empty: the header's name with _ for what labels may not have), max_values (32; further values become _other) and hash (false; true: 16 hex digits of the value's SHA-256 stand in for it, or of its HMAC-SHA-256 where metrics.hash_key_file is set); in the variable header:label:max_values:hash, comma-separated, of which all but the header can be left out. A value that is longer than 128 bytes or not printable ASCII is left out.",
    },
    Setting {
        key: "metrics.hash_key_file",
        env: "OBSERVER_METRICS_HASH_KEY_FILE",
        flag: "",
        kind: Kind::Text,
        help: "File with the key of hashed labels, 16 bytes or more; an end of line after it is not part of it. Empty: hashes have no key, so who guesses a value can tell that it is the one.",
    },
    Setting {
        key: "metrics.buckets.ttft",
        env: "OBSERVER_METRICS_BUCKETS_TTFT",
        flag: "",
        kind: Kind::Numbers,
        help: "Bucket bounds, in seconds, of time to first token, byte and content.",
    },
    Setting {
        key: "metrics.buckets.gap",
        env: "OBSERVER_METRICS_BUCKETS_GAP",
        flag: "",
        kind: Kind::Numbers,
        help: "Bucket bounds, in seconds, of the gap between token events and of time per output token.",
    },
    Setting {
        key: "metrics.buckets.duration",
        env: "OBSERVER_METRICS_BUCKETS_DURATION",
        flag: "",
        kind: Kind::Numbers,
        help: "Bucket bounds, in seconds, of the duration of requests and of their phases.",
    },
    Setting {
        key: "metrics.buckets.tokens",
        env: "OBSERVER_METRICS_BUCKETS_TOKENS",
        flag: "",
        kind: Kind::Numbers,
        help: "Bucket bounds of tokens per request.",
    },
    Setting {
        key: "kernel.ring_bytes",
        env: "OBSERVER_KERNEL_RING_BYTES",
        flag: "",
        kind: Kind::Integer,
        help: "Size of the ring that carries events out of the kernel: a power of two.",
    },
    Setting {
        key: "kernel.drain_interval_ms",
        env: "OBSERVER_KERNEL_DRAIN_INTERVAL_MS",
        flag: "",
        kind: Kind::Integer,
        help: "How often that ring is drained, in milliseconds. Time stamps do not depend on it.",
    },
    Setting {
        key: "kernel.wakeup_ratio",
        env: "OBSERVER_KERNEL_WAKEUP_RATIO",
        flag: "",
        kind: Kind::Number,
        help: "Fill of that ring, from 0 to 1, above which an event wakes the observer at once.",
    },
    Setting {
        key: "kernel.socket_hook",
        env: "OBSERVER_KERNEL_SOCKET_HOOK",
        flag: "--socket-hook",
        kind: Kind::Text,
        help: "Where reads and writes of sockets are seen: tracepoint (sock_send_length and sock_recv_length), fexit (the kernel's functions that send and receive) or sys-exit (the end of every system call, at a price for each call of the host). auto: the first of these that this kernel takes. Another one is never taken in place of one that is named.",
    },
    Setting {
        key: "signals.scheduler",
        env: "OBSERVER_SIGNALS_SCHEDULER",
        flag: "",
        kind: Kind::Bool,
        help: "Measure run-queue latency, time on and off CPU, and page faults of workloads.",
    },
    Setting {
        key: "signals.tcp",
        env: "OBSERVER_SIGNALS_TCP",
        flag: "",
        kind: Kind::Bool,
        help: "Measure retransmits, round-trip times, closed windows, unsent bytes and listen-queue overflows of workloads' connections.",
    },
    Setting {
        key: "signals.io",
        env: "OBSERVER_SIGNALS_IO",
        flag: "",
        kind: Kind::Text,
        help: "Measure reads and writes of workloads: files, pipes, sockets, the page cache. auto: files and pipes only where the kernel's own functions can be hooked (trampolines; `observer doctor` tells); on: elsewhere at every system call of the host, each of which then pays (docs/overhead.md), while there is a workload; off: nothing of it.",
    },
    Setting {
        key: "signals.io_latency",
        env: "OBSERVER_SIGNALS_IO_LATENCY",
        flag: "",
        kind: Kind::Bool,
        help: "Measure how long these calls take. Without it only their ends are hooked.",
    },
    Setting {
        key: "signals.block",
        env: "OBSERVER_SIGNALS_BLOCK",
        flag: "",
        kind: Kind::Bool,
        help: "Measure requests of workloads to block devices: time in the queue and at the device, bytes.",
    },
    Setting {
        key: "governor.budget",
        env: "OBSERVER_GOVERNOR_BUDGET",
        flag: "",
        kind: Kind::Number,
        help: "Share of one core that all optional probes (those of signals.*) may take together, 0.02 is 2 %. Above it signals are shed, first io, then block, scheduler and tcp, and come back when there is room (docs/overhead.md). 0: nothing is sampled and nothing shed.",
    },
    Setting {
        key: "governor.interval",
        env: "OBSERVER_GOVERNOR_INTERVAL",
        flag: "",
        kind: Kind::Text,
        help: "Time from one sample of their cost to the next. Each takes a second, in which the kernel counts runs and times of all BPF programs of the host.",
    },
    Setting {
        key: "governor.restore_after",
        env: "OBSERVER_GOVERNOR_RESTORE_AFTER",
        flag: "",
        kind: Kind::Text,
        help: "Time that a shed signal is away at least. Where it is too much again once it is back, it is away for twice as long, up to 32 times this.",
    },
    Setting {
        key: "host.root",
        env: "OBSERVER_HOST_ROOT",
        flag: "",
        kind: Kind::Text,
        help: "Where the host's root directory is, for the names of containers. Empty: /proc/1/root if that can be read, else /. Outside the host's PID namespace its proc is used, too, so that processes have names.",
    },
    Setting {
        key: "gpu.mode",
        env: "OBSERVER_GPU_MODE",
        flag: "--gpu",
        kind: Kind::Text,
        help: "Whether GPUs are asked: auto (if a driver is there, now or later), off, or require (a start without one fails).",
    },
    Setting {
        key: "gpu.library",
        env: "OBSERVER_GPU_LIBRARY",
        flag: "",
        kind: Kind::Text,
        help: "Path of libnvidia-ml.so.1. Empty: a driver container's below /run/nvidia/driver, what the loader finds, or the host's below host.root (else /host) or /proc/1/root, the first of these that opens.",
    },
    Setting {
        key: "gpu.interval",
        env: "OBSERVER_GPU_INTERVAL",
        flag: "",
        kind: Kind::Text,
        help: "Time between two polls of utilization, memory, power, energy, clocks, traffic, processes and performance counters.",
    },
    Setting {
        key: "gpu.slow_interval",
        env: "OBSERVER_GPU_SLOW_INTERVAL",
        flag: "",
        kind: Kind::Text,
        help: "Time between two polls of throttling, ECC errors, remapped rows and the power limit.",
    },
    Setting {
        key: "gpu.processes",
        env: "OBSERVER_GPU_PROCESSES",
        flag: "",
        kind: Kind::Bool,
        help: "Also ask which processes are on which GPU, with how much memory and how busy.",
    },
    Setting {
        key: "gpu.gpm",
        env: "OBSERVER_GPU_GPM",
        flag: "",
        kind: Kind::Bool,
        help: "Also read performance counters (GPM) of GPUs that have them: Hopper and later.",
    },
    Setting {
        key: "slo.objectives",
        env: "OBSERVER_SLO_OBJECTIVES",
        flag: "",
        kind: Kind::Objectives,
        help: "Service level objectives that feed llm_slo_requests_total: name, kind (ttft, tpot or duration) and seconds; in the variable name:kind:seconds, comma-separated.",
    },
    Setting {
        key: "security.sandbox",
        env: "OBSERVER_SECURITY_SANDBOX",
        flag: "",
        kind: Kind::Bool,
        help: "Give up, once probes are attached, every capability and system call that is not needed any more; SECURITY.md has the list. The log says what is kept.",
    },
];

/// The variable that names the configuration file, as `--config` does.
pub const CONFIG_VARIABLE: &str = "OBSERVER_CONFIG";

/// Variables of tests and of the build, which are no settings.
pub const IGNORED_VARIABLES: &[&str] = &["OBSERVER_REQUIRE", "OBSERVER_BPF_OBJECT", "OBSERVER_VENV", "OBSERVER_BIN"];

/// Whether a container platform sets this variable by itself: Kubernetes (and Docker links) put the addresses of
/// every service into the environment, and a service named `observer` gives them our prefix.
#[must_use]
pub fn is_service_link(name: &str, value: &str) -> bool {
    let protocols = ["tcp://", "udp://", "sctp://"];
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && protocols.iter().any(|protocol| value.starts_with(protocol)))
        || name.rsplit_once("_PORT_").is_some_and(|(_, rest)| {
            let mut parts = rest.split('_');
            parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
                && parts.next().is_some_and(|protocol| matches!(protocol, "TCP" | "UDP" | "SCTP"))
        })
}

impl Setting {
    /// The value that `text` (of a variable or flag) stands for.
    ///
    /// # Errors
    /// What is wrong with it, without saying where it stood.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Ok(match self.kind {
            Kind::Text => Value::from(text),
            Kind::Bool => boolean(text)?,
            Kind::Integer => integer(text.trim())?,
            Kind::Number => number(text.trim())?,
            Kind::Integers => items().map(integer).collect::<Result<Vec<_>, _>>()?.into(),
            Kind::Numbers => items().map(number).collect::<Result<Vec<_>, _>>()?.into(),
            Kind::Texts => items().map(Value::from).collect::<Vec<_>>().into(),
            Kind::Objectives => items().map(objective).collect::<Result<Vec<_>, _>>()?.into(),
            Kind::HeaderLabels => items().map(header_label).collect::<Result<Vec<_>, _>>()?.into(),
        })
    }
}

fn boolean(text: &str) -> Result<Value, String> {
    match text.trim() {
        "true" | "1" | "yes" | "on" => Ok(Value::from(true)),
        "false" | "0" | "no" | "off" => Ok(Value::from(false)),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

fn integer(text: &str) -> Result<Value, String> {
    text.parse::<u64>().map(Value::from).map_err(|_| format!("`{text}` is not a whole number"))
}

fn number(text: &str) -> Result<Value, String> {
    text.parse::<f64>().map(Value::from).map_err(|_| format!("`{text}` is not a number"))
}

fn objective(text: &str) -> Result<Value, String> {
    let mut parts = text.rsplitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(seconds), Some(kind), Some(name)) => Ok(Value::from(Dict::from([
            ("name".to_owned(), Value::from(name)),
            ("kind".to_owned(), Value::from(kind)),
            ("seconds".to_owned(), number(seconds)?),
        ]))),
        _ => Err(format!("`{text}` is not of the form name:kind:seconds, for example interactive:ttft:0.5")),
    }
}

fn header_label(text: &str) -> Result<Value, String> {
    let parts: Vec<_> = text.split(':').map(str::trim).collect();
    let [header, rest @ ..] = &parts[..] else { return Err(format!("`{text}` names no header")) };
    if rest.len() > 3 {
        return Err(format!(
            "`{text}` is not of the form header:label:max_values:hash, for example x-tenant:tenant:16:true"
        ));
    }
    let mut label = Dict::from([("header".to_owned(), Value::from(*header))]);
    // What is left out has its default.
    let given = |index: usize| rest.get(index).filter(|part| !part.is_empty());
    if let Some(name) = given(0) {
        label.insert("label".to_owned(), Value::from(*name));
    }
    if let Some(most) = given(1) {
        label.insert("max_values".to_owned(), integer(most)?);
    }
    if let Some(hash) = given(2) {
        label.insert("hash".to_owned(), boolean(hash)?);
    }
    Ok(Value::from(label))
}

/// The known name most like `name`, if one is alike at all.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

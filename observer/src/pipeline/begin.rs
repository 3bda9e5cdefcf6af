//! The beginning, in one thread with all privileges that there are: what needs them is done here, and what fails early
//! fails cheaply. Then they are given up, and all other threads start without.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    RunError, RunOptions, cannot, governor::GovernorThread, gpus::GpuThread, http::HttpThread, memory,
    record::Recording,
};
use crate::{
    config::Config,
    correlate::History,
    export::{
        http::{self, web::Web},
        jsonl::{RequestLog, WallClock},
    },
    kernel::{Kernel, Options, clock},
    metrics::Metrics,
    request::labels::HeaderLabels,
    sandbox::{self, Capability, Duty, Sandbox},
};

/// What was made with privileges.
pub(super) struct Begun {
    pub(super) address: SocketAddr,
    pub(super) metrics: Arc<Metrics>,
    pub(super) labels: HeaderLabels,
    pub(super) recording: Option<Recording>,
    pub(super) history: Arc<History>,
    pub(super) request_log: Option<RequestLog>,
    pub(super) kernel: Kernel,
    pub(super) governor: Option<GovernorThread>,
    pub(super) gpus: Option<GpuThread>,
    pub(super) http: HttpThread,
    pub(super) web: Web,
}

impl Begun {
    /// Binds, opens, loads and attaches, and gives up in this thread what was needed for that.
    pub(super) fn new(options: &mut RunOptions, stuck: &Arc<AtomicBool>) -> Result<Self, RunError> {
        memory::keep_little();
        let config = &options.config;
        let web = Web::load(&config.web)?;
        let listener = http::bind(config.listen)?;
        let address = listener.local_addr().unwrap_or(config.listen);
        let metrics = Metrics::new(&config.metrics, &config.slo.objectives);
        let labels = HeaderLabels::new(&config.metrics.header_labels, config.metrics.hash_key()?.as_deref());
        let recording = options.recording.take().map(|options| Recording::open(options, config)).transpose()?;
        let history = Arc::<History>::default();
        let request_log = open_request_log(config, recording.as_ref(), &metrics, &history)?;
        let mut kernel = attach(config)?;
        let sandbox = Sandbox::new(config.security.sandbox, needed_by(&mut kernel, config.security.sandbox));
        if config.signals.tcp {
            let sandbox = sandbox.clone();
            kernel
                .start_entering(move || sandbox.confine_or_warn(&Duty::Namespaces))
                .map_err(cannot("start the thread that enters network namespaces"))?;
        }
        let governor = GovernorThread::start(config, &sandbox)?;
        let gpus = GpuThread::start(config, &sandbox, stuck)?;
        if let Some(gpus) = &gpus {
            // Before anything is given up: a recording that does not begin is removed.
            gpus.require(config.gpu.mode)?;
        }
        let http = HttpThread::start(listener, &sandbox)?;
        // The kernel's type information, parsed, is larger than all that comes after.
        memory::release();
        match sandbox.confine(&Duty::General)? {
            Some(confined) => tracing::info!("sandbox: {confined}"),
            None => tracing::info!("sandbox: off, all privileges are kept (security.sandbox = false)"),
        }
        Ok(Self { address, metrics, labels, recording, history, request_log, kernel, governor, gpus, http, web })
    }
}

fn open_request_log(
    config: &Config,
    recording: Option<&Recording>,
    metrics: &Arc<Metrics>,
    history: &Arc<History>,
) -> Result<Option<RequestLog>, RunError> {
    let wall_clock = recording.map_or_else(|| -> WallClock { Box::new(clock::wall_time) }, Recording::clock);
    let own = metrics.own();
    let path = config.request_log.path.clone().filter(|path| path != Path::new("-"));
    let sandbox = Sandbox::new(config.security.sandbox, Vec::new());
    let confine = move || {
        let overrides = path.as_ref().is_some_and(|path| !sandbox.can_append_without_overriding(path));
        sandbox.confine_or_warn(&Duty::RequestLog { path, overrides });
    };
    let log = RequestLog::open(
        &config.request_log,
        wall_clock,
        Some(history.clone()),
        own.request_log_queue_full.clone(),
        own.request_log_write_error.clone(),
        confine,
    )?;
    Ok(log)
}

fn attach(config: &Config) -> Result<Kernel, RunError> {
    let options = Options {
        ring_bytes: config.kernel.ring_bytes,
        wakeup_ratio: config.kernel.wakeup_ratio,
        log: config.log.kernel,
        signals: config.signals,
        socket_hook: config.kernel.socket_hook,
    };
    Ok(Kernel::attach(options, &config.scope)?)
}

/// What the kernel side's maps and hooks cannot be used without, here.
fn needed_by(kernel: &mut Kernel, sandbox: bool) -> Vec<Capability> {
    /// From the least to all that loading took.
    const CANDIDATES: &[&[Capability]] = &[
        &[],
        &[Capability::CAP_BPF],
        &[Capability::CAP_BPF, Capability::CAP_PERFMON],
        &[Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN],
    ];
    if !sandbox {
        return Vec::new();
    }
    let mut refused = None;
    let least = sandbox::least(&[], CANDIDATES, || kernel.rehearse().map_err(|error| refused = Some(error)).is_ok());
    if least.is_none()
        && let Some(error) = refused
    {
        tracing::warn!("not all that is done while observing could be tried: {error}");
    }
    least.or(CANDIDATES.last().copied()).unwrap_or_default().to_vec()
}

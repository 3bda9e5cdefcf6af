//! Composition root: threads, channels, reload, shutdown.
//!
//! One thread drains the ring and runs everything up to a finished request ([`drain`]); one serves HTTP, one writes the
//! request log, one asks GPUs, one enters network namespaces; Tokio's do the rest. All of them start after what only
//! needs privileges once was done ([`begin`]), each with what it needs.

mod begin;
mod drain;
mod governor;
mod gpus;
mod host;
mod http;
mod join;
mod memory;
mod names;
mod output;
mod ports;
mod record;
mod replay;
mod signals;
mod sockets;
mod stats;

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
};

use self::{
    begin::Begun,
    drain::{Drain, Parts},
    governor::GovernorThread,
    gpus::GpuThread,
    host::Host,
    join::Joining,
    record::Recording,
    signals::Signals,
};
pub use self::{
    record::RecordingOptions,
    replay::{ReplayError, ReplayOptions, ReportFormat, replay},
};
use crate::{
    config::{Config, ConfigError, Scope},
    export::{
        http::{
            Access, HttpError, HttpState, Work,
            web::{self, WebError},
        },
        jsonl::{Reopen, RequestLog, RequestLogError},
        sampler::{self, Sampler},
    },
    kernel::{Kernel, KernelError, capabilities},
    metrics::{InFlight, KernelStats, Metrics},
    recording::{RecordError, Recorder},
    request::{hops::CLIENTS_MAX, tracker::Tracker},
    sandbox::SandboxError,
    workload::Places,
};

/// The drain thread is stuck if it did not come by for this long.
const STUCK: Duration = Duration::from_secs(5);
/// How often the cgroups of the scope are looked at.
const LOOK_AT_CGROUPS: Duration = Duration::from_secs(2);
/// How long the last HTTP answers may take.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

/// Reads the settings again.
pub type Reload = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// What `observer run` was told.
pub struct RunOptions {
    /// Settings in effect.
    pub config: Config,
    /// End after this time.
    pub run_for: Option<Duration>,
    /// Reads the settings again, for SIGHUP.
    pub reload: Reload,
    /// Also record what is seen.
    pub recording: Option<RecordingOptions>,
}

/// Why observing did not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The HTTP server.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A file that a setting names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates, users or the token.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The request log.
    #[error(transparent)]
    RequestLog(#[from] RequestLogError),
    /// The recording.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What is not needed any more could not be given up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// No GPU, where one is required.
    #[error("no GPU can be observed, and gpu.mode is require ({0}): see `observer doctor`, or use --gpu auto")]
    Gpu(String),
    /// A thread, or what it waits with.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// What came of it.
        error: io::Error,
    },
}

fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |error| RunError::Io { what, error }
}

/// The kernel side, shared by scrapes, reload and shutdown, which takes it away.
type SharedKernel = Arc<Mutex<Option<Kernel>>>;

fn lock(kernel: &SharedKernel) -> MutexGuard<'_, Option<Kernel>> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How observing ended.
#[derive(Debug)]
pub struct Ended {
    /// What kept it from observing, if something did; nothing is left attached.
    pub result: Result<(), RunError>,
    /// A thread is left behind in a call into the GPU driver, which nothing can end: the process must not wait for what
    /// the driver's library does at an orderly exit.
    pub stuck: bool,
}

/// Observes until a signal, or until time is up.
#[must_use]
pub fn run(mut options: RunOptions) -> Ended {
    let stuck = Arc::new(AtomicBool::new(false));
    let result = Begun::new(&mut options, &stuck).and_then(|begun| {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("observer-work")
            .enable_all()
            .build()
            .map_err(cannot("start the threads that do the work"))?;
        let result = runtime.block_on(observe(options, begun));
        runtime.shutdown_timeout(LAST_ANSWERS);
        result
    });
    Ended { result, stuck: stuck.load(Ordering::Acquire) }
}

async fn observe(options: RunOptions, begun: Begun) -> Result<(), RunError> {
    let RunOptions { config, run_for, reload, recording: _ } = options;
    let Begun { address, metrics, labels, recording, history, request_log, mut kernel, governor, gpus, http, web } =
        begun;
    let scheme = web.scheme();
    let reopen = request_log.as_ref().map(RequestLog::reopener);
    tracing::info!("reads and writes of sockets are seen by {}", kernel.socket_hook().as_str());
    warn_of_surroundings(&config);
    for report in kernel.reports().iter().filter(|report| !report.status.is_as_wanted()) {
        tracing::warn!(
            "probe {} is missing, so there is no {}: {:?}; `observer doctor` tells more",
            report.name,
            report.intent,
            report.status
        );
    }
    let ring = kernel.take_ring()?.ok_or(KernelError::Map { map: "EVENTS", reason: "it was taken before".into() })?;
    let kernel_log = kernel.take_log();
    let host_pids = capabilities::in_host_pid_namespace();
    // Elsewhere a number in `/proc` is another process.
    let clients = if host_pids { kernel.clients(CLIENTS_MAX) } else { Vec::new() };
    let kernel: SharedKernel = Arc::new(Mutex::new(Some(kernel)));

    let recorder = recording.as_ref().map(Recording::start).transpose()?;
    let full = recorder.as_ref().map(Recorder::over);
    let (recorded, became) = std::sync::mpsc::sync_channel(1);
    let (busy_ports, mut ports_to_ignore) = mpsc::unbounded_channel();
    let places = Places::find(host_root(&config));
    let (servers, served) = mpsc::unbounded_channel();
    let drain = Arc::new(
        Drain::start(Parts {
            ring,
            tracker: Tracker::new(output::tracker_config(
                &config,
                labels,
                config.request_log.path.is_some() && config.request_log.chunks,
            )),
            metrics: metrics.clone(),
            request_log,
            recording: recorder,
            recorded,
            pause: Duration::from_millis(config.kernel.drain_interval_ms),
            clients,
            places: places.clone(),
            ignore_port: Box::new(move |port| {
                // Without a receiver the end has come.
                let _ended = busy_ports.send(port);
            }),
            serves: Box::new(move |served| {
                let _ended = servers.send(served);
            }),
        })
        .map_err(cannot("start the drain thread"))?,
    );
    connect_metrics(&metrics, &kernel, &drain, governor.as_ref(), config.kernel.ring_bytes);
    let host = Arc::new(Host::new(kernel.clone(), metrics.clone(), places, config.metrics.series_ttl));
    metrics.set_host_view({
        let host = host.clone();
        move || host.snapshot()
    });
    if let Some(governor) = &governor {
        governor.connect(kernel.clone(), host.clone());
    }
    if let Some(gpus) = &gpus {
        let processes = config.gpu.processes;
        let joining = Arc::new(Joining::new(gpus.gpus(), host.clone(), metrics.clone(), history, processes));
        gpus.connect(&metrics, &joining);
        tokio::spawn(join::follow(joining, config.gpu.interval));
    }
    tokio::spawn(host::follow(host, served));

    // Before anybody is told that it is ready.
    let signals = Signals::catch()?;
    let (end, ended) = watch::channel(false);
    let attached = Arc::new(AtomicBool::new(true));
    let sampler = Arc::new(Sampler::new(metrics.clone(), &config.metrics, config.scope.describe()));
    tokio::spawn(sampler::follow(sampler.clone()));
    tokio::spawn(memory::follow());
    let state = Arc::new(HttpState {
        sampler,
        metrics,
        ready: ready(&attached, &drain),
        scope: config.scope.describe(),
        gpus: gpus.as_ref().map(GpuThread::gpus),
        work: Work::start(),
    });
    let access = Arc::new(Access::new(web));
    tokio::spawn(web::follow(config.web.clone(), access.clone()));
    let mut server = http.serve(state, access, ended);
    tokio::spawn({
        let kernel = kernel.clone();
        async move {
            while let Some(port) = ports_to_ignore.recv().await {
                tokio::spawn(leave_alone(kernel.clone(), port));
            }
        }
    });
    if let Some(mut log) = kernel_log {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            loop {
                ticks.tick().await;
                log.flush();
            }
        });
    }
    tracing::info!("observing {}; metrics at {scheme}://{address}/metrics", config.scope.describe());

    let running =
        Arc::new(Running { reload, started: config, scope: Mutex::default(), kernel: kernel.clone(), reopen });
    *running.scope() = running.started.scope.clone();
    tokio::spawn(follow_cgroups(running.clone()));
    let result = until_end(signals, run_for, &drain, full, &mut server, || {
        let running = running.clone();
        // It may look at every process of the host.
        drop(tokio::task::spawn_blocking(move || running.apply()));
    })
    .await;

    if let Some(gpus) = &gpus {
        gpus.begin_stop();
    }
    // Detached first: from here on no call on this host is any slower.
    attached.store(false, Ordering::Relaxed);
    drop(lock(&kernel).take());
    end.send_replace(true);
    let drained = drain.stop().map_err(cannot("drain the ring"));
    tracing::info!("stopped: every probe is detached");
    // Who asked last may have to do without: the observer ends.
    let _answered = tokio::time::timeout(LAST_ANSWERS, server).await;
    let recorded = recording.map_or(Ok(()), |recording| recording.tell(&became));
    result.and(drained).and(recorded)
}

/// Waits for a signal, the end of the time, a recording that is `full`, or a failure.
async fn until_end(
    mut signals: Signals,
    run_for: Option<Duration>,
    drain: &Drain,
    full: Option<Arc<AtomicBool>>,
    server: &mut oneshot::Receiver<Result<(), HttpError>>,
    mut reload: impl FnMut(),
) -> Result<(), RunError> {
    let time_is_up = async {
        match run_for {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time_is_up);
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.terminate.recv() => return Ok(()),
            () = &mut time_is_up => return Ok(()),
            _ = signals.hangup.recv() => reload(),
            served = &mut *server => {
                return served.unwrap_or_else(|_| Err(HttpError::Serve(io::Error::other("its thread ended")))).map_err(Into::into);
            }
            _ = look.tick() => {
                if full.as_ref().is_some_and(|full| full.load(Ordering::Relaxed)) {
                    return Ok(());
                }
                if drain.has_ended() {
                    return drain.stop().map_err(cannot("drain the ring"));
                }
            }
        }
    }
}

fn connect_metrics(
    metrics: &Arc<Metrics>,
    kernel: &SharedKernel,
    drain: &Arc<Drain>,
    governor: Option<&GovernorThread>,
    ring_bytes: u32,
) {
    metrics.set_live_view({
        let drain = drain.clone();
        // Too busy to answer: what was last known is not known now, so it is absent.
        move || -> Vec<InFlight> { drain.in_flight().unwrap_or_default() }
    });
    metrics.set_kernel_stats({
        let (kernel, drain, governor) = (kernel.clone(), drain.clone(), governor.map(GovernorThread::stats));
        move || -> KernelStats {
            let governor = governor.as_ref().map(|stats| stats()).unwrap_or_default();
            lock(&kernel).as_ref().map_or_else(KernelStats::default, |kernel| KernelStats {
                governor,
                ..stats::collect(kernel, &drain, ring_bytes)
            })
        }
    });
}

fn ready(attached: &Arc<AtomicBool>, drain: &Arc<Drain>) -> Box<dyn Fn() -> Result<(), String> + Send + Sync> {
    let (attached, drain) = (attached.clone(), drain.clone());
    Box::new(move || {
        if !attached.load(Ordering::Relaxed) {
            return Err("shutting down".to_owned());
        }
        let silence = drain.silence();
        if silence > STUCK { Err(format!("the drain thread is stuck for {} s", silence.as_secs())) } else { Ok(()) }
    })
}

/// Leaves a busy port that serves something else alone for a while.
async fn leave_alone(kernel: SharedKernel, port: u16) {
    let set = |ignore| {
        let mut kernel = lock(&kernel);
        match kernel.as_mut().map(|kernel| (kernel.has_explicit_ports(), kernel.ignore_port(port, ignore))) {
            Some((explicit, Ok(()))) => !explicit,
            Some((_, Err(error))) => {
                tracing::warn!("{error}");
                false
            }
            None => false,
        }
    };
    if set(true) {
        tracing::info!("port {port} serves much and no LLM requests: left alone for {:?}", ports::IGNORE_FOR);
        tokio::time::sleep(ports::IGNORE_FOR).await;
        set(false);
    }
}

/// What can change while observing.
struct Running {
    reload: Reload,
    /// Settings at the start.
    started: Config,
    /// Scope in force.
    scope: Mutex<Scope>,
    kernel: SharedKernel,
    reopen: Option<Reopen>,
}

impl Running {
    fn scope(&self) -> MutexGuard<'_, Scope> {
        self.scope.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SIGHUP: the scope is put in force, the request log opened anew; the rest needs a restart.
    fn apply(&self) {
        if let Some(reopen) = &self.reopen {
            reopen.reopen();
        }
        let config = match (self.reload)() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!("cannot reload the configuration, the running one stays: {error}");
                return;
            }
        };
        if self.put_in_force(&config.scope) {
            tracing::info!("reloaded: observing {}", config.scope.describe());
        }
        let comparable = Config { scope: self.started.scope.clone(), ..config };
        if comparable != self.started {
            tracing::warn!("settings outside [scope] changed: restart to put them in force");
        }
    }

    fn put_in_force(&self, scope: &Scope) -> bool {
        let mut current = self.scope();
        match lock(&self.kernel).as_mut().map(|kernel| kernel.set_scope(scope)) {
            Some(Ok(())) => {
                *current = scope.clone();
                true
            }
            Some(Err(error)) => {
                tracing::error!("cannot change the scope: {error}");
                false
            }
            None => false,
        }
    }

    /// Puts the scope in force again if one of its cgroups was made anew. `Err`: one is gone.
    fn follow_cgroups(&self) -> Result<(), KernelError> {
        let scope = self.scope().clone();
        if scope.cgroups.is_empty() {
            return Ok(());
        }
        let changed = lock(&self.kernel).as_ref().map(|kernel| kernel.cgroups_changed(&scope)).transpose()?;
        if changed == Some(true) && self.put_in_force(&scope) {
            tracing::info!("a cgroup of the scope was made anew: observing {}", scope.describe());
        }
        Ok(())
    }
}

/// A service that is restarted gets a new cgroup of the same name.
async fn follow_cgroups(running: Arc<Running>) {
    let mut ticks = tokio::time::interval(LOOK_AT_CGROUPS);
    let mut missing = false;
    loop {
        ticks.tick().await;
        let running = running.clone();
        let Ok(result) = tokio::task::spawn_blocking(move || running.follow_cgroups()).await else { return };
        if let Err(error) = &result
            && !missing
        {
            tracing::warn!("{error}; it is observed again when it is back");
        }
        missing = result.is_err();
    }
}

fn host_root(config: &Config) -> &Path {
    config.host.root.as_deref().unwrap_or(Path::new(""))
}

/// What `observer doctor` would warn of, where it makes numbers or names less than they seem.
fn warn_of_surroundings(config: &Config) {
    if Places::find(host_root(config)).is_none() {
        tracing::warn!(
            "not in the host's PID namespace: servers are named by their threads, and --pids means nothing; \
             `observer doctor` tells more"
        );
    }
    if config.scope.ports.is_empty() && !capabilities::sees_other_processes() {
        tracing::warn!("servers that run already may not be found: `observer doctor` tells more");
    }
}

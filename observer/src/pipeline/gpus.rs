//! The thread that asks GPUs, from start to end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{RunError, cannot, join::Joining};
use crate::{
    config::{Config, GpuMode},
    gpu::{
        End, Gpu, Gpus, Session, Shared, Source, State, Timing, Trouble,
        nvml::{Nvml, Options},
    },
    metrics::Metrics,
    sandbox::{Duty, Sandbox},
};

/// How long the driver may take to open where one is required.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// How long the end waits for a call into the driver.
const LAST_CALL: Duration = Duration::from_millis(600);

/// A driver whose thread is confined before it first opens it.
struct Confined<S, F> {
    source: S,
    confine: Option<F>,
}

impl<S: Source, F: FnOnce() + Send> Source for Confined<S, F> {
    fn session(
        &mut self,
        shared: &Shared,
        work: &mut dyn FnMut(&mut dyn Session) -> Result<End, Trouble>,
    ) -> Result<End, Trouble> {
        if let Some(confine) = self.confine.take() {
            confine();
        }
        self.source.session(shared, work)
    }

    fn known(&self) -> Vec<Gpu> {
        self.source.known()
    }
}

/// The thread; its end is waited for, a little, when this goes.
pub(super) struct GpuThread {
    gpus: Arc<Gpus>,
    /// Told if the thread had to be left behind.
    stuck: Arc<AtomicBool>,
}

impl GpuThread {
    /// Starts it, unless GPUs are not to be asked.
    pub(super) fn start(config: &Config, sandbox: &Sandbox, stuck: &Arc<AtomicBool>) -> Result<Option<Self>, RunError> {
        let settings = &config.gpu;
        if settings.mode == GpuMode::Off {
            return Ok(None);
        }
        let timing = Timing::with(settings.interval, settings.slow_interval);
        let sandbox = sandbox.clone();
        let duty = Duty::Gpu { counters: settings.gpm };
        let source =
            Confined { source: Nvml::new(Options::of(config)), confine: Some(move || sandbox.confine_or_warn(&duty)) };
        let gpus = Gpus::start(source, timing).map_err(cannot("start the GPU thread"))?;
        Ok(Some(Self { gpus: Arc::new(gpus), stuck: stuck.clone() }))
    }

    pub(super) fn gpus(&self) -> Arc<Gpus> {
        self.gpus.clone()
    }

    /// Waits until the driver is open, where one is required.
    pub(super) fn require(&self, mode: GpuMode) -> Result<(), RunError> {
        if mode != GpuMode::Require {
            return Ok(());
        }
        match self.gpus.acquire(FIRST_ANSWER) {
            Ok(State::Up) => Ok(()),
            Ok(state) => Err(RunError::Gpu(format!("{}: {}", state.as_str(), state.reason()))),
            Err(error) => Err(RunError::Gpu(error.to_string())),
        }
    }

    /// Lets scrapes see GPUs, and what of them each workload uses.
    pub(super) fn connect(&self, metrics: &Metrics, joining: &Arc<Joining>) {
        let (gpus, joining) = (self.gpus(), joining.clone());
        metrics.set_join({
            let joining = joining.clone();
            move || joining.view()
        });
        metrics.set_gpus(move || gpus.view(), move |pid| joining.name(pid));
    }

    /// Tells it to end, without waiting for that.
    pub(super) fn begin_stop(&self) {
        self.gpus.begin_stop();
    }
}

impl Drop for GpuThread {
    fn drop(&mut self) {
        if !self.gpus.stop(LAST_CALL) {
            tracing::warn!("a call into the GPU driver has not returned: left behind");
            self.stuck.store(true, Ordering::Release);
        }
    }
}

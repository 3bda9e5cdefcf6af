//! The thread that samples what optional probes cost, and sheds and restores them as the governor says.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{RunError, SharedKernel, cannot, host::Host, lock};
use crate::{
    config::{Config, GovernorSettings, IoMode},
    governor::{Action, Costs, Governor, Next, Optional, Policy},
    kernel::statistics::{self, Statistics},
    metrics::GovernorStats,
    sandbox::{Duty, Sandbox},
};

/// How long statistics are on for one sample.
const SAMPLE: Duration = Duration::from_secs(1);
/// The probe whose work is done when user space asks for it.
const TCP_SOCKETS: &str = "tcp_sockets";

/// What the thread needs, once there is all of it.
struct Parts {
    kernel: SharedKernel,
    host: Arc<Host>,
}

/// The thread; it ends when this goes.
pub(super) struct GovernorThread {
    parts: mpsc::Sender<Parts>,
    stats: Arc<Mutex<GovernorStats>>,
}

fn numbers(stats: &Mutex<GovernorStats>) -> MutexGuard<'_, GovernorStats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GovernorThread {
    /// Starts it, unless there is no budget, or nothing to govern.
    pub(super) fn start(config: &Config, sandbox: &Sandbox) -> Result<Option<Self>, RunError> {
        let signals = config.signals;
        let any = signals.scheduler || signals.tcp || signals.block || signals.io != IoMode::Off;
        if config.governor.budget <= 0.0 || !any {
            return Ok(None);
        }
        let (parts, given) = mpsc::channel();
        let stats = Arc::<Mutex<GovernorStats>>::default();
        let governing = Governing::new(&config.governor, stats.clone());
        let sandbox = sandbox.clone();
        thread::Builder::new()
            .name("observer-govern".to_owned())
            .spawn(move || {
                sandbox.confine_or_warn(&Duty::Governor);
                if let Ok(parts) = given.recv() {
                    governing.run(&parts, &given);
                }
            })
            .map_err(cannot("start the governor's thread"))?;
        Ok(Some(Self { parts, stats }))
    }

    /// Lets it begin.
    pub(super) fn connect(&self, kernel: SharedKernel, host: Arc<Host>) {
        // Without a receiver it has ended.
        let _ended = self.parts.send(Parts { kernel, host });
    }

    /// What it says of itself; nothing until it has sampled once.
    pub(super) fn stats(&self) -> Box<dyn Fn() -> GovernorStats + Send + Sync> {
        let stats = self.stats.clone();
        Box::new(move || numbers(&stats).clone())
    }
}

/// The thread's own.
struct Governing {
    policy: Policy,
    governor: Governor,
    stats: Arc<Mutex<GovernorStats>>,
    /// When looks at all TCP sockets were last added up, and what they had taken by then.
    looks: (Instant, Duration),
    /// Their share of a core.
    looks_ratio: f64,
    begun: Instant,
}

impl Governing {
    fn new(settings: &GovernorSettings, stats: Arc<Mutex<GovernorStats>>) -> Self {
        let policy =
            Policy { budget: settings.budget, interval: settings.interval, restore_after: settings.restore_after };
        let begun = Instant::now();
        let governor = Governor::new(policy);
        Self { policy, governor, stats, looks: (begun, Duration::ZERO), looks_ratio: 0.0, begun }
    }

    /// Until the end. Whoever holds the other end of `end` says so by letting go.
    fn run(mut self, parts: &Parts, end: &mpsc::Receiver<Parts>) {
        let mut wait = self.policy.interval;
        loop {
            match end.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let costs = match self.sample(parts, end) {
                Ok(Some(costs)) => costs,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(
                        "what optional probes cost cannot be sampled, so that none is ever shed ({error}): that takes \
                         CAP_SYS_ADMIN and Linux 5.8, or kernel.bpf_stats_enabled = 1; governor.budget = 0 does without"
                    );
                    return;
                }
            };
            let now = self.begun.elapsed();
            let verdict = self.governor.sample(now, &costs);
            self.tell(parts, &costs);
            if let Some(action) = verdict.action {
                self.act(parts, action, &costs);
                self.tell(parts, &costs);
            }
            wait = if verdict.next == Next::Now { Duration::ZERO } else { self.policy.interval };
        }
    }

    /// What each signal took in one second; `None`: the end has come.
    fn sample(&mut self, parts: &Parts, end: &mpsc::Receiver<Parts>) -> io::Result<Option<Costs>> {
        let on = match Statistics::enable() {
            Ok(on) => Some(on),
            Err(_) if statistics::are_on_for_everybody() => None,
            Err(error) => return Err(error),
        };
        let (begun, before) = match lock(&parts.kernel).as_ref() {
            Some(kernel) => (Instant::now(), kernel.costs()),
            None => return Ok(None),
        };
        if !matches!(end.recv_timeout(SAMPLE), Err(RecvTimeoutError::Timeout)) {
            return Ok(None);
        }
        let looked = parts.host.looks_took();
        let costs = lock(&parts.kernel).as_ref().map(|kernel| {
            let after = kernel.costs();
            let seconds = begun.elapsed().as_secs_f64();
            let by_looks =
                (kernel.runs(TCP_SOCKETS) && !kernel.is_shed(Optional::Tcp.signal())).then(|| self.looks_ratio(looked));
            Optional::ALL.map(|signal| {
                let by_probes = kernel.signal_cost(signal.signal(), &before, &after).map(|cost| cost / 1e9 / seconds);
                by_probes.or(by_looks.filter(|_| signal == Optional::Tcp))
            })
        });
        drop(on);
        Ok(costs)
    }

    /// Looks at all TCP sockets come with scrapes: a second tells little of them.
    fn looks_ratio(&mut self, took: Duration) -> f64 {
        let (since, before) = self.looks;
        let elapsed = since.elapsed();
        if elapsed >= self.policy.interval {
            self.looks_ratio = took.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64();
            self.looks = (Instant::now(), took);
        }
        self.looks_ratio
    }

    fn act(&mut self, parts: &Parts, action: Action, costs: &Costs) {
        let (_, signal) = action.parts();
        let named: Vec<_> = Optional::ALL
            .iter()
            .zip(costs)
            .filter_map(|(signal, cost)| Some(format!("{} {:.3} %", signal.as_str(), (*cost)? * 100.0)))
            .collect();
        let total: f64 = costs.iter().flatten().sum::<f64>() * 100.0;
        let sampled = format!(
            "optional probes take {total:.3} % of a core ({}) of {:.3} % that they may (governor.budget)",
            named.join(", "),
            self.policy.budget * 100.0
        );
        let result = match action {
            Action::Shed(_) => parts.host.shed(signal),
            Action::Restore(_) => parts.host.restore(signal),
        };
        numbers(&self.stats).decided(action);
        match (action, result) {
            (Action::Shed(_), Ok(())) => {
                tracing::warn!("{sampled}: {} is shed, its metrics are absent until it is back", signal.as_str());
            }
            (Action::Restore(_), Ok(())) => tracing::info!("{sampled}: {} is measured again", signal.as_str()),
            (Action::Shed(_), Err(error)) => tracing::warn!("{sampled}: {} cannot be shed: {error}", signal.as_str()),
            (Action::Restore(_), Err(error)) => {
                tracing::warn!("{sampled}: {} cannot be measured again: {error}", signal.as_str());
                self.governor.failed(signal, self.begun.elapsed());
            }
        }
    }

    fn tell(&self, parts: &Parts, costs: &Costs) {
        let measures = |signal: Optional| {
            let kernel = lock(&parts.kernel);
            kernel.as_ref().is_some_and(|kernel| match signal {
                Optional::Tcp => kernel.runs(TCP_SOCKETS),
                Optional::Io => {
                    kernel.measures(signal.signal()) || kernel.measures(crate::kernel::signal::Signal::PageCache)
                }
                Optional::Block | Optional::Scheduler => kernel.measures(signal.signal()),
            })
        };
        let known = Optional::ALL.map(|signal| measures(signal).then(|| self.governor.is_shed(signal)));
        let mut stats = numbers(&self.stats);
        stats.budget = Some(self.policy.budget);
        stats.shed = known;
        // What was shed just now costs nothing any more.
        stats.costs = Optional::ALL.map(|signal| costs[signal as usize].filter(|_| !self.governor.is_shed(signal)));
    }
}

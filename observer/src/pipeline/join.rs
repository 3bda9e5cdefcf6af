//! Feeds the join of workloads and GPUs, once for each poll of the GPUs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::host::Host;
use crate::{
    correlate::{History, Join},
    gpu::Gpus,
    metrics::{JoinView, Metrics},
};

/// The join, and what it is fed from.
pub(super) struct Joining {
    gpus: Arc<Gpus>,
    host: Arc<Host>,
    metrics: Arc<Metrics>,
    /// GPUs are asked which processes they have.
    processes: bool,
    state: Mutex<State>,
}

struct State {
    join: Join,
    /// Name of the workload of each process, as of the last poll.
    names: HashMap<u32, Arc<str>>,
}

impl Joining {
    /// `history`: where it writes down what the GPUs of each workload do. `processes`: GPUs are asked which they have.
    pub(super) fn new(
        gpus: Arc<Gpus>,
        host: Arc<Host>,
        metrics: Arc<Metrics>,
        history: Arc<History>,
        processes: bool,
    ) -> Self {
        let state = State { join: Join::new(history), names: HashMap::new() };
        Self { gpus, host, metrics, processes, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workload of a process.
    pub(super) fn name(&self, pid: u32) -> Option<Arc<str>> {
        self.state().names.get(&pid).cloned()
    }

    pub(super) fn view(&self) -> JoinView {
        let available = self.processes && self.host.knows_processes() && self.gpus.view().is_available();
        let state = self.state();
        let workloads = state.join.workloads().map(|(name, joined)| (Arc::clone(name), joined.clone())).collect();
        JoinView { available, workloads }
    }

    /// Looks at what the GPUs thread saw last.
    fn look(&self) {
        let view = self.gpus.view();
        if !view.is_available() || !self.host.knows_processes() {
            return;
        }
        let names = self.host.names();
        let mut in_flight: HashMap<Arc<str>, u64> = HashMap::new();
        for entry in self.metrics.in_flight().unwrap_or_default() {
            *in_flight.entry(entry.workload).or_default() += entry.requests;
        }
        let mut state = self.state();
        let State { join, names: known } = &mut *state;
        join.snapshot(&view.snapshot, &|pid| names.get(&pid).cloned(), &|name| {
            in_flight.get(name).is_some_and(|requests| *requests > 0)
        });
        *known = names;
        let living = self.host.workloads();
        join.retain(|name| living.iter().any(|its| **its == *name));
    }
}

/// Joins until nobody serves any more.
pub(super) async fn follow(joining: Arc<Joining>, interval: Duration) {
    // Twice a poll, since the two are not in step: a snapshot that was seen before is passed over.
    let mut ticks = tokio::time::interval(interval / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let joining = joining.clone();
        if tokio::task::spawn_blocking(move || joining.look()).await.is_err() {
            return;
        }
    }
}

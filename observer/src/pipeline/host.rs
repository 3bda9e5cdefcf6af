//! Keeps the kernel side's list of workloads and their processes, and reads what it adds up for them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{SharedKernel, lock, sockets::SocketLooks};
use crate::{
    governor::Optional,
    host::{Slots, Snapshot},
    kernel::{KernelError, clock},
    metrics::Metrics,
    workload::{Identity, Places},
};

/// How often processes of workloads are looked for. The kernel side follows forks and exits by itself.
const LOOK: Duration = Duration::from_secs(2);

/// A workload, and how it served a request to a language model.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// Which.
    pub(super) identity: Arc<Identity>,
    /// The process that did.
    pub(super) pid: u32,
    /// The port; `None`: AF_UNIX.
    pub(super) port: Option<u16>,
}

/// Workloads and what is measured of them.
pub(super) struct Host {
    kernel: SharedKernel,
    metrics: Arc<Metrics>,
    /// Where processes of the host are found; `None`: nowhere.
    places: Option<Places>,
    ttl: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: Slots,
    /// Each workload, by slot.
    workloads: HashMap<u32, Arc<Identity>>,
    /// A process of each, by slot.
    servers: HashMap<u32, u32>,
    /// It was said that there are too many.
    full: bool,
    looks: SocketLooks,
}

impl Host {
    pub(super) fn new(kernel: SharedKernel, metrics: Arc<Metrics>, places: Option<Places>, ttl: Duration) -> Self {
        Self { kernel, metrics, places, ttl, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was measured so far. Nothing once the kernel side is detached.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut state = self.state();
        let State { slots, servers, looks, .. } = &mut *state;
        if let Some(places) = &self.places
            && looks.is_due()
        {
            looks.look(slots, servers, places, &self.kernel);
        }
        lock(&self.kernel).as_ref().map(|kernel| state.slots.snapshot(kernel)).unwrap_or_default()
    }

    /// CPU time that looks at all TCP sockets took so far.
    pub(super) fn looks_took(&self) -> Duration {
        self.state().looks.took()
    }

    /// Takes the probes of a signal away.
    pub(super) fn shed(&self, signal: Optional) -> Result<(), KernelError> {
        lock(&self.kernel).as_mut().map_or(Ok(()), |kernel| kernel.shed(signal.signal()))
    }

    /// Puts them back. What happened meanwhile counts for nobody.
    pub(super) fn restore(&self, signal: Optional) -> Result<(), KernelError> {
        let mut state = self.state();
        if signal == Optional::Tcp {
            state.slots.forget_sockets();
        }
        lock(&self.kernel).as_mut().map_or(Ok(()), |kernel| kernel.restore(signal.signal()))
    }

    /// Whether processes of this host can be told apart.
    pub(super) const fn knows_processes(&self) -> bool {
        self.places.is_some()
    }

    /// Name of the workload of each process that belongs to one.
    pub(super) fn names(&self) -> HashMap<u32, Arc<str>> {
        let state = self.state();
        let members = lock(&self.kernel).as_mut().and_then(|kernel| kernel.members().ok()).unwrap_or_default();
        let name = |slot: &u32| state.workloads.get(slot).map(|workload| workload.name.clone());
        members.into_iter().filter_map(|(pid, member)| Some((pid, name(&member.slot)?))).collect()
    }

    /// Names of all workloads.
    pub(super) fn workloads(&self) -> Vec<Arc<str>> {
        self.state().workloads.values().map(|workload| workload.name.clone()).collect()
    }

    /// A workload serves requests: it is measured from now on.
    fn serves(&self, served: &Served) {
        let Served { identity, pid, port } = served;
        let now = clock::now();
        let mut state = self.state();
        let key = identity.key.to_string();
        let registered = state.slots.register(lock(&self.kernel).as_ref(), &key, &identity.name, now);
        match registered {
            Ok(slot) => {
                self.measure_io(true);
                let State { slots, workloads, servers, looks, .. } = &mut *state;
                workloads.insert(slot, identity.clone());
                servers.insert(slot, *pid);
                if let Some(port) = *port {
                    let new = slots.serves_port(lock(&self.kernel).as_mut(), slot, port);
                    match new {
                        // What has happened before is not of its account.
                        Ok(true) => {
                            if let Some(places) = &self.places {
                                looks.look(slots, servers, places, &self.kernel);
                            }
                        }
                        Ok(false) => {}
                        Err(error) => tracing::warn!("{error}"),
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut state.full, true) {
                    tracing::warn!("{}: the host's part in its times is not measured: {error}", identity.name);
                }
                return;
            }
        }
        drop(state);
        self.look();
    }

    /// Looks for the processes of all workloads. Nobody who reads waits for that.
    fn look(&self) {
        let Some(places) = &self.places else { return };
        let (slots, workloads): (Vec<u32>, Vec<_>) =
            self.state().workloads.iter().map(|(slot, workload)| (*slot, workload.clone())).unzip();
        let members = places.members_of(&workloads);
        let now = clock::now();
        let mut state = self.state();
        for (slot, pids) in slots.into_iter().zip(members) {
            if let Some(server) = state.servers.get_mut(&slot)
                && !pids.contains(server)
                && let Some(pid) = pids.first()
            {
                *server = *pid;
            }
            if let Some(kernel) = lock(&self.kernel).as_mut()
                && let Err(error) = state.slots.put_members(kernel, slot, &pids.into_iter().collect(), now)
            {
                tracing::warn!("{error}");
            }
        }
        state.slots.alive(now).for_each(|name| self.metrics.touch(name));
        let expired = state.slots.expire(lock(&self.kernel).as_ref(), now, self.ttl);
        for slot in expired {
            state.workloads.remove(&slot);
            state.servers.remove(&slot);
            if let Some(kernel) = lock(&self.kernel).as_mut() {
                for result in [kernel.remove_served_ports(slot), kernel.remove_block_targets(slot)] {
                    if let Err(error) = result {
                        tracing::warn!("{error}");
                    }
                }
            }
        }
        self.measure_io(!state.workloads.is_empty());
    }

    /// Nobody pays for hooks on reads and writes while there is no workload.
    fn measure_io(&self, wanted: bool) {
        if let Some(Err(error)) = lock(&self.kernel).as_mut().map(|kernel| kernel.measure_io(wanted)) {
            tracing::warn!("reads and writes of workloads are not measured: {error}");
        }
    }
}

/// Follows workloads until nobody serves any more. Looking may take a while: it is not for Tokio's own threads.
pub(super) async fn follow(host: Arc<Host>, mut served: UnboundedReceiver<Served>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let host = host.clone();
        let work: Box<dyn FnOnce() + Send> = tokio::select! {
            served = served.recv() => match served {
                Some(served) => Box::new(move || host.serves(&served)),
                None => return,
            },
            _ = ticks.tick() => Box::new(move || host.look()),
        };
        if tokio::task::spawn_blocking(work).await.is_err() {
            return;
        }
    }
}

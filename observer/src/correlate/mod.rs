//! The one join: workloads, by the processes that they have on GPUs, with what those GPUs did.
//!
//! | file | what it is |
//! |---|---|
//! | `shares` | how one GPU's time and energy fall to the workloads that use it |
//! | `history` | what each workload's GPUs did of late, for requests to look up |
//!
//! [`Join`] takes a snapshot of all GPUs each time that there is a new one. It knows no traffic and asks no driver.

mod history;
mod shares;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

pub use self::history::{GpuUse, History};
use self::{
    history::Moment,
    shares::{Share, shares},
};
use crate::{
    gpu::{Gpu, Snapshot, snapshot::Identity},
    time::KernelTime,
};

/// Utilization below which a GPU is idle.
const IDLE: f64 = 0.05;
/// An idle GPU takes less than this part of its limit of power: some boards say 0 whatever they do.
const IDLE_POWER: f64 = 0.4;
/// Nothing is said of times between two snapshots that lie further apart: nobody looked.
const LONGEST_STEP: Duration = Duration::from_secs(30);

/// Energy of a workload's GPUs since it is known, in nanojoules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Energy {
    /// Of times in which no other process was on the GPU.
    pub exclusive: Option<u64>,
    /// Its part of times in which others were, by the share of SM time.
    pub estimated: Option<u64>,
}

/// What is known of a workload and its GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joined {
    /// GPUs, or MIG devices, on which it has processes now.
    pub gpus: Vec<Arc<Identity>>,
    /// Since it is known.
    pub energy: Energy,
    /// Time with requests in flight in which all its GPUs were idle; `None`: none of its GPUs says how busy it is.
    pub idle_in_flight: Option<Duration>,
}

/// What the last snapshot had of a GPU.
#[derive(Debug)]
struct Last {
    time: KernelTime,
    energy: Option<u64>,
}

/// The join.
#[derive(Debug, Default)]
pub struct Join {
    workloads: BTreeMap<Arc<str>, Joined>,
    last: HashMap<Arc<str>, Last>,
    /// When the last snapshot was taken.
    time: Option<KernelTime>,
    history: Arc<History>,
}

impl Join {
    /// One that knows nothing yet, and writes down what each workload's GPUs do.
    #[must_use]
    pub fn new(history: Arc<History>) -> Self {
        Self { history, ..Self::default() }
    }

    /// All workloads that ever had a process on a GPU.
    pub fn workloads(&self) -> impl Iterator<Item = (&Arc<str>, &Joined)> {
        self.workloads.iter()
    }

    /// Forgets workloads that are gone.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.workloads.retain(|name, _| is_known(name));
        self.history.retain(is_known);
    }

    /// Takes a new snapshot; one that was taken before changes nothing. `workload`: the name of the one that a process
    /// belongs to. `in_flight`: whether it has requests in flight.
    pub fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        workload: &dyn Fn(u32) -> Option<Arc<str>>,
        in_flight: &dyn Fn(&str) -> bool,
    ) {
        if self.time == snapshot.time {
            return;
        }
        let step = self.time.zip(snapshot.time).and_then(|(last, now)| now.since(last));
        self.time = snapshot.time;
        for joined in self.workloads.values_mut() {
            joined.gpus.clear();
        }
        let mut moments: BTreeMap<Arc<str>, Moment> = BTreeMap::new();
        // A GPU that is split up has no processes of its own: its parts have.
        let is_split =
            |gpu: &Gpu| snapshot.gpus.iter().any(|other| other.identity.parent.as_ref() == Some(&gpu.identity.uuid));
        for gpu in snapshot.gpus.iter().filter(|gpu| gpu.up && !is_split(gpu)) {
            let spent = self.spent(gpu);
            let shares = shares(gpu.processes.as_deref().unwrap_or_default(), workload);
            for (name, share) in shares {
                let joined = self.workloads.entry(Arc::clone(&name)).or_default();
                joined.gpus.push(Arc::clone(&gpu.identity));
                joined.energy.add(spent, share);
                moments.entry(name).or_default().add(gpu);
            }
        }
        let Some(time) = snapshot.time else { return };
        for (name, moment) in moments {
            let joined = self.workloads.entry(Arc::clone(&name)).or_default();
            if let Some(idle) = moment.is_idle() {
                let total = joined.idle_in_flight.get_or_insert_default();
                if idle && in_flight(&name) {
                    *total += step.filter(|step| *step <= LONGEST_STEP).unwrap_or_default();
                }
            }
            self.history.add(&name, time, moment);
        }
    }

    /// Millijoules since the snapshot before; `None`: not known.
    fn spent(&mut self, gpu: &Gpu) -> Option<u64> {
        let time = gpu.time?;
        let energy = gpu.fast.energy_millijoules;
        let last = self.last.insert(Arc::clone(&gpu.identity.uuid), Last { time, energy })?;
        time.since(last.time).filter(|step| *step <= LONGEST_STEP)?;
        // A counter that began anew tells nothing of the time before.
        energy?.checked_sub(last.energy?)
    }
}

impl Energy {
    /// Adds a workload's share of what a GPU spent.
    fn add(&mut self, millijoules: Option<u64>, share: Share) {
        let Some(millijoules) = millijoules else { return };
        let nanojoules = millijoules.saturating_mul(1_000_000);
        match share {
            Share::Whole => *self.exclusive.get_or_insert(0) += nanojoules,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a part, from 0 to 1, of what fits"
            )]
            Share::Part(part) => *self.estimated.get_or_insert(0) += (nanojoules as f64 * part) as u64,
            Share::Unknown => {}
        }
    }
}

/// Whether a GPU does nothing; `None`: not known.
fn is_idle(gpu: &Gpu) -> Option<bool> {
    let busy = gpu.fast.utilization? >= IDLE;
    let hot = gpu.fast.power_milliwatts.zip(gpu.slow.power_limit_milliwatts);
    #[expect(clippy::cast_precision_loss, reason = "milliwatts")]
    let hot = hot.is_some_and(|(power, limit)| power as f64 > IDLE_POWER * limit as f64);
    Some(!busy && !hot)
}

#[cfg(test)]
mod tests;

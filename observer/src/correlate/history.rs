//! What each workload's GPUs did of late, for requests to look up.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::is_idle;
use crate::{gpu::Gpu, time::KernelTime};

/// Moments kept of each workload: an hour at one a second.
const MOMENTS: usize = 3600;
/// A request that falls between two moments has the one before its end, if that is no older than this.
const NEAR: Duration = Duration::from_secs(2);

/// What a workload's GPUs did over a request's time: means over the GPUs and the moments looked at. What `None` is could
/// not be measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuUse {
    /// Share of time in which a kernel ran, 0 to 1.
    pub utilization: Option<f64>,
    /// Share of time in which device memory was read or written, 0 to 1.
    pub memory_utilization: Option<f64>,
    /// Whether one of them was held down by heat, power or the hardware.
    pub throttled: Option<bool>,
    /// Watts, of all of them together.
    pub power: Option<f64>,
    /// Moments that this rests on.
    pub samples: usize,
}

/// All GPUs of one workload at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    gpus: u32,
    utilization: Sum,
    memory_utilization: Sum,
    power: Sum,
    /// GPUs that say whether they are held down, and those that are.
    judged: u32,
    throttled: u32,
    idle_known: u32,
    idle: u32,
}

/// A sum, and how many it is of.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    sum: f64,
    count: u32,
}

impl Sum {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1;
        }
    }

    fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

impl Moment {
    pub(super) fn add(&mut self, gpu: &Gpu) {
        self.gpus += 1;
        self.utilization.add(gpu.fast.utilization);
        self.memory_utilization.add(gpu.fast.memory_utilization);
        #[expect(clippy::cast_precision_loss, reason = "milliwatts")]
        self.power.add(gpu.fast.power_milliwatts.map(|power| power as f64 / 1000.0));
        if let Some(slowdown) = gpu.fast.slowdown {
            self.judged += 1;
            self.throttled += u32::from(slowdown.is_throttled());
        }
        if let Some(idle) = is_idle(gpu) {
            self.idle_known += 1;
            self.idle += u32::from(idle);
        }
    }

    /// Whether all of them do nothing; `None`: one does not say.
    pub(super) fn is_idle(&self) -> Option<bool> {
        (self.gpus > 0 && self.idle_known == self.gpus).then_some(self.idle == self.gpus)
    }

    fn total_power(&self) -> Option<f64> {
        (self.gpus > 0 && self.power.count == self.gpus).then_some(self.power.sum)
    }
}

type Moments = VecDeque<(KernelTime, Moment)>;

/// The last hour of all workloads.
#[derive(Debug, Default)]
pub struct History(Mutex<HashMap<Arc<str>, Moments>>);

impl History {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Moments>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, workload: &Arc<str>, time: KernelTime, moment: Moment) {
        let mut all = self.lock();
        let moments = all.entry(Arc::clone(workload)).or_default();
        if moments.len() >= MOMENTS {
            moments.pop_front();
        }
        moments.push_back((time, moment));
    }

    pub(super) fn retain(&self, is_known: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| is_known(name));
    }

    /// What a workload's GPUs did from `start` to `end`; `None`: not known.
    #[must_use]
    pub fn over(&self, workload: &str, start: KernelTime, end: KernelTime) -> Option<GpuUse> {
        let all = self.lock();
        let moments = all.get(workload)?;
        let from = moments.partition_point(|(time, _)| *time < start);
        let to = moments.partition_point(|(time, _)| *time <= end);
        if from < to {
            return Some(mean(moments.range(from..to)));
        }
        let (time, _) = moments.get(to.checked_sub(1)?)?;
        (end.saturating_since(*time) <= NEAR).then(|| mean(moments.range(to - 1..to)))
    }
}

fn mean<'a>(moments: impl ExactSizeIterator<Item = &'a (KernelTime, Moment)>) -> GpuUse {
    let samples = moments.len();
    let (mut utilization, mut memory, mut power) = (Sum::default(), Sum::default(), Sum::default());
    let mut throttled = None;
    for (_, moment) in moments {
        utilization.add(moment.utilization.mean());
        memory.add(moment.memory_utilization.mean());
        power.add(moment.total_power());
        if moment.judged > 0 {
            *throttled.get_or_insert(false) |= moment.throttled > 0;
        }
    }
    GpuUse {
        utilization: utilization.mean(),
        memory_utilization: memory.mean(),
        throttled,
        power: power.mean(),
        samples,
    }
}

//! What the scheduler did with workloads' threads.

use super::SchedulerStats;
use crate::kernel::{Kernel, signal::Signal};

/// What all CPUs have in a slot; `None`: nothing counts there.
pub(super) fn read(kernel: &Kernel, slot: u32) -> Option<SchedulerStats> {
    if !kernel.measures(Signal::Scheduler) {
        return None;
    }
    let cpus: Vec<SchedulerStats> = kernel.per_cpu("SCHEDULER", slot).ok()?;
    let mut sum = SchedulerStats::default();
    cpus.iter().for_each(|cpu| sum.add(cpu));
    Some(sum)
}

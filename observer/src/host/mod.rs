//! What the host did meanwhile: what kernel maps have added up for each workload, read when somebody asks.

mod block;
mod io;
mod scheduler;
mod slots;
mod tcp;

use std::sync::Arc;

pub use observer_common::host::{Histogram, SchedulerStats};

pub use self::{
    block::{BlockStats, Disks, Operation},
    io::{Flow, Io, IoStats, Row, Seen},
    slots::{Full, Slots},
    tcp::Tcp,
};
use crate::kernel::Kernel;

/// What was measured of a workload since it got its slot. `None`: that signal is off, or this kernel has no hook for
/// it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Running, waiting to run, page faults.
    pub scheduler: Option<SchedulerStats>,
    /// TCP of connections to its language models.
    pub tcp: Tcp,
    /// Reads and writes.
    pub io: Io,
    /// Requests to block devices.
    pub block: Option<Disks>,
}

impl Measured {
    /// What the kernel's maps hold in a slot now.
    fn read(kernel: &Kernel, slot: u32) -> Self {
        Self {
            scheduler: scheduler::read(kernel, slot),
            tcp: Tcp::read(kernel, slot),
            io: Io::read(kernel, slot),
            block: block::read(kernel, slot),
        }
    }

    /// Takes away what an earlier look found.
    fn subtract(&mut self, earlier: &Self) {
        if let (Some(now), Some(earlier)) = (&mut self.scheduler, &earlier.scheduler) {
            now.subtract(earlier);
        }
        self.tcp.subtract(&earlier.tcp);
        self.io.subtract(&earlier.io);
        if let (Some(now), Some(earlier)) = (&mut self.block, &earlier.block) {
            block::subtract(now, earlier);
        }
    }

    /// Adds another workload of the same name.
    fn add(&mut self, other: &Self) {
        match (&mut self.scheduler, &other.scheduler) {
            (Some(sum), Some(other)) => sum.add(other),
            (sum @ None, other) => *sum = *other,
            (Some(_), None) => {}
        }
        self.tcp.add(&other.tcp);
        self.io.add(&other.io);
        block::add(&mut self.block, &other.block);
    }
}

/// All workloads that have a slot, by name; those of one name are one.
pub type Snapshot = Vec<(Arc<str>, Measured)>;

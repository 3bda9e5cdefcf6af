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
use crate::kernel::{Kernel, signal::Signal};

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

    /// Leaves out what is shed: it is not known, rather than as it was.
    fn hide(&mut self, is_shed: impl Fn(Signal) -> bool) {
        if is_shed(Signal::Scheduler) {
            self.scheduler = None;
        }
        if is_shed(Signal::Block) {
            self.block = None;
        }
        if is_shed(Signal::Io) {
            self.io.seen = Seen { sockets: self.io.seen.sockets, ..Seen::default() };
        }
        if is_shed(Signal::Tcp) {
            (self.tcp.unsent, self.tcp.overflows) = (None, None);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shed_is_absent_and_the_rest_stays() {
        let all = || Measured {
            scheduler: Some(SchedulerStats::default()),
            tcp: Tcp { retransmits: Some(1), unsent: Some(2), overflows: Some(3), ..Tcp::default() },
            io: Io {
                seen: Seen { files: true, files_timed: true, sockets: true, sockets_timed: true, page_cache: true },
                ..Io::default()
            },
            block: Some(Disks::new()),
        };
        let hidden = |shed| {
            let mut measured = all();
            measured.hide(|signal| signal == shed);
            measured
        };
        assert_eq!(hidden(Signal::Scheduler), Measured { scheduler: None, ..all() });
        assert_eq!(hidden(Signal::Block), Measured { block: None, ..all() });
        let io = hidden(Signal::Io).io;
        assert_eq!(io.seen, Seen { sockets: true, ..Seen::default() });
        assert!(io.fills().is_none() && io.file_reads().is_none() && io.rows().all(|row| row.kind == "socket"));
        let tcp = hidden(Signal::Tcp).tcp;
        assert_eq!((tcp.retransmits, tcp.unsent, tcp.overflows), (Some(1), None, None));
    }
}

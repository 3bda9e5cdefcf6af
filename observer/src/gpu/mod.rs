//! GPUs: a thread asks the driver, everybody else reads the last [`Snapshot`].
//!
//! | file | what it is |
//! |---|---|
//! | `snapshot` | plain values of all GPUs at one moment, with their units |
//! | `counter` | totals that survive a driver that starts over |
//! | `xid` | XID errors counted since the start |
//! | `thread` | the one thread that calls the driver: heartbeat, back-off, release, end |
//! | `nvml` | NVIDIA's driver by its library |
//! | `examine` | one look at all of it, for `observer doctor` |
//!
//! Another vendor's driver is another [`Source`]. Nothing here changes a setting of a GPU.

mod counter;
mod examine;
pub mod nvml;
pub mod snapshot;
mod thread;
mod xid;

pub use self::{
    counter::Total,
    examine::{Examination, ExaminedGpu, examine},
    snapshot::{Gpu, Snapshot, State, View},
    thread::{Gpus, NoAnswer, Timing},
    xid::Xids,
};
use crate::{kernel::clock, time::KernelTime};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a driver cannot be asked, or not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is none here: nothing is wrong, and it is looked for again now and then.
    Absent(String),
    /// It should work and does not: it is tried again soon.
    Failed(String),
}

/// What ended the use of a session, when it was not [`Trouble`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The driver is to be let go.
    Release,
    /// It is to be opened anew: GPUs came, or one that is gone may be back.
    Reopen,
    /// The observer ends.
    Stop,
}

/// A driver that can be asked about GPUs.
pub trait Source: Send {
    /// Opens the driver, lets `work` ask it, and closes it: nothing of it is left open or loaded afterwards.
    ///
    /// # Errors
    /// Why it cannot be opened, or what `work` said.
    fn session(
        &mut self,
        shared: &Shared,
        work: &mut dyn FnMut(&mut dyn Session) -> Result<End, Trouble>,
    ) -> Result<End, Trouble>;

    /// All GPUs that were ever seen, without values.
    fn known(&self) -> Vec<Gpu>;
}

/// An open driver.
pub trait Session {
    /// What it is.
    fn driver(&self) -> &snapshot::Driver;

    /// Values of all GPUs as of now; those that change slowly only if asked for, else as they were.
    ///
    /// # Errors
    /// If the driver is lost, or all GPUs are.
    fn poll(&mut self, slow: bool, shared: &Shared) -> Result<Vec<Gpu>, Trouble>;

    /// Whether there are GPUs that this session does not know.
    fn has_more(&self) -> bool;
}

/// What a session tells while it works.
#[derive(Debug, Default)]
pub struct Shared {
    heartbeat: AtomicU64,
    /// XID errors.
    pub xids: Xids,
}

impl Shared {
    /// Says that the driver's calls still return.
    pub fn beat(&self) {
        self.heartbeat.store(clock::now().as_nanos(), Relaxed);
    }

    fn last_beat(&self) -> KernelTime {
        KernelTime::from_nanos(self.heartbeat.load(Relaxed))
    }
}

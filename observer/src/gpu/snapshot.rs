//! Plain values of all GPUs at one moment. What is `None` could not be measured: the driver does not support it there,
//! or did not answer.

use std::{path::PathBuf, sync::Arc};

use super::Xids;
use crate::time::KernelTime;

/// Whether GPUs can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody knows yet.
    #[default]
    Starting,
    /// They are asked.
    Up,
    /// There is no driver, or it has no GPU; why, in words.
    Absent(String),
    /// The driver should work and does not; why, in words.
    Failed(String),
    /// The driver was let go, so that it can be unloaded.
    Released,
}

impl State {
    /// One word for programs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Absent(_) => "absent",
            Self::Failed(_) => "failed",
            Self::Released => "released",
        }
    }

    /// Why it is so, in words; empty: there is nothing to say.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Absent(reason) | Self::Failed(reason) => reason,
            Self::Starting | Self::Up | Self::Released => "",
        }
    }
}

/// A driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// Its version, as 580.95.05.
    pub version: String,
    /// The newest CUDA that it supports, as 13.0; empty: not known.
    pub cuda: String,
    /// The library that was loaded, as a path or by the loader's name for it.
    pub library: PathBuf,
}

/// All GPUs at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Whether they can be asked.
    pub state: State,
    /// The driver, while there is one.
    pub driver: Option<Arc<Driver>>,
    /// All GPUs that were ever seen, in the driver's order, each followed by its MIG devices.
    pub gpus: Vec<Gpu>,
    /// When the values were read, on the kernel's clock; `None`: there are none.
    pub time: Option<KernelTime>,
}

/// Which GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Index of the GPU, as `0`; of a MIG device the GPU's and its own, as `0:1`.
    pub index: Arc<str>,
    /// Unique and for ever the same.
    pub uuid: Arc<str>,
    /// Name of the product.
    pub name: Arc<str>,
    /// Of a MIG device: UUID of the GPU it is part of.
    pub parent: Option<Arc<str>>,
}

/// A GPU, or a MIG device, which has values of its own where the driver gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Which one.
    pub identity: Arc<Identity>,
    /// Whether it answers; if not, it has no values.
    pub up: bool,
    /// When its values were read, on the kernel's clock.
    pub time: Option<KernelTime>,
    /// Values that change fast.
    pub fast: Fast,
    /// Values that change slowly: read less often.
    pub slow: Slow,
    /// Processes with a compute context; `None`: not known.
    pub processes: Option<Vec<Process>>,
}

impl Gpu {
    /// One that does not answer.
    #[must_use]
    pub fn down(identity: Arc<Identity>) -> Self {
        Self { identity, up: false, time: None, fast: Fast::default(), slow: Slow::default(), processes: None }
    }
}

/// Values that change fast.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fast {
    /// Share of time in which a kernel ran, 0 to 1, over the driver's last 1/6 s to 1 s. Some boards always say 0: look
    /// at the power as well before you rely on it.
    pub utilization: Option<f64>,
    /// Share of time in which device memory was read or written, 0 to 1, over the same time.
    pub memory_utilization: Option<f64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Milliwatts, over the last second on most boards.
    pub power_milliwatts: Option<u64>,
    /// Millijoules, ever growing, also over a reload of the driver.
    pub energy_millijoules: Option<u64>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Hertz.
    pub sm_clock: Option<u64>,
    /// Hertz.
    pub memory_clock: Option<u64>,
    /// Why clocks are held down now.
    pub slowdown: Option<Slowdown>,
    /// Bytes over PCIe, ever growing.
    pub pcie: Traffic,
    /// Bytes over all NVLinks, ever growing.
    pub nvlink: Traffic,
    /// Performance counters since the poll before.
    pub gpm: Gpm,
}

/// Why clocks are held down: the driver's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowdown(pub u64);

impl Slowdown {
    /// Power cap, slowdown by the hardware, sync boost, heat (software, hardware), power brake.
    const SLOWED: u64 = 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80;

    /// Whether clocks are lower than the load would have them: not for idleness or by configuration.
    #[must_use]
    pub const fn is_throttled(self) -> bool {
        self.0 & Self::SLOWED != 0
    }
}

/// Bytes in each direction, as the GPU sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the GPU.
    pub transmit: Option<u64>,
    /// To the GPU.
    pub receive: Option<u64>,
}

/// Shares, 0 to 1, between two polls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gpm {
    /// Of time in which an SM had a warp, over all SMs.
    pub sm_active: Option<f64>,
    /// Of the warps that would fit that were resident.
    pub sm_occupancy: Option<f64>,
    /// Of time in which tensor cores worked.
    pub tensor_active: Option<f64>,
    /// Of the bandwidth of device memory that was used.
    pub dram_active: Option<f64>,
}

/// Values that change slowly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slow {
    /// Milliwatts.
    pub power_limit_milliwatts: Option<u64>,
    /// Time held down, by reason, in nanoseconds, ever growing.
    pub throttled: Vec<(&'static str, u64)>,
    /// Errors of memory that were corrected, ever growing.
    pub ecc_corrected: Option<u64>,
    /// Errors of memory that were not, ever growing.
    pub ecc_uncorrected: Option<u64>,
    /// Rows of memory replaced by spare ones.
    pub row_remap: Option<RowRemap>,
}

/// Rows of memory replaced by spare ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowRemap {
    /// For correctable errors, ever growing.
    pub correctable: u64,
    /// For uncorrectable errors, ever growing.
    pub uncorrectable: u64,
    /// One waits for a reset of the GPU.
    pub pending: bool,
    /// One failed: no spare row is left.
    pub failed: bool,
}

/// A process on a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Its id in the initial PID namespace, where this observer is in that one.
    pub pid: u32,
    /// Bytes.
    pub memory: Option<u64>,
    /// Share of time in which its kernels ran, 0 to 1, over the driver's last sample period.
    pub sm_utilization: Option<f64>,
}

/// What a scrape sees.
#[derive(Clone, Debug)]
pub struct View {
    /// The last values. They are old if the driver is unresponsive: then only identities hold.
    pub snapshot: Arc<Snapshot>,
    /// A call into the driver has not returned for too long, or polling takes far too long.
    pub unresponsive: bool,
    /// XID errors since the start.
    pub xids: Vec<XidCount>,
}

impl View {
    /// With all XID errors so far.
    pub(super) fn new(snapshot: Arc<Snapshot>, unresponsive: bool, xids: &Xids) -> Self {
        Self { snapshot, unresponsive, xids: xids.counts() }
    }

    /// Whether GPUs answer now.
    #[must_use]
    pub fn is_available(&self) -> bool {
        !self.unresponsive && self.snapshot.state == State::Up
    }
}

/// XID errors of one kind on one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidCount {
    /// The GPU.
    pub identity: Arc<Identity>,
    /// Number of the error.
    pub xid: u64,
    /// How often, since the start.
    pub count: u64,
}

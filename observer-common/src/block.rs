//! What block devices did for workloads: added up in a per-CPU hash by workload and device.

use core::mem::{offset_of, size_of};

use crate::host::{Histogram, Plain};

/// Most pairs of a workload and a device.
pub const TARGETS: u32 = 128;
/// Most requests under way that are followed.
pub const REQUESTS: u32 = 8192;
/// `DISK_NAME_LEN` of the kernel, in words.
pub const NAME_WORDS: usize = 8;

/// Whose request goes where.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Slot of the workload.
    pub slot: u32,
    /// Name of the whole device, as its bytes lie in memory, with zeros after it.
    pub disk: [u32; NAME_WORDS],
}
const _: () = assert!(size_of::<Target>() == 36 && offset_of!(Target, disk) == 4);
// SAFETY: integers only, no padding.
unsafe impl Plain for Target {}

impl Target {
    /// The name's bytes, with whatever follows its first zero.
    #[must_use]
    pub fn bytes(&self) -> [u8; 4 * NAME_WORDS] {
        let mut bytes = [0; 4 * NAME_WORDS];
        for (place, word) in bytes.chunks_exact_mut(4).zip(self.disk) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// What a request does, as `/proc/diskstats` has it: an index into [`BlockStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// Data comes from the device.
    Read,
    /// Data goes to the device.
    Write,
    /// The device may forget.
    Discard,
    /// The device shall forget nothing.
    Flush,
}

/// How many there are.
pub const OPERATIONS: usize = Operation::ALL.len();

impl Operation {
    /// All of them, by index.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Discard, Self::Flush];

    /// Its value of the label `operation`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Discard => "discard",
            Self::Flush => "flush",
        }
    }

    /// Of a request with these flags (`REQ_OP_*` in the lowest 8 bits) and so many bytes; `None`: not I/O, but a command
    /// of a driver's own. The numbers are the same in every kernel since 4.10.
    #[must_use]
    #[inline(always)]
    pub const fn of(flags: u32, bytes: u32) -> Option<Self> {
        const REQ_OP_FLUSH: u32 = 2;
        const REQ_OP_DISCARD: u32 = 3;
        const REQ_OP_DRV_IN: u32 = 34;
        let operation = flags & 0xff;
        if operation >= REQ_OP_DRV_IN {
            None
        } else if operation == REQ_OP_DISCARD {
            Some(Self::Discard)
        } else if operation == REQ_OP_FLUSH || operation & 1 == 1 && bytes == 0 {
            // What `fsync` asks for is a write of nothing.
            Some(Self::Flush)
        } else if operation & 1 == 1 {
            Some(Self::Write)
        } else {
            Some(Self::Read)
        }
    }
}

/// A request under way, by its address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Whose it is.
    pub target: Target,
    /// [`Operation`].
    pub operation: u32,
    /// When it was made.
    pub started: u64,
    /// When it was last given to the device's driver; 0: not yet.
    pub issued: u64,
}
const _: () = assert!(size_of::<Request>() == 56 && offset_of!(Request, started) == 40);
// SAFETY: integers only, no padding.
unsafe impl Plain for Request {}

/// What one device did for one workload.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockStats {
    /// Time at the device, by [`Operation`].
    pub device: [Histogram; OPERATIONS],
    /// Time from being made to being given to the device.
    pub queue: Histogram,
    /// Bytes, by [`Operation`].
    pub bytes: [u64; OPERATIONS],
}
const _: () = assert!(size_of::<BlockStats>() == 5 * size_of::<Histogram>() + 32);
// SAFETY: integers only, no padding.
unsafe impl Plain for BlockStats {}

impl Default for BlockStats {
    fn default() -> Self {
        Self::ZERO
    }
}

impl BlockStats {
    /// Nothing yet.
    pub const ZERO: Self = {
        let none = Histogram { counts: [0; crate::host::BUCKETS], nanoseconds: 0 };
        Self { device: [none; OPERATIONS], queue: none, bytes: [0; OPERATIONS] }
    };

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        self.device.iter_mut().zip(&other.device).for_each(|(sum, more)| sum.add(more));
        self.queue.add(&other.queue);
        self.bytes.iter_mut().zip(other.bytes).for_each(|(sum, more)| *sum = sum.wrapping_add(more));
    }

    /// Takes away what an earlier look at the same one counted.
    pub fn subtract(&mut self, earlier: &Self) {
        self.device.iter_mut().zip(&earlier.device).for_each(|(now, less)| now.subtract(less));
        self.queue.subtract(&earlier.queue);
        self.bytes.iter_mut().zip(earlier.bytes).for_each(|(now, less)| *now = now.saturating_sub(less));
    }
}

macro_rules! offsets {
    ($($(#[doc = $doc:literal])+ $field:ident: $structure:literal, $path:literal;)+) => {
        /// Offsets into structures of the running kernel, in `.rodata`; 0 where it has no such member, and the probes
        /// are off.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct BlockConfig { $($(#[doc = $doc])+ pub $field: u32),+ }

        impl BlockConfig {
            /// How many there are.
            pub const WORDS: usize = size_of::<Self>() / 4;
            /// Zeros, which the load replaces.
            pub const ZERO: Self = Self { $($field: 0),+ };
            /// Structures and members, in the order of the words.
            pub const NEEDS: &'static [(&'static str, &'static str)] = &[$(($structure, $path)),+];

            /// The same, as the words that lie in memory, each what `offset` says of its structure and member.
            pub fn words(offset: impl Fn(&'static str, &'static str) -> u32) -> [u32; Self::WORDS] {
                [$(offset($structure, $path)),+]
            }
        }
    };
}

offsets! {
    /// The request's queue.
    request_queue: "request", "q";
    /// Operation and flags.
    request_flags: "request", "cmd_flags";
    /// Bytes that are not done yet.
    request_bytes: "request", "__data_len";
    /// The queue's device.
    queue_disk: "request_queue", "disk";
    /// The device's name.
    disk_name: "gendisk", "disk_name";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_diskstats() {
        let of = |flags, bytes| Operation::of(flags, bytes).map(Operation::as_str);
        assert_eq!(of(0, 4096), Some("read"));
        assert_eq!(of(1 | 1 << 11, 4096), Some("write"));
        assert_eq!(of(1 | 1 << 18, 0), Some("flush"));
        assert_eq!(of(2, 0), Some("flush"));
        assert_eq!(of(3, 1 << 20), Some("discard"));
        assert_eq!(of(9, 1 << 20), Some("write"));
        assert_eq!(of(34, 512), None);
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
    }

    #[test]
    fn later_less_earlier_is_what_was_added_between() {
        let mut step = BlockStats::ZERO;
        step.device[1].counts[7] = 2;
        step.queue.nanoseconds = 9;
        step.bytes = [1, 2, 3, 4];
        let mut total = step;
        total.add(&step);
        let earlier = step;
        total.subtract(&earlier);
        assert_eq!(total, step);
    }
}

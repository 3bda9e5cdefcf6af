//! What processes of workloads read and write, added up in per-CPU arrays that are indexed by the workload's slot.

use core::mem::{offset_of, size_of};

use crate::host::{Histogram, Plain};

/// Regular files and block devices.
pub const FILE: u32 = 0;
/// Pipes and FIFOs.
pub const PIPE: u32 = 1;
/// Sockets of any family.
pub const SOCKET: u32 = 2;
/// How many kinds there are.
pub const KINDS: u32 = 3;
/// To the process.
pub const READ: u32 = 0;
/// From the process.
pub const WRITE: u32 = 1;

/// Place of a kind and a direction in [`IoStats::flows`].
#[must_use]
#[inline(always)]
pub const fn flow(kind: u32, direction: u32) -> usize {
    (kind * 2 + direction) as usize
}

/// Calls on one kind of file, in one direction, that did not fail.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// How long they took, where that is measured.
    pub latency: Histogram,
    /// What they moved.
    pub bytes: u64,
    /// How many they were.
    pub operations: u64,
}
const _: () = assert!(size_of::<Flow>() == size_of::<Histogram>() + 16);
// SAFETY: integers only, no padding.
unsafe impl Plain for Flow {}

/// All I/O of one workload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoStats {
    /// By [`flow`].
    pub flows: [Flow; 2 * KINDS as usize],
    /// Bytes read from files that are weights: a part of what is read from files.
    pub weights_read: u64,
    /// Bytes read from other files: the rest. On its own, since a difference of two counters can go backwards.
    pub others_read: u64,
    /// Bytes that came into the page cache from files that are weights.
    pub weights_filled: u64,
    /// Bytes that came into the page cache from other files.
    pub others_filled: u64,
}
const _: () = assert!(size_of::<IoStats>() == 6 * size_of::<Flow>() + 32);
const _: () = assert!(offset_of!(IoStats, weights_read) == 6 * size_of::<Flow>());
// SAFETY: integers only, no padding.
unsafe impl Plain for IoStats {}

impl IoStats {
    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        for (flow, more) in self.flows.iter_mut().zip(&other.flows) {
            flow.latency.add(&more.latency);
        }
        let mut other = *other;
        for (value, more) in self.counters().zip(other.counters()) {
            *value = value.wrapping_add(*more);
        }
    }

    /// Takes away what an earlier look at the same one counted.
    pub fn subtract(&mut self, earlier: &Self) {
        for (flow, less) in self.flows.iter_mut().zip(&earlier.flows) {
            flow.latency.subtract(&less.latency);
        }
        let mut earlier = *earlier;
        for (value, less) in self.counters().zip(earlier.counters()) {
            *value = value.saturating_sub(*less);
        }
    }

    fn counters(&mut self) -> impl Iterator<Item = &mut u64> {
        let of_flows = self.flows.iter_mut().flat_map(|flow| [&mut flow.bytes, &mut flow.operations]);
        of_flows.chain([
            &mut self.weights_read,
            &mut self.others_read,
            &mut self.weights_filled,
            &mut self.others_filled,
        ])
    }
}

/// Whether a file's name is that of weights. `last` are its last 16 bytes, little endian; bytes before its beginning do
/// not matter.
#[must_use]
#[inline(always)]
pub const fn is_weights(length: u32, last: [u64; 2]) -> bool {
    const SAFETENSORS: [u64; 2] = [u32::from_le_bytes(*b".saf") as u64, u64::from_le_bytes(*b"etensors")];
    const GGUF: u64 = u64::from_le_bytes(*b"\0\0\0.gguf") >> 24;
    const BIN: u64 = u32::from_le_bytes(*b".bin") as u64;
    const PT: u64 = u64::from_le_bytes(*b"\0\0\0\0\0.pt") >> 40;
    let [before, end] = last;
    (length >= 12 && end == SAFETENSORS[1] && before >> 32 == SAFETENSORS[0])
        || (length >= 5 && end >> 24 == GGUF)
        || (length >= 4 && end >> 32 == BIN)
        || (length >= 3 && end >> 40 == PT)
}

/// Whether a name can be that of a blob of a model store: the SHA-256 of its content (Hugging Face's cache), also after
/// `sha256-` (Ollama's).
#[must_use]
#[inline(always)]
pub const fn can_be_blob(length: u32) -> bool {
    length == 64 || length == 71
}

/// Name of the folder that such blobs are in; what is before it in `last` does not matter.
#[must_use]
#[inline(always)]
pub const fn is_blobs(length: u32, last: [u64; 2]) -> bool {
    length == 5 && last[1] >> 24 == u64::from_le_bytes(*b"\0\0\0blobs") >> 24
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(name: &str) -> (u32, [u64; 2]) {
        // What lies before a short name in memory.
        let mut bytes = *b"garbage.ggufX.pt";
        let end = &name.as_bytes()[name.len().saturating_sub(16)..];
        bytes[16 - end.len()..].copy_from_slice(end);
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        (name.len() as u32, [word(0), word(8)])
    }

    #[test]
    fn weights_are_known_by_their_names() {
        let judge = |name| {
            let (length, last) = parts(name);
            is_weights(length, last)
        };
        for name in ["model-00001-of-00002.safetensors", ".safetensors", "a.gguf", "x.bin", "y.pt", "pytorch_model.bin"]
        {
            assert!(judge(name), "{name}");
        }
        for name in
            ["", "t", "pt", "bin", "gguf", "config.json", "a.gguf.part", "a.pth", "x.ggu", "safetensors", "a.BIN"]
        {
            assert!(!judge(name), "{name}");
        }
    }

    #[test]
    fn blobs_of_model_stores_are_known_by_their_folder() {
        let judge = |name| {
            let (length, last) = parts(name);
            is_blobs(length, last)
        };
        assert!(judge("blobs") && !judge("blob") && !judge("xblobs") && !judge(""));
        let hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert!(can_be_blob(hash.len() as u32) && can_be_blob("sha256-".len() as u32 + 64) && !can_be_blob(40));
    }

    #[test]
    fn later_less_earlier_is_what_was_added_between() {
        let mut step =
            IoStats { weights_read: 5, others_read: 6, weights_filled: 7, others_filled: 9, ..IoStats::default() };
        for (number, flow) in (1_u32..).zip(&mut step.flows) {
            flow.bytes = u64::from(number) * 100;
            flow.operations = u64::from(number);
            flow.latency.counts[3] = u64::from(number);
            flow.latency.nanoseconds = 7;
        }
        let mut total = step;
        total.add(&step);
        total.subtract(&step);
        assert_eq!(total, step);
    }

    #[test]
    fn each_flow_has_a_place_of_its_own() {
        let mut places: [bool; 2 * KINDS as usize] = Default::default();
        for kind in [FILE, PIPE, SOCKET] {
            for direction in [READ, WRITE] {
                assert!(!core::mem::replace(&mut places[flow(kind, direction)], true));
            }
        }
    }
}

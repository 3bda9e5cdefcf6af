//! What block devices did for workloads.

use std::collections::BTreeMap;

use observer_common::block::Target;
pub use observer_common::block::{BlockStats, Operation};

use crate::kernel::{Kernel, signal::Signal};

/// By the device's name, as in `/sys/block`.
pub type Disks = BTreeMap<String, BlockStats>;

/// What the kernel's map holds for a slot; `None`: nothing counts there.
pub(super) fn read(kernel: &Kernel, slot: u32) -> Option<Disks> {
    if !kernel.measures(Signal::Block) {
        return None;
    }
    let mut disks = Disks::new();
    for (target, stats) in kernel.block_targets(slot).ok()? {
        disks.entry(name(&target)).or_default().add(&stats);
    }
    Some(disks)
}

fn name(target: &Target) -> String {
    let bytes = target.bytes();
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    // As the folder in `/sys/block` has it.
    String::from_utf8_lossy(name).replace('/', "!")
}

/// Takes away what an earlier look found.
pub(super) fn subtract(disks: &mut Disks, earlier: &Disks) {
    for (name, earlier) in earlier {
        if let Some(now) = disks.get_mut(name) {
            now.subtract(earlier);
        }
    }
}

/// Adds another workload of the same name.
pub(super) fn add(sum: &mut Option<Disks>, other: &Option<Disks>) {
    for (name, stats) in other.iter().flatten() {
        sum.get_or_insert_default().entry(name.clone()).or_default().add(stats);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(entries: &[(&str, u64)]) -> Disks {
        let stats = |bytes: u64| BlockStats { bytes: [bytes, 0, 0, 0], ..BlockStats::ZERO };
        entries.iter().map(|(name, bytes)| ((*name).to_owned(), stats(*bytes))).collect()
    }

    #[test]
    fn names_end_at_the_first_zero() {
        let mut target = Target { slot: 3, ..Target::default() };
        for (word, text) in target.disk.iter_mut().zip([*b"ccis", *b"s/c0", *b"d0\0\0", *b"old\0"]) {
            *word = u32::from_ne_bytes(text);
        }
        assert_eq!(name(&target), "cciss!c0d0");
        target.disk = [u32::from_ne_bytes(*b"long"); 8];
        assert_eq!(name(&target), "long".repeat(8));
    }

    #[test]
    fn devices_are_added_and_subtracted_by_name() {
        let mut sum = None;
        add(&mut sum, &None);
        assert_eq!(sum, None, "absent is not zero");
        add(&mut sum, &Some(disks(&[("vda", 5)])));
        add(&mut sum, &Some(disks(&[("vda", 2), ("vdb", 3)])));
        assert_eq!(sum, Some(disks(&[("vda", 7), ("vdb", 3)])));
        let mut now = disks(&[("vda", 7), ("vdb", 3)]);
        subtract(&mut now, &disks(&[("vda", 5), ("gone", 1)]));
        assert_eq!(now, disks(&[("vda", 2), ("vdb", 3)]));
    }
}

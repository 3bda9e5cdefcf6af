//! Families of block devices.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::{families::host as family, host::Samples};
use crate::host::{Measured, Operation};

/// Adds all of these families. What a device was not asked for has no sample.
pub(super) fn collect(snapshot: &[(Arc<str>, Measured)], families: &mut Vec<MetricFamily>) {
    let [mut latency, mut queue, mut bytes] =
        [&family::BLOCK_LATENCY, &family::BLOCK_QUEUE, &family::BLOCK_BYTES].map(Samples::new);
    for (name, disks) in snapshot.iter().filter_map(|(name, measured)| Some((name, measured.block.as_ref()?))) {
        for (device, stats) in disks {
            let used = |times: &[u64]| times.iter().any(|count| *count != 0);
            if used(&stats.queue.counts) {
                queue.histogram(&[name, device], &stats.queue);
            }
            for (operation, (times, moved)) in Operation::ALL.into_iter().zip(stats.device.iter().zip(stats.bytes)) {
                if !used(&times.counts) && moved == 0 {
                    continue;
                }
                let labels = [name.as_ref(), device.as_str(), operation.as_str()];
                latency.histogram(&labels, times);
                if operation != Operation::Flush {
                    bytes.count(&labels, moved);
                }
            }
        }
    }
    families.extend([latency, queue, bytes].map(Samples::into_family));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::BlockStats;

    #[test]
    fn what_a_device_did_has_samples_and_nothing_else() {
        let mut stats = BlockStats::ZERO;
        stats.device[Operation::Read as usize].counts[7] = 2;
        stats.device[Operation::Flush as usize].counts[9] = 1;
        stats.queue.counts[3] = 2;
        stats.queue.nanoseconds = 20_000;
        stats.bytes[Operation::Read as usize] = 8192;
        let disks = [("vda".to_owned(), stats), ("idle".to_owned(), BlockStats::ZERO)].into();
        let snapshot = [("vllm".into(), Measured { block: Some(disks), ..Measured::default() })];
        let mut families = Vec::new();
        collect(&snapshot, &mut families);
        let samples: Vec<_> = families
            .iter()
            .flat_map(|family| family.get_metric().iter().map(|metric| (family.name(), metric)))
            .map(|(name, metric)| {
                let labels: Vec<_> = metric.get_label().iter().map(|label| label.value()).collect();
                (name, labels.join(" "))
            })
            .collect();
        let expected = [
            ("workload_block_io_latency_seconds", "vllm vda read"),
            ("workload_block_io_latency_seconds", "vllm vda flush"),
            ("workload_block_io_queue_seconds", "vllm vda"),
            ("workload_block_io_bytes_total", "vllm vda read"),
        ];
        let sorted = |text: &str| {
            let mut words: Vec<_> = text.split(' ').collect();
            words.sort_unstable();
            words.join(" ")
        };
        let found: Vec<_> = samples.iter().map(|(name, labels)| (*name, sorted(labels))).collect();
        assert_eq!(found, expected.map(|(name, labels)| (name, sorted(labels))));
        assert_eq!(families[2].get_metric()[0].get_counter().get_value(), 8192.0);
        assert_eq!(families[1].get_metric()[0].get_histogram().get_sample_sum(), 20e-6);
    }
}

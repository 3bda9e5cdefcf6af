//! Families of what workloads read and write.

use prometheus::proto::MetricFamily;

use super::{Samples, family};
use crate::host::Snapshot;

pub(super) fn collect(snapshot: &Snapshot, families: &mut Vec<MetricFamily>) {
    let [mut bytes, mut operations, mut latency, mut reads, mut fills] = [
        &family::IO_BYTES,
        &family::IO_OPERATIONS,
        &family::IO_LATENCY,
        &family::FILE_READS,
        &family::PAGE_CACHE_FILLS,
    ]
    .map(Samples::new);
    for (name, measured) in snapshot {
        let io = &measured.io;
        for row in io.rows() {
            let labels = [name, row.kind, row.direction];
            bytes.count(&labels, row.flow.bytes);
            operations.count(&labels, row.flow.operations);
            if row.timed {
                latency.histogram(&labels, &row.flow.latency);
            }
        }
        for (samples, values) in [(&mut reads, io.file_reads()), (&mut fills, io.fills())] {
            for (kind, value) in ["weights", "other"].into_iter().zip(values.into_iter().flatten()) {
                samples.count(&[name, kind], value);
            }
        }
    }
    families.extend([bytes, operations, latency, reads, fills].map(Samples::into_family));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Io, Measured, Seen};

    #[test]
    fn each_kind_and_direction_has_a_sample_where_it_is_seen() {
        let seen = Seen { files: true, files_timed: true, sockets: true, ..Seen::default() };
        let mut io = Io { seen, ..Io::default() };
        (io.stats.weights_read, io.stats.others_read) = (3, 7);
        for (number, flow) in (1_u32..).zip(&mut io.stats.flows) {
            (flow.bytes, flow.operations) = (u64::from(number) * 10, u64::from(number));
            flow.latency.counts[0] = 1;
        }
        let mut families = Vec::new();
        collect(&vec![("vllm".into(), Measured { io, ..Measured::default() })], &mut families);
        let find = |name: &str| families.iter().find(|family| family.name() == name).expect("declared").get_metric();
        let values =
            |name: &str| -> Vec<f64> { find(name).iter().map(|metric| metric.get_counter().get_value()).collect() };
        assert_eq!(values("workload_io_bytes_total"), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(values("workload_io_operations_total"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(values("workload_file_read_bytes_total"), [3.0, 7.0]);
        assert_eq!(find("workload_io_latency_seconds").len(), 4, "sockets were not timed");
        assert!(find("workload_page_cache_fill_bytes_total").is_empty(), "absent is not zero");
        let labels: Vec<_> = find("workload_io_bytes_total")[5].get_label().iter().map(|label| label.value()).collect();
        assert!(labels.contains(&"socket") && labels.contains(&"write"), "{labels:?}");
    }
}

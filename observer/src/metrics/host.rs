//! Families of what the host did meanwhile.

mod io;

use std::sync::Arc;

use observer_common::host::Histogram;
use prometheus::proto::{self, MetricFamily};

use super::{
    families::{Family, host as family},
    registry::{counter_value, family_of, sample},
};
use crate::host::{Measured, Snapshot};

/// Samples of one family, as they come.
pub(super) struct Samples {
    family: &'static Family,
    metrics: Vec<proto::Metric>,
}

impl Samples {
    pub(super) fn new(family: &'static Family) -> Self {
        Self { family, metrics: Vec::new() }
    }

    /// A count, or nanoseconds of a family in seconds.
    pub(super) fn count(&mut self, labels: &[&str], value: u64) {
        self.metrics.push(sample(self.family, labels, counter_value(self.family, value)));
    }

    pub(super) fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        self.metrics.push(histogram_sample(self.family, labels, histogram));
    }

    pub(super) fn into_family(self) -> MetricFamily {
        family_of(self.family, self.metrics)
    }
}

/// Upper bounds of the kernel's histograms, in seconds.
#[expect(clippy::cast_precision_loss, reason = "powers of two")]
pub(super) fn bounds() -> impl Iterator<Item = f64> {
    (0..).map_while(Histogram::bound).map(|bound| bound as f64 / 1e9)
}

#[expect(clippy::cast_precision_loss, reason = "the exposition formats are in doubles")]
fn histogram_sample(family: &Family, labels: &[&str], histogram: &Histogram) -> proto::Metric {
    let mut metric = sample(family, labels, 0.0);
    let mut result = proto::Histogram::default();
    let mut count = 0;
    let buckets = bounds().zip(histogram.counts).map(|(bound, more)| {
        count += more;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    result.set_bucket(buckets.collect());
    result.set_sample_count(histogram.counts.iter().sum());
    result.set_sample_sum(histogram.nanoseconds as f64 / 1e9);
    metric.set_histogram(result);
    metric
}

/// All of these families. What was not measured has no sample.
pub(super) fn collect(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    scheduler(snapshot, &mut families);
    tcp(snapshot, &mut families);
    io::collect(snapshot, &mut families);
    super::block::collect(snapshot, &mut families);
    families
}

fn tcp(snapshot: &[(Arc<str>, Measured)], families: &mut Vec<MetricFamily>) {
    let mut rtt = Samples::new(&family::TCP_RTT);
    for (name, histogram) in snapshot.iter().filter_map(|(name, measured)| Some((name, measured.tcp.rtt.as_ref()?))) {
        rtt.histogram(&[name], histogram);
    }
    families.push(rtt.into_family());
    let counts = [&family::TCP_RETRANSMITS, &family::TCP_ZERO_WINDOW, &family::TCP_UNSENT, &family::LISTEN_OVERFLOWS];
    let mut counts = counts.map(Samples::new);
    for (name, Measured { tcp, .. }) in snapshot {
        let values = [tcp.retransmits, tcp.zero_windows, tcp.unsent, tcp.overflows];
        for (samples, value) in counts.iter_mut().zip(values) {
            if let Some(value) = value {
                samples.count(&[name], value);
            }
        }
    }
    families.extend(counts.map(Samples::into_family));
}

fn scheduler(snapshot: &[(Arc<str>, Measured)], families: &mut Vec<MetricFamily>) {
    let [mut queue, mut on, mut off, mut faults] =
        [&family::RUN_QUEUE, &family::CPU, &family::OFF_CPU, &family::PAGE_FAULTS].map(Samples::new);
    for (name, stats) in snapshot.iter().filter_map(|(name, measured)| Some((name, measured.scheduler.as_ref()?))) {
        queue.histogram(&[name], &stats.run_queue);
        on.count(&[name], stats.on_cpu);
        off.count(&[name], stats.off_cpu);
        faults.count(&[name, "minor"], stats.minor_faults);
        faults.count(&[name, "major"], stats.major_faults);
    }
    families.extend([queue, on, off, faults].map(Samples::into_family));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{SchedulerStats, Tcp};

    #[test]
    fn times_are_in_seconds_and_buckets_are_cumulative() {
        let mut stats = SchedulerStats { on_cpu: 2_500_000_000, major_faults: 3, ..SchedulerStats::default() };
        stats.run_queue.counts[0] = 1;
        stats.run_queue.counts[10] = 2;
        stats.run_queue.nanoseconds = 1_500_000_000;
        let families = collect(&vec![("vllm".into(), Measured { scheduler: Some(stats), ..Measured::default() })]);
        let find = |name: &str| families.iter().find(|family| family.name() == name).expect("declared");
        assert_eq!(find("workload_cpu_seconds_total").get_metric()[0].get_counter().get_value(), 2.5);
        let queue = find("workload_run_queue_latency_seconds").get_metric()[0].get_histogram();
        assert_eq!((queue.get_sample_count(), queue.get_sample_sum()), (3, 1.5));
        assert_eq!(queue.get_bucket()[0].cumulative_count(), 1);
        assert_eq!(queue.get_bucket()[9].cumulative_count(), 1);
        assert_eq!(queue.get_bucket()[10].cumulative_count(), 3);
        assert_eq!(queue.get_bucket()[0].upper_bound(), 1.024e-6);
        let tcp = Tcp { retransmits: Some(3), unsent: Some(0), ..Tcp::default() };
        let families = collect(&vec![("vllm".into(), Measured { tcp, ..Measured::default() })]);
        let find = |name: &str| families.iter().find(|family| family.name() == name).expect("declared").get_metric();
        assert_eq!(find("workload_tcp_retransmits_total")[0].get_counter().get_value(), 3.0);
        assert_eq!(find("workload_tcp_unsent_bytes")[0].get_gauge().get_value(), 0.0);
        assert!(find("workload_tcp_zero_window_total").is_empty() && find("workload_tcp_rtt_seconds").is_empty());
        let nothing = collect(&vec![("vllm".into(), Measured::default())]);
        assert!(nothing.iter().all(|family| family.get_metric().is_empty()), "absent is not zero");
    }
}

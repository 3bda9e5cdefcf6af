//! Values on atomics: written by the drain thread, read by scrapes, without locks; but for exemplars, which only
//! requests with an id have.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::exemplar::{self, Witness};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Adds a time, for families in seconds.
    pub fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes over a total that is kept elsewhere; a lower one than before changes nothing.
    pub fn set_total(&self, total: u64) {
        self.0.fetch_max(total, Relaxed);
    }

    /// The count so far; nanoseconds for families in seconds.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counts by bucket. The count of all is the sum over the buckets, so a scrape always sees the two agree.
#[derive(Debug)]
pub struct Histogram {
    bounds: Arc<[f64]>,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    exemplars: Mutex<Option<exemplar::Buckets>>,
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// One count for each bound, and a last one for what lies above them; not cumulative.
    pub counts: Vec<u64>,
    /// Sum of all samples.
    pub sum: f64,
}

impl HistogramSnapshot {
    /// Samples in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Histogram {
    /// An empty one with these upper bounds (inclusive, ascending).
    #[must_use]
    pub fn new(bounds: Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0f64.to_bits()), exemplars: Mutex::new(None) }
    }

    /// Its upper bounds.
    #[must_use]
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// Adds one sample.
    pub fn observe(&self, value: f64) {
        let _bucket = self.add(value);
    }

    /// Adds one sample of the request that `witness` names. Only where there is one is a lock taken, which nobody
    /// holds for longer than copying the exemplars of this histogram takes.
    pub(super) fn observe_with(&self, value: f64, witness: Option<&Witness>) {
        let bucket = self.add(value);
        if let Some(witness) = witness {
            let mut exemplars = self.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
            let places = exemplars.get_or_insert_with(|| vec![None; self.counts.len()].into());
            exemplar::put(&mut places[bucket], value, witness);
        }
    }

    /// Its exemplars, if it has any.
    pub(super) fn exemplars(&self) -> Option<exemplar::Buckets> {
        self.exemplars.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, value: f64) -> usize {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.add_sum(value);
        bucket
    }

    /// Adds samples that are sorted into this histogram's buckets already. `false`: these are other buckets, and
    /// nothing was added.
    #[must_use]
    pub fn add_buckets(&self, counts: &[u32], sum: f64) -> bool {
        if counts.len() != self.counts.len() {
            return false;
        }
        for (bucket, count) in self.counts.iter().zip(counts) {
            if *count > 0 {
                bucket.fetch_add(u64::from(*count), Relaxed);
            }
        }
        self.add_sum(sum);
        true
    }

    fn add_sum(&self, value: f64) {
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // The closure never declines, so this never fails.
        let _ = self.sum.fetch_update(Relaxed, Relaxed, add);
    }

    /// Its counts now.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: f64::from_bits(self.sum.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        let histogram = Histogram::new(vec![0.1, 1.0].into());
        for value in [0.0, 0.1, 0.100_001, 1.0, 1.5, f64::INFINITY] {
            histogram.observe(value);
        }
        assert_eq!(histogram.snapshot().counts, [2, 2, 2]);
        assert_eq!(histogram.snapshot().count(), 6);
    }

    #[test]
    fn sorted_samples_add_up_and_other_buckets_are_refused() {
        let histogram = Histogram::new(vec![0.1, 1.0].into());
        histogram.observe(0.5);
        assert!(histogram.add_buckets(&[1, 0, 3], 7.5));
        assert_eq!(histogram.snapshot(), HistogramSnapshot { counts: vec![1, 1, 3], sum: 8.0 });
        assert!(!histogram.add_buckets(&[1, 0], 7.5));
        assert_eq!(histogram.snapshot().count(), 5);
    }

    #[test]
    fn totals_never_go_back() {
        let counter = Counter::default();
        counter.set_total(7);
        counter.set_total(3);
        counter.add(1);
        assert_eq!(counter.get(), 8);
    }

    #[test]
    fn many_writers_lose_nothing() {
        let histogram = Histogram::new(vec![1.0].into());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| histogram.observe(0.5)));
            }
        });
        assert_eq!(histogram.snapshot(), HistogramSnapshot { counts: vec![40_000, 0], sum: 20_000.0 });
    }
}

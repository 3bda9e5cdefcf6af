//! Durations, counted: constant memory at 3 % resolution.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: u32 = 32;
const STEP_BITS: u32 = STEPS.ilog2();

/// A histogram of durations, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// As long as the largest duration needs: at most 60 * 32.
    counts: Vec<u32>,
    count: u64,
}

fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < u64::from(STEPS) {
        return nanoseconds as usize;
    }
    let exponent = nanoseconds.ilog2() - STEP_BITS;
    ((exponent * STEPS) as usize) + (nanoseconds >> exponent) as usize
}

/// The middle of a bucket.
fn value(bucket: usize) -> u64 {
    let steps = STEPS as usize;
    if bucket < 2 * steps {
        return bucket as u64;
    }
    let exponent = bucket / steps - 1;
    let low = ((bucket % steps + steps) as u64) << exponent;
    low + (1 << exponent) / 2
}

impl Histogram {
    pub(super) fn record(&mut self, duration: Duration) {
        let at = bucket(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.count += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
    }

    /// The `q`-quantile in seconds; none of nothing.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((q * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return Some(value(at) as f64 / 1e9);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_the_resolution() {
        let mut histogram = Histogram::default();
        for microseconds in 1..=10_000 {
            histogram.record(Duration::from_micros(microseconds));
        }
        for (q, expected) in [(0.5, 5e-3), (0.99, 9.9e-3), (1.0, 10e-3)] {
            let got = histogram.quantile(q).unwrap();
            assert!((got / expected - 1.0).abs() < 0.03, "{q}: {got}");
        }
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn every_bucket_holds_its_own_value() {
        for at in 0..1900 {
            assert_eq!(bucket(value(at)), at);
        }
    }
}

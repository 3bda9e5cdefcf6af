//! Quantiles of samples, and the line through points.

use std::fmt;

/// The `q`-quantile (0 to 1) of `samples`, by nearest rank; sorts them.
///
/// # Panics
/// If there are none.
pub fn quantile<T: Copy + PartialOrd>(samples: &mut [T], q: f64) -> T {
    assert!(!samples.is_empty(), "no samples");
    samples.sort_by(|a, b| a.partial_cmp(b).expect("samples are ordered"));
    let rank = (q * samples.len() as f64).ceil() as usize;
    samples[rank.clamp(1, samples.len()) - 1]
}

/// The middle one; sorts them.
///
/// # Panics
/// If there are none.
pub fn median<T: Copy + PartialOrd>(samples: &mut [T]) -> T {
    quantile(samples, 0.5)
}

/// A median, and where it may lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Of the samples.
    pub median: f64,
    /// 0.025-quantile of the medians of samples drawn from these.
    pub low: f64,
    /// 0.975-quantile of them.
    pub high: f64,
}

/// As tables have it.
impl fmt::Display for Interval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3} ({:.3} to {:.3})", self.median, self.low, self.high)
    }
}

/// The median of some samples, and its 95 % interval by bootstrap: medians of as many samples, drawn from them again and
/// again, the same way each time.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn interval(samples: &[f64]) -> Interval {
    const DRAWS: usize = 2000;
    // Knuth's generator: what is drawn is to be as if by chance, no more.
    let mut state = 1u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        samples[(state >> 33) as usize % samples.len()]
    };
    let mut medians: Vec<f64> =
        (0..DRAWS).map(|_| median(&mut samples.iter().map(|_| draw()).collect::<Vec<_>>())).collect();
    Interval {
        median: median(&mut samples.to_vec()),
        low: quantile(&mut medians, 0.025),
        high: quantile(&mut medians, 0.975),
    }
}

/// Slope of the straight line that is nearest to these points, by least squares; 0 of fewer than two.
#[must_use]
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if spread > 0.0 { points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn line_through_points() {
        assert_eq!(super::slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(super::slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 1.0)]), 0.0);
        assert_eq!(super::slope(&[(5.0, 1.0)]), 0.0);
        assert_eq!(super::slope(&[]), 0.0);
    }

    #[test]
    fn nearest_rank() {
        let mut samples: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(super::median(&mut samples), 50);
        assert_eq!(super::quantile(&mut samples, 0.99), 99);
        assert_eq!(super::quantile(&mut samples, 1.0), 100);
        assert_eq!(super::quantile(&mut [7], 0.0), 7);
    }

    #[test]
    fn intervals_hold_the_median_and_narrow_with_its_spread() {
        let wide = super::interval(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!(wide.low < 3.0 && wide.median == 3.0 && wide.high > 3.0, "{wide:?}");
        let none = super::interval(&[2.0; 5]);
        assert_eq!((none.low, none.median, none.high), (2.0, 2.0, 2.0));
        assert_eq!(wide, super::interval(&[1.0, 2.0, 3.0, 4.0, 5.0]), "the same each time");
    }
}

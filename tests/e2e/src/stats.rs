//! Quantiles of samples, and the line through points.

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
}

//! Quantiles of samples.

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

#[cfg(test)]
mod tests {
    #[test]
    fn nearest_rank() {
        let mut samples: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(super::median(&mut samples), 50);
        assert_eq!(super::quantile(&mut samples, 0.99), 99);
        assert_eq!(super::quantile(&mut samples, 1.0), 100);
        assert_eq!(super::quantile(&mut [7], 0.0), 7);
    }
}

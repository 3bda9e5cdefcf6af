//! A small seeded generator (SplitMix64): runs repeat exactly for the same seed.

use std::time::Duration;

/// The generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose sequence depends on `seed` only.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of the `index`-th thing under `seed`, independent of the order in which they are asked for.
    #[must_use]
    pub fn of(seed: u64, index: u64) -> Self {
        let mut mixer = Self(seed ^ index.wrapping_mul(0xd134_2543_de82_ef95));
        Self(mixer.bits())
    }

    /// 64 evenly distributed bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        // 53 bits: each is exact in an f64.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// In `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// `middle`, moved by up to `jitter` either way, never below zero.
    pub fn around(&mut self, middle: Duration, jitter: Duration) -> Duration {
        if jitter.is_zero() {
            return middle;
        }
        let offset = jitter.mul_f64(2.0 * self.unit());
        (middle + offset).saturating_sub(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_for_the_same_seed_and_differs_for_another() {
        let draw = |seed| (0..4).map(|index| Random::of(seed, index).bits()).collect::<Vec<_>>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn chance_is_about_its_probability() {
        let mut random = Random::new(7);
        let hits = (0..100_000).filter(|_| random.chance(0.05)).count();
        assert!((4_600..5_400).contains(&hits), "{hits} of 100000");
    }

    #[test]
    fn around_stays_within_the_jitter() {
        let mut random = Random::new(7);
        for _ in 0..1000 {
            let drawn = random.around(Duration::from_millis(20), Duration::from_millis(5));
            assert!((Duration::from_millis(15)..=Duration::from_millis(25)).contains(&drawn), "{drawn:?}");
        }
    }
}

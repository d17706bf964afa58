//! A small seeded generator, so that a run of faults can be had again.

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, full period, no allocation.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator; equal seeds give equal sequences.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `limit - 1`; 0 if `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The high half of a 128-bit product: unbiased enough (2^-64) and without division.
        let product = u128::from(self.next_u64()) * u128::from(limit);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// True with the probability `chance`.
    pub fn happens(&mut self, chance: Chance) -> bool {
        // No draw for what never happens: links without faults cost nothing.
        chance.0 != 0 && self.next_u64() >> 32 < chance.0
    }
}

/// A probability as a threshold for 32 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chance(u64);

impl Chance {
    /// From a probability 0 to 1; what is outside is taken as the nearer end.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=2^32"
    )]
    pub fn new(probability: f64) -> Self {
        Self((probability.clamp(0.0, 1.0) * 4_294_967_296.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_met() {
        let mut rng = Rng::new(7);
        let hits = (0..100_000)
            .filter(|_| rng.happens(Chance::new(0.05)))
            .count();
        assert!((4_700..5_300).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| rng.happens(Chance::new(1.0))));
        assert!(!(0..1_000).any(|_| rng.happens(Chance::new(0.0))));
    }

    #[test]
    fn equal_seeds_equal_sequences() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (0..10).map(|_| rng.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}

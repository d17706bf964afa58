//! A node's clock: its own offset, and a rate that differs from true time.

use buoy_core::Mono;

/// Nanoseconds of true time since the simulation began.
pub type True = u64;

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;

/// Reads `base` at true time `since`, then runs `1 + ppm / 1,000,000` times as fast as true time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    since: True,
    base: u64,
    ppm: u64,
}

impl Clock {
    /// A clock that reads `base` at `since`.
    pub fn new(since: True, base: u64, ppm: u64) -> Self {
        Self { since, base, ppm }
    }

    fn gain(&self, elapsed: u64) -> u64 {
        elapsed + (u128::from(elapsed) * u128::from(self.ppm) / 1_000_000) as u64
    }

    /// Its reading at a true time not before `since`.
    pub fn read(&self, at: True) -> Mono {
        Mono(self.base + self.gain(at.saturating_sub(self.since)))
    }

    /// The first true time at which it reads at least `reading`.
    pub fn when(&self, reading: Mono) -> True {
        let ahead = reading.0.saturating_sub(self.base);
        let scaled = u128::from(ahead) * 1_000_000 / u128::from(1_000_000 + self.ppm);
        let mut elapsed = u64::try_from(scaled)
            .unwrap_or(u64::MAX / 4)
            .min(u64::MAX / 4);
        while self.gain(elapsed) < ahead.min(u64::MAX / 4) {
            elapsed += 1;
        }
        self.since + elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_inverse_of_read() {
        for ppm in [0, 1, 5_000, 9_900] {
            let clock = Clock::new(1_000, 77, ppm);
            for reading in (77..4_000_000).step_by(991) {
                let at = clock.when(Mono(reading));
                assert!(clock.read(at).0 >= reading);
                assert!(
                    at == 1_000 || clock.read(at - 1).0 < reading,
                    "not the first: {reading}"
                );
            }
        }
    }
}

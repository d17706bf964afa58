//! Monotonic time as the leases count it, and the arithmetic of drift and guard.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of CLOCK_BOOTTIME in nanoseconds (virtual in tests). Readings of two machines cannot be
/// compared; arithmetic saturates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// The earliest reading.
    pub const ZERO: Mono = Mono(0);

    /// `self - earlier`, zero if `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// A reading of `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Mono {
        Mono(ms.saturating_mul(1_000_000))
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(nanos(d)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, d: Duration) -> Mono {
        Mono(self.0.saturating_sub(nanos(d)))
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}ms", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// How a voter turns the length that a holder counts into the length that it promises
/// (docs/leases.md, `L_voter = L * (1 + max_drift) + guard`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Allowance {
    /// Largest difference of two nodes' clock rates, in parts per million (10,000 = 1%).
    pub max_drift_ppm: u32,
    /// Added for packets already in a queue when the holder's gate shuts.
    pub guard: Duration,
}

impl Allowance {
    /// Length of the voter's promise for a holder that counts `lease`; rounded up, saturating.
    pub fn voter_length(&self, lease: Duration) -> Duration {
        let l = nanos(lease);
        let drift = (u128::from(l) * u128::from(self.max_drift_ppm)).div_ceil(1_000_000);
        let drift = u64::try_from(drift).unwrap_or(u64::MAX);
        Duration::from_nanos(l.saturating_add(drift).saturating_add(nanos(self.guard)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Mono(u64::MAX) + Duration::from_secs(1), Mono(u64::MAX));
        assert_eq!(Mono(5) - Duration::from_secs(1), Mono::ZERO);
        assert_eq!(Mono(5).since(Mono(9)), Duration::ZERO);
        let a = Allowance {
            max_drift_ppm: u32::MAX,
            guard: Duration::MAX,
        };
        assert_eq!(
            a.voter_length(Duration::MAX),
            Duration::from_nanos(u64::MAX)
        );
    }

    #[test]
    fn voter_length_rounds_up() {
        let a = Allowance {
            max_drift_ppm: 10_000,
            guard: Duration::from_millis(20),
        };
        assert_eq!(
            a.voter_length(Duration::from_millis(300)),
            Duration::from_millis(323)
        );
        let a = Allowance {
            max_drift_ppm: 10_000,
            guard: Duration::ZERO,
        };
        assert_eq!(
            a.voter_length(Duration::from_nanos(1)),
            Duration::from_nanos(2)
        );
    }
}

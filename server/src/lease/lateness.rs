//! How late the lease thread woke up: counted on the renewal path, so without a lock, an allocation or a system call.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use buoy_core::Mono;

/// The last minute is kept in slices of this length.
const SLICE: Duration = Duration::from_secs(10);
/// One more than a minute has: the newest is not full yet.
const SLICES: usize = 7;

/// Of one slice.
#[derive(Debug, Default)]
struct Slice {
    /// Number of the slice since the machine's start, from 1; 0: never used.
    number: AtomicU64,
    /// Nanoseconds.
    max: AtomicU64,
}

/// The counts; written by the lease thread alone.
#[derive(Debug, Default)]
pub struct LatenessCounts {
    wakes: AtomicU64,
    /// Nanoseconds.
    sum: AtomicU64,
    /// Nanoseconds.
    max: AtomicU64,
    recent: [Slice; SLICES],
}

/// How late the thread woke up for what was due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lateness {
    /// Wake-ups since its start.
    pub wakes: u64,
    /// On average since its start.
    pub mean: Duration,
    /// At worst since its start.
    pub max: Duration,
    /// At worst in the last minute (and up to 10 s before it).
    pub max_last_minute: Duration,
}

fn number(now: Mono) -> u64 {
    now.since(Mono::ZERO).as_secs() / SLICE.as_secs() + 1
}

impl LatenessCounts {
    /// The thread woke up `now`, that late.
    pub(super) fn note(&self, late: Duration, now: Mono) {
        let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.max.fetch_max(late, Relaxed);
        self.sum.fetch_add(late, Relaxed);
        self.wakes.fetch_add(1, Relaxed);
        let number = number(now);
        let slice = &self.recent[(number % SLICES as u64) as usize];
        if slice.number.load(Relaxed) == number {
            slice.max.fetch_max(late, Relaxed);
        } else {
            slice.max.store(late, Relaxed);
            // After its content: who sees the number sees no earlier content.
            slice.number.store(number, Release);
        }
    }

    /// What was counted until `now`.
    pub fn read(&self, now: Mono) -> Lateness {
        let newest = number(now);
        let oldest = newest.saturating_sub(SLICES as u64 - 1).max(1);
        let recent = self.recent.iter().filter_map(|slice| {
            let number = slice.number.load(Acquire);
            // One that was begun after `now` was read counts as well.
            (number >= oldest).then(|| slice.max.load(Relaxed))
        });
        let wakes = self.wakes.load(Relaxed);
        Lateness {
            wakes,
            mean: Duration::from_nanos(self.sum.load(Relaxed) / wakes.max(1)),
            max: Duration::from_nanos(self.max.load(Relaxed)),
            max_last_minute: Duration::from_nanos(recent.max().unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_worst_is_kept_for_ever_and_forgotten_after_a_minute() {
        let counts = LatenessCounts::default();
        assert_eq!(counts.read(Mono::from_millis(5)), Lateness::default());
        let at = |s: u64| Mono::from_millis(s * 1_000);
        counts.note(ms(2), at(100));
        counts.note(ms(30), at(103));
        counts.note(ms(4), at(104));
        let all = Lateness {
            wakes: 3,
            mean: ms(12),
            max: ms(30),
            max_last_minute: ms(30),
        };
        for s in [104, 109, 163] {
            assert_eq!(counts.read(at(s)), all, "{s}");
        }
        // It is a minute away, whether the thread went on or not.
        assert_eq!(counts.read(at(170)).max_last_minute, Duration::ZERO);
        counts.note(ms(8), at(125));
        assert_eq!(counts.read(at(125)).max_last_minute, ms(30));
        assert_eq!(counts.read(at(171)).max_last_minute, ms(8));
        // Its place is taken by a later slice.
        counts.note(ms(1), at(171));
        let last = counts.read(at(171));
        assert_eq!((last.max, last.max_last_minute), (ms(30), ms(8)));
        counts.note(ms(3), at(171));
        assert_eq!(counts.read(at(230)).max_last_minute, ms(3));
        assert_eq!(counts.read(at(10_000)).max_last_minute, Duration::ZERO);
    }
}

//! A histogram of `u64` values with logarithmic buckets, for openraft's statistics: the part of the interface of the
//! crate `base2histogram` that openraft uses, in 2 KiB a histogram and without tables.
//!
//! A value falls into a bucket by its three most significant bits, so that a percentile is off by at most an
//! eighth of the value.

mod chart;

use std::fmt;
use std::marker::PhantomData;

pub use chart::{AsciiChart, DetailedDisplay};

/// Significant bits that tell buckets apart.
const WIDTH: u32 = 3;
/// Buckets for each power of two.
const GROUP: usize = 1 << (WIDTH - 1);
/// Buckets for all values.
const BUCKETS: usize = GROUP * (u64::BITS - WIDTH + 2) as usize;

/// Counts of values.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    buckets: Vec<u64>,
    total: u64,
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// An empty histogram.
    pub fn new() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            total: 0,
            slots: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times; the counts saturate.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = &mut self.buckets[bucket_of(value)];
        *bucket = bucket.saturating_add(count);
        self.total = self.total.saturating_add(count);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value below or at which the share `p` (0 to 1) of all values lies, as the middle of its bucket; 0 without
    /// values.
    pub fn percentile(&self, p: f64) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        let rank = ((self.total as f64 * p).ceil() as u64).clamp(1, self.total.max(1));
        let mut below = 0u64;
        for (index, count) in self.filled() {
            below = below.saturating_add(count);
            if below >= rank {
                return lowest(index) + (highest(index) - lowest(index)) / 2;
            }
        }
        0
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }

    /// Buckets with values in them: index and count.
    fn filled(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let all = self.buckets.iter().copied().enumerate();
        all.filter(|(_, count)| *count > 0)
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filled = self.filled().map(|(index, count)| (lowest(index), count));
        f.debug_map().entries(filled).finish()
    }
}

/// Which bucket a value falls into.
fn bucket_of(value: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "two bits")]
    match value.checked_ilog2() {
        Some(top) if top >= WIDTH => {
            let shift = top - (WIDTH - 1);
            let offset = (value >> shift) as usize & (GROUP - 1);
            (shift as usize + 1) * GROUP + offset
        }
        _ => value as usize,
    }
}

/// The smallest value of a bucket.
fn lowest(index: usize) -> u64 {
    match index / GROUP {
        0 | 1 => index as u64,
        group => ((GROUP + index % GROUP) as u64) << (group - 1),
    }
}

/// The largest value of a bucket.
fn highest(index: usize) -> u64 {
    match index + 1 {
        BUCKETS => u64::MAX,
        next => lowest(next) - 1,
    }
}

/// Percentiles of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Number of values.
    pub samples: u64,
    /// 0.1%.
    pub p0_1: u64,
    /// 1%.
    pub p1: u64,
    /// 5%.
    pub p5: u64,
    /// 10%.
    pub p10: u64,
    /// 50%.
    pub p50: u64,
    /// 90%.
    pub p90: u64,
    /// 99%.
    pub p99: u64,
    /// 99.9%.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[samples: {}, P0.1: {}, P1: {}, P5: {}, P10: {}, P50: {}, P90: {}, P99: {}, P99.9: {}]",
            self.samples,
            self.p0_1,
            self.p1,
            self.p5,
            self.p10,
            self.p50,
            self.p90,
            self.p99,
            self.p99_9
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_every_value_once() {
        assert_eq!(lowest(0), 0);
        for index in 0..BUCKETS {
            assert_eq!(bucket_of(lowest(index)), index);
            assert_eq!(bucket_of(highest(index)), index);
            if index > 0 {
                assert_eq!(lowest(index), highest(index - 1) + 1);
            }
        }
        assert_eq!(highest(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn percentiles_are_off_by_an_eighth_at_most() {
        let mut h = Histogram::<()>::new();
        (1..=10_000).for_each(|v| h.record(v));
        assert_eq!(h.total(), 10_000);
        for (p, exact) in [(0.01, 100), (0.5, 5_000), (0.9, 9_000), (0.999, 9_990)] {
            let got = h.percentile(p);
            assert!(got.abs_diff(exact) <= exact / 8 + 1, "{p}: {got}");
        }
        let stats = h.percentile_stats();
        assert_eq!((stats.samples, stats.p50), (10_000, h.percentile(0.5)));
    }

    #[test]
    fn nothing_and_everything() {
        let mut h = Histogram::<()>::new();
        assert_eq!(h.percentile(0.5), 0);
        h.record_n(u64::MAX, u64::MAX);
        h.record(0);
        assert_eq!(h.total(), u64::MAX);
        assert!(h.percentile(1.0) > u64::MAX / 8 * 7);
    }
}

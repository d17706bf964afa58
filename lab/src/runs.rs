//! Timelines in little memory: equal observations in a row become one run.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Observations in a row with the same key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run<K> {
    /// What was observed.
    pub key: K,
    /// Time of the first observation, ns of CLOCK_BOOTTIME.
    pub first: u64,
    /// Time of the last observation, ns of CLOCK_BOOTTIME.
    pub last: u64,
    /// Number of observations.
    pub count: u64,
}

/// A bounded sequence of runs in the order of time. When it is full the oldest run goes.
#[derive(Clone, Debug)]
pub struct Runs<K> {
    runs: VecDeque<Run<K>>,
    limit: usize,
    dropped: u64,
}

impl<K: Clone + PartialEq> Runs<K> {
    /// An empty sequence that keeps at most `limit` runs (at least 1).
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self {
            runs: VecDeque::with_capacity(limit.min(64)),
            limit,
            dropped: 0,
        }
    }

    /// Adds an observation made at `at`, not earlier than the one before.
    pub fn push(&mut self, key: K, at: u64) {
        if let Some(run) = self.runs.back_mut()
            && run.key == key
        {
            run.last = at;
            run.count += 1;
            return;
        }
        if self.runs.len() == self.limit {
            self.runs.pop_front();
            self.dropped += 1;
        }
        self.runs.push_back(Run {
            key,
            first: at,
            last: at,
            count: 1,
        });
    }

    /// The runs that reach into `from..=to`, whole.
    #[must_use]
    pub fn between(&self, from: u64, to: u64) -> Vec<Run<K>> {
        self.runs
            .iter()
            .filter(|run| run.last >= from && run.first <= to)
            .cloned()
            .collect()
    }

    /// How many runs were forgotten because the sequence was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Cuts runs at the edges of `from..=to`; the count of a cut run is shared out evenly over its time.
#[must_use]
pub fn clip<K: Clone>(runs: &[Run<K>], from: u64, to: u64) -> Vec<Run<K>> {
    runs.iter()
        .filter(|run| run.last >= from && run.first <= to)
        .map(|run| {
            let (first, last) = (run.first.max(from), run.last.min(to));
            Run {
                key: run.key.clone(),
                first,
                last,
                count: share(run, last - first),
            }
        })
        .collect()
}

fn share<K>(run: &Run<K>, part: u64) -> u64 {
    let whole = run.last - run.first;
    if part >= whole {
        return run.count;
    }
    // At least the observation at which the cut run begins.
    let steps = u128::from(run.count - 1) * u128::from(part) / u128::from(whole);
    u64::try_from(steps).map_or(run.count, |steps| steps + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_observations_become_one_run() {
        let mut runs = Runs::new(10);
        for (key, at) in [('a', 1), ('a', 2), ('b', 3), ('a', 4)] {
            runs.push(key, at);
        }
        let seen: Vec<_> = runs
            .between(0, 10)
            .into_iter()
            .map(|run| (run.key, run.first, run.last, run.count))
            .collect();
        assert_eq!(seen, [('a', 1, 2, 2), ('b', 3, 3, 1), ('a', 4, 4, 1)]);
    }

    #[test]
    fn the_oldest_run_goes_when_full_and_is_counted() {
        let mut runs = Runs::new(2);
        for at in 0..5 {
            runs.push(at, at);
        }
        assert_eq!(runs.dropped(), 3);
        assert_eq!(runs.between(0, 10).len(), 2);
    }

    #[test]
    fn clipping_shares_the_count() {
        let run = Run {
            key: (),
            first: 0,
            last: 100,
            count: 101,
        };
        let counts = |from, to| clip(std::slice::from_ref(&run), from, to)[0].count;
        assert_eq!(counts(0, 100), 101);
        assert_eq!(counts(50, 200), 51);
        assert_eq!(counts(10, 19), 10);
        assert!(clip(std::slice::from_ref(&run), 101, 200).is_empty());
    }
}

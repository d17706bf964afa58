//! Requests finish in any order; their outcomes are kept in the order in which they were started.

use std::collections::VecDeque;

use super::{Failure, Outcome};
use crate::runs::{Run, Runs};

/// Most runs kept for each target.
const MAX_RUNS: usize = 10_000;

struct Pending {
    started: u64,
    outcome: Option<Outcome>,
}

/// The requests to one target.
pub(super) struct Order {
    /// Number of the request at the front of the queue.
    base: u64,
    queue: VecDeque<Pending>,
    runs: Runs<Outcome>,
    judged_until: u64,
}

impl Order {
    pub(super) fn new() -> Self {
        Self {
            base: 0,
            queue: VecDeque::new(),
            runs: Runs::new(MAX_RUNS),
            judged_until: 0,
        }
    }

    /// Notes a request started at `now`; returns its number.
    pub(super) fn start(&mut self, now: u64) -> u64 {
        self.queue.push_back(Pending {
            started: now,
            outcome: None,
        });
        self.base + self.queue.len() as u64 - 1
    }

    /// Notes the outcome of a request; the first one counts.
    pub(super) fn finish(&mut self, number: u64, outcome: Outcome) {
        let at = number
            .checked_sub(self.base)
            .and_then(|at| usize::try_from(at).ok());
        if let Some(pending) = at.and_then(|at| self.queue.get_mut(at)) {
            pending.outcome.get_or_insert(outcome);
        }
        self.settle();
    }

    /// Fails what was started at or before `latest` and has no outcome.
    pub(super) fn expire(&mut self, latest: u64) {
        for pending in &mut self.queue {
            if pending.started > latest {
                break;
            }
            pending
                .outcome
                .get_or_insert(Outcome::Failed(Failure::Timeout));
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(Pending {
            started,
            outcome: Some(outcome),
        }) = self.queue.front()
        {
            self.runs.push(*outcome, *started);
            self.judged_until = *started;
            self.queue.pop_front();
            self.base += 1;
        }
    }

    /// Every request started up to this time has its outcome.
    pub(super) fn judged_until(&self) -> u64 {
        self.judged_until
    }

    pub(super) fn runs(&self) -> Vec<Run<Outcome>> {
        self.runs.between(0, u64::MAX)
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.runs.dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_kept_in_the_order_of_starts() {
        let mut order = Order::new();
        let (a, b, c) = (order.start(10), order.start(20), order.start(30));
        order.finish(c, Outcome::Answered(1));
        order.finish(a, Outcome::Answered(0));
        assert_eq!(order.judged_until(), 10);
        order.expire(20);
        order.finish(b, Outcome::Answered(0)); // too late
        let runs: Vec<_> = order
            .runs()
            .into_iter()
            .map(|run| (run.first, run.key))
            .collect();
        assert_eq!(
            runs,
            [
                (10, Outcome::Answered(0)),
                (20, Outcome::Failed(Failure::Timeout)),
                (30, Outcome::Answered(1)),
            ]
        );
        assert_eq!(order.judged_until(), 30);
    }
}

//! Rounds of renewals that the kernel counts down, and which of them a deadline rests on.

use std::collections::VecDeque;

use buoy_core::Mono;

/// Name of a round in the kernel's tables; 0 is never armed.
pub(super) type RoundId = u32;

/// The round that is never armed.
pub(super) const NO_ROUND: RoundId = 0;

/// A renewal whose deadline is within this part of its length from that of the one before is not armed: it
/// counts as that one, which ends a little earlier. Changes that follow each other by a millisecond
/// would else cost as many transactions.
const COARSE: u32 = 32;
/// Rounds that are remembered: more than can be alive, by the part above.
const REMEMBERED: usize = 2 * COARSE as usize;

/// A round that the kernel counts down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Round {
    pub(super) id: RoundId,
    /// The kernel's countdown ends at this time or before.
    pub(super) until: Mono,
}

/// The rounds that were armed, oldest first.
pub(super) struct Rounds {
    armed: VecDeque<Round>,
    next: RoundId,
}

impl Rounds {
    pub(super) fn new() -> Rounds {
        Rounds {
            armed: VecDeque::with_capacity(REMEMBERED),
            next: 1,
        }
    }

    /// What to arm for a renewal whose answers permit until `until`, and for how many milliseconds; `None`
    /// where an earlier round serves, or nothing is left to count.
    pub(super) fn plan(&self, until: Mono, now: Mono) -> Option<(Round, u64)> {
        let length = until.since(now);
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        // The kernel takes 0 for ever.
        if millis == 0 {
            return None;
        }
        if let Some(earlier) = self.for_deadline(until)
            && until.since(earlier.until) <= length / COARSE
        {
            return None;
        }
        let round = Round {
            id: self.next,
            until,
        };
        Some((round, millis))
    }

    /// The kernel counts a planned round down.
    pub(super) fn armed(&mut self, round: Round) {
        self.next = round.id.wrapping_add(1).max(1);
        if self.armed.len() == REMEMBERED {
            self.armed.pop_front();
        }
        self.armed.push_back(round);
    }

    /// The round that a deadline rests on: the latest that ends at `at` or before.
    pub(super) fn for_deadline(&self, at: Mono) -> Option<Round> {
        let in_time = self.armed.iter().filter(|r| r.until <= at);
        in_time.max_by_key(|r| r.until).copied()
    }

    /// The kernel counts none of them down any more.
    pub(super) fn forget(&mut self) {
        self.armed.clear();
    }

    /// Longest time between a deadline and the end of the round that it rests on.
    #[cfg(test)]
    fn coarseness(length: std::time::Duration) -> std::time::Duration {
        length / COARSE
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::from_millis(ms)
    }

    fn arm(rounds: &mut Rounds, sent: u64) -> Option<u64> {
        let (round, millis) = rounds.plan(at(sent + 300), at(sent))?;
        rounds.armed(round);
        Some(millis)
    }

    #[test]
    fn a_deadline_rests_on_its_own_round_or_on_an_earlier_one() {
        let mut rounds = Rounds::new();
        assert_eq!(rounds.for_deadline(at(1_000)), None);
        for sent in [100, 175, 250] {
            assert_eq!(arm(&mut rounds, sent), Some(300));
        }
        let rests = |deadline| rounds.for_deadline(at(deadline)).map(|r| r.until);
        assert_eq!(rests(550), Some(at(550)));
        assert_eq!(rests(475), Some(at(475)));
        assert_eq!(rests(549), Some(at(475)), "never later than the deadline");
        assert_eq!(rests(399), None);
        assert_eq!(rests(0), None);
    }

    #[test]
    fn a_round_that_is_armed_late_ends_no_later() {
        let rounds = Rounds::new();
        let (round, millis) = rounds.plan(at(400), at(250)).unwrap();
        assert_eq!((round.until, millis), (at(400), 150));
        // Part of a millisecond is not counted; nothing is not for ever.
        let (_, millis) = rounds.plan(at(400), Mono(250_000_001)).unwrap();
        assert_eq!(millis, 149);
        assert_eq!(rounds.plan(at(400), Mono(399_500_000)), None);
        assert_eq!(rounds.plan(at(400), at(500)), None);
    }

    #[test]
    fn renewals_close_to_each_other_share_a_round() {
        let mut rounds = Rounds::new();
        let armed = (0..3_000u64)
            .filter(|n| arm(&mut rounds, 1_000 + n).is_some())
            .count();
        let coarse = Rounds::coarseness(Duration::from_millis(300));
        assert!(armed <= 334, "{armed} rounds in 3 s, {coarse:?} apart");
        for sent in 3_800..4_000 {
            let deadline = at(sent + 300);
            let rests = rounds.for_deadline(deadline).unwrap();
            assert!(deadline.since(rests.until) <= coarse);
        }
        // All that are alive are remembered.
        assert!(rounds.for_deadline(at(4_000)).is_some());
        assert_eq!(rounds.armed.len(), REMEMBERED);
    }

    #[test]
    fn a_shorter_lease_is_armed_beside_a_longer_one() {
        let mut rounds = Rounds::new();
        let (long, _) = rounds.plan(at(60_000), at(0)).unwrap();
        rounds.armed(long);
        let (short, millis) = rounds.plan(at(400), at(100)).unwrap();
        assert_eq!(millis, 300);
        rounds.armed(short);
        assert_eq!(rounds.for_deadline(at(400)), Some(short));
        assert_eq!(rounds.for_deadline(at(70_000)), Some(long));
    }

    #[test]
    fn ids_are_never_that_of_no_round() {
        let mut rounds = Rounds::new();
        let round = |id| Round { id, until: at(1) };
        rounds.armed(round(u32::MAX));
        assert_ne!(rounds.next, NO_ROUND);
    }
}

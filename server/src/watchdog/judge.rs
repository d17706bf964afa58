//! May the watchdogs be fed now? One decision for all of them.
//!
//! A watchdog is fed while this node either holds nothing, or holds what a majority lets it hold. Precisely:
//!
//! - The lease thread has answered a look within [`ANSWER_WITHIN`], so that what it shows is true. Without that the state
//!   is unknown. The looks are sent by the daemon's runtime, so that one that hangs is noticed as well.
//! - Every VIP that is up rests on a deadline in the gate that is ahead, or no longer past than [`SHUT_WITHIN`]. Such a
//!   deadline is the sending of a renewal that a majority granted, and one lease.
//! - Every VIP that goes down is down within [`LOWER_WITHIN`].
//!
//! A node that lost its quorum goes down when the lease ends; it then holds nothing, and is fed on. One that does not
//! bring itself down is not, and is reset.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buoy_core::{Epoch, Mono, VipName};
use buoy_fence::addr::VALID_LIFETIME;
use buoy_fence::clock::boottime;
use buoy_fence::gate::Deadlines;

use crate::lease::{LeaseShared, Phase};

/// Time between two looks at the lease thread.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A lease thread that runs has answered a look within this time.
const ANSWER_WITHIN: Duration = LOOK_EVERY.saturating_mul(3);
/// A lease thread that runs has shut the gate this long after the deadline.
const SHUT_WITHIN: Duration = Duration::from_secs(1);
/// Addresses are gone by then whatever the kernel refuses: their lifetimes have ended (see [`crate::lowering`]).
const LOWER_WITHIN: Duration = Duration::from_secs(VALID_LIFETIME as u64 + 3);

/// A VIP and its epoch.
type Key = (VipName, Epoch);

/// A VIP that may answer here, or of which something may be left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Here {
    /// Its gate is open until then.
    Up { until: Mono },
    /// Its gate is shut; its addresses are being removed since then.
    GoingDown { since: Mono },
}

/// What the decision rests on.
#[derive(Clone, Debug)]
struct Seen {
    now: Mono,
    /// When the lease thread last answered.
    looked: Option<Mono>,
    here: BTreeMap<Key, Here>,
}

/// Why a watchdog is not fed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// The lease thread says nothing, so that what it holds is not known.
    NoAnswer(Option<Duration>),
    /// The lease of a VIP ended this long ago, and the VIP was not shut.
    NotShut(VipName, Duration),
    /// A VIP has been going down for this long.
    NotDown(VipName, Duration),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::NoAnswer(None) => {
                f.write_str("the lease thread has never answered: what it holds is not known")
            }
            Doubt::NoAnswer(Some(ago)) => write!(
                f,
                "the lease thread answered last {ago:.1?} ago: what it holds is not known"
            ),
            Doubt::NotShut(vip, ago) => write!(
                f,
                "VIP {vip} is still up, though its lease was not renewed and ended {ago:.1?} ago"
            ),
            Doubt::NotDown(vip, since) => {
                write!(f, "VIP {vip} has been going down for {since:.1?}")
            }
        }
    }
}

/// The decision.
fn decide(seen: &Seen) -> Result<(), Doubt> {
    let now = seen.now;
    let age = seen.looked.map(|at| now.since(at));
    if age.is_none_or(|age| age > ANSWER_WITHIN) {
        return Err(Doubt::NoAnswer(age));
    }
    for ((vip, _), here) in &seen.here {
        match *here {
            Here::Up { until } if now.since(until) > SHUT_WITHIN => {
                return Err(Doubt::NotShut(vip.clone(), now.since(until)));
            }
            Here::GoingDown { since } if now.since(since) > LOWER_WITHIN => {
                return Err(Doubt::NotDown(vip.clone(), now.since(since)));
            }
            Here::Up { .. } | Here::GoingDown { .. } => {}
        }
    }
    Ok(())
}

/// Looks at what the lease thread shows and at the gate, and decides. Never waits for the lease thread.
pub struct Judge {
    shared: Arc<LeaseShared>,
    deadlines: Deadlines,
    /// Since when VIPs are seen going down.
    lowering: Mutex<BTreeMap<Key, Mono>>,
}

impl Judge {
    /// Of a lease thread and its gate.
    pub fn new(shared: Arc<LeaseShared>, deadlines: Deadlines) -> Self {
        Self {
            shared,
            deadlines,
            lowering: Mutex::default(),
        }
    }

    /// May a watchdog be fed now?
    ///
    /// # Errors
    /// Why not.
    pub fn may_feed(&self) -> Result<(), Doubt> {
        decide(&self.see(boottime()))
    }

    /// Is it known that nothing is held here?
    pub fn is_down(&self) -> bool {
        let seen = self.see(boottime());
        seen.here.is_empty() && decide(&seen).is_ok()
    }

    fn see(&self, now: Mono) -> Seen {
        // Before what it vouches for.
        let looked = self.shared.looked();
        let held = self.shared.held.load();
        // Only data: a panic elsewhere does not make it wrong.
        let mut lowering = self.lowering.lock().unwrap_or_else(PoisonError::into_inner);
        lowering.retain(|key, _| held.get(key).is_some_and(|h| h.phase == Phase::Lowering));
        let here = held.iter().filter_map(|(key, claim)| {
            let here = match claim.phase {
                // Its gate was never open, and what it inherits is behind a shut one.
                Phase::Claiming => return None,
                Phase::Active => Here::Up {
                    until: claim
                        .slot
                        .map_or(Mono::ZERO, |slot| self.deadlines.load(slot)),
                },
                Phase::Lowering => Here::GoingDown {
                    since: *lowering.entry(key.clone()).or_insert(now),
                },
            };
            Some((key.clone(), here))
        });
        Seen {
            now,
            looked,
            here: here.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use buoy_fence::gate::{Gate, UserspaceGate};

    use super::*;
    use crate::lease::Held;

    fn ms(ms: u64) -> Mono {
        Mono::from_millis(ms)
    }

    fn vip(name: &str) -> Key {
        (name.parse().unwrap(), Epoch(7))
    }

    /// At 100 s; `looked` ms before.
    fn seen(looked: u64, here: &[Here]) -> Seen {
        let names = ["a", "b", "c"].map(vip);
        Seen {
            now: ms(100_000),
            looked: Some(ms(100_000 - looked)),
            here: names.into_iter().zip(here.iter().copied()).collect(),
        }
    }

    fn up(until: u64) -> Here {
        Here::Up { until: ms(until) }
    }

    fn going_down(since: u64) -> Here {
        Here::GoingDown { since: ms(since) }
    }

    #[test]
    fn fed_while_leases_are_renewed_or_nothing_is_held() {
        for here in [
            &[][..],
            &[up(100_300), up(100_001)],
            // The lease has just ended: the thread is about to shut, and the next feeding sees it.
            &[up(99_000)],
            &[going_down(94_000), up(100_300)],
        ] {
            for looked in [0, 499, 1_500] {
                assert_eq!(decide(&seen(looked, here)), Ok(()), "{here:?}");
            }
        }
        // An answer that is newer than the clock reading.
        let mut ahead = seen(0, &[]);
        ahead.looked = Some(ms(100_001));
        assert_eq!(decide(&ahead), Ok(()));
    }

    #[test]
    fn a_thread_that_says_nothing_starves_them_whatever_it_showed_last() {
        for here in [&[][..], &[up(100_300)], &[going_down(99_900)]] {
            let silent = decide(&seen(1_501, here));
            assert_eq!(
                silent,
                Err(Doubt::NoAnswer(Some(Duration::from_millis(1_501))))
            );
            let mut never = seen(0, here);
            never.looked = None;
            assert_eq!(decide(&never), Err(Doubt::NoAnswer(None)));
        }
    }

    #[test]
    fn one_vip_that_is_not_brought_down_starves_them() {
        let (a, b) = (vip("a").0, vip("b").0);
        let late = Duration::from_millis(1_001);
        let not_shut = seen(0, &[up(100_300), up(98_999)]);
        assert_eq!(decide(&not_shut), Err(Doubt::NotShut(b, late)));
        let late = Duration::from_millis(6_001);
        let not_down = seen(0, &[going_down(93_999), up(100_300)]);
        assert_eq!(decide(&not_down), Err(Doubt::NotDown(a, late)));
    }

    #[test]
    fn what_is_seen_is_what_the_thread_shows_and_the_gate_holds() {
        let mut gate = UserspaceGate::new();
        gate.arm(ms(300)).unwrap();
        gate.advance(&[(3, ms(300))]).unwrap();
        let shared = Arc::new(LeaseShared::new([]));
        let judge = Judge::new(shared.clone(), gate.deadlines());
        let show = |claims: &[(&str, Phase, Option<u32>)]| {
            let held = claims.iter().map(|(name, phase, slot)| {
                let claim = Held {
                    phase: *phase,
                    addresses: vec![],
                    inherits: false,
                    slot: *slot,
                };
                (vip(name), claim)
            });
            shared.held.store(Arc::new(held.collect()));
        };
        shared.note_look(ms(10));
        let all = [
            ("a", Phase::Active, Some(3)),
            ("b", Phase::Lowering, Some(3)),
            ("c", Phase::Claiming, None),
            ("d", Phase::Active, None),
        ];
        show(&all);
        let first = judge.see(ms(20));
        assert_eq!((first.now, first.looked), (ms(20), Some(ms(10))));
        // Nothing is known of the last one's deadline: as good as past.
        let expected = [
            (vip("a"), up(300)),
            (vip("b"), going_down(20)),
            (vip("d"), up(0)),
        ];
        assert_eq!(first.here, expected.into());
        // Going down since it was first seen; and anew if it was up or gone meanwhile.
        assert_eq!(judge.see(ms(50)).here[&vip("b")], going_down(20));
        show(&all[..1]);
        assert_eq!(judge.see(ms(60)).here.len(), 1);
        show(&all);
        assert_eq!(judge.see(ms(70)).here[&vip("b")], going_down(70));
    }

    #[test]
    fn it_is_down_when_that_is_known() {
        let shared = Arc::new(LeaseShared::new([]));
        let judge = Judge::new(shared.clone(), UserspaceGate::new().deadlines());
        assert!(!judge.is_down(), "nobody has said so");
        shared.note_look(boottime());
        assert!(judge.is_down());
        let claim = Held {
            phase: Phase::Lowering,
            addresses: vec![],
            inherits: false,
            slot: None,
        };
        shared.held.store(Arc::new([(vip("a"), claim)].into()));
        assert!(!judge.is_down());
        assert_eq!(judge.may_feed(), Ok(()));
    }
}

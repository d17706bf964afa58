//! How the longest promise is lowered again, and what the disk says meanwhile.

use super::*;

/// A lease of another profile, and what a voter promises for it.
const LONG_LEASE: Duration = Duration::from_millis(1_000);
const LONG: u64 = 1_030;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn lowered(effects: &[VoterEffect]) -> Option<Duration> {
    effects.iter().find_map(|e| match e {
        VoterEffect::LowerMax(length) => Some(*length),
        _ => None,
    })
}

fn raised(effects: &[VoterEffect]) -> Option<Duration> {
    effects.iter().find_map(|e| match e {
        VoterEffect::RaiseMax(length) => Some(*length),
        _ => None,
    })
}

/// A renewal of a node that counts the longer lease.
fn long(who: Session, seq: u64, list: &[(u8, u64)]) -> Renew {
    Renew {
        lease: LONG_LEASE,
        ..full(who, seq, list)
    }
}

/// A voter that once promised for the longer lease and was restarted with the shorter one.
fn restarted() -> Rig {
    Rig::new(LONG, log(1, &[1], &[(1, 2, 5)]))
}

#[test]
fn the_maximum_is_lowered_when_the_quarantine_is_over() {
    let mut rig = restarted();
    let s = session(2, 7);
    assert_eq!(
        lowered(&rig.send(LONG - 1, full(s, 1, &[(1, 5)]))),
        None,
        "promises of the run before may be alive"
    );
    assert_eq!(rig.voter.next_deadline(), Some(Mono::from_millis(LONG)));
    let effects = rig.handle(LONG, VoterEvent::Tick);
    assert_eq!(lowered(&effects), Some(ms(PROMISE)));
    assert_eq!(rig.voter.max_promise(), ms(PROMISE));
    assert_eq!(
        short(&answer_to(&effects, s, 1).unwrap(), &[(1, 5)]),
        ["G"],
        "what the disk allows in any case does not wait for it"
    );
    rig.handle(LONG + 1, VoterEvent::MaxLowered);
    // Once is enough.
    for at in [LONG + 2, LONG * 10, LONG * 100] {
        assert_eq!(lowered(&rig.handle(at, VoterEvent::Tick)), None, "{at}");
    }
}

#[test]
fn a_voter_that_promised_nothing_longer_lowers_nothing() {
    for durable in [0, PROMISE - 1, PROMISE] {
        let mut rig = Rig::new(durable, log(1, &[1], &[(1, 2, 5)]));
        for at in [durable, 1_000, 100_000] {
            let effects = rig.handle(at, VoterEvent::Tick);
            assert_eq!(lowered(&effects), None, "{durable} {at}");
        }
        assert_eq!(rig.voter.next_deadline(), None, "and does not wake up");
    }
}

#[test]
fn a_longer_promise_after_it_is_asked_for_again() {
    let mut rig = restarted();
    rig.handle(LONG, VoterEvent::Tick);
    rig.handle(LONG + 1, VoterEvent::MaxLowered);
    let s = session(2, 7);
    let effects = rig.send(LONG + 10, long(s, 1, &[(1, 5)]));
    assert_eq!(raised(&effects), Some(ms(LONG)));
    let answer = answer_to(&effects, s, 1).unwrap();
    assert_eq!(short(&answer, &[(1, 5)]), ["P0"]);
    assert_eq!(rig.promises(LONG + 10), []);
    let pushed = rig.handle(LONG + 20, VoterEvent::MaxRaised(ms(LONG)));
    let answer = answer_to(&pushed, s, 1).unwrap();
    assert_eq!(short(&answer, &[(1, 5)]), ["G"]);
}

#[test]
fn a_raise_counts_only_when_the_lower_before_it_is_confirmed() {
    let mut rig = restarted();
    let s = session(2, 7);
    rig.send(
        10,
        Renew {
            lease: ms(2_000),
            ..full(s, 1, &[])
        },
    );
    // An order to raise for a session that is silent by now is still on its way to the disk.
    let effects = rig.send(
        20,
        Renew {
            lease: ms(2_000),
            ..full(s, 2, &[(1, 5)])
        },
    );
    let longest = raised(&effects).expect("longer than the disk has");
    // The quarantine is over much later: the session is forgotten, the maximum is lowered.
    let at = LONG * 20;
    assert_eq!(
        lowered(&rig.handle(at, VoterEvent::Tick)),
        Some(ms(PROMISE))
    );
    // Somebody wants the longer promise again, before the disk has done anything.
    let effects = rig.send(
        at + 1,
        Renew {
            lease: ms(2_000),
            ..full(s, 3, &[(1, 5)])
        },
    );
    assert_eq!(
        raised(&effects),
        Some(longest),
        "ordered anew, after the lower"
    );
    // Now the disk confirms, in order: the first raise, the lower, the second raise.
    rig.handle(at + 2, VoterEvent::MaxRaised(longest));
    assert_eq!(rig.voter.max_promise(), ms(PROMISE), "the lower undoes it");
    assert_eq!(rig.promises(at + 2), []);
    rig.handle(at + 3, VoterEvent::MaxLowered);
    assert_eq!(rig.voter.max_promise(), ms(PROMISE));
    assert_eq!(rig.promises(at + 3), []);
    rig.handle(at + 4, VoterEvent::MaxRaised(longest));
    assert_eq!(rig.voter.max_promise(), longest);
    assert_eq!(rig.promises(at + 4).len(), 1);
}

#[test]
fn who_counts_a_longer_lease_keeps_the_maximum_up() {
    let mut rig = restarted();
    let s = session(2, 7);
    rig.send(LONG - 100, long(s, 1, &[(1, 5)]));
    let effects = rig.handle(LONG, VoterEvent::Tick);
    assert_eq!((lowered(&effects), raised(&effects)), (None, None));
    let answer = answer_to(&effects, s, 1).unwrap();
    assert_eq!(short(&answer, &[(1, 5)]), ["G"], "it waits for no disk");
    // It changes to the shorter lease too; what it was promised before is still alive then.
    let mut seq = 1;
    let mut at = LONG;
    while rig.voter.max_promise() == ms(LONG) {
        seq += 1;
        at += 75;
        let effects = rig.send(at, full(s, seq, &[(1, 5)]));
        if let Some(length) = lowered(&effects) {
            assert_eq!(length, ms(PROMISE));
        }
        assert!(at < LONG * 20, "never lowered");
    }
}

#[test]
fn the_maximum_is_never_less_than_what_a_live_promise_lasts() {
    let mut rig = restarted();
    let s = session(2, 7);
    rig.send(LONG - 100, long(s, 1, &[(1, 5)]));
    rig.handle(LONG, VoterEvent::Tick);
    // The next look is due in the same moment as a renewal that counts the shorter lease.
    let due = LONG + 4 * LONG;
    rig.send(due - 30, long(s, 2, &[(1, 5)]));
    let end = due - 30 + LONG;
    rig.send(due - 20, full(s, 3, &[(1, 5)]));
    let effects = rig.handle(due, VoterEvent::Tick);
    let left = ms(end - due);
    assert_eq!(lowered(&effects), Some(left));
    assert_eq!(rig.voter.max_promise(), left);
    assert_eq!(rig.promises(due), [(1, 2, 5, end)], "it stands");
    // A crash now, before or after the write: the silence after a start at once covers it.
    for disk in [ms(LONG), left] {
        let allowance = rig.voter.allowance;
        let now = Mono::from_millis(due);
        let again = Voter::new(NodeId(1), allowance, now, disk, LEASE);
        assert!(
            again.quarantine_until() >= Mono::from_millis(end),
            "{disk:?}"
        );
    }
    // When it has ended the rest follows.
    rig.handle(due + 1, VoterEvent::MaxLowered);
    let next = rig.voter.next_deadline().unwrap();
    let mut effects = Vec::new();
    let mut now = next;
    while lowered(&effects).is_none() {
        effects.clear();
        rig.voter.handle(now, VoterEvent::Tick, &mut effects);
        now = rig.voter.next_deadline().unwrap_or(now);
        assert!(now < Mono::from_millis(LONG * 50), "never lowered");
    }
    assert_eq!(lowered(&effects), Some(ms(PROMISE)));
}

#[test]
fn a_crash_between_lower_and_write_leaves_the_longer_silence() {
    let mut rig = restarted();
    let effects = rig.handle(LONG, VoterEvent::Tick);
    let length = lowered(&effects).unwrap();
    let s = session(2, 7);
    rig.renew(LONG + 5, s, 1, &[(1, 5)]);
    let (_, _, _, end) = rig.promises(LONG + 5)[0];
    for disk in [ms(LONG), length] {
        let (allowance, now) = (rig.voter.allowance, Mono::from_millis(LONG + 6));
        let again = Voter::new(NodeId(1), allowance, now, disk, LEASE);
        assert!(
            again.quarantine_until() >= Mono::from_millis(end),
            "{disk:?}"
        );
        assert_eq!(again.max_promise(), disk);
    }
}

//! What the voter keeps on disk, how long sessions wait, and what it forgets.

use super::*;

#[test]
fn a_longer_promise_waits_for_the_disk() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
    let s = session(2, 7);
    rig.renew(0, s, 1, &[(1, 5)]);
    let longer = |seq, lease_ms| Renew {
        lease: Duration::from_millis(lease_ms),
        ..same(s, seq, 1)
    };
    let needed = Duration::from_millis(626);
    let effects = rig.send(10, longer(2, 600));
    assert!(
        effects.contains(&VoterEffect::RaiseMax(needed)),
        "{effects:?}"
    );
    let answer = answer_to(&effects, s, 2).unwrap();
    assert_eq!(
        short(&answer, &[(1, 5)]),
        ["P0"],
        "also what was granted before"
    );
    assert_eq!(
        rig.promises(10),
        [(1, 2, 5, PROMISE)],
        "and it is not extended"
    );
    // The disk is asked once, and again after a while.
    let asks = |effects: &[VoterEffect]| effects.contains(&VoterEffect::RaiseMax(needed));
    assert!(!asks(&rig.send(20, longer(3, 600))));
    assert!(asks(&rig.send(1_300, longer(4, 600))));
    let pushed = rig.handle(1_310, VoterEvent::MaxRaised(needed));
    assert_eq!(short(&answer_to(&pushed, s, 4).unwrap(), &[(1, 5)]), ["G"]);
    assert_eq!(
        rig.promises(1_310),
        [(1, 2, 5, 1_300 + 626)],
        "from the renewal, not from the push"
    );
    assert_eq!(rig.voter.max_promise(), needed);
}

#[test]
fn a_shorter_lease_needs_no_disk() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
    let s = session(2, 7);
    let longer = Renew {
        lease: Duration::from_millis(600),
        ..full(s, 1, &[(1, 5)])
    };
    let effects = rig.send(0, longer);
    assert_eq!(
        short(&answer_to(&effects, s, 1).unwrap(), &[(1, 5)]),
        ["P0"]
    );
    let answer = answer_to(&rig.send(10, same(s, 2, 1)), s, 2).unwrap();
    assert_eq!(short(&answer, &[(1, 5)]), ["G"]);
}

#[test]
fn an_unknown_revision_is_asked_for() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
    let s = session(2, 7);
    let verdict = |effects: &[VoterEffect], seq| answer_to(effects, s, seq).unwrap().verdict;
    assert_eq!(verdict(&rig.send(0, same(s, 1, 0)), 1), Verdict::UnknownRev);
    rig.renew(0, s, 2, &[(1, 5)]);
    assert_eq!(
        verdict(&rig.send(10, same(s, 3, 9)), 3),
        Verdict::UnknownRev
    );
    assert_eq!(
        rig.promises(10),
        [(1, 2, 5, PROMISE)],
        "and nothing is extended"
    );
}

#[test]
fn an_expired_session_is_judged_anew() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
    let (old, new) = (session(2, 7), session(2, 8));
    rig.renew(0, old, 1, &[(1, 5)]);
    // A new run of the same node takes over once the promise to the old one has ended.
    assert_eq!(
        short(&rig.renew(PROMISE, new, 1, &[(1, 5)]), &[(1, 5)]),
        ["G"]
    );
    let answer = answer_to(&rig.send(PROMISE + 10, same(old, 2, 1)), old, 2).unwrap();
    assert_eq!(
        short(&answer, &[(1, 5)]),
        ["P313"],
        "plain renewals grant only what is still promised"
    );
}

#[test]
fn nothing_is_pushed_to_who_cannot_use_it() {
    // (When the obstacle ends, which run of node 3 was heard last) -> is the waiting run 8 answered?
    for (end, newest, pushed) in [(200, 8, true), (20 + PROMISE, 8, false), (200, 9, false)] {
        let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
        rig.renew(0, session(2, 7), 1, &[(1, 5)]);
        rig.set_log(10, log(1, &[1], &[(1, 3, 9)]));
        rig.renew(20, session(3, 8), 1, &[(1, 9)]);
        if newest != 8 {
            rig.renew(30, session(3, newest), 1, &[]);
        }
        let effects = rig.send(end, full(session(2, 7), 2, &[]));
        assert_eq!(
            answer_to(&effects, session(3, 8), 1).is_some(),
            pushed,
            "{end} {newest}"
        );
        assert_eq!(rig.promises(end).len(), usize::from(pushed));
    }
}

#[test]
fn a_late_renewal_of_a_replaced_run_does_not_make_it_the_newest() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
    let (old, new) = (session(3, 7), session(3, 8));
    let newest = |rig: &Rig| rig.voter.heard_incarnation(NodeId(3));
    rig.renew(0, old, 1, &[]);
    rig.renew(100, new, 1, &[]);
    rig.renew(175, old, 2, &[]);
    assert_eq!(newest(&rig), Some(Incarnation(8)));
    assert_eq!(rig.voter.heard(NodeId(3)), Some(Mono::from_millis(175)));
    // The newest run still hears of what it waits for.
    rig.renew(180, session(2, 7), 1, &[(1, 5)]);
    rig.set_log(185, log(1, &[1], &[(1, 3, 9)]));
    rig.renew(190, new, 2, &[(1, 9)]);
    rig.renew(195, old, 3, &[]);
    let freed = rig.send(200, full(session(2, 7), 2, &[]));
    assert_eq!(short(&answer_to(&freed, new, 2).unwrap(), &[(1, 9)]), ["G"]);
    // A run that was taken for replaced by mistake is the newest again once the other is silent.
    rig.renew(489, old, 4, &[]);
    assert_eq!(newest(&rig), Some(Incarnation(8)));
    rig.renew(490, old, 5, &[]);
    assert_eq!(newest(&rig), Some(Incarnation(7)));
}

#[test]
fn what_is_malformed_or_too_much_is_refused() {
    let s = session(2, 7);
    let long: Vec<Claim> = (0..=MAX_CLAIMS as u32)
        .map(|i| Claim {
            address: IpAddr::V4(Ipv4Addr::from(i)),
            epoch: Epoch(1),
        })
        .collect();
    let list = |claims: Vec<Claim>| Renew {
        claims: Claims::Full { rev: 1, claims },
        ..full(s, 1, &[])
    };
    let cases = [
        ("not in order", list(claims(&[(2, 5), (1, 5)]))),
        ("twice", list(claims(&[(1, 5), (1, 6)]))),
        ("too long", list(long)),
        (
            "no lease",
            Renew {
                lease: Duration::ZERO,
                ..full(s, 1, &[])
            },
        ),
        (
            "endless lease",
            Renew {
                lease: MAX_LEASE * 2,
                ..full(s, 1, &[(1, 5)])
            },
        ),
    ];
    for (name, renew) in cases {
        let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5), (2, 2, 5)]));
        let effects = rig.send(0, renew);
        assert_eq!(
            answer_to(&effects, s, 1).unwrap().verdict,
            Verdict::Refused,
            "{name}"
        );
        assert_eq!(
            rig.set_log(1, log(1, &[1], &[(1, 2, 5)])),
            [],
            "{name}: not looked at again"
        );
        assert_eq!(rig.promises(0), [], "{name}");
        assert_eq!(
            rig.voter.heard(NodeId(2)),
            Some(Mono::ZERO),
            "{name}: heard"
        );
    }
}

#[test]
fn sessions_are_bounded_and_those_with_promises_are_kept() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
    let holder = session(2, 0);
    rig.renew(0, holder, 1, &[(1, 5)]);
    for i in 1..50 {
        rig.renew(i, session(2, i), 1, &[]);
    }
    for node in 3..(MAX_SESSIONS as u64 * 2) {
        rig.renew(60, session(node, 1), 1, &[]);
    }
    assert!(rig.voter.sessions.iter().count() <= MAX_SESSIONS);
    assert!(
        rig.voter
            .sessions
            .iter()
            .filter(|(s, _)| s.node == NodeId(2))
            .count()
            <= 8
    );
    // Rule 1 still protects the promise.
    assert_eq!(rig.send(70, full(holder, 1, &[])), []);
    assert_eq!(rig.promises(70), [(1, 2, 5, PROMISE)]);
}

#[test]
fn a_node_with_only_holding_sessions_gets_no_more() {
    let assigned: Vec<(u8, u64, u64)> = (1..=9).map(|a| (a, 2, 5)).collect();
    let mut rig = Rig::new(0, log(1, &[1], &assigned));
    for i in 1..=9_u8 {
        let answer = rig.renew(0, session(2, u64::from(i)), 1, &[(i, 5)]);
        assert_eq!(
            answer.verdict == Verdict::Refused,
            usize::from(i) > MAX_SESSIONS_PER_NODE,
            "{i}"
        );
    }
}

#[test]
fn silent_sessions_are_forgotten() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
    rig.renew(0, session(2, 7), 9, &[(1, 5)]);
    let later = u64::try_from(SESSION_MEMORY.as_millis()).unwrap() + 1;
    rig.renew(later, session(3, 7), 1, &[]);
    assert!(rig.voter.sessions.get(session(2, 7)).is_none());
    assert_eq!(
        rig.voter.heard(NodeId(2)),
        Some(Mono::ZERO),
        "but not when it was heard"
    );
    assert_eq!(rig.voter.heard_incarnation(NodeId(2)), Some(Incarnation(7)));
}

#[test]
fn the_same_history_gives_the_same_state() {
    let run = || {
        let mut rig = Rig::new(PROMISE, log(1, &[1], &[(1, 2, 5), (2, 3, 6)]));
        rig.renew(0, session(2, 7), 1, &[(1, 5), (2, 5)]);
        rig.renew(400, session(3, 7), 1, &[(2, 6)]);
        rig.set_log(450, log(1, &[1], &[(1, 3, 8)]));
        rig.voter
    };
    assert_eq!(run(), run());
}

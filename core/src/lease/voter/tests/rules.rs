//! The voter's rules, one by one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::lease::messages::Pending;

#[test]
fn rule_1_stale_and_repeated_renewals_are_ignored() {
    let mut rig = Rig::new(0, log(1, &[1, 2, 3], &[(1, 2, 5)]));
    let s = session(2, 7);
    rig.renew(10, s, 6, &[(1, 5)]);
    for seq in [6, 5] {
        assert_eq!(rig.send(20, full(s, seq, &[])), [], "seq {seq}");
        assert_eq!(
            rig.promises(20),
            [(1, 2, 5, 10 + PROMISE)],
            "not released by seq {seq}"
        );
    }
    assert_eq!(rig.voter.heard(NodeId(2)), Some(Mono::from_millis(10)));
}

#[test]
fn rule_2_another_membership_or_no_vote_is_refused() {
    let cases = [
        ("votes, same membership", 1, vec![1, 2], true),
        ("another", 2, vec![1, 2], false),
        ("no vote", 1, vec![2, 3], false),
    ];
    for (name, index, voters, accepted) in cases {
        let mut rig = Rig::new(0, log(index, &voters, &[(1, 2, 5)]));
        let answer = rig.renew(10, session(2, 7), 1, &[(1, 5)]);
        assert_eq!(answer.verdict != Verdict::Refused, accepted, "{name}");
        assert_eq!(answer.config, config(index), "{name}: names its own");
        assert_eq!(rig.promises(10).len(), usize::from(accepted), "{name}");
        assert_eq!(
            rig.voter.heard(NodeId(2)),
            Some(Mono::from_millis(10)),
            "{name}: heard"
        );
    }
}

#[test]
fn rule_2_a_refused_renewal_neither_extends_nor_releases() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
    rig.renew(10, session(2, 7), 1, &[(1, 5)]);
    rig.set_log(20, log(2, &[1], &[(1, 2, 5)]));
    assert_eq!(
        rig.renew(30, session(2, 7), 2, &[]).verdict,
        Verdict::Refused
    );
    assert_eq!(
        rig.renew(40, session(2, 7), 3, &[(1, 5)]).verdict,
        Verdict::Refused
    );
    assert_eq!(rig.promises(50), [(1, 2, 5, 10 + PROMISE)]);
}

#[test]
fn rule_2_is_checked_again_when_the_log_catches_up() {
    let mut rig = Rig::new(0, log(0, &[1], &[(1, 2, 5)]));
    let s = session(2, 7);
    assert_eq!(rig.renew(10, s, 4, &[(1, 5)]).verdict, Verdict::Refused);
    let pushed = rig.set_log(30, log(1, &[1], &[(1, 2, 5)]));
    let answer = answer_to(&pushed, s, 4).expect("pushed, with the seq that asked");
    assert_eq!(short(&answer, &[(1, 5)]), ["G"]);
    assert_eq!(
        rig.promises(30),
        [(1, 2, 5, 10 + PROMISE)],
        "from the renewal, not from the push"
    );
}

#[test]
fn rule_3_decides_in_its_order() {
    // What was promised before, what the log says, what node 2 claims for address 1; the outcome.
    type Case = (
        &'static str,
        Option<(u64, u64)>,
        Option<(u64, u64)>,
        u64,
        &'static str,
    );
    let cases: [Case; 9] = [
        ("new", None, Some((2, 5)), 5, "G"),
        ("extended", Some((2, 5)), Some((2, 5)), 5, "G"),
        ("log is later", None, Some((3, 6)), 5, "D"),
        (
            "log is later, though promised",
            Some((2, 5)),
            Some((3, 6)),
            5,
            "D",
        ),
        (
            "a larger epoch is promised",
            Some((3, 6)),
            Some((3, 6)),
            5,
            "D",
        ),
        (
            "a larger epoch is promised, log rolled back",
            Some((3, 6)),
            Some((2, 5)),
            5,
            "D",
        ),
        (
            "another session has it",
            Some((3, 4)),
            Some((2, 5)),
            5,
            "P313",
        ),
        ("not heard of it yet", None, Some((3, 4)), 5, "P0"),
        ("assigned to another node", None, Some((3, 5)), 5, "P0"),
    ];
    for (name, promised, assigned, epoch, expected) in cases {
        let mut rig = Rig::new(0, log(1, &[1], &[]));
        if let Some((node, epoch)) = promised {
            rig.set_log(0, log(1, &[1], &[(1, node, epoch)]));
            rig.renew(0, session(node, 7), 1, &[(1, epoch)]);
            assert_eq!(rig.promises(0).len(), 1, "{name}");
        }
        let assigned: Vec<_> = assigned.iter().map(|(n, e)| (1, *n, *e)).collect();
        rig.set_log(10, log(1, &[1], &assigned));
        let answer = rig.renew(10, session(2, 7), 2, &[(1, epoch)]);
        assert_eq!(short(&answer, &[(1, epoch)]), [expected], "{name}");
    }
}

#[test]
fn rule_3_a_removed_address_is_superseded() {
    let mut view = (*log(1, &[1], &[])).clone();
    view.removed.insert(address(1), Epoch(6));
    view.forgotten = Epoch(4);
    let mut rig = Rig::new(0, Arc::new(view));
    let list = [(1, 5), (1, 6), (2, 4), (2, 5)];
    let told = list.map(|c| {
        short(
            &rig.renew(c.1, session(2, c.1 * 10 + u64::from(c.0)), 1, &[c]),
            &[c],
        )
        .concat()
    });
    assert_eq!(told, ["D", "P0", "D", "P0"]);
}

#[test]
fn rule_3_nothing_is_promised_in_quarantine() {
    let mut rig = Rig::new(PROMISE, log(1, &[1], &[(1, 2, 5), (2, 3, 6)]));
    let list = [(1, 5), (2, 5)];
    let answer = rig.renew(100, session(2, 7), 1, &list);
    assert_eq!(
        short(&answer, &list),
        ["P223", "D"],
        "superseded comes first"
    );
    assert_eq!(rig.promises(100), []);
    assert_eq!(rig.voter.next_deadline(), Some(Mono::from_millis(PROMISE)));
    let pushed = rig.handle(PROMISE, VoterEvent::Tick);
    let answer = answer_to(&pushed, session(2, 7), 1).expect("pushed when the quarantine ends");
    assert_eq!(short(&answer, &list), ["G", "D"]);
}

#[test]
fn rule_3_a_superseded_promise_is_not_extended_and_the_holder_hears_at_once() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5), (2, 2, 6)]));
    let (s, list) = (session(2, 7), [(1, 5), (2, 6)]);
    rig.renew(0, s, 1, &list);
    let pushed = rig.set_log(50, log(1, &[1], &[(1, 3, 9), (2, 2, 6)]));
    assert_eq!(short(&answer_to(&pushed, s, 1).unwrap(), &list), ["D", "G"]);
    assert_eq!(
        rig.promises(50),
        [(1, 2, 5, PROMISE), (2, 2, 6, PROMISE)],
        "a push prolongs nothing"
    );
    // Also a plain renewal extends the other one only.
    let answer = answer_to(&rig.send(100, same(s, 2, 1)), s, 2).unwrap();
    assert_eq!(short(&answer, &list), ["D", "G"]);
    assert_eq!(
        rig.promises(100),
        [(1, 2, 5, PROMISE), (2, 2, 6, 100 + PROMISE)]
    );
    // The next holder gets it the moment it has run out.
    let next = session(3, 8);
    assert_eq!(
        short(&rig.renew(110, next, 1, &[(1, 9)]), &[(1, 9)]),
        ["P213"]
    );
    assert_eq!(rig.voter.next_deadline(), Some(Mono::from_millis(PROMISE)));
    assert_eq!(rig.handle(PROMISE - 1, VoterEvent::Tick), []);
    let pushed = rig.handle(PROMISE, VoterEvent::Tick);
    assert_eq!(
        short(&answer_to(&pushed, next, 1).unwrap(), &[(1, 9)]),
        ["G"]
    );
}

#[test]
fn rule_4_a_missing_claim_is_released_and_waiting_sessions_hear_at_once() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5), (2, 2, 5)]));
    let (old, new) = (session(2, 7), session(3, 8));
    rig.renew(0, old, 1, &[(1, 5), (2, 5)]);
    rig.set_log(10, log(1, &[1], &[(1, 3, 9), (2, 2, 5)]));
    assert_eq!(
        short(&rig.renew(20, new, 3, &[(1, 9)]), &[(1, 9)]),
        ["P303"]
    );
    rig.renew(25, new, 4, &[(1, 9)]);
    let effects = rig.send(30, full(old, 2, &[(2, 5)]));
    assert!(answer_to(&effects, old, 2).is_some());
    assert_eq!(
        answer_to(&effects, new, 3),
        None,
        "only the newest renewal is answered"
    );
    assert_eq!(
        short(&answer_to(&effects, new, 4).unwrap(), &[(1, 9)]),
        ["G"]
    );
    assert_eq!(
        rig.promises(30),
        [(1, 3, 9, 25 + PROMISE), (2, 2, 5, 30 + PROMISE)]
    );
}

#[test]
fn rule_4_comes_before_a_larger_epoch_of_the_same_session_and_after_a_smaller_one() {
    for (first, then, expected, left) in [(5, 9, "G", vec![9]), (9, 5, "D", vec![])] {
        let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, first)]));
        rig.renew(0, session(2, 7), 1, &[(1, first)]);
        rig.set_log(10, log(1, &[1], &[(1, 2, then)]));
        let answer = rig.renew(20, session(2, 7), 2, &[(1, then)]);
        assert_eq!(short(&answer, &[(1, then)]), [expected]);
        let epochs: Vec<u64> = rig.promises(20).iter().map(|p| p.2).collect();
        assert_eq!(epochs, left);
    }
}

#[test]
fn rule_5_a_promise_is_never_moved_back() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5)]));
    let s = session(2, 7);
    rig.renew(0, s, 1, &[(1, 5)]);
    let mut shorter = same(s, 2, 1);
    shorter.lease = Duration::from_millis(100);
    rig.send(10, shorter);
    assert_eq!(rig.promises(10), [(1, 2, 5, PROMISE)]);
    // Neither where it ran out on a timer of its own meanwhile and is granted again.
    rig.set_log(20, log(1, &[1], &[(1, 3, 6)]));
    rig.set_log(30, log(1, &[1], &[(1, 2, 5)]));
    assert_eq!(rig.promises(30), [(1, 2, 5, PROMISE)]);
}

#[test]
fn rule_5_a_log_change_extends_nothing_of_a_silent_session() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5), (2, 2, 6)]));
    rig.renew(0, session(2, 7), 1, &[(1, 5), (2, 6)]);
    // Node 2 is dead. Its first address is moved, other entries follow, until just before the end.
    for (at, index) in [(200, 9), (PROMISE - 1, 10)] {
        rig.set_log(at, log(1, &[1], &[(1, 3, index), (2, 3, index)]));
        assert_eq!(rig.promises(at), [(1, 2, 5, PROMISE), (2, 2, 6, PROMISE)]);
    }
    // The one that is not superseded (by a log that was rolled back) is not prolonged either.
    rig.set_log(PROMISE - 1, log(1, &[1], &[(1, 3, 10), (2, 2, 6)]));
    assert_eq!(
        rig.promises(PROMISE - 1),
        [(1, 2, 5, PROMISE), (2, 2, 6, PROMISE)]
    );
    // So its successor gets both the moment the last renewal has run out.
    rig.set_log(PROMISE - 1, log(1, &[1], &[(1, 3, 10), (2, 3, 10)]));
    let (next, list) = (session(3, 8), [(1, 10), (2, 10)]);
    let waits = rig.renew(PROMISE - 1, next, 1, &list);
    assert_eq!(short(&waits, &list), ["P1", "P1"]);
    let pushed = rig.handle(PROMISE, VoterEvent::Tick);
    assert_eq!(
        short(&answer_to(&pushed, next, 1).unwrap(), &list),
        ["G", "G"]
    );
}

#[test]
fn rule_5_one_renewal_extends_all_that_is_granted() {
    let list: Vec<(u8, u64)> = (1..=200).map(|a| (a, 5)).collect();
    let assigned: Vec<_> = list.iter().map(|(a, e)| (*a, 2, *e)).collect();
    let mut rig = Rig::new(0, log(1, &[1], &assigned));
    let s = session(2, 7);
    rig.renew(0, s, 1, &list);
    rig.send(75, same(s, 2, 1));
    let ends: BTreeSet<u64> = rig.promises(75).iter().map(|p| p.3).collect();
    assert_eq!(
        (rig.promises(75).len(), ends),
        (200, BTreeSet::from([75 + PROMISE]))
    );
}

#[test]
fn rule_6_the_answer_names_what_it_is_for() {
    let mut rig = Rig::new(0, log(1, &[1], &[(1, 2, 5), (2, 3, 6)]));
    let answer = rig.renew(0, session(2, 7), 9, &[(1, 5), (2, 5), (3, 5)]);
    let pending = vec![Pending {
        address: address(3),
        wait: Duration::ZERO,
    }];
    let verdict = Verdict::Claims {
        rev: 9,
        denied: claims(&[(2, 5)]),
        pending,
    };
    let expected = Answer {
        voter: NodeId(1),
        session: session(2, 7),
        seq: 9,
        config: config(1),
        verdict,
    };
    assert_eq!(answer, expected);
}

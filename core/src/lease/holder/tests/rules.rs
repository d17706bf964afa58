//! The holder's rules, one by one.

use super::*;

const ALL_FULL: [&str; 3] = ["send 1 full", "send 2 full", "send 3 full"];

#[test]
fn a_claim_starts_with_the_applied_state_and_names_its_membership() {
    let (rig, effects) = Rig::new(&[("a", 5, &[2, 1])]);
    assert_eq!(effects, ALL_FULL);
    assert_eq!(rig.claimed(1), [(1, 5), (2, 5)]);
    assert_eq!(rig.newest(2).config, ConfigId { term: 1, index: 1 });
    let seqs: BTreeSet<u64> = rig.sent.iter().map(|(_, r)| r.seq).collect();
    assert_eq!(seqs.len(), 3, "every renewal has its own seq");
}

#[test]
fn active_with_a_majority_counted_from_the_send_time() {
    let (mut rig, _) = Rig::new(&[("a", 5, &[1])]);
    assert_eq!(
        rig.answer(40, 3, Say::Yes),
        Vec::<String>::new(),
        "one of three is no majority"
    );
    assert_eq!(
        rig.answer(60, 1, Say::Yes),
        ["deadline 1 300", "open a 5 in 1"]
    );
    let status = rig.holder.status().next().unwrap();
    assert_eq!(status.deadline, Some(Mono::from_millis(300)));
    assert_eq!(status.granted_by, [NodeId(1), NodeId(3)]);
}

#[test]
fn all_addresses_must_be_granted() {
    let (mut rig, _) = Rig::new(&[("a", 5, &[1, 2])]);
    rig.answer(0, 1, Say::Yes);
    assert_eq!(rig.answer(1, 2, Say::NotYet(&[2])), Vec::<String>::new());
    let waits = rig.holder.status().next().unwrap().waits;
    assert_eq!(waits, [(NodeId(2), Duration::from_millis(40))]);
    assert_eq!(
        rig.answer(2, 3, Say::Yes),
        ["deadline 1 300", "open a 5 in 1"]
    );
}

#[test]
fn learners_never_count() {
    let (mut rig, _) = Rig::new(&[("a", 5, &[1])]);
    rig.answer(0, 1, Say::Yes);
    let renew = rig.newest(2);
    for learner in 4..9 {
        assert_eq!(
            rig.answer_to(1, learner, &renew, Say::Yes),
            Vec::<String>::new()
        );
    }
    assert_eq!(rig.phases(), [("a".to_owned(), 5, Phase::Claiming)]);
}

#[test]
fn a_joint_membership_needs_a_majority_of_each_half() {
    let (mut rig, _) = Rig::new(&[]);
    rig.applied(
        10,
        membership(2, &[&[1, 2, 3], &[3, 4, 5]]),
        &[("a", 5, &[1])],
    );
    for voter in [1, 2, 4] {
        assert_eq!(
            rig.answer(20, voter, Say::Yes),
            Vec::<String>::new(),
            "{voter}"
        );
    }
    assert_eq!(
        rig.answer(20, 5, Say::Yes),
        ["deadline 1 310", "open a 5 in 1"]
    );
}

#[test]
fn every_successful_round_moves_the_deadline_and_no_other_answer_does() {
    let mut rig = Rig::active();
    rig.answer(1, 3, Say::Yes);
    assert_eq!(rig.tick(RENEW), ["send 1", "send 2", "send 3"]);
    assert_eq!(rig.answer(76, 3, Say::Yes), Vec::<String>::new());
    assert_eq!(rig.answer(77, 1, Say::Yes), ["deadline 1 375"]);
    assert_eq!(
        rig.answer(78, 2, Say::Yes),
        Vec::<String>::new(),
        "no later majority"
    );
}

#[test]
fn stale_foreign_and_unknown_answers_are_dropped() {
    let mut rig = Rig::active();
    let old = rig.newest(3);
    rig.tick(RENEW);
    rig.answer(76, 3, Say::Yes);
    let newest = rig.newest(1);
    let foreign = Session {
        node: NodeId(1),
        incarnation: Incarnation(8),
    };
    let cases = [
        ("older than the newest answered", 3, old),
        (
            "another session",
            1,
            Renew {
                session: foreign,
                ..newest.clone()
            },
        ),
        (
            "another membership",
            1,
            Renew {
                config: ConfigId { term: 1, index: 9 },
                ..newest.clone()
            },
        ),
        (
            "a seq never sent",
            1,
            Renew {
                seq: 99,
                ..newest.clone()
            },
        ),
        ("a seq sent to another", 2, newest.clone()),
        ("not a voter", 9, newest),
    ];
    for (what, voter, renew) in cases {
        assert_eq!(
            rig.answer_to(80, voter, &renew, Say::Yes),
            Vec::<String>::new(),
            "{what}"
        );
    }
}

#[test]
fn a_pushed_answer_counts_from_the_renewal_that_asked() {
    let (mut rig, _) = Rig::new(&[("a", 5, &[1])]);
    rig.answer(1, 1, Say::Yes);
    rig.answer(1, 2, Say::NotYet(&[1]));
    assert_eq!(
        rig.answer(60, 2, Say::Yes),
        ["deadline 1 300", "open a 5 in 1"]
    );
}

#[test]
fn answers_to_one_renewal_add_up_in_any_order() {
    let (mut rig, _) = Rig::new(&[("a", 5, &[1]), ("b", 6, &[2])]);
    rig.answer(1, 1, Say::Yes);
    assert_eq!(
        rig.answer(50, 2, Say::NotYet(&[2])),
        ["deadline 1 300", "open a 5 in 1"]
    );
    // The first answer comes after the pushed one: "a" was pending then.
    rig.answer(51, 2, Say::NotYet(&[1, 2]));
    assert_eq!(
        rig.holder.status().next().unwrap().granted_by,
        [NodeId(1), NodeId(2)]
    );
    // But a denial counts whenever it comes.
    let down = rig.answer(52, 2, Say::No(1, 5));
    assert_eq!(down[0], "shut a 5: Denied { by: NodeId(2) }");
}

#[test]
fn a_new_membership_starts_the_count_afresh_and_the_old_deadline_stands() {
    let mut rig = Rig::active();
    let before = rig.newest(3);
    let effects = rig.applied(50, membership(2, &[&[1, 2, 4]]), &[("a", 5, &[1])]);
    assert_eq!(effects, ["send 1", "send 2", "send 4 full"]);
    assert_eq!(
        rig.answer_to(51, 3, &before, Say::Yes),
        Vec::<String>::new()
    );
    rig.answer(60, 4, Say::Yes);
    assert_eq!(
        rig.holder.status().next().unwrap().deadline,
        Some(Mono::from_millis(300))
    );
    assert_eq!(rig.answer(60, 1, Say::Yes), ["deadline 1 350"]);
    // Without that answer the old deadline ends it.
    let mut rig = Rig::active();
    rig.applied(50, membership(2, &[&[1, 2, 4]]), &[("a", 5, &[1])]);
    rig.answer(60, 4, Say::Yes);
    assert_eq!(
        rig.tick(299)
            .iter()
            .filter(|e| e.starts_with("shut"))
            .count(),
        0
    );
    assert_eq!(rig.tick(300)[0], "shut a 5: Expired");
}

#[test]
fn it_goes_down_at_once_and_the_claim_stays_until_it_is_lowered() {
    type Cause = fn(&mut Rig) -> Vec<String>;
    let cases: [(&str, Cause, bool); 5] = [
        (
            "shut a 5: Unassigned",
            |r| r.applied(10, membership(1, &[&[1, 2, 3]]), &[]),
            false,
        ),
        (
            "shut a 5: Denied { by: NodeId(3) }",
            |r| r.answer(10, 3, Say::No(1, 5)),
            true,
        ),
        ("shut a 5: Expired", |r| r.tick(300), true),
        (
            "shut a 5: GivenUp(\"no carrier\")",
            |r| {
                let (vip, epoch, reason) = (name("a"), Epoch(5), "no carrier".to_owned());
                r.handle(10, HolderEvent::GiveUp { vip, epoch, reason })
            },
            true,
        ),
        (
            "shut a 5: Stopping",
            |r| r.handle(10, HolderEvent::Stop),
            false,
        ),
    ];
    for (shut, cause, given_up) in cases {
        let mut rig = Rig::active();
        let effects = cause(&mut rig);
        assert_eq!(effects[0], shut);
        assert_eq!(
            effects.contains(&"gave up a 5".to_owned()),
            given_up,
            "{shut}"
        );
        assert_eq!(rig.phases(), [("a".to_owned(), 5, Phase::Lowering)]);
        rig.tick(400);
        let rev = rig.newest(3).claims.rev();
        assert_eq!(
            rig.lowered(410, "a", 5),
            ALL_FULL,
            "{shut}: the release is sent at once"
        );
        assert_eq!(rig.claimed(2), []);
        assert!(rig.newest(3).claims.rev() > rev);
        // The same assignment is never claimed again, whatever order states are handed over in.
        for assigned in [&[("a", 5, &[1][..])][..], &[], &[("a", 5, &[1])]] {
            rig.applied(420, membership(1, &[&[1, 2, 3]]), assigned);
            assert!(rig.holder.is_idle(), "{shut}");
        }
    }
}

#[test]
fn a_new_epoch_comes_back_unless_stopping() {
    for (stop, expected) in [(false, vec![(1, 9)]), (true, vec![])] {
        let mut rig = Rig::active();
        if stop {
            rig.handle(10, HolderEvent::Stop);
        } else {
            rig.answer(10, 3, Say::No(1, 5));
        }
        rig.lowered(20, "a", 5);
        rig.applied(30, membership(1, &[&[1, 2, 3]]), &[("a", 9, &[1])]);
        rig.tick(110);
        assert_eq!(rig.claimed(2), expected, "stop: {stop}");
    }
}

#[test]
fn a_claim_that_never_was_up_goes_without_a_shut() {
    let (mut rig, _) = Rig::new(&[("a", 5, &[1]), ("b", 6, &[2])]);
    assert_eq!(
        rig.answer(10, 3, Say::No(2, 6)),
        ["gave up b 6", "send 1 full", "send 2 full", "send 3 full"]
    );
    assert_eq!(rig.claimed(1), [(1, 5)]);
}

#[test]
fn an_edited_vip_is_lowered_first_and_release_and_claim_travel_together() {
    let mut rig = Rig::active();
    let effects = rig.applied(10, membership(1, &[&[1, 2, 3]]), &[("a", 9, &[1, 2])]);
    assert_eq!(effects, ["shut a 5: Unassigned"]);
    assert_eq!(
        rig.phases(),
        [
            ("a".to_owned(), 5, Phase::Lowering),
            ("a".to_owned(), 9, Phase::Claiming)
        ]
    );
    assert_eq!(rig.lowered(12, "a", 5), ALL_FULL);
    assert_eq!(rig.claimed(2), [(1, 9), (2, 9)]);
    rig.answer(13, 1, Say::Yes);
    assert_eq!(
        rig.answer(13, 2, Say::Yes),
        ["deadline 1 312", "open a 9 in 1"]
    );
}

#[test]
fn an_address_waits_until_the_vip_that_had_it_is_lowered() {
    let mut rig = Rig::active();
    rig.applied(10, membership(1, &[&[1, 2, 3]]), &[("b", 9, &[1])]);
    rig.tick(80);
    assert_eq!(rig.claimed_or_same(2), None, "the old list still stands");
    assert_eq!(rig.lowered(90, "a", 5), ALL_FULL);
    assert_eq!(rig.claimed(2), [(1, 9)]);
}

#[test]
fn grants_of_an_earlier_list_do_not_count_for_a_later_claim() {
    let mut rig = Rig::active();
    let old = rig.newest(3);
    rig.applied(
        10,
        membership(1, &[&[1, 2, 3]]),
        &[("a", 5, &[1]), ("b", 9, &[2])],
    );
    // Answers to the list without "b" arrive after "b" was claimed.
    rig.answer_to(11, 3, &old, Say::Yes);
    rig.answer(12, 1, Say::Yes);
    assert_eq!(rig.phases()[1].2, Phase::Claiming);
    let opened = rig.answer(13, 2, Say::Yes);
    let expected = ["deadline 1 310", "deadline 2 310", "open b 9 in 2"];
    assert_eq!(opened, expected, "voter 3 grants only one of them so far");
}

#[test]
fn an_answer_after_the_deadline_revives_nothing() {
    let mut rig = Rig::active();
    rig.tick(RENEW);
    rig.answer(76, 1, Say::Yes);
    // The answer that would have extended it comes too late.
    assert_eq!(rig.answer(300, 2, Say::Yes)[0], "shut a 5: Expired");
    assert_eq!(rig.phases(), [("a".to_owned(), 5, Phase::Lowering)]);
}

#[test]
fn too_many_addresses_or_none_are_given_up() {
    let (mut rig, effects) = Rig::new(&[("a", 5, &[])]);
    assert_eq!(effects[0], "gave up a 5");
    let max = u32::try_from(crate::lease::voter::MAX_CLAIMS).unwrap();
    let addresses = (0..=max).map(|i| IpAddr::V4(Ipv4Addr::from(i))).collect();
    let wanted = Wanted {
        vip: name("b"),
        epoch: Epoch(6),
        addresses,
    };
    let membership = membership(1, &[&[1, 2, 3]]);
    let view = HolderView {
        membership,
        assignments: vec![wanted],
    };
    assert_eq!(rig.handle(10, HolderEvent::Applied(view))[0], "gave up b 6");
    assert!(rig.holder.is_idle());
}

impl Rig {
    /// The list of the newest renewal to a voter, if it names one.
    fn claimed_or_same(&self, voter: u64) -> Option<Vec<(u8, u64)>> {
        let named = matches!(self.newest(voter).claims, Claims::Full { .. });
        named.then(|| self.claimed(voter))
    }
}

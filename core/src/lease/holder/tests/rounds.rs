//! When the holder sends, and to whom.

use super::*;

/// All voters answer everything at this time.
fn all_answer(rig: &mut Rig, at: u64) {
    for voter in 1..=3 {
        rig.answer(at, voter, Say::Yes);
    }
}

#[test]
fn renewals_go_on_without_claims() {
    let (mut rig, first) = Rig::new(&[]);
    assert_eq!(first.len(), 3);
    all_answer(&mut rig, 1);
    assert_eq!(rig.holder.next_deadline(), Some(Mono::from_millis(RENEW)));
    assert_eq!(rig.tick(RENEW), ["send 1", "send 2", "send 3"]);
    assert_eq!(rig.newest(1).claims, Claims::Same { rev: 1 });
    rig.handle(80, HolderEvent::Stop);
    assert_eq!(rig.tick(2 * RENEW).len(), 3, "also while stopping");
}

#[test]
fn nothing_is_sent_before_the_first_applied_state() {
    let me = Session {
        node: NodeId(1),
        incarnation: Incarnation(7),
    };
    let length = Duration::from_millis(1);
    let params = HolderParams {
        lease: length,
        gate_margin: Duration::ZERO,
        renew_every: length,
        retry_after: length,
    };
    let mut holder = Holder::new(me, params);
    let mut effects = Vec::new();
    holder.handle(Mono::from_millis(5_000), HolderEvent::Tick, &mut effects);
    assert_eq!((effects, holder.next_deadline()), (vec![], None));
}

#[test]
fn the_list_is_sent_until_it_is_acknowledged_and_again_when_forgotten() {
    let (mut rig, _) = Rig::new(&[("a", 5, &[1])]);
    rig.answer(1, 1, Say::Yes);
    rig.answer(1, 2, Say::NotYet(&[1]));
    rig.answer(1, 3, Say::Refused);
    assert_eq!(rig.tick(RENEW), ["send 1", "send 2", "send 3 full"]);
    assert_eq!(
        rig.answer(76, 1, Say::UnknownRev),
        ["send 1 full"],
        "at once"
    );
    assert_eq!(rig.answer(77, 1, Say::Yes), Vec::<String>::new());
    assert_eq!(rig.tick(2 * RENEW)[0], "send 1");
}

#[test]
fn living_voters_are_asked_again_until_they_answer() {
    let (mut rig, _) = Rig::new(&[]);
    all_answer(&mut rig, 1);
    rig.tick(RENEW);
    assert_eq!(
        rig.holder.next_deadline(),
        Some(Mono::from_millis(RENEW + RETRY))
    );
    rig.answer(RENEW + 1, 1, Say::Yes);
    assert_eq!(rig.tick(RENEW + RETRY), ["send 2", "send 3"]);
    rig.answer(RENEW + RETRY + 1, 2, Say::Yes);
    assert_eq!(
        rig.tick(RENEW + 2 * RETRY),
        ["send 3"],
        "though a majority has answered: voter 3 may lead, and judge who is silent"
    );
    rig.answer(RENEW + 2 * RETRY + 1, 3, Say::Yes);
    assert_eq!(
        rig.holder.next_deadline(),
        Some(Mono::from_millis(2 * RENEW))
    );
}

#[test]
fn a_dead_voter_gets_the_regular_rounds_only() {
    let (mut rig, _) = Rig::new(&[]);
    all_answer(&mut rig, 1);
    let mut sends = 0;
    // Voters 2 and 3 are silent from now on: a majority is missing all the time.
    for at in 2..2_000 {
        let due = rig
            .holder
            .next_deadline()
            .is_some_and(|d| d <= Mono::from_millis(at));
        if due {
            let effects = rig.tick(at);
            sends += effects
                .iter()
                .filter(|e| e.starts_with("send 2") && at > 301 + RETRY)
                .count();
        }
    }
    let rounds = (2_000 - 301 - RETRY) / RENEW;
    assert!(
        (rounds - 1..=rounds + 1).contains(&(sends as u64)),
        "{sends} sends in {rounds} rounds"
    );
}

#[test]
fn a_changed_list_is_sent_again_to_living_voters_until_acknowledged() {
    let (mut rig, _) = Rig::new(&[]);
    all_answer(&mut rig, 1);
    rig.applied(10, membership(1, &[&[1, 2, 3]]), &[("a", 5, &[1])]);
    rig.answer(11, 1, Say::Yes);
    rig.answer(11, 2, Say::Yes);
    assert_eq!(
        rig.tick(10 + RETRY),
        ["send 3 full"],
        "though a majority has answered"
    );
    rig.answer(40, 3, Say::Refused);
    assert_eq!(
        rig.tick(70),
        Vec::<String>::new(),
        "it has answered, the next round will do"
    );
}

#[test]
fn many_changes_at_once_travel_together() {
    let vips: Vec<(String, u64, Vec<u8>)> =
        (1..=100).map(|i| (format!("v{i}"), 5, vec![i])).collect();
    let assigned: Vec<Assigned<'_>> = vips
        .iter()
        .map(|(n, e, a)| (n.as_str(), *e, a.as_slice()))
        .collect();
    let (mut rig, effects) = Rig::new(&assigned);
    assert_eq!(effects.len(), 3, "one list to each voter");
    rig.answer(1, 1, Say::Yes);
    rig.answer(1, 2, Say::Yes);
    rig.answer(1, 3, Say::Yes);
    rig.applied(10, membership(1, &[&[1, 2, 3]]), &[]);
    let mut sends = 0;
    for (vip, epoch, _) in &vips {
        sends += rig.lowered(10, vip, *epoch).len();
    }
    assert_eq!(sends, 3, "the first at once");
    assert_eq!(rig.holder.next_deadline(), Some(Mono::from_millis(11)));
    assert_eq!(rig.tick(11).len(), 3, "the others a millisecond later");
    assert_eq!(rig.claimed(1), []);
}

#[test]
fn a_revision_never_names_two_lists() {
    let three = [("a", 5, &[1][..]), ("b", 5, &[2]), ("c", 5, &[3])];
    let (mut rig, _) = Rig::new(&three);
    rig.answer(1, 1, Say::Yes);
    rig.answer(1, 2, Say::Yes);
    rig.applied(10, membership(1, &[&[1, 2, 3]]), &[]);
    let mut lists = std::collections::BTreeMap::new();
    let mut note = |rig: &Rig| {
        for (_, renew) in &rig.sent {
            if let Claims::Full { rev, claims } = &renew.claims {
                let known = lists.entry(*rev).or_insert_with(|| claims.clone());
                assert_eq!(known, claims, "revision {rev}");
            }
        }
    };
    rig.lowered(10, "a", 5);
    rig.lowered(10, "b", 5);
    // The change waits to be sent; a voter that asks for the list gets what it is by now.
    assert_eq!(rig.answer(10, 3, Say::UnknownRev), ["send 3 full"]);
    rig.lowered(10, "c", 5);
    rig.tick(12);
    note(&rig);
    assert_eq!(rig.claimed(3), []);
}

#[test]
fn late_rounds_keep_the_beat_and_never_pile_up() {
    let (mut rig, _) = Rig::new(&[]);
    for (at, next) in [(75, 150), (160, 225), (1_000, 1_075)] {
        assert_eq!(rig.tick(at).len(), 3, "{at}");
        all_answer(&mut rig, at);
        assert_eq!(rig.holder.next_deadline(), Some(Mono::from_millis(next)));
    }
}

#[test]
fn it_knows_when_a_majority_last_answered() {
    let (mut rig, _) = Rig::new(&[]);
    assert_eq!(rig.holder.quorum_answered_at(), None);
    rig.answer(4, 1, Say::Refused);
    rig.answer(9, 3, Say::Yes);
    assert_eq!(rig.holder.quorum_answered_at(), Some(Mono::from_millis(4)));
    let third = rig.holder.voters().nth(2).unwrap();
    assert_eq!(
        (third.node, third.round_trip),
        (NodeId(3), Some(Duration::from_millis(9)))
    );
}

/// A gate that shuts late needs longer promises, and no later deadlines.
#[test]
fn the_margin_of_the_gate_is_asked_for_and_not_used() {
    let me = Session {
        node: NodeId(1),
        incarnation: Incarnation(7),
    };
    let params = HolderParams {
        lease: Duration::from_millis(LEASE),
        gate_margin: Duration::from_millis(30),
        renew_every: Duration::from_millis(RENEW),
        retry_after: Duration::from_millis(RETRY),
    };
    let mut rig = Rig {
        holder: Holder::new(me, params),
        sent: Vec::new(),
    };
    rig.applied(0, membership(1, &[&[1]]), &[("a", 5, &[1])]);
    assert_eq!(
        rig.sent[0].1.lease,
        Duration::from_millis(LEASE + 30),
        "what the voter counts with"
    );
    let opened = rig.answer(1, 1, Say::Yes);
    assert_eq!(opened, ["deadline 1 300", "open a 5 in 1"]);
}

#[test]
fn changes_of_a_long_list_travel_together() {
    let vips = 4 * CLAIMS_PER_PACE as u64;
    let me = Session {
        node: NodeId(1),
        incarnation: Incarnation(7),
    };
    let params = HolderParams {
        lease: Duration::from_millis(LEASE),
        gate_margin: Duration::ZERO,
        renew_every: Duration::from_millis(RENEW),
        retry_after: Duration::from_millis(RETRY),
    };
    let wanted = |i: u64| Wanted {
        vip: name(&format!("v{i}")),
        epoch: Epoch(5),
        addresses: vec![IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + i as u32))],
    };
    let mut rig = Rig {
        holder: Holder::new(me, params),
        sent: Vec::new(),
    };
    rig.handle(
        0,
        HolderEvent::Applied(HolderView {
            membership: membership(1, &[&[1]]),
            assignments: (0..vips).map(wanted).collect(),
        }),
    );
    rig.answer(0, 1, Say::Yes);
    rig.handle(10, HolderEvent::Stop);
    rig.sent.clear();
    // One is lowered after the other: not one list for each millisecond of it.
    for i in 0..vips / 2 {
        let lowered = HolderEvent::Lowered {
            vip: name(&format!("v{i}")),
            epoch: Epoch(5),
            kept: vec![],
        };
        rig.handle(10 + i / 32, lowered);
    }
    assert!(rig.sent.len() <= 12, "{} lists in 32 ms", rig.sent.len());
    // And the last change does not wait for the next round.
    let due = rig.holder.next_deadline().unwrap();
    assert!(due <= Mono::from_millis(10 + 32 + 5), "{due:?}");
}

#[test]
fn only_a_lasting_reason_says_that_the_next_epoch_would_end_the_same_way() {
    let lasting = [DownReason::NoSlot, DownReason::AddressCount { limit: 1 }];
    let passing = [
        DownReason::GivenUp("no carrier".into()),
        DownReason::Unassigned,
        DownReason::Denied { by: NodeId(1) },
        DownReason::Expired,
        DownReason::Stopping,
    ];
    assert!(lasting.iter().all(DownReason::is_lasting));
    assert!(!passing.iter().any(DownReason::is_lasting));
}

#[test]
fn a_round_that_is_due_soon_begins_with_that_of_another_node() {
    let (mut rig, _) = Rig::new(&[]);
    all_answer(&mut rig, 1);
    let early = RENEW / 2 - 1;
    assert_eq!(rig.handle(early, HolderEvent::Heard), Vec::<String>::new());
    assert_eq!(rig.holder.next_deadline(), Some(Mono::from_millis(RENEW)));
    let joined = RENEW - 10;
    assert_eq!(
        rig.handle(joined, HolderEvent::Heard),
        ["send 1", "send 2", "send 3"]
    );
    all_answer(&mut rig, joined + 1);
    // From then on they are together: the other's next round is no reason for one more.
    let next = Some(Mono::from_millis(joined + RENEW));
    assert_eq!(rig.holder.next_deadline(), next);
    assert_eq!(
        rig.handle(joined + 1, HolderEvent::Heard),
        Vec::<String>::new()
    );
    assert_eq!(rig.holder.next_deadline(), next);
}

//! Which VIPs share a slot of the gate, and how they change between slots.

use super::*;

/// VIPs "a" and "b", both up and granted by voters 1 to 3 at time 0.
fn two_active() -> Rig {
    let (mut rig, _) = Rig::new(&[("a", 5, &[1]), ("b", 6, &[2])]);
    rig.answer(0, 1, Say::Yes);
    let effects = rig.answer(0, 2, Say::Yes);
    assert_eq!(
        effects,
        ["deadline 1 300", "open a 5 in 1", "open b 6 in 1"]
    );
    rig.answer(0, 3, Say::Yes);
    rig
}

fn deadlines(rig: &Rig) -> Vec<u64> {
    rig.holder
        .status()
        .map(|s| s.deadline.map_or(0, |d| d.0 / 1_000_000))
        .collect()
}

#[test]
fn a_round_costs_one_deadline_however_many_vips_there_are() {
    let vips: Vec<String> = (0..200).map(|i| format!("v{i}")).collect();
    let address: Vec<Vec<u8>> = (0..200).map(|i| vec![i]).collect();
    let assigned: Vec<Assigned<'_>> = vips
        .iter()
        .zip(&address)
        .map(|(n, a)| (n.as_str(), 5, a.as_slice()))
        .collect();
    let (mut rig, _) = Rig::new(&assigned);
    rig.answer(0, 1, Say::Yes);
    rig.answer(0, 2, Say::Yes);
    rig.tick(RENEW);
    assert_eq!(rig.answer(76, 1, Say::Yes), Vec::<String>::new());
    assert_eq!(rig.answer(76, 2, Say::Yes), ["deadline 1 375"]);
}

#[test]
fn a_vip_that_a_voter_does_not_grant_does_not_profit_from_its_answer() {
    let mut rig = two_active();
    rig.tick(RENEW);
    assert_eq!(rig.answer(76, 1, Say::Yes), Vec::<String>::new());
    // Voter 2 was restarted between the claims: it grants "a" only.
    let effects = rig.answer(77, 2, Say::NotYet(&[2]));
    assert_eq!(
        effects,
        ["deadline 2 300", "remap b 6 to 2", "deadline 1 375"]
    );
    assert_eq!(
        deadlines(&rig),
        [375, 300],
        "the deadline that stood goes on for the other"
    );
    // Voter 3 brings them to the same deadline, not to the same voters.
    assert_eq!(rig.answer(78, 3, Say::Yes), ["deadline 2 375"]);
    assert_eq!(deadlines(&rig), [375, 375]);
    // When voter 2 grants both, the slots meet and are merged.
    rig.tick(2 * RENEW);
    rig.answer(151, 1, Say::Yes);
    rig.answer(152, 2, Say::Yes);
    let effects = rig.answer(153, 3, Say::Yes);
    let slots: BTreeSet<Option<SlotId>> = rig.holder.status().map(|s| s.slot).collect();
    assert_eq!(slots.len(), 1, "{effects:?}");
    assert_eq!(deadlines(&rig), [450, 450]);
}

#[test]
fn deadlines_never_move_back() {
    let mut rig = two_active();
    rig.tick(RENEW);
    rig.answer(76, 1, Say::Yes);
    rig.answer(77, 2, Say::Yes);
    assert_eq!(deadlines(&rig), [375, 375]);
    // Now two of three pass "b" over: what was counted before stands, and is not extended.
    rig.tick(2 * RENEW);
    rig.answer(151, 2, Say::NotYet(&[2]));
    rig.answer(152, 3, Say::NotYet(&[2]));
    rig.answer(153, 1, Say::Yes);
    assert_eq!(deadlines(&rig), [450, 375]);
    assert_eq!(rig.tick(375)[0], "shut b 6: Expired");
    assert_eq!(deadlines(&rig), [450, 0]);
}

#[test]
fn deadlines_never_move_back_when_a_newer_voter_drops_out() {
    let mut rig = two_active();
    rig.tick(RENEW);
    rig.answer(76, 1, Say::Yes);
    rig.answer(76, 3, Say::Yes);
    assert_eq!(deadlines(&rig), [375, 375]);
    // "b" rests on voters 1 and 2 from now on, and 2 has not answered since time 0.
    rig.tick(2 * RENEW);
    rig.answer(151, 3, Say::NotYet(&[2]));
    assert_eq!(deadlines(&rig), [450 - RENEW, 375], "not 300");
    rig.answer(152, 1, Say::Yes);
    assert_eq!(deadlines(&rig), [450, 375]);
}

#[test]
fn a_slot_is_used_again_only_after_all_its_vips_are_lowered() {
    for (lowered, slot) in [(&["a"][..], 3), (&["a", "b"], 1)] {
        let mut rig = two_active();
        let m = membership(1, &[&[1, 2, 3]]);
        // Both go down; "c" comes up before they are lowered.
        rig.applied(10, m.clone(), &[("c", 9, &[3])]);
        rig.answer(11, 1, Say::Yes);
        let opened = rig.answer(11, 2, Say::Yes);
        assert_eq!(opened, ["deadline 2 310", "open c 9 in 2"]);
        for vip in lowered {
            rig.lowered(20, vip, if *vip == "a" { 5 } else { 6 });
        }
        rig.tick(21);
        rig.applied(30, m, &[("c", 9, &[3]), ("d", 12, &[4])]);
        rig.answer(31, 1, Say::NotYet(&[3]));
        // "d" is granted by other voters than "c": it gets a slot of its own.
        let expected = [
            format!("deadline {slot} 330"),
            format!("open d 12 in {slot}"),
        ];
        assert_eq!(rig.answer(31, 2, Say::Yes), expected);
    }
}

#[test]
fn when_all_slots_are_taken_a_vip_shares_or_waits() {
    let mut rig = Rig::active();
    // 62 more slots are kept by VIPs that are shut and not lowered.
    let m = membership(1, &[&[1, 2, 3]]);
    for i in 0..62_u8 {
        let epoch = 10 + u64::from(i) * 2;
        let vip = format!("v{i}");
        let at = u64::from(i) + 1;
        rig.applied(at, m.clone(), &[("a", 5, &[1]), (&vip, epoch, &[100 + i])]);
        rig.tick(at);
        rig.answer(at, 3, Say::NotYet(&[1]));
        rig.answer(at, 1, Say::Yes);
        let opened = rig.answer(at, 2, Say::Yes);
        assert!(
            rig.holder.status().all(|s| s.phase != Phase::Claiming),
            "{i}: {opened:?}"
        );
    }
    // The last VIP and "a" are active in slots of their own; voters differ from "w"'s.
    let used: BTreeSet<SlotId> = rig.holder.status().filter_map(|s| s.slot).collect();
    assert_eq!(used.len(), 63);
    assert!(used.iter().all(|s| (FIRST_SLOT..=LAST_SLOT).contains(&s.0)));
    rig.applied(
        70,
        m,
        &[("a", 5, &[1]), ("v61", 132, &[161]), ("w", 500, &[2])],
    );
    rig.tick(71);
    rig.answer(72, 1, Say::Yes);
    rig.answer(72, 2, Say::NotYet(&[161]));
    let effects = rig.answer(72, 3, Say::Yes);
    let w = rig.holder.status().find(|s| s.vip == &name("w")).unwrap();
    assert_eq!(w.phase, Phase::Active, "{effects:?}");
    let slot = w.slot.unwrap();
    let mates: Vec<_> = rig
        .holder
        .status()
        .filter(|s| s.slot == Some(slot))
        .collect();
    assert!(
        mates.len() > 1,
        "it shares the slot of VIPs that fewer or the same voters grant"
    );
}

#[test]
fn the_same_history_gives_the_same_state() {
    assert_eq!(two_active().holder, two_active().holder);
}

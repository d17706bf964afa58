//! Addresses that stay on the interface from one epoch to the next.

use super::*;

const ALL_FULL: [&str; 3] = ["send 1 full", "send 2 full", "send 3 full"];

fn voters() -> Membership {
    membership(1, &[&[1, 2, 3]])
}

/// VIP "a" under epoch 9 (addresses 1 and 3) claims address 1, which epoch 5 left on the interface.
fn inheriting() -> Rig {
    let mut rig = Rig::active();
    assert_eq!(
        rig.applied(10, voters(), &[("a", 9, &[1, 3])]),
        ["shut a 5: Unassigned"]
    );
    assert_eq!(rig.lowered_but(12, "a", 5, &[1]), ALL_FULL);
    rig
}

fn inherits(rig: &Rig) -> Vec<bool> {
    rig.holder.status().map(|s| s.inherits).collect()
}

#[test]
fn no_list_of_claims_is_without_a_kept_address_and_the_next_epoch_comes_up_as_always() {
    let mut rig = inheriting();
    assert_eq!(rig.claimed(2), [(1, 9), (3, 9)]);
    assert_eq!(rig.phases(), [("a".to_owned(), 9, Phase::Claiming)]);
    assert_eq!(inherits(&rig), [true]);
    rig.answer(13, 1, Say::Yes);
    assert_eq!(
        rig.answer(13, 2, Say::Yes),
        ["deadline 1 312", "open a 9 in 1"]
    );
}

#[test]
fn an_epoch_that_inherits_and_never_came_up_is_shut_and_claimed_until_it_is_lowered() {
    type Cause = fn(&mut Rig) -> Vec<String>;
    let cases: [(&str, Cause); 4] = [
        ("shut a 9: Unassigned", |r| r.applied(20, voters(), &[])),
        ("shut a 9: Denied { by: NodeId(3) }", |r| {
            r.answer(20, 3, Say::No(1, 9))
        }),
        ("shut a 9: GivenUp(\"no carrier\")", |r| {
            let (vip, epoch, reason) = (name("a"), Epoch(9), "no carrier".to_owned());
            r.handle(20, HolderEvent::GiveUp { vip, epoch, reason })
        }),
        ("shut a 9: Stopping", |r| r.handle(20, HolderEvent::Stop)),
    ];
    for (shut, cause) in cases {
        let mut rig = inheriting();
        assert_eq!(cause(&mut rig)[0], shut);
        assert_eq!(rig.phases(), [("a".to_owned(), 9, Phase::Lowering)]);
        assert!(rig.holder.addresses().contains(&address(1)), "{shut}");
        // No answer brings it up any more.
        rig.answer(21, 1, Say::Yes);
        assert_eq!(rig.answer(21, 2, Say::Yes), Vec::<String>::new(), "{shut}");
        assert_eq!(rig.claimed(2), [(1, 9), (3, 9)], "{shut}");
        rig.lowered(30, "a", 9);
        assert_eq!(rig.claimed(2), [], "{shut}");
        assert!(rig.holder.is_idle(), "{shut}");
    }
}

#[test]
fn what_nobody_takes_over_has_to_go_before_its_claim() {
    let three = voters();
    let cases: [(&str, &[Assigned<'_>]); 4] = [
        ("the VIP was deleted meanwhile", &[]),
        ("the next epoch is without the address", &[("a", 9, &[2])]),
        ("another VIP has the address", &[("b", 9, &[1])]),
        (
            "another VIP is in the way of the next epoch",
            &[("a", 9, &[1, 7]), ("b", 6, &[7])],
        ),
    ];
    for (what, assigned) in cases {
        let mut rig = Rig::active();
        rig.applied(5, three.clone(), &[("a", 5, &[1]), ("b", 6, &[7])]);
        rig.answer(6, 1, Say::Yes);
        rig.answer(6, 2, Say::Yes);
        rig.applied(10, three.clone(), assigned);
        assert_eq!(
            rig.lowered_but(12, "a", 5, &[1]),
            ["shut a 5: Unassigned"],
            "{what}"
        );
        let lowering = ("a".to_owned(), 5, Phase::Lowering);
        assert!(rig.phases().contains(&lowering), "{what}");
        rig.lowered(14, "a", 5);
        assert!(!rig.phases().contains(&lowering), "{what}");
        assert!(!inherits(&rig).contains(&true), "{what}");
    }
}

#[test]
fn a_stop_leaves_nothing_to_the_next_epoch() {
    let mut rig = Rig::active();
    rig.applied(10, voters(), &[("a", 9, &[1])]);
    rig.handle(11, HolderEvent::Stop);
    assert_eq!(rig.lowered_but(12, "a", 5, &[1]), ["shut a 5: Unassigned"]);
    rig.lowered(13, "a", 5);
    assert!(rig.holder.is_idle());
}

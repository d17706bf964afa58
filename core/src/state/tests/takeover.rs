//! Which assignments are takeovers from a silent node.

use super::*;

fn give(s: &mut State, vip: &str, target: u64, cause: Cause) -> Epoch {
    let m = Move {
        cause,
        ..to(s, vip, Some(target))
    };
    s.ok(Command::Assign(vec![m]));
    Epoch(s.applied)
}

fn taken(s: &State, node: u64) -> Vec<Takeover> {
    s.takeovers(NodeId(node), Epoch(0))
}

fn takeover(epoch: Epoch, victim: &str, victim_epoch: Epoch) -> Takeover {
    Takeover {
        vip: name("web"),
        epoch,
        victim: victim.parse().unwrap(),
        victim_epoch,
    }
}

#[test]
fn only_what_a_silent_node_had_is_taken_over() {
    let mut s = cluster(3, &[web()]);
    let before = give(&mut s, "web", 1, Cause::Placement);
    assert_eq!(taken(&s, 1), []);
    let epoch = give(&mut s, "web", 2, Cause::OwnerSilent);
    assert_eq!(taken(&s, 2), [takeover(epoch, "n1", before)]);
    assert_eq!(taken(&s, 1), [], "it is the new owner's affair");
    assert_eq!(
        s.takeovers(NodeId(2), epoch),
        [],
        "known already to who asks for later ones"
    );
    for cause in [
        Cause::Operator,
        Cause::Drained,
        Cause::Preempted,
        Cause::OwnerStopping,
        Cause::OwnerUnfit,
        Cause::LeaseLost,
        Cause::Group,
    ] {
        let owner = s.vips[&name("web")].owner().unwrap().0;
        give(&mut s, "web", owner % 3 + 1, cause);
        assert_eq!(taken(&s, owner % 3 + 1), [], "{cause:?}");
    }
}

#[test]
fn whoever_takes_it_next_inherits_the_victim_that_was_not_fenced() {
    let mut s = cluster(3, &[web()]);
    let before = give(&mut s, "web", 1, Cause::Placement);
    give(&mut s, "web", 2, Cause::OwnerSilent);
    let second = give(&mut s, "web", 3, Cause::Unfenced);
    assert_eq!(taken(&s, 3), [takeover(second, "n1", before)]);
    let again = give(&mut s, "web", 2, Cause::Unfenced);
    assert_eq!(taken(&s, 2), [takeover(again, "n1", before)]);
    // The victim is back, and gets it.
    give(&mut s, "web", 1, Cause::Unfenced);
    assert_eq!(taken(&s, 1), [], "a node does not fence itself");
}

#[test]
fn a_second_victim_takes_the_place_of_the_first() {
    let mut s = cluster(3, &[web()]);
    give(&mut s, "web", 1, Cause::Placement);
    let second = give(&mut s, "web", 2, Cause::OwnerSilent);
    let third = give(&mut s, "web", 3, Cause::OwnerSilent);
    assert_eq!(taken(&s, 3), [takeover(third, "n2", second)]);
    // Lost and won again, it is no takeover any more.
    give(&mut s, "web", 3, Cause::LeaseLost);
    assert_eq!(taken(&s, 3), []);
}

#[test]
fn an_edit_of_the_placement_changes_nothing_and_one_of_the_addresses_ends_it() {
    let mut s = cluster(2, &[web()]);
    let before = give(&mut s, "web", 1, Cause::Placement);
    let epoch = give(&mut s, "web", 2, Cause::OwnerSilent);
    let mut spec = web();
    spec.placement.preempt = crate::spec::Preempt::Preempt;
    s.ok(Command::PutVip(spec.clone()));
    assert_eq!(taken(&s, 2), [takeover(epoch, "n1", before)]);
    spec.addresses.pop();
    s.ok(Command::PutVip(spec));
    assert_eq!(taken(&s, 2), []);
}

#[test]
fn without_the_history_nothing_is_known() {
    let mut s = cluster(2, &[web()]);
    give(&mut s, "web", 1, Cause::Placement);
    let epoch = give(&mut s, "web", 2, Cause::OwnerSilent);
    let last = s.history.pop_back().unwrap();
    s.history.clear();
    assert_eq!(taken(&s, 2), []);
    s.history.push_back(last);
    assert_eq!(taken(&s, 2), [takeover(epoch, "n1", Epoch(0))]);
}

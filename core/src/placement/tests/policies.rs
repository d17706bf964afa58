//! Preemption, pins, groups and avoidance.

use super::*;

#[test]
fn preemption_waits_for_the_delay() {
    let mut w = World::new(2, &[preempting("v", &[150, 100], ms(5_000))]);
    w.settle();
    w.silent(1, 300);
    assert_eq!(w.settle(), [moved("v", 2, Cause::OwnerSilent)]);
    w.well(1);
    w.of(1).well_since = Some(BEGIN - ms(4_000));
    w.silent(2, 0);
    let p = w.plan();
    assert_eq!(
        (p.moves.len(), p.recheck_at),
        (0, Some(BEGIN + ms(200))),
        "n2 could fall silent first"
    );
    let text = w.explain("v").next;
    assert_eq!(
        text,
        "leave it on n2 for now: n1 ranks above n2: priority 150 against 100; it preempts in 1000 ms"
    );
    assert!(
        w.reasons("v", 1)
            .ends_with("and preempts when it has been well for 5000 ms"),
        "{}",
        w.reasons("v", 1)
    );
    w.params.now = BEGIN + ms(1_000);
    (w.of(1).last_heard, w.of(2).last_heard) = (Some(w.params.now), Some(w.params.now));
    let text = w.evidence();
    assert!(
        text.starts_with(
            "n1 ranks above n2: priority 150 against 100, well for 5000 ms (delay 5000 ms); "
        ),
        "{text}"
    );
    assert_eq!(w.settle(), [moved("v", 1, Cause::Preempted)]);
}

#[test]
fn preemption_without_delay_is_at_once_and_never_for_balance() {
    let mut w = World::new(
        2,
        &[
            preempting("v", &[150, 100], ms(0)),
            preempting("w", &[], ms(0)),
            preempting("x", &[], ms(0)),
        ],
    );
    for v in ["v", "w", "x"] {
        w.state.give(v, 2);
    }
    assert_eq!(w.settle(), [moved("v", 1, Cause::Preempted)]);
}

#[test]
fn an_owner_that_is_not_known_yet_is_preempted_only_by_a_better_node() {
    for (priority, expected) in [(100, vec![]), (101, vec![moved("v", 2, Cause::Preempted)])] {
        let mut w = World::new(2, &[preempting("v", &[100, priority], ms(0))]);
        w.state.give("v", 1);
        w.of(1).report = None;
        assert_eq!(w.settle(), expected, "{priority}");
    }
}

#[test]
fn a_pinned_node_ranks_first_while_it_is_eligible() {
    let pin = |w: &mut World, v: &str, to: u64| {
        let mut m = crate::state::testing::to(&w.state, v, Some(to));
        m.pin = Some(true);
        w.state.ok(Command::Assign(vec![m]));
    };
    let mut w = World::new(3, &[preempting("p", &[150], ms(0)), vip("s", &[150])]);
    w.settle();
    pin(&mut w, "p", 2);
    pin(&mut w, "s", 2);
    assert_eq!(
        w.settle(),
        [],
        "n1 has the higher priority, but the operator chose"
    );
    let e = w.explain("p");
    assert_eq!(e.candidates[0].name.as_str(), "n2");
    assert!(e.candidates[0].pinned && e.candidates[0].rank == Some(1));
    w.silent(2, 300);
    assert_eq!(
        w.settle(),
        [
            moved("p", 1, Cause::OwnerSilent),
            moved("s", 1, Cause::OwnerSilent)
        ]
    );
    w.well(2);
    assert!(
        w.evidence()
            .starts_with("n2 ranks above n1: an operator pinned it"),
        "{}",
        w.evidence()
    );
    assert_eq!(w.settle(), [moved("p", 2, Cause::Preempted)], "s is sticky");
}

#[test]
fn a_group_moves_as_one() {
    let mut w = World::new(
        3,
        &[vip("a", &[150]), with(vip("b", &[]), "a"), vip("c", &[])],
    );
    w.settle();
    assert_eq!(
        (w.owner("a"), w.owner("b"), w.owner("c")),
        (Some(1), Some(1), Some(2))
    );
    w.report(1)
        .vip_faults
        .insert(name("b"), "eth1 is down".into());
    let moves = w.plan().moves;
    assert_eq!(moves.len(), 2);
    assert!(
        moves[0]
            .evidence
            .starts_with("must be with b; n1 cannot hold b: eth1 is down"),
        "{}",
        moves[0].evidence
    );
    assert_eq!(
        w.settle(),
        [
            moved("a", 3, Cause::Group),
            moved("b", 3, Cause::OwnerUnfit)
        ]
    );
    assert!(
        w.reasons("a", 1).contains("cannot hold b"),
        "{}",
        w.reasons("a", 1)
    );
    let group: Vec<String> = w
        .explain("a")
        .group
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(group, ["a", "b"]);
}

#[test]
fn a_group_needs_a_node_for_all_of_it() {
    let mut w = World::new(2, &[vip("a", &[]), with(vip("b", &[]), "a")]);
    w.report(1).vip_faults.insert(name("a"), "x".into());
    w.report(2).vip_faults.insert(name("b"), "y".into());
    assert_eq!(w.settle(), []);
    assert_eq!(w.explain("a").next, "nothing: no node is eligible for a, b");
    w.report(2).vip_faults.clear();
    assert_eq!(
        w.settle(),
        [
            moved("a", 2, Cause::Placement),
            moved("b", 2, Cause::Placement)
        ]
    );
}

#[test]
fn a_split_group_joins_where_most_of_it_is() {
    let mut w = World::new(
        3,
        &[
            vip("a", &[]),
            with(vip("b", &[]), "a"),
            with(vip("c", &[]), "b"),
            with(vip("d", &[]), "c"),
        ],
    );
    for (v, n) in [("a", 1), ("b", 2), ("c", 2)] {
        w.state.give(v, n);
    }
    assert_eq!(
        w.settle(),
        [moved("a", 2, Cause::Group), moved("d", 2, Cause::Placement)]
    );

    let mut w = World::new(3, &[vip("a", &[]), with(vip("b", &[]), "a")]);
    w.state.give("a", 1);
    w.state.give("b", 2);
    w.of(2).report = None;
    w.params.started = BEGIN - ms(500);
    assert_eq!(w.settle(), [], "n2 may turn out to be as good");
    assert_eq!(
        w.explain("b").next,
        "leave it on n2 for now: n2 is not known well enough yet"
    );
    w.params.started = BEGIN - ms(523);
    assert_eq!(w.settle(), [moved("b", 1, Cause::Group)]);
}

#[test]
fn a_lost_lease_in_a_group_renews_only_what_was_lost() {
    let mut w = World::new(2, &[vip("a", &[]), with(vip("b", &[]), "a")]);
    w.settle();
    let kept = w.epoch("a");
    w.gives_up(1, "b", "denied");
    assert_eq!(w.settle(), [moved("b", 1, Cause::LeaseLost)]);
    assert_eq!(w.epoch("a"), kept);
    w.state.ok(Command::PutVip(vip("a", &[100, 150])));
    w.gives_up(1, "b", "denied");
    assert_eq!(
        w.settle(),
        [moved("a", 2, Cause::Group), moved("b", 2, Cause::LeaseLost)]
    );
}

#[test]
fn avoiding_is_a_wish() {
    let mut w = World::new(2, &[avoiding(vip("a", &[150]), "b"), vip("b", &[150])]);
    w.settle();
    assert_eq!(
        (w.owner("a"), w.owner("b")),
        (Some(1), Some(2)),
        "it works both ways, and before priority"
    );
    w.silent(2, 300);
    assert_eq!(
        w.settle(),
        [moved("b", 1, Cause::OwnerSilent)],
        "better together than down"
    );
    w.well(2);
    assert_eq!(w.settle(), [], "sticky");
    assert!(
        w.reasons("a", 1)
            .contains("holds b, to be avoided if possible"),
        "{}",
        w.reasons("a", 1)
    );

    let mut w = World::new(
        2,
        &[
            avoiding(preempting("a", &[150], ms(0)), "b"),
            preempting("b", &[150], ms(0)),
        ],
    );
    w.state.give("a", 1);
    w.state.give("b", 1);
    assert!(
        w.evidence()
            .starts_with("n2 ranks above n1: it holds 0 VIPs to avoid, n1 holds 1"),
        "{}",
        w.evidence()
    );
    assert_eq!(
        w.settle(),
        [moved("a", 2, Cause::Preempted)],
        "one of them moves, not both"
    );
}

#[test]
fn a_vip_that_preemption_brings_back_still_gets_its_new_epoch() {
    let mut w = World::new(
        2,
        &[
            preempting("a", &[100, 200], ms(0)),
            with(vip("b", &[]), "a"),
            with(vip("c", &[]), "b"),
        ],
    );
    for (v, n) in [("a", 1), ("b", 1), ("c", 2)] {
        w.state.give(v, n);
    }
    w.gives_up(2, "c", "denied");
    assert_eq!(
        w.settle(),
        [
            moved("a", 2, Cause::Preempted),
            moved("b", 2, Cause::Preempted),
            moved("c", 2, Cause::LeaseLost)
        ]
    );
}

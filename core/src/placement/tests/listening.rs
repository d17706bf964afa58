//! Who counts as silent, and who is waited for.

use super::*;

#[test]
fn silence_is_counted_to_the_limit() {
    let mut w = World::new(2, &[vip("v", &[])]);
    w.settle();
    w.silent(1, 199);
    let p = w.plan();
    assert_eq!((p.moves.len(), p.recheck_at), (0, Some(BEGIN + ms(1))));
    w.params.now = BEGIN + ms(1);
    assert_eq!(w.plan().moves.len(), 1);
}

#[test]
fn a_silent_owner_keeps_its_vip_where_nobody_can_take_it() {
    let mut w = World::new(2, &[vip("v", &[])]);
    w.settle();
    w.silent(1, 5_000);
    w.silent(2, 300);
    let p = w.plan();
    assert_eq!((p.moves.len(), p.recheck_at), (0, None));
    let e = w.explain("v");
    assert_eq!(
        e.next,
        "leave it on n1, although that is not good: no other node is eligible for v"
    );
    assert!(
        e.why
            .starts_with("n1 owns v with epoch 2: no owner; n1 is first of 2 eligible nodes"),
        "{}",
        e.why
    );
    assert!(
        w.reasons("v", 1)
            .contains("silent for 5000 ms (limit 200 ms)")
    );
    w.well(2);
    assert_eq!(w.settle(), [moved("v", 2, Cause::OwnerSilent)]);
}

#[test]
fn the_planner_itself_is_never_silent() {
    let mut w = World::new(2, &[vip("v", &[])]);
    w.settle();
    w.params.me = NodeId(1);
    w.of(1).last_heard = None;
    let p = w.plan();
    assert_eq!((p.moves.len(), p.recheck_at), (0, None));
    assert!(w.reasons("v", 1).contains("is the node that looks"));
}

#[test]
fn a_new_leader_listens_before_it_calls_a_node_silent() {
    let mut w = World::new(2, &[vip("v", &[])]);
    w.settle();
    (w.of(1).last_heard, w.of(1).well_since) = (None, None);
    w.params.started = BEGIN - ms(522);
    let p = w.plan();
    assert_eq!(
        (p.moves.len(), p.recheck_at),
        (0, Some(BEGIN + ms(1))),
        "323 ms quarantine + 200 ms"
    );
    assert!(
        w.reasons("v", 1).contains("listened for 522 ms of 523 ms"),
        "{}",
        w.reasons("v", 1)
    );
    w.params.now = BEGIN + ms(1);
    assert!(
        w.evidence()
            .starts_with("n1 never heard in the 523 ms since"),
        "{}",
        w.evidence()
    );
    assert_eq!(w.settle(), [moved("v", 2, Cause::OwnerSilent)]);
}

#[test]
fn a_better_node_that_may_still_boot_is_waited_for() {
    let mut w = World::new(
        2,
        &[
            vip("v", &[100, 150]),
            vip("w", &[150, 100]),
            vip("x", &[]),
            vip("y", &[]),
        ],
    );
    w.health.remove(&NodeId(2));
    w.params.started = BEGIN - ms(500);
    let p = w.plan();
    let planned: Vec<_> = p.moves.iter().map(|m| m.vip.as_str()).collect();
    assert_eq!(
        planned,
        ["w"],
        "x and y would spread to n2, where there is nothing yet"
    );
    assert_eq!(p.recheck_at, Some(BEGIN + ms(23)));
    assert_eq!(
        w.explain("v").next,
        "wait before giving it an owner: n2 ranks above n1 and may be heard within 23 ms"
    );
    w.params.now = BEGIN + ms(23);
    assert_eq!(w.settle().len(), 4);
    assert_eq!(w.owner("v"), Some(1));
}

#[test]
fn what_one_vip_waits_for_another_may_settle() {
    let mut w = World::new(3, &[vip("a", &[]), vip("b", &[]), vip("c", &[])]);
    w.state.give("c", 1);
    w.report(1)
        .vip_faults
        .insert(name("c"), "eth1 is down".into());
    w.health.remove(&NodeId(2));
    w.params.started = BEGIN;
    w.settle();
    assert_eq!(
        (w.owner("a"), w.owner("b"), w.owner("c")),
        (Some(3), Some(1), Some(3)),
        "b had waited for n2"
    );
}

#[test]
fn a_node_without_a_report_is_not_chosen_but_keeps_what_it_has() {
    let mut w = World::new(2, &[vip("v", &[])]);
    w.settle();
    w.of(1).report = None;
    assert_eq!(w.settle(), []);
    w.of(2).report = None;
    w.silent(1, 900);
    assert_eq!(w.settle(), []);
    assert!(w.reasons("v", 2).contains("no report about itself yet"));
}

#[test]
fn a_wait_ends_when_the_node_waited_for_falls_silent() {
    let mut w = World::new(2, &[vip("v", &[100, 150])]);
    w.silent(2, 50);
    w.of(2).report = None;
    w.params.started = BEGIN;
    assert_eq!(w.plan().recheck_at, Some(BEGIN + ms(150)));
    w.params.now = BEGIN + ms(150);
    w.of(1).last_heard = Some(w.params.now);
    assert_eq!(w.settle(), [moved("v", 1, Cause::Placement)]);

    let mut w = World::new(2, &[preempting("v", &[100, 150], ms(5_000))]);
    w.state.give("v", 1);
    w.params.me = NodeId(1);
    w.of(2).well_since = Some(BEGIN);
    w.of(2).last_heard = Some(BEGIN - ms(50));
    assert_eq!(
        w.plan().recheck_at,
        Some(BEGIN + ms(150)),
        "not only after the delay"
    );
}

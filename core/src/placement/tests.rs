//! Each policy by an example, with what the planner says about it.

use std::time::Duration;

use super::testing::{BEGIN, World};
use crate::ids::{Epoch, NodeId};
use crate::spec::testing::vip as bare;
use crate::spec::{Preempt, VipSpec};
use crate::state::testing::name;
use crate::state::{Cause, Command, Settings};
use crate::time::Mono;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

mod listening;
mod policies;

/// A VIP with the priorities of n1, n2, ... in order.
fn vip(vip_name: &str, priorities: &[u8]) -> VipSpec {
    let last: u32 = vip_name.bytes().map(u32::from).sum();
    let mut spec = bare(
        vip_name,
        &[&format!("192.0.{}.{}/32", last / 200, last % 200 + 1)],
    );
    let listed = priorities.iter().enumerate();
    spec.placement.priority = listed
        .map(|(i, p)| (format!("n{}", i + 1).parse().unwrap(), *p))
        .collect();
    spec
}

fn preempting(vip_name: &str, priorities: &[u8], delay: Duration) -> VipSpec {
    let mut spec = vip(vip_name, priorities);
    (spec.placement.preempt, spec.placement.preempt_delay) = (Preempt::Preempt, delay);
    spec
}

fn with(mut spec: VipSpec, other: &str) -> VipSpec {
    spec.placement.colocate_with.insert(name(other));
    spec
}

fn avoiding(mut spec: VipSpec, other: &str) -> VipSpec {
    spec.placement.avoid.insert(name(other));
    spec
}

fn moved(vip_name: &str, to: u64, cause: Cause) -> (String, Option<u64>, Cause) {
    (vip_name.to_owned(), Some(to), cause)
}

#[test]
fn unowned_vips_spread_evenly() {
    let vips: Vec<VipSpec> = (0..6).map(|i| vip(&format!("v{i}"), &[])).collect();
    let mut w = World::new(3, &vips);
    w.settle();
    let owners: Vec<u64> = (0..6).map(|i| w.owner(&format!("v{i}")).unwrap()).collect();
    assert_eq!(owners, [1, 2, 3, 1, 2, 3]);
    w.silent(2, 500);
    w.settle();
    let mut loads = [0; 4];
    (0..6).for_each(|i| loads[w.owner(&format!("v{i}")).unwrap() as usize] += 1);
    assert_eq!(loads, [0, 3, 0, 3]);
    w.well(2);
    assert_eq!(w.settle(), [], "an uneven spread is no reason to move");
}

#[test]
fn the_higher_priority_is_chosen_and_zero_never() {
    for (priorities, owner) in [
        (&[100, 150][..], Some(2)),
        (&[0, 1], Some(2)),
        (&[], Some(1)),
        (&[101], Some(1)),
        (&[99], Some(2)),
    ] {
        let mut w = World::new(2, &[vip("v", priorities)]);
        w.settle();
        assert_eq!(w.owner("v"), owner, "{priorities:?}");
    }
    let mut w = World::new(2, &[vip("v", &[0, 1])]);
    w.silent(2, 500);
    let p = w.plan();
    assert_eq!(
        (p.moves.len(), w.explain("v").next.as_str()),
        (0, "nothing: no node is eligible for v")
    );
    assert!(
        w.reasons("v", 1).contains("priority 0 for v"),
        "{}",
        w.reasons("v", 1)
    );
    assert!(w.reasons("v", 3).contains("witness"));
}

#[test]
fn two_vips_that_each_prefer_another_node() {
    let mut w = World::new(2, &[vip("a", &[150, 100]), vip("b", &[100, 150])]);
    assert_eq!(
        w.settle(),
        [
            moved("a", 1, Cause::Placement),
            moved("b", 2, Cause::Placement)
        ]
    );
    w.silent(1, 212);
    assert_eq!(
        w.evidence(),
        "n1 silent for 212 ms (limit 200 ms); n2 is the only eligible node (priority 100, 1 VIP beside)"
    );
    assert_eq!(w.settle(), [moved("a", 2, Cause::OwnerSilent)]);
    w.well(1);
    assert_eq!(w.settle(), [], "sticky");
    assert!(
        w.reasons("a", 1)
            .contains("n1 ranks above n2: priority 150 against 100, but the VIP is sticky")
    );
    assert_eq!(w.explain("a").next, "nothing: it stays on n2");
    w.silent(2, 200);
    assert_eq!(
        w.settle(),
        [
            moved("a", 1, Cause::OwnerSilent),
            moved("b", 1, Cause::OwnerSilent)
        ]
    );
}

#[test]
fn faults_move_vips_with_their_cause() {
    type Fault = fn(&mut World);
    let cases: &[(Fault, Cause, &str)] = &[
        (
            |w| w.report(1).faults.push("fence broken".into()),
            Cause::OwnerUnfit,
            "n1 reports: fence broken",
        ),
        (
            |w| w.report(1).faults.push("stopping".into()),
            Cause::OwnerStopping,
            "n1 reports: stopping",
        ),
        (
            |w| {
                w.report(1)
                    .vip_faults
                    .insert(name("v"), "eth0 is down".into());
            },
            Cause::OwnerUnfit,
            "n1 cannot hold v: eth0 is down",
        ),
        (
            |w| {
                let why = format!("{} of n3 failed", crate::health::UNFENCED);
                w.report(1).vip_faults.insert(name("v"), why);
            },
            Cause::Unfenced,
            "n1 cannot hold v: external fencing of n3 failed",
        ),
        (
            |w| {
                let why = format!("{} of n3 did not end", crate::health::UNFENCED);
                w.gives_up(1, "v", &why);
                w.report(1).vip_faults.insert(name("v"), why);
            },
            Cause::Unfenced,
            "n1 cannot hold v: external fencing of n3 did not end",
        ),
        (
            |w| {
                w.state.ok(Command::Drain {
                    node: NodeId(1),
                    reason: Some("new disk".into()),
                });
            },
            Cause::Drained,
            "n1 drained: new disk",
        ),
        (
            |w| {
                w.state.ok(Command::PutVip(vip("v", &[0])));
            },
            Cause::Edited,
            "n1 has priority 0 for v",
        ),
    ];
    for (fault, cause, words) in cases {
        let mut w = World::new(2, &[vip("v", &[])]);
        w.settle();
        fault(&mut w);
        assert!(w.evidence().starts_with(words), "{}", w.evidence());
        assert!(
            w.reasons("v", 1).contains(&words[3..]),
            "{}",
            w.reasons("v", 1)
        );
        assert_eq!(w.settle(), [moved("v", 2, *cause)]);

        let mut alone = World::new(2, &[vip("v", &[])]);
        alone.settle();
        alone.silent(2, 1000);
        fault(&mut alone);
        assert_eq!(alone.settle(), [], "{words}: nobody else can take it");
        assert!(
            alone
                .explain("v")
                .next
                .contains("no other node is eligible")
        );
    }
}

#[test]
fn a_vip_fault_keeps_only_that_vip_away() {
    let mut w = World::new(2, &[vip("v", &[150]), vip("w", &[150])]);
    w.report(1)
        .vip_faults
        .insert(name("v"), "eth1 is missing".into());
    assert_eq!(
        w.settle(),
        [
            moved("v", 2, Cause::Placement),
            moved("w", 1, Cause::Placement)
        ]
    );
}

#[test]
fn a_lost_lease_brings_a_new_epoch_on_the_best_node() {
    let mut w = World::new(2, &[vip("v", &[])]);
    w.settle();
    let old = w.epoch("v");
    w.gives_up(1, "v", "lease ran out");
    let text = w.evidence();
    assert!(
        text.starts_with("n1 gave up epoch 2: lease ran out; n1 is first of 2"),
        "{text}"
    );
    assert!(
        w.reasons("v", 1)
            .contains("gave that epoch up: lease ran out")
    );
    assert_eq!(w.settle(), [moved("v", 1, Cause::LeaseLost)]);
    assert!(w.epoch("v") > old);

    w.report(1)
        .vip_faults
        .insert(name("v"), "address refused".into());
    w.gives_up(1, "v", "address refused");
    assert_eq!(w.settle(), [moved("v", 2, Cause::OwnerUnfit)]);

    let mut w = World::new(2, &[vip("v", &[100, 150])]);
    w.state.give("v", 1);
    w.gives_up(1, "v", "denied");
    assert_eq!(
        w.settle(),
        [moved("v", 2, Cause::LeaseLost)],
        "dark in any case, so it goes where it should be"
    );

    let mut w = World::new(2, &[vip("v", &[])]);
    w.settle();
    w.report(1)
        .given_up
        .insert(name("v"), (Epoch(1), "an older epoch".into()));
    assert_eq!(w.settle(), []);
}

#[test]
fn frozen_and_yielded_vips_stay() {
    let mut w = World::new(2, &[vip("a", &[]), vip("b", &[])]);
    w.state.ok(Command::Yield {
        vip: name("b"),
        evidence: Some("10.0.0.9 advertises 255".into()),
    });
    w.settle();
    assert_eq!((w.owner("a"), w.owner("b")), (Some(1), None));
    let e = w.explain("b");
    assert_eq!(
        e.why,
        "b is left to a router outside the group: 10.0.0.9 advertises 255"
    );
    assert_eq!(e.next, "nothing: it is not placed until it is taken back");
    w.state.ok(Command::Settings(Settings { frozen: true }));
    w.silent(1, 300);
    let p = w.plan();
    assert_eq!((p.moves.len(), p.recheck_at), (0, None));
    assert!(w.explain("a").next.contains("frozen"));
    w.state.ok(Command::Settings(Settings { frozen: false }));
    assert_eq!(w.settle(), [moved("a", 2, Cause::OwnerSilent)]);
}

#[test]
fn a_lease_that_is_lost_while_frozen_is_renewed_in_place() {
    let mut w = World::new(2, &[vip("a", &[100, 200]), vip("b", &[200, 100])]);
    w.settle();
    assert_eq!((w.owner("a"), w.owner("b")), (Some(2), Some(1)));
    w.state.ok(Command::Settings(Settings { frozen: true }));
    let epoch = w.state.vips[&name("a")].epoch();
    let lost = |w: &mut World| {
        let report = w.health.get_mut(&NodeId(2)).unwrap().report.as_mut();
        let given_up = &mut report.unwrap().given_up;
        given_up.insert(name("a"), (epoch, "the lease ended".into()));
    };
    lost(&mut w);
    assert!(w.explain("a").next.starts_with("a new epoch on n2 now"));
    assert_eq!(w.settle(), [moved("a", 2, Cause::LeaseLost)]);
    assert!(w.state.vips[&name("a")].epoch() > epoch);
    assert_eq!(w.settle(), [], "once");
    // A node that cannot hold it is not asked to, and nobody else is either.
    let epoch = w.state.vips[&name("a")].epoch();
    let report = w.health.get_mut(&NodeId(2)).unwrap().report.as_mut();
    let report = report.unwrap();
    report.given_up.insert(name("a"), (epoch, "refused".into()));
    report.vip_faults.insert(name("a"), "eth0 is gone".into());
    assert_eq!(w.settle(), []);
}

#[test]
fn all_vips_of_a_silent_node_move_in_one_plan() {
    let vips: Vec<VipSpec> = (100..300)
        .map(|i| {
            bare(
                &format!("v{i}"),
                &[&format!("10.1.{}.{}/32", i / 100, i % 100 + 1)],
            )
        })
        .collect();
    let mut w = World::new(3, &vips);
    w.settle();
    w.silent(1, 201);
    let moves = w.plan().moves;
    assert_eq!(moves.len(), 67);
    assert!(
        moves
            .iter()
            .all(|m| m.cause == Cause::OwnerSilent && m.evidence.contains("201 ms"))
    );
    w.settle();
    assert!(vips.iter().all(|v| w.owner(v.name.as_str()) != Some(1)));
}

#[test]
fn an_explanation_covers_every_node_and_names_no_unknown_vip() {
    let w = World::new(3, &[vip("v", &[100, 150, 0])]);
    let e = w.explain("v");
    let order: Vec<(u64, Option<usize>, u8)> = e
        .candidates
        .iter()
        .map(|c| (c.node.0, c.rank, c.priority))
        .collect();
    assert_eq!(
        order,
        [
            (2, Some(1), 150),
            (1, Some(2), 100),
            (3, None, 0),
            (4, None, 100)
        ]
    );
    assert!(e.candidates.iter().all(|c| !c.reasons.is_empty()));
    assert_eq!(e.why, "v has no owner");
    assert!(
        e.next.starts_with(
            "assign it to n2 now: no owner; n2 is first of 2 eligible nodes (priority 150"
        ),
        "{}",
        e.next
    );
    assert_eq!(
        super::explain(&w.state, &w.health, &w.params, &name("x")),
        None
    );
}

#[test]
fn nothing_is_planned_before_there_is_anything() {
    let state = crate::state::State::default();
    let params = super::PlanParams {
        timing: Default::default(),
        now: BEGIN,
        me: NodeId(1),
        started: Mono::ZERO,
    };
    assert_eq!(
        super::plan(&state, &Default::default(), &params),
        super::Plan::default()
    );
}

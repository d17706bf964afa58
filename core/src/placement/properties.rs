//! What holds for every state and every health.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::testing::{BEGIN, World};
use super::{explain, plan};
use crate::ids::{NodeId, VipName};
use crate::spec::testing::vip;
use crate::spec::{Preempt, Role, VipSpec};
use crate::state::testing::{name, to};
use crate::state::{Command, State};

const MEMBERS: u64 = 4;
const VIPS: usize = 6;

fn any_spec(i: usize) -> impl Strategy<Value = VipSpec> {
    // Any VIP but itself.
    let other = || (1..VIPS).prop_map(move |o| name(&format!("v{}", (i + o) % VIPS)));
    let priority = prop_oneof![1 => Just(0u8), 2 => Just(50), 4 => Just(100), 2 => Just(200)];
    let names = |max| proptest::collection::btree_set(other(), 0..max);
    let priorities = proptest::collection::btree_map(1..=MEMBERS, priority, 0..4);
    let delay = prop_oneof![Just(0u64), Just(50), Just(5_000)];
    (
        prop::bool::weighted(0.2),
        names(2),
        names(3),
        priorities,
        any::<bool>(),
        delay,
    )
        .prop_map(move |(grouped, with, avoid, priorities, preempt, delay)| {
            let mut spec = vip(&format!("v{i}"), &[&format!("192.0.2.{}/32", i + 1)]);
            let p = &mut spec.placement;
            p.avoid = avoid;
            if grouped {
                p.avoid.retain(|n| !with.contains(n));
                p.colocate_with = with;
            }
            p.priority = priorities
                .iter()
                .map(|(n, v)| (format!("n{n}").parse().unwrap(), *v))
                .collect();
            if preempt {
                (p.preempt, p.preempt_delay) = (Preempt::Preempt, Duration::from_millis(delay));
            }
            spec
        })
}

/// Health of one node: how long ago it was heard, whether it has reported, faults, VIPs at fault, epochs given
/// up, how long it has been well.
type AnyHealth = (
    Option<u64>,
    bool,
    bool,
    BTreeSet<usize>,
    BTreeSet<usize>,
    u64,
);

fn any_health() -> impl Strategy<Value = AnyHealth> {
    let heard = prop_oneof![1 => Just(None), 6 => (0..200u64).prop_map(Some), 3 => (200..2_000u64).prop_map(Some)];
    let some = || proptest::collection::btree_set(0..VIPS, 0..2);
    (
        heard,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.1),
        some(),
        some(),
        0..10_000u64,
    )
}

#[derive(Clone, Debug)]
struct Setup {
    specs: Vec<VipSpec>,
    owners: Vec<Option<u64>>,
    pins: Vec<bool>,
    health: Vec<AnyHealth>,
    drained: BTreeSet<u64>,
    listening: u64,
    me: u64,
}

fn any_setup() -> impl Strategy<Value = Setup> {
    let specs: Vec<_> = (0..VIPS).map(any_spec).collect();
    (
        specs,
        proptest::collection::vec(proptest::option::weighted(0.8, 1..=MEMBERS), VIPS),
        proptest::collection::vec(prop::bool::weighted(0.2), VIPS),
        proptest::collection::vec(any_health(), MEMBERS as usize + 1),
        proptest::collection::btree_set(1..=MEMBERS, 0..2),
        prop_oneof![1 => 0..1_000u64, 2 => 1_000..90_000u64],
        1..=MEMBERS + 1,
    )
        .prop_map(
            |(specs, owners, pins, health, drained, listening, me)| Setup {
                specs,
                owners,
                pins,
                health,
                drained,
                listening,
                me,
            },
        )
}

/// Makes the world; declarations and assignments that the state refuses are left out.
fn build(s: &Setup) -> World {
    let plain: Vec<VipSpec> = (0..VIPS)
        .map(|i| vip(&format!("v{i}"), &[&format!("192.0.2.{}/32", i + 1)]))
        .collect();
    let mut w = World::new(MEMBERS, &plain);
    for spec in &s.specs {
        w.state.run(Command::PutVip(spec.clone()));
    }
    for (i, owner) in s.owners.iter().enumerate() {
        if owner.is_some() {
            let mut m = to(&w.state, &format!("v{i}"), *owner);
            m.pin = s.pins[i].then_some(true);
            w.state.run(Command::Assign(vec![m]));
        }
    }
    for node in &s.drained {
        w.state.run(Command::Drain {
            node: NodeId(*node),
            reason: Some("maintenance".into()),
        });
    }
    w.params.me = NodeId(s.me);
    w.params.started = BEGIN - Duration::from_millis(s.listening);
    for (i, (heard, reported, fault, bad, lost, well)) in s.health.iter().enumerate() {
        let id = i as u64 + 1;
        for vip in lost {
            w.gives_up(id, &format!("v{vip}"), "lease ran out");
        }
        let report = w.report(id);
        report.vip_faults = bad
            .iter()
            .map(|v| (name(&format!("v{v}")), "eth0 is down".to_owned()))
            .collect();
        if *fault {
            report.faults.push("fence broken".into());
        }
        let health = w.of(id);
        health.last_heard = heard.map(|ms| BEGIN - Duration::from_millis(ms));
        health.well_since = Some(BEGIN - Duration::from_millis(*well));
        if !reported {
            health.report = None;
        }
    }
    w
}

/// Whether the node may be given the VIP, found out in another way than the planner does.
fn may_hold(w: &World, vip: &VipName, node: NodeId) -> bool {
    let (spec, of) = (&w.state.vips[vip].spec, &w.state.nodes[&node]);
    let health = &w.health[&node];
    let near = |h| w.params.now.since(h) < w.params.timing.suspect_after;
    let heard = node == w.params.me || health.last_heard.is_some_and(near);
    let fit = health
        .report
        .as_ref()
        .is_some_and(|r| r.faults.is_empty() && !r.vip_faults.contains_key(vip));
    heard
        && fit
        && of.drained.is_none()
        && of.spec.role == Role::Member
        && spec.placement.priority_of(&of.spec.name) > 0
}

fn group(state: &State, vip: &VipName) -> Vec<VipName> {
    state
        .group_of(vip)
        .iter()
        .map(|v| v.spec.name.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_accepted_stable_and_choose_eligible_nodes(setup in any_setup()) {
        let mut w = build(&setup);
        let planned = w.plan();
        prop_assert_eq!(&w.plan(), &planned, "the same facts give the same plan");
        let vips: BTreeSet<&VipName> = planned.moves.iter().map(|m| &m.vip).collect();
        prop_assert_eq!(vips.len(), planned.moves.len(), "a VIP moves once");
        for m in &planned.moves {
            let target = m.to.unwrap();
            for member in group(&w.state, &m.vip) {
                prop_assert!(may_hold(&w, &member, target), "{member} cannot be on {target}: {m:?}");
            }
            prop_assert!(!m.evidence.is_empty() && m.pin.is_none());
        }
        prop_assert!(planned.recheck_at.is_none_or(|at| at > w.params.now));
        w.settle();
        for vip in w.state.vips.keys() {
            let members = group(&w.state, vip);
            let owners: BTreeSet<_> = members.iter().map(|m| w.state.vips[m].owner()).collect();
            let eligible = |n: &NodeId| members.iter().all(|m| may_hold(&w, m, *n));
            let anybody = w.state.nodes.keys().any(eligible);
            // Whoever has listened for long enough leaves no VIP without an owner that could have one.
            if anybody && setup.listening >= 1_000 {
                prop_assert!(!owners.contains(&None), "{vip} has no owner");
            }
        }
    }

    #[test]
    fn sticky_vips_with_a_fit_owner_never_move(setup in any_setup()) {
        let mut setup = setup;
        for spec in &mut setup.specs {
            (spec.placement.preempt, spec.placement.preempt_delay) = (Preempt::Sticky, Duration::ZERO);
            spec.placement.colocate_with.clear();
        }
        let w = build(&setup);
        for m in w.plan().moves {
            if let Some(owner) = w.state.vips[&m.vip].owner().filter(|o| may_hold(&w, &m.vip, *o)) {
                let report = w.health[&owner].report.as_ref().unwrap();
                let lost = report.given_up.get(&m.vip).is_some_and(|(e, _)| *e == m.expected);
                prop_assert!(lost, "{m:?} although {owner} is fit");
            }
        }
    }

    #[test]
    fn explanations_agree_with_the_plan(setup in any_setup()) {
        let w = build(&setup);
        let planned = plan(&w.state, &w.health, &w.params);
        for vip in w.state.vips.keys() {
            let e = explain(&w.state, &w.health, &w.params, vip).unwrap();
            prop_assert_eq!(e.candidates.len(), w.state.nodes.len());
            for c in &e.candidates {
                let all = group(&w.state, vip).iter().all(|m| may_hold(&w, m, c.node));
                prop_assert_eq!(c.eligible, all, "{}: {:?}", vip, c);
                prop_assert_eq!(c.eligible, c.rank.is_some());
                prop_assert!(!c.reasons.is_empty());
            }
            let m = planned.moves.iter().find(|m| m.vip == *vip);
            prop_assert_eq!(e.next.starts_with("assign it to"), m.is_some(), "{}", e.next);
        }
    }

    #[test]
    fn time_alone_changes_nothing_before_the_recheck(setup in any_setup()) {
        let mut w = build(&setup);
        w.settle();
        let at = w.plan().recheck_at;
        let last = at.unwrap_or(BEGIN + Duration::from_secs(20));
        w.params.now = last - Duration::from_nanos(1);
        prop_assert_eq!(w.plan().moves.len(), 0, "recheck at {:?}", at);
    }
}

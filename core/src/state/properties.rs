//! Invariants that hold after any sequence of commands.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::testing::cluster;
use super::*;
use crate::lease::{Claim, LogView};
use crate::membership::Membership;
use crate::spec::testing::{node, vip};
use crate::spec::{MAX_HISTORY, Preempt, Role};

/// Names and addresses come from small pools, so that commands meet each other.
fn any_vip_name() -> impl Strategy<Value = VipName> {
    (0..5u8).prop_map(|i| format!("v{i}").parse().unwrap())
}

fn any_spec() -> impl Strategy<Value = VipSpec> {
    let names = || proptest::collection::btree_set(any_vip_name(), 0..2);
    (
        any_vip_name(),
        proptest::collection::btree_set(1..12u8, 0..4),
        prop_oneof![Just(24u8), Just(25)],
        prop_oneof![4 => Just("eth0"), 1 => Just("eth1"), 1 => Just("bad name")],
        names(),
        names(),
        proptest::option::of((1..6u8, 0..3u8)),
        any::<bool>(),
    )
        .prop_map(
            |(name, hosts, prefix, interface, with, avoid, priority, preempt)| {
                let addresses: Vec<String> = hosts
                    .iter()
                    .map(|h| format!("192.0.2.{h}/{prefix}"))
                    .collect();
                let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                let mut spec = vip(name.as_str(), &addresses);
                spec.interface = interface.to_owned();
                spec.placement.colocate_with = with;
                spec.placement.avoid = avoid;
                spec.placement.priority = priority
                    .iter()
                    .map(|(n, p)| (format!("n{n}").parse().unwrap(), *p))
                    .collect();
                spec.placement.preempt = if preempt {
                    Preempt::Preempt
                } else {
                    Preempt::Sticky
                };
                spec
            },
        )
}

/// VIP, whether the expectation is the present epoch, target, cause, pin.
type AnyMove = (VipName, bool, Option<u64>, Cause, Option<bool>);

/// What a command is, before the present state is put into it.
#[derive(Clone, Debug)]
enum Step {
    Run(Command),
    Assign(Vec<AnyMove>),
    Blank,
}

fn any_step() -> impl Strategy<Value = Step> {
    let cause = prop_oneof![
        Just(Cause::Operator),
        Just(Cause::OwnerSilent),
        Just(Cause::LeaseLost)
    ];
    let moved = (
        any_vip_name(),
        prop::bool::weighted(0.9),
        proptest::option::weighted(0.8, 1..6u64),
        cause,
        any::<Option<bool>>(),
    );
    let reason = || proptest::option::of(Just("why".to_owned()));
    prop_oneof![
        6 => any_spec().prop_map(|s| Step::Run(Command::PutVip(s))),
        2 => any_vip_name().prop_map(|n| Step::Run(Command::DeleteVip(n))),
        8 => proptest::collection::vec(moved, 0..4).prop_map(Step::Assign),
        1 => (1..6u64, reason()).prop_map(|(n, reason)| Step::Run(Command::Drain { node: NodeId(n), reason })),
        1 => (0..7u64, any::<bool>()).prop_map(|(n, member)| {
            Step::Run(Command::PutNode(node(n, if member { Role::Member } else { Role::Witness })))
        }),
        1 => any::<bool>().prop_map(|frozen| Step::Run(Command::Settings(Settings { frozen }))),
        2 => (any_vip_name(), reason()).prop_map(|(vip, evidence)| Step::Run(Command::Yield { vip, evidence })),
        1 => Just(Step::Blank),
    ]
}

fn command(state: &State, step: &Step) -> Option<Command> {
    match step {
        Step::Blank => None,
        Step::Run(c) => Some(c.clone()),
        Step::Assign(moves) => Some(Command::Assign(
            moves
                .iter()
                .map(|(vip, fresh, to, cause, pin)| {
                    let now = state.vips.get(vip).map(|v| v.epoch()).unwrap_or_default();
                    let expected = if *fresh { now } else { Epoch(now.0 + 1) };
                    let to = to.map(NodeId);
                    Move {
                        vip: vip.clone(),
                        expected,
                        to,
                        cause: *cause,
                        evidence: String::new(),
                        pin: *pin,
                    }
                })
                .collect(),
        )),
    }
}

fn assigned(state: &State) -> BTreeMap<IpAddr, (NodeId, Epoch)> {
    state.log_view(&Membership::default()).assigned
}

fn check_books(state: &State) {
    let derived: BTreeMap<IpAddr, VipName> = state
        .vips
        .iter()
        .flat_map(|(n, v)| v.spec.addresses.iter().map(|a| (a.ip, n.clone())))
        .collect();
    assert_eq!(state.addresses, derived);
    let total: usize = state.vips.values().map(|v| v.spec.addresses.len()).sum();
    assert_eq!(total, derived.len(), "an address belongs to one VIP");
    let assigned = assigned(state);
    assert!(state.removed.keys().all(|ip| !assigned.contains_key(ip)));
    assert!(state.removed.len() <= MAX_REMOVED && state.history.len() <= MAX_HISTORY);
    for (i, e) in state.history.iter().enumerate() {
        assert_eq!(
            e.revision,
            state.revision - (state.history.len() - 1 - i) as u64
        );
    }
    for v in state.vips.values() {
        assert!(v.yielded.is_none() || v.assignment.is_none());
        assert!(v.epoch().0 <= state.applied && v.changed_at <= state.applied);
        assert_eq!(v.spec.validate(), Ok(()));
    }
}

/// Every claim that ever rested on an assignment is either the present one or overtaken.
fn check_claims(state: &State, ever: &BTreeSet<(IpAddr, Epoch, NodeId)>) {
    let view: LogView = state.log_view(&Membership::default());
    for (address, epoch, node) in ever {
        let claim = Claim {
            address: *address,
            epoch: *epoch,
        };
        assert_ne!(
            view.supersedes(&claim),
            view.assigns(&claim, *node),
            "{claim:?} of {node}"
        );
    }
}

fn run(steps: &[Step]) {
    let mut state = cluster(
        4,
        &[vip("v0", &["192.0.2.1/24"]), vip("v1", &["192.0.2.2/24"])],
    );
    let mut ever: BTreeSet<(IpAddr, Epoch, NodeId)> = BTreeSet::new();
    let mut highest: BTreeMap<IpAddr, Epoch> = BTreeMap::new();
    for step in steps {
        let index = state.applied + 1 + u64::from(matches!(step, Step::Blank));
        let before = state.clone();
        let Some(command) = command(&state, step) else {
            state.note_index(index);
            continue;
        };
        let entry = Entry {
            at_unix_ms: index,
            command,
        };
        let mut twin = before.clone();
        let outcome = state.apply(index, &entry);
        assert_eq!(
            (twin.apply(index, &entry), &twin),
            (outcome.clone(), &state),
            "the same on every node"
        );
        if outcome.rejected.is_some() {
            assert_eq!(
                state,
                State {
                    applied: index,
                    ..before.clone()
                },
                "{entry}"
            );
            assert!(outcome.assigned.is_empty());
        }
        assert_eq!(outcome.revision, state.revision);
        check_books(&state);
        for (ip, (node, epoch)) in assigned(&state) {
            let last = highest.entry(ip).or_default();
            assert!(
                epoch >= *last,
                "{ip} went from epoch {last} back to {epoch}"
            );
            *last = epoch;
            let fresh = ever.insert((ip, epoch, node));
            assert!(
                !fresh || epoch.0 == index,
                "{ip} epoch {epoch} appeared at {index}"
            );
            let holders = ever
                .iter()
                .filter(|(i, e, _)| *i == ip && *e == epoch)
                .count();
            assert_eq!(holders, 1, "epoch {epoch} of {ip} names one node");
        }
        check_claims(&state, &ever);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_any_commands(steps in proptest::collection::vec(any_step(), 1..60)) {
        run(&steps);
    }
}

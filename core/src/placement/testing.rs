//! A cluster with the health of its nodes, for tests of planning.

use std::time::Duration;

use super::{Explanation, Plan, PlanParams, explain, plan};
use crate::health::{HealthView, NodeHealth, NodeReport};
use crate::ids::{Epoch, Incarnation, NodeId};
use crate::spec::VipSpec;
use crate::spec::timing::Timing;
use crate::state::testing::{cluster, name};
use crate::state::{Cause, Command, Outcome, State};
use crate::time::Mono;

/// Members `n1..`, then one witness, which plans. It has listened for 100 s, and all are well.
pub(super) struct World {
    pub(super) state: State,
    pub(super) health: HealthView,
    pub(super) params: PlanParams,
}

/// The time at which a world begins.
pub(super) const BEGIN: Mono = Mono::from_millis(100_000);

impl World {
    pub(super) fn new(members: u64, vips: &[VipSpec]) -> World {
        let state = cluster(members, vips);
        let me = NodeId(members + 1);
        let params = PlanParams {
            timing: Timing::default(),
            now: BEGIN,
            me,
            started: Mono::ZERO,
        };
        let mut world = World {
            state,
            health: HealthView::new(),
            params,
        };
        for id in 1..=members + 1 {
            world.well(id);
        }
        world
    }

    /// Heard now, and well since the beginning of time.
    pub(super) fn well(&mut self, id: u64) {
        let report = NodeReport {
            node: NodeId(id),
            incarnation: Incarnation(1),
            rev: 1,
            ..NodeReport::default()
        };
        let health = NodeHealth {
            last_heard: Some(self.params.now),
            report: Some(report),
            well_since: Some(Mono::ZERO),
        };
        self.health.insert(NodeId(id), health);
    }

    pub(super) fn of(&mut self, id: u64) -> &mut NodeHealth {
        self.health.get_mut(&NodeId(id)).unwrap()
    }

    pub(super) fn report(&mut self, id: u64) -> &mut NodeReport {
        self.of(id).report.as_mut().unwrap()
    }

    /// Last heard this many milliseconds ago.
    pub(super) fn silent(&mut self, id: u64, ms: u64) {
        let at = self.params.now - Duration::from_millis(ms);
        (self.of(id).last_heard, self.of(id).well_since) = (Some(at), None);
    }

    /// The owner says that it gave up the present epoch.
    pub(super) fn gives_up(&mut self, id: u64, vip: &str, why: &str) {
        let epoch = self.state.vips[&name(vip)].epoch();
        self.report(id)
            .given_up
            .insert(name(vip), (epoch, why.to_owned()));
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.state, &self.health, &self.params)
    }

    pub(super) fn explain(&self, vip: &str) -> Explanation {
        explain(&self.state, &self.health, &self.params, &name(vip)).unwrap()
    }

    /// Plans and applies; what is planned must be accepted whole, and leave nothing to plan.
    pub(super) fn settle(&mut self) -> Vec<(String, Option<u64>, Cause)> {
        let planned = self.plan();
        let moves = planned.moves.clone();
        if !moves.is_empty() {
            let outcome: Outcome = self.state.ok(Command::Assign(moves.clone()));
            assert_eq!(outcome.assigned.len(), moves.len());
        }
        assert_eq!(self.plan().moves, [], "the plan {moves:?} is not stable");
        moves
            .into_iter()
            .map(|m| (m.vip.to_string(), m.to.map(|n| n.0), m.cause))
            .collect()
    }

    /// Owner and epoch of a VIP.
    pub(super) fn owner(&self, vip: &str) -> Option<u64> {
        self.state.vips[&name(vip)].owner().map(|n| n.0)
    }

    pub(super) fn epoch(&self, vip: &str) -> Epoch {
        self.state.vips[&name(vip)].epoch()
    }

    /// Text of the only move.
    pub(super) fn evidence(&self) -> String {
        let moves = self.plan().moves;
        assert_eq!(moves.len(), 1, "{moves:?}");
        moves[0].evidence.clone()
    }

    /// Reasons of one node, joined.
    pub(super) fn reasons(&self, vip: &str, id: u64) -> String {
        let e = self.explain(vip);
        e.candidates
            .iter()
            .find(|c| c.node.0 == id)
            .unwrap()
            .reasons
            .join("; ")
    }
}

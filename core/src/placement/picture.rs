//! The facts that planning rests on: obstacles of each node, groups of VIPs, and who holds what.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::PlanParams;
use super::obstacle::Obstacle;
use crate::health::{HealthView, NodeHealth};
use crate::ids::{Epoch, NodeId, NodeName, VipName};
use crate::spec::groups::groups;
use crate::spec::{Preempt, Role};
use crate::state::{Node, State, Vip};
use crate::time::Mono;

/// What is known of one node, VIPs aside.
pub(super) struct NodeFacts<'a> {
    pub(super) name: &'a NodeName,
    pub(super) health: Option<&'a NodeHealth>,
    /// Obstacles for every VIP.
    pub(super) obstacles: Vec<Obstacle<'a>>,
}

/// VIPs that are placed as one; most often a single one.
pub(super) struct Unit<'a> {
    /// In order of name.
    pub(super) members: Vec<&'a Vip>,
    /// Where an operator moved it.
    pub(super) pinned: Option<NodeId>,
    /// The delay, if it preempts.
    pub(super) preempt: Option<Duration>,
    /// VIPs outside that a member avoids, or that avoid a member; once for each such pair.
    pub(super) foes: Vec<&'a VipName>,
}

impl<'a> Unit<'a> {
    /// How messages call it.
    pub(super) fn first(&self) -> &'a VipName {
        &self.members[0].spec.name
    }
}

/// What of the ranking is policy: a difference in it is worth a preemption. Smaller is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Standing {
    pub(super) unpinned: bool,
    pub(super) foes: usize,
    pub(super) priority: Reverse<u32>,
}

/// Who holds what, while moves are tried out.
#[derive(Clone)]
pub(super) struct Board<'a> {
    owner: BTreeMap<&'a VipName, NodeId>,
    load: BTreeMap<NodeId, usize>,
}

impl<'a> Board<'a> {
    pub(super) fn owner(&self, vip: &VipName) -> Option<NodeId> {
        self.owner.get(vip).copied()
    }

    pub(super) fn give(&mut self, vip: &'a VipName, to: NodeId) {
        if let Some(from) = self.owner.insert(vip, to) {
            self.load
                .entry(from)
                .and_modify(|n| *n = n.saturating_sub(1));
        }
        *self.load.entry(to).or_default() += 1;
    }

    /// VIPs on the node that are not of the unit.
    pub(super) fn others(&self, node: NodeId, unit: &Unit<'_>) -> usize {
        let own = unit
            .members
            .iter()
            .filter(|v| self.owner(&v.spec.name) == Some(node))
            .count();
        self.load
            .get(&node)
            .copied()
            .unwrap_or_default()
            .saturating_sub(own)
    }

    /// The one node that holds all of the unit.
    pub(super) fn sole_owner(&self, unit: &Unit<'_>) -> Option<NodeId> {
        let first = self.owner(unit.first())?;
        unit.members
            .iter()
            .all(|v| self.owner(&v.spec.name) == Some(first))
            .then_some(first)
    }
}

/// All facts.
pub(super) struct Picture<'a> {
    pub(super) state: &'a State,
    pub(super) params: &'a PlanParams,
    pub(super) nodes: BTreeMap<NodeId, NodeFacts<'a>>,
    pub(super) units: Vec<Unit<'a>>,
}

impl<'a> Picture<'a> {
    pub(super) fn new(
        state: &'a State,
        health: &'a HealthView,
        params: &'a PlanParams,
    ) -> Picture<'a> {
        let nodes = state
            .nodes
            .iter()
            .map(|(id, node)| (*id, facts(*id, node, health.get(id), params)));
        Picture {
            state,
            params,
            nodes: nodes.collect(),
            units: units(state),
        }
    }

    /// How long a node that was never heard is waited for: the voter may not promise anything before its
    /// quarantine is over, and then everybody has had the time to be heard.
    pub(super) fn patience(params: &PlanParams) -> Duration {
        params.timing.voter_lease() + params.timing.suspect_after
    }

    /// The end of that time.
    pub(super) fn patience_ends(&self) -> Mono {
        self.params.started + Self::patience(self.params)
    }

    /// When a node will be, or began to be, silent if it is not heard any more; `None`: never.
    pub(super) fn silent_at(&self, node: NodeId) -> Option<Mono> {
        if node == self.params.me {
            return None;
        }
        let heard = self.nodes.get(&node)?.health.and_then(|h| h.last_heard);
        Some(heard.map_or(self.patience_ends(), |at| {
            at + self.params.timing.suspect_after
        }))
    }

    /// Name of a node.
    pub(super) fn call(&self, node: NodeId) -> String {
        self.state.call(node)
    }

    /// What is in the way of a node holding one VIP.
    pub(super) fn obstacles(&self, vip: &'a Vip, node: NodeId) -> Vec<Obstacle<'a>> {
        let Some(facts) = self.nodes.get(&node) else {
            return vec![Obstacle::Unknown];
        };
        let mut all = facts.obstacles.clone();
        all.extend(facts.obstacles_of(vip));
        all
    }

    /// What is in the way of a node holding all of a unit.
    pub(super) fn unit_obstacles(&self, unit: &Unit<'a>, node: NodeId) -> Vec<Obstacle<'a>> {
        let Some(facts) = self.nodes.get(&node) else {
            return vec![Obstacle::Unknown];
        };
        let mut all = facts.obstacles.clone();
        all.extend(unit.members.iter().flat_map(|v| facts.obstacles_of(v)));
        all
    }

    /// May a node be given all of a unit?
    pub(super) fn is_eligible(&self, unit: &Unit<'a>, node: NodeId) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|facts| facts.may_hold(unit))
    }

    /// The nodes that may be given all of a unit.
    pub(super) fn eligible<'p>(&'p self, unit: &'p Unit<'a>) -> impl Iterator<Item = NodeId> + 'p {
        self.nodes
            .iter()
            .filter(|(_, facts)| facts.may_hold(unit))
            .map(|(id, _)| *id)
    }

    /// Does the owner have to give the unit up, where somebody else can take it?
    pub(super) fn is_displaced(&self, unit: &Unit<'a>, node: NodeId) -> bool {
        // Most owners have no obstacle at all, and finding that out costs no allocation.
        !self.is_eligible(unit, node)
            && self
                .unit_obstacles(unit, node)
                .iter()
                .any(Obstacle::displaces)
    }

    /// The owner's word that it has given up the present epoch of a VIP.
    pub(super) fn gave_up(&self, vip: &Vip) -> Option<&'a str> {
        let report = self.nodes.get(&vip.owner()?)?.health?.report.as_ref()?;
        let (epoch, why) = report.given_up.get(&vip.spec.name)?;
        (*epoch == vip.epoch() && *epoch != Epoch::default()).then_some(why.as_str())
    }

    /// How a node stands for a unit, by policy alone.
    pub(super) fn standing(&self, unit: &Unit<'a>, node: NodeId, board: &Board<'a>) -> Standing {
        let name = self.state.node_name(node);
        let priority = |v: &&Vip| name.map_or(0, |n| u32::from(v.spec.placement.priority_of(n)));
        Standing {
            unpinned: unit.pinned != Some(node),
            foes: unit
                .foes
                .iter()
                .filter(|f| board.owner(f) == Some(node))
                .count(),
            priority: Reverse(unit.members.iter().map(priority).sum()),
        }
    }

    /// Who holds what by the state.
    pub(super) fn board(&self) -> Board<'a> {
        let mut board = Board {
            owner: BTreeMap::new(),
            load: BTreeMap::new(),
        };
        for (name, vip) in &self.state.vips {
            if let Some(owner) = vip.owner() {
                board.give(name, owner);
            }
        }
        board
    }
}

impl<'a> NodeFacts<'a> {
    /// What is in the way of this VIP in particular.
    fn obstacles_of(&self, vip: &'a Vip) -> impl Iterator<Item = Obstacle<'a>> + use<'a> {
        let name = &vip.spec.name;
        let fault = self
            .health
            .and_then(|h| h.report.as_ref()?.vip_faults.get(name));
        let zero = vip.spec.placement.priority_of(self.name) == 0;
        let fault = fault.map(|text| Obstacle::VipFault(name, text));
        fault
            .into_iter()
            .chain(zero.then_some(Obstacle::PriorityZero(name)))
    }

    fn may_hold(&self, unit: &Unit<'a>) -> bool {
        self.obstacles.is_empty()
            && unit
                .members
                .iter()
                .all(|v| self.obstacles_of(v).next().is_none())
    }
}

fn facts<'a>(
    id: NodeId,
    node: &'a Node,
    health: Option<&'a NodeHealth>,
    params: &PlanParams,
) -> NodeFacts<'a> {
    let mut obstacles = Vec::new();
    if id != params.me {
        obstacles.extend(silence(health.and_then(|h| h.last_heard), params));
    }
    match health.and_then(|h| h.report.as_ref()) {
        Some(report) => obstacles.extend(report.faults.iter().map(|f| Obstacle::Fault(f))),
        // A witness needs none, and a silent node's is of no use.
        None if obstacles.is_empty() && node.spec.role == Role::Member => {
            obstacles.push(Obstacle::NoReport)
        }
        None => {}
    }
    obstacles.extend(node.drained.as_deref().map(Obstacle::Drained));
    if node.spec.role == Role::Witness {
        obstacles.push(Obstacle::Witness);
    }
    NodeFacts {
        name: &node.spec.name,
        health,
        obstacles,
    }
}

fn silence<'a>(last_heard: Option<Mono>, params: &PlanParams) -> Option<Obstacle<'a>> {
    let limit = params.timing.suspect_after;
    let listening = params.now.since(params.started);
    let patience = Picture::patience(params);
    match last_heard {
        Some(at) if params.now.since(at) < limit => None,
        Some(at) => Some(Obstacle::Silent {
            silence: params.now.since(at),
            limit,
        }),
        None if listening < patience => Some(Obstacle::NotHeardYet {
            listening,
            limit: patience,
        }),
        None => Some(Obstacle::NeverHeard { listening }),
    }
}

/// The units of all VIPs that are to be placed.
fn units(state: &State) -> Vec<Unit<'_>> {
    let mut foes: BTreeMap<&VipName, Vec<&VipName>> = BTreeMap::new();
    for (name, vip) in &state.vips {
        for other in vip
            .spec
            .placement
            .avoid
            .iter()
            .filter(|o| state.vips.contains_key(*o))
        {
            foes.entry(name).or_default().push(other);
            foes.entry(other).or_default().push(name);
        }
    }
    let all = groups(state.vips.values().map(|v| &v.spec)).into_iter();
    let placed = all.map(|group| {
        let members = group.iter().filter_map(|spec| state.vips.get(&spec.name));
        members
            .filter(|v| v.yielded.is_none())
            .collect::<Vec<&Vip>>()
    });
    placed
        .filter(|members| !members.is_empty())
        .map(|members| unit(members, &foes))
        .collect()
}

fn unit<'a>(members: Vec<&'a Vip>, foes: &BTreeMap<&'a VipName, Vec<&'a VipName>>) -> Unit<'a> {
    let preempting = members
        .iter()
        .map(|v| &v.spec.placement)
        .filter(|p| p.preempt == Preempt::Preempt);
    let foes = members
        .iter()
        .flat_map(|v| foes.get(&v.spec.name).into_iter().flatten().copied());
    let outside = |name: &&VipName| members.iter().all(|v| v.spec.name != **name);
    Unit {
        pinned: members.iter().find_map(|v| v.pinned),
        preempt: preempting.map(|p| p.preempt_delay).max(),
        foes: foes.filter(outside).collect(),
        members,
    }
}

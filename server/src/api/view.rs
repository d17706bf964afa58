//! What this node knows of VIPs and nodes, as the API shows it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use buoy_core::NodeId;
use buoy_core::health::{HealthView, Hearing, NodeReport};
use buoy_core::placement::PlanParams;
use buoy_core::state::{Assignment, State, Vip};
use buoy_proto::convert::address_texts;
use buoy_proto::v1::{self, LeaseState};
use tonic::Status;

use super::{ApiContext, VoterView, millis, read};

/// How long a call waits for what the lease thread has promised.
const PROMISES_LIMIT: Duration = Duration::from_millis(200);
/// VIPs without an owner for which one call says why, node by node: the planner is asked for each, while
/// the state cannot change.
const EXPLAINED: usize = 16;

/// A look at everything volatile, taken once for a call.
pub(super) struct Look<'a> {
    pub(super) context: &'a ApiContext,
    pub(super) health: HealthView,
    pub(super) params: PlanParams,
    pub(super) voter: VoterView,
    explained: AtomicUsize,
}

/// A node's reference by id, with the name that the state (or the configuration) gives it.
pub(super) fn node_ref(context: &ApiContext, state: &State, id: NodeId) -> v1::NodeRef {
    let declared = state.nodes.get(&id).map(|n| n.spec.name.to_string());
    let name = declared
        .or_else(|| context.pool.name(id))
        .unwrap_or_default();
    v1::NodeRef { name, id: id.0 }
}

/// At most this much of a caller's text is repeated in an error.
const SHOWN: usize = 80;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// The VIP with this name, or with this address.
///
/// # Errors
/// NOT_FOUND.
pub(super) fn find_vip<'s>(state: &'s State, text: &str) -> Result<&'s Vip, Status> {
    state.find(text).ok_or_else(|| {
        Status::not_found(format!(
            "no VIP has the name or address {:?}; `buoy vip list` shows the VIPs there are",
            shown(text)
        ))
    })
}

/// The node with this name, or with this id.
///
/// # Errors
/// NOT_FOUND, with the names that there are.
pub(super) fn find_node(state: &State, text: &str) -> Result<NodeId, Status> {
    state.find_node(text).map(|n| n.spec.id).ok_or_else(|| {
        let names: Vec<&str> = state.nodes.values().map(|n| n.spec.name.as_str()).collect();
        Status::not_found(format!(
            "there is no node {:?} (the nodes are {})",
            shown(text),
            names.join(", ")
        ))
    })
}

impl<'a> Look<'a> {
    pub(super) async fn take(context: &'a ApiContext) -> Look<'a> {
        let promises = tokio::time::timeout(PROMISES_LIMIT, context.lease.promises()).await;
        let voter = promises.ok().flatten().unwrap_or_default();
        let (health, params) = (context.health)();
        Look {
            context,
            health,
            params,
            voter,
            explained: AtomicUsize::new(0),
        }
    }

    pub(super) fn report(&self, node: NodeId) -> Option<&NodeReport> {
        self.health.get(&node)?.report.as_ref()
    }

    pub(super) fn heard(&self, node: NodeId) -> Option<Duration> {
        self.context.lease.heard(node)
    }

    pub(super) fn alive(&self, node: NodeId) -> bool {
        read::alive(self.context, node)
    }

    pub(super) fn name(&self, state: &State, id: NodeId) -> String {
        node_ref(self.context, state, id).name
    }

    /// Who owns a VIP, and what is known of the lease.
    pub(super) fn ownership(&self, state: &State, vip: &Vip) -> v1::VipOwnership {
        let assignment = vip.assignment.as_ref();
        let (lease, remaining) = assignment.map_or((LeaseState::None, Duration::ZERO), |a| {
            if a.node == self.context.me {
                self.own_lease(vip, a)
            } else {
                self.other_lease(vip, a)
            }
        });
        v1::VipOwnership {
            vip: vip.spec.name.to_string(),
            addresses: address_texts(&vip.spec.addresses),
            owner: assignment.map(|a| node_ref(self.context, state, a.node)),
            epoch: assignment.map_or(0, |a| a.epoch.0),
            since_unix_ms: assignment.map_or(0, |a| a.since_unix_ms),
            lease_state: lease.into(),
            lease_remaining_ms: millis(remaining),
        }
    }

    fn given_up(&self, vip: &Vip, a: &Assignment) -> Option<&str> {
        let (epoch, why) = self.report(a.node)?.given_up.get(&vip.spec.name)?;
        (*epoch >= a.epoch).then_some(why.as_str())
    }

    fn own_lease(&self, vip: &Vip, a: &Assignment) -> (LeaseState, Duration) {
        let held = self
            .context
            .lease
            .held(&vip.spec.name)
            .filter(|h| h.epoch == a.epoch);
        match held {
            Some(h) if h.active => (LeaseState::Held, h.remaining),
            _ if self.given_up(vip, a).is_some() => (LeaseState::Lost, Duration::ZERO),
            _ => (LeaseState::Pending, Duration::ZERO),
        }
    }

    fn other_lease(&self, vip: &Vip, a: &Assignment) -> (LeaseState, Duration) {
        if self.given_up(vip, a).is_some() {
            return (LeaseState::Lost, Duration::ZERO);
        }
        let Some(report) = self.report(a.node) else {
            return (LeaseState::Unknown, Duration::ZERO);
        };
        let promised = self.promised(vip, a);
        let says_active = report.active.get(&vip.spec.name) == Some(&a.epoch);
        match (says_active, promised, self.alive(a.node)) {
            (true, Some(remaining), _) => (LeaseState::Held, remaining),
            (true, None, true) => (LeaseState::Held, Duration::ZERO),
            (false, _, true) => (LeaseState::Pending, Duration::ZERO),
            (_, _, false) => (LeaseState::Unknown, Duration::ZERO),
        }
    }

    /// Until the first of this voter's promises for the assignment ends; `None`: one is missing.
    fn promised(&self, vip: &Vip, a: &Assignment) -> Option<Duration> {
        let promise = |ip| {
            let p = self.voter.promises.get(ip)?;
            (p.node == a.node && p.epoch == a.epoch).then_some(p.remaining)
        };
        let all: Option<Vec<Duration>> = vip
            .spec
            .addresses
            .iter()
            .map(|address| promise(&address.ip))
            .collect();
        all?.into_iter().min()
    }

    /// A VIP with everything that is known of it.
    pub(super) fn vip(&self, state: &State, vip: &Vip) -> v1::Vip {
        let ownership = self.ownership(state, vip);
        let problem = self.problem(state, vip, &ownership);
        v1::Vip {
            spec: Some((&vip.spec).into()),
            ownership: Some(ownership),
            pinned: vip.pinned.map(|id| node_ref(self.context, state, id)),
            yielded: vip.yielded.clone(),
            problem,
        }
    }

    /// What is wrong with a VIP; empty: nothing.
    fn problem(&self, state: &State, vip: &Vip, ownership: &v1::VipOwnership) -> String {
        let Some(a) = &vip.assignment else {
            return match &vip.yielded {
                Some(why) => format!("left to a router outside the group: {why}"),
                None if state.settings.frozen => {
                    "nobody owns it, and automatic placement is frozen: move it by command"
                        .to_owned()
                }
                None => format!("nobody owns it: {}", self.why_nobody(state, vip)),
            };
        };
        let owner = self.name(state, a.node);
        match ownership.lease_state() {
            LeaseState::Held | LeaseState::None => String::new(),
            LeaseState::Pending => match self.obstacle(state, vip, a) {
                Some(obstacle) => format!("{owner} does not hold the lease yet: {obstacle}"),
                None => format!("{owner} does not hold the lease yet"),
            },
            LeaseState::Lost => {
                let why = self.given_up(vip, a).unwrap_or("no reason given");
                format!("{owner} gave it up: {why}")
            }
            LeaseState::Unknown => match self.heard(a.node) {
                Some(ago) => format!("its owner {owner} was last heard {} ms ago", millis(ago)),
                None => format!("its owner {owner} has not been heard since this node started"),
            },
        }
    }

    /// Whose promise stands in the way of a new owner at this voter.
    fn obstacle(&self, state: &State, vip: &Vip, a: &Assignment) -> Option<String> {
        let promises = vip
            .spec
            .addresses
            .iter()
            .filter_map(|x| self.voter.promises.get(&x.ip));
        let other = promises
            .filter(|p| p.epoch != a.epoch)
            .max_by_key(|p| p.remaining);
        if let Some(p) = other {
            return Some(format!(
                "this voter's promise to {} lasts another {} ms",
                self.name(state, p.node),
                millis(p.remaining)
            ));
        }
        let report = self.health.get(&a.node).and_then(|h| h.report.as_ref());
        if let Some(Hearing::Unsure) = report.and_then(|r| r.vrrp.get(&vip.spec.name)) {
            let words = "it listens first whether another VRRP router has the address";
            return Some(words.to_owned());
        }
        let quarantine = millis(self.voter.quarantine);
        (quarantine > 0).then(|| {
            format!("this voter promises nothing for {quarantine} ms more after its start")
        })
    }

    /// Why no node takes a VIP, node by node.
    fn why_nobody(&self, state: &State, vip: &Vip) -> String {
        if state.nodes.is_empty() {
            return "no node is declared yet".to_owned();
        }
        if self.explained.fetch_add(1, Relaxed) >= EXPLAINED {
            return format!("`buoy vip explain {}` says why", vip.spec.name);
        }
        let unfit = self.obstacles(state, &vip.spec.name);
        if unfit.len() < state.nodes.len() {
            return "it is about to be assigned".to_owned();
        }
        let words: Vec<String> = unfit
            .iter()
            .map(|(c, reasons)| format!("{}: {reasons}", c.name))
            .collect();
        words.join("; ")
    }
}

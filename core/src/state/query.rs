//! Questions to the replicated state.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::{Node, State, Vip};
use crate::ids::{Epoch, NodeId, NodeName, VipName};
use crate::lease::LogView;
use crate::membership::Membership;
use crate::spec::groups::groups;

impl State {
    /// What this state says to a lease voter, together with the membership that is in force.
    pub fn log_view(&self, membership: &Membership) -> LogView {
        let assigned = self.vips.values().flat_map(|vip| {
            let to = vip.assignment.as_ref().map(|a| (a.node, a.epoch));
            vip.spec
                .addresses
                .iter()
                .filter_map(move |a| Some((a.ip, to?)))
        });
        LogView {
            membership: membership.clone(),
            assigned: assigned.collect(),
            removed: self.removed.clone(),
            forgotten: self.removed_forgotten,
        }
    }

    /// VIPs that are assigned to a node, in order of name, with epoch and addresses.
    pub fn assignments_of(&self, node: NodeId) -> Vec<(VipName, Epoch, Vec<IpAddr>)> {
        let mut found = Vec::new();
        for (name, vip) in &self.vips {
            if let Some(a) = vip.assignment.as_ref().filter(|a| a.node == node) {
                let addresses = vip.spec.addresses.iter().map(|a| a.ip).collect();
                found.push((name.clone(), a.epoch, addresses));
            }
        }
        found
    }

    /// A copy with an empty history: what the view of the log's end needs, without the bulk.
    pub fn without_history(&self) -> State {
        State {
            applied: self.applied,
            bootstrapped: self.bootstrapped,
            settings: self.settings.clone(),
            nodes: self.nodes.clone(),
            vips: self.vips.clone(),
            addresses: self.addresses.clone(),
            removed: self.removed.clone(),
            removed_forgotten: self.removed_forgotten,
            history: VecDeque::new(),
            revision: self.revision,
            history_id: self.history_id,
        }
    }

    /// A VIP by its name or, when no VIP has that name, by one of its addresses.
    pub fn find(&self, query: &str) -> Option<&Vip> {
        let by_name = || self.vips.get(&query.parse::<VipName>().ok()?);
        let by_address = || {
            self.vips
                .get(self.addresses.get(&query.parse::<IpAddr>().ok()?)?)
        };
        by_name().or_else(by_address)
    }

    /// A node by its name or, when no node has that name, by its id.
    pub fn find_node(&self, query: &str) -> Option<&Node> {
        let by_name = || self.nodes.values().find(|n| n.spec.name.as_str() == query);
        let by_id = || self.nodes.get(&NodeId(query.parse().ok()?));
        by_name().or_else(by_id)
    }

    /// Name of a node; `None`: no such node.
    pub fn node_name(&self, id: NodeId) -> Option<&NodeName> {
        self.nodes.get(&id).map(|n| &n.spec.name)
    }

    /// Name of a node, or words for one that the state does not know.
    pub(crate) fn call(&self, id: NodeId) -> String {
        self.node_name(id)
            .map_or_else(|| format!("unknown node {id}"), |n| n.to_string())
    }

    /// The VIPs that must be on one node with `vip`, itself included, in order of name. Empty when
    /// there is no such VIP.
    pub fn group_of(&self, vip: &VipName) -> Vec<&Vip> {
        let found = groups(self.vips.values().map(|v| &v.spec));
        let group = found.into_iter().find(|g| g.iter().any(|s| s.name == *vip));
        group
            .unwrap_or_default()
            .into_iter()
            .filter_map(|s| self.vips.get(&s.name))
            .collect()
    }
}

impl Vip {
    /// Epoch of the assignment; zero: none.
    pub fn epoch(&self) -> Epoch {
        self.assignment
            .as_ref()
            .map(|a| a.epoch)
            .unwrap_or_default()
    }

    /// The node that is assigned.
    pub fn owner(&self) -> Option<NodeId> {
        self.assignment.as_ref().map(|a| a.node)
    }
}

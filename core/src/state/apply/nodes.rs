//! Nodes, settings, and the first configuration.

use super::super::{Event, EventKind, Node, Rejection, Settings};
use super::{Change, clip, join};
use crate::ids::NodeId;
use crate::spec::validate::{check_node, clashes};
use crate::spec::{MAX_NODES, NodeSpec, Role, Severity, VipSpec, validate_all};

impl Change<'_> {
    /// The nodes and VIPs of the first leader's file. Several leaders may propose theirs; the first one
    /// in the log counts, the others do nothing.
    pub(super) fn bootstrap(
        &mut self,
        history_id: u64,
        nodes: &[NodeSpec],
        vips: &[VipSpec],
    ) -> Result<(), Rejection> {
        if self.state.bootstrapped {
            return Ok(());
        }
        // New ones first, so that positions in messages are those of the command.
        let mut all_nodes = nodes.to_vec();
        let old = self.state.nodes.values().map(|n| &n.spec);
        all_nodes.extend(old.filter(|o| nodes.iter().all(|n| n.id != o.id)).cloned());
        let mut all_vips = vips.to_vec();
        let old = self.state.vips.values().map(|v| &v.spec);
        all_vips.extend(
            old.filter(|o| vips.iter().all(|v| v.name != o.name))
                .cloned(),
        );
        let mut errors = validate_all(&all_vips, &all_nodes);
        errors.retain(|e| e.severity == Severity::Error);
        if !errors.is_empty() {
            return Err(Rejection::invalid(format!(
                "the first configuration is refused: {}",
                join(&errors)
            )));
        }
        nodes.iter().try_for_each(|n| self.check_same_name(n))?;
        for node in nodes {
            self.store_node(node);
        }
        for vip in vips {
            self.store_vip(vip);
        }
        self.state.bootstrapped = true;
        self.state.history_id = history_id;
        Ok(())
    }

    /// Declares a node, or changes its address or role.
    pub(super) fn put_node(&mut self, spec: &NodeSpec) -> Result<(), Rejection> {
        if let Some(e) = check_node(spec) {
            return Err(Rejection::invalid(e.to_string()));
        }
        self.check_same_name(spec)?;
        let others = || {
            self.state
                .nodes
                .values()
                .map(|n| &n.spec)
                .filter(|n| n.id != spec.id)
        };
        if let Some(e) = others().find_map(|o| clashes(spec, o).into_iter().next()) {
            return Err(Rejection::conflict(e.to_string()));
        }
        if let Some(vip) = self.state.addresses.get(&spec.address.ip()) {
            let (ip, name) = (spec.address.ip(), &spec.name);
            return Err(Rejection::conflict(format!(
                "address {ip} of node {name} belongs to VIP {vip}"
            )));
        }
        if others().count() >= MAX_NODES {
            return Err(Rejection::invalid(format!(
                "the cluster has {MAX_NODES} nodes already, the most it can have"
            )));
        }
        if spec.role == Role::Witness
            && others().all(|n| n.role == Role::Witness)
            && !self.state.vips.is_empty()
        {
            return Err(Rejection::conflict(format!(
                "node {} cannot become a witness: no other node may hold VIPs",
                spec.name
            )));
        }
        self.store_node(spec);
        Ok(())
    }

    /// VIPs name nodes in their priorities, and a node's data directory carries its name.
    fn check_same_name(&self, spec: &NodeSpec) -> Result<(), Rejection> {
        match self.state.node_name(spec.id) {
            Some(name) if *name != spec.name => Err(Rejection::conflict(format!(
                "node {} is named {name}, not {}: a node keeps its name; give a new machine a new id",
                spec.id, spec.name
            ))),
            _ => Ok(()),
        }
    }

    fn store_node(&mut self, spec: &NodeSpec) {
        let evidence = match self.state.nodes.get(&spec.id) {
            Some(old) if old.spec == *spec => return,
            Some(old) => format!(
                "{} {:?}, before {} {:?}",
                spec.address, spec.role, old.spec.address, old.spec.role
            ),
            None => format!("declared: {} {:?}", spec.address, spec.role),
        };
        let known = self.state.nodes.get(&spec.id);
        let joined = known.is_some_and(|n| n.joined);
        let drained = self
            .state
            .nodes
            .get(&spec.id)
            .and_then(|n| n.drained.clone());
        self.state.nodes.insert(
            spec.id,
            Node {
                spec: spec.clone(),
                drained,
                joined,
            },
        );
        let event = self.event(EventKind::NodePut, &evidence);
        self.record(Event {
            node: Some(spec.name.clone()),
            ..event
        });
    }

    /// Marks only: the planner moves the VIPs away.
    pub(super) fn drain(&mut self, id: NodeId, reason: Option<&str>) -> Result<(), Rejection> {
        let Some(node) = self.state.nodes.get_mut(&id) else {
            return Err(Rejection::not_found(format!("there is no node {id}")));
        };
        let name = node.spec.name.clone();
        if reason.is_some() && node.spec.role == Role::Witness {
            return Err(Rejection::invalid(format!(
                "node {name} is a witness: it holds no VIPs, so there is nothing to drain"
            )));
        }
        let reason = reason.map(clip);
        if node.drained == reason {
            return Ok(());
        }
        node.drained.clone_from(&reason);
        let event = match &reason {
            Some(reason) => self.event(EventKind::NodeDrained, reason),
            None => self.event(EventKind::NodeUndrained, "takes part again"),
        };
        self.record(Event {
            node: Some(name),
            ..event
        });
        Ok(())
    }

    /// Remembers that nodes have taken part. Nodes that the state does not know are passed over.
    pub(super) fn joined(&mut self, ids: &[NodeId]) -> Result<(), Rejection> {
        for id in ids {
            if let Some(node) = self.state.nodes.get_mut(id) {
                node.joined = true;
            }
        }
        Ok(())
    }

    /// Replaces the settings.
    pub(super) fn change_settings(&mut self, settings: &Settings) {
        if self.state.settings == *settings {
            return;
        }
        self.state.settings = settings.clone();
        let evidence = if settings.frozen {
            "automatic placement is frozen: VIPs move only by command"
        } else {
            "automatic placement is on"
        };
        let event = self.event(EventKind::SettingsChanged, evidence);
        self.record(event);
    }
}

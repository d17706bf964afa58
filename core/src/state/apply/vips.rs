//! Declaring, editing, deleting and yielding VIPs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::{Cause, Event, EventKind, Rejection, Vip};
use super::{Change, clip, join};
use crate::ids::VipName;
use crate::spec::groups::groups;
use crate::spec::validate::{check_group, node_address, references, too_many_addresses};
use crate::spec::vrrp::same_router;
use crate::spec::{MAX_VIPS, NodeSpec, Scope, SpecError, VipAddress, VipSpec};

/// What a VIP *is*, as opposed to where it should be. A change of it is a new epoch, so that no
/// lease made for the old one permits the new one. The order of addresses means nothing.
#[derive(PartialEq)]
struct Identity<'a> {
    addresses: BTreeSet<&'a VipAddress>,
    interface: &'a str,
    carriers: BTreeSet<String>,
    label: Option<&'a str>,
    scope: Scope,
}

impl<'a> Identity<'a> {
    fn of(spec: &'a VipSpec) -> Identity<'a> {
        Identity {
            addresses: spec.addresses.iter().collect(),
            interface: &spec.interface,
            carriers: spec.interfaces(),
            label: spec.label.as_deref(),
            scope: spec.scope,
        }
    }

    /// What of it differs, for the history.
    fn differs(&self, old: &Identity<'_>) -> Vec<&'static str> {
        [
            (self.addresses != old.addresses, "addresses"),
            (self.interface != old.interface, "interface"),
            (
                self.interface == old.interface && self.carriers != old.carriers,
                "virtual MAC",
            ),
            (self.label != old.label, "label"),
            (self.scope != old.scope, "scope"),
        ]
        .into_iter()
        .filter_map(|(differs, what)| differs.then_some(what))
        .collect()
    }
}

impl Change<'_> {
    /// Declares a VIP, or changes its declaration.
    pub(super) fn put_vip(&mut self, spec: &VipSpec) -> Result<(), Rejection> {
        let refuse =
            |errors: &[SpecError]| format!("VIP {} is refused: {}", spec.name, join(errors));
        spec.validate()
            .map_err(|errors| Rejection::invalid(refuse(&errors)))?;
        if !self.state.vips.contains_key(&spec.name) && self.state.vips.len() >= MAX_VIPS {
            return Err(Rejection::invalid(format!(
                "the cluster has {MAX_VIPS} VIPs already, the most it can have"
            )));
        }
        let old = self.state.vips.get(&spec.name);
        let before = old.map_or(0, |v| v.spec.addresses.len());
        let total = self.state.addresses.len() - before + spec.addresses.len();
        if let Some(e) = too_many_addresses(total).filter(|_| spec.addresses.len() > before) {
            return Err(Rejection::invalid(refuse(&[e])));
        }
        self.check_addresses(spec)?;
        self.check_vrid(spec)?;
        let nodes: Vec<&NodeSpec> = self.state.nodes.values().map(|n| &n.spec).collect();
        let is_node = |name: &_| nodes.iter().any(|n| n.name == *name);
        let unknown = references(spec, is_node, |v| self.state.vips.contains_key(v));
        if !unknown.is_empty() {
            return Err(Rejection::not_found(refuse(&unknown)));
        }
        let problems = self.group_problems(spec, &nodes);
        if !problems.is_empty() {
            return Err(Rejection::invalid(refuse(&problems)));
        }
        self.store_vip(spec);
        Ok(())
    }

    /// What is wrong with the group that the declaration would be in.
    fn group_problems(&self, spec: &VipSpec, nodes: &[&NodeSpec]) -> Vec<SpecError> {
        let others = || {
            self.state
                .vips
                .values()
                .map(|v| &v.spec)
                .filter(|s| s.name != spec.name)
        };
        let named = || others().any(|s| s.placement.colocate_with.contains(&spec.name));
        // Most VIPs are with no other, and grouping all of them is the costly part.
        let group = if spec.placement.colocate_with.is_empty() && !named() {
            vec![spec]
        } else {
            let all = groups(others().chain([spec]));
            all.into_iter()
                .find(|g| g.iter().any(|s| s.name == spec.name))
                .unwrap_or_default()
        };
        check_group(&group, nodes)
            .iter()
            .map(|p| p.error())
            .collect()
    }

    fn check_addresses(&self, spec: &VipSpec) -> Result<(), Rejection> {
        for a in &spec.addresses {
            if let Some(other) = self.state.addresses.get(&a.ip).filter(|n| **n != spec.name) {
                return Err(Rejection::conflict(format!(
                    "VIP {} is refused: address {} belongs to VIP {other}; remove it there first",
                    spec.name, a.ip
                )));
            }
            if let Some(e) = self
                .state
                .nodes
                .values()
                .find_map(|n| node_address(spec, a.ip, &n.spec))
            {
                return Err(Rejection::conflict(format!(
                    "VIP {} is refused: {e}",
                    spec.name
                )));
            }
        }
        Ok(())
    }

    fn check_vrid(&self, spec: &VipSpec) -> Result<(), Rejection> {
        let others = self.state.vips.values().map(|v| &v.spec);
        match others.filter_map(|other| same_router(spec, other)).next() {
            None => Ok(()),
            Some(e) => Err(Rejection::conflict(format!(
                "VIP {} is refused: {e}",
                spec.name
            ))),
        }
    }

    /// Stores a declaration that was checked.
    pub(super) fn store_vip(&mut self, spec: &VipSpec) {
        match self.state.vips.get(&spec.name).map(|v| v.spec.clone()) {
            Some(old) if old == *spec => {}
            Some(old) => self.edit_vip(spec, &old),
            None => self.add_vip(spec),
        }
    }

    fn add_vip(&mut self, spec: &VipSpec) {
        let vip = Vip {
            spec: spec.clone(),
            assignment: None,
            pinned: None,
            yielded: None,
            changed_at: self.index,
        };
        self.state.vips.insert(spec.name.clone(), vip);
        let addresses = spec.addresses.iter().map(|a| (a.ip, spec.name.clone()));
        self.state.addresses.extend(addresses);
        let event = self.event(EventKind::VipPut, &format!("declared: {}", describe(spec)));
        self.record(Event {
            vip: Some(spec.name.clone()),
            ..event
        });
    }

    fn edit_vip(&mut self, spec: &VipSpec, old: &VipSpec) {
        let Some(vip) = self.state.vips.get_mut(&spec.name) else {
            return;
        };
        vip.spec = spec.clone();
        vip.changed_at = self.index;
        let assignment = vip.assignment.clone();
        let kept: BTreeSet<IpAddr> = spec.addresses.iter().map(|a| a.ip).collect();
        let gone: Vec<IpAddr> = old
            .addresses
            .iter()
            .map(|a| a.ip)
            .filter(|ip| !kept.contains(ip))
            .collect();
        for ip in &gone {
            self.state.addresses.remove(ip);
        }
        self.state
            .addresses
            .extend(kept.into_iter().map(|ip| (ip, spec.name.clone())));
        if assignment.is_some() {
            self.remember_removed(&gone);
        }
        let changed = Identity::of(spec).differs(&Identity::of(old));
        let new_epoch = assignment
            .as_ref()
            .filter(|_| !changed.is_empty())
            .map(|a| a.node);
        let what = match changed.as_slice() {
            [] if spec.vrrp != old.vrrp => "its VRRP face changed".to_owned(),
            [] => "its placement changed".to_owned(),
            parts => format!("its {} changed: {}", parts.join(", "), describe(spec)),
        };
        let owner = assignment
            .as_ref()
            .and_then(|a| self.state.node_name(a.node))
            .cloned();
        let event = Event {
            vip: Some(spec.name.clone()),
            epoch: new_epoch
                .map(|_| self.epoch())
                .or(assignment.as_ref().map(|a| a.epoch)),
            from: owner.clone(),
            to: owner,
            cause: Some(Cause::Edited),
            ..self.event(EventKind::VipEdited, &what)
        };
        self.record(event);
        if let Some(node) = new_epoch {
            self.set_owner(&spec.name, Some(node), Cause::Edited, &what);
        }
    }

    /// Deletes a VIP that no other VIP names.
    pub(super) fn delete_vip(&mut self, name: &VipName) -> Result<(), Rejection> {
        let Some(vip) = self.state.vips.get(name) else {
            return Err(Rejection::not_found(format!("there is no VIP {name}")));
        };
        let others = self
            .state
            .vips
            .values()
            .map(|v| &v.spec)
            .filter(|s| s.name != *name);
        for other in others {
            for (field, names) in [
                ("colocate_with", &other.placement.colocate_with),
                ("avoid", &other.placement.avoid),
            ] {
                if names.contains(name) {
                    return Err(Rejection::conflict(format!(
                        "VIP {name} cannot be deleted: VIP {} names it in {field}; edit {} first",
                        other.name, other.name
                    )));
                }
            }
        }
        let addresses: Vec<IpAddr> = vip.spec.addresses.iter().map(|a| a.ip).collect();
        let owner = vip.owner();
        let epoch = owner.map(|_| vip.epoch());
        let from = owner.and_then(|id| self.state.node_name(id)).cloned();
        self.state.vips.remove(name);
        for ip in &addresses {
            self.state.addresses.remove(ip);
        }
        let event = self.event(EventKind::VipDeleted, "deleted");
        if owner.is_some() {
            self.remember_removed(&addresses);
            self.outcome
                .assigned
                .push((name.clone(), Default::default()));
        }
        self.record(Event {
            vip: Some(name.clone()),
            epoch,
            from,
            cause: owner.map(|_| Cause::Operator),
            ..event
        });
        Ok(())
    }

    /// Leaves a VIP to a router outside the group, or takes it back for placement.
    pub(super) fn yield_vip(
        &mut self,
        name: &VipName,
        evidence: Option<&str>,
    ) -> Result<(), Rejection> {
        let Some(vip) = self.state.vips.get_mut(name) else {
            return Err(Rejection::not_found(format!("there is no VIP {name}")));
        };
        // What is seen of the other router may change while it goes on: that is no event.
        if vip.yielded.is_some() == evidence.is_some() {
            vip.yielded = evidence.map(clip);
            return Ok(());
        }
        vip.yielded = evidence.map(clip);
        vip.changed_at = self.index;
        let assigned = vip.assignment.is_some();
        match evidence {
            Some(evidence) if assigned => self.set_owner(name, None, Cause::Yielded, evidence),
            _ => {
                let words = evidence.unwrap_or("taken back");
                let event = self.event(EventKind::VipEdited, words);
                self.record(Event {
                    vip: Some(name.clone()),
                    cause: Some(Cause::Yielded),
                    ..event
                });
            }
        }
        Ok(())
    }

    /// [`Change::yield_vip`] for many; what does not exist any more is passed over.
    pub(super) fn yield_vips(&mut self, all: &[(VipName, Option<String>)]) {
        for (name, evidence) in all.iter().take(MAX_VIPS) {
            let _gone_meanwhile = self.yield_vip(name, evidence.as_deref());
        }
    }
}

/// A VIP's identity in words: "192.0.2.1/24 on eth0".
fn describe(spec: &VipSpec) -> String {
    let addresses: Vec<String> = spec
        .addresses
        .iter()
        .map(|a| format!("{}/{}", a.ip, a.prefix))
        .collect();
    format!("{} on {}", addresses.join(", "), spec.interface)
}

//! Whether VIPs and nodes fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::groups::groups;
use super::super::vrrp::same_router;
use super::super::{MAX_NODES, MAX_TOTAL_ADDRESSES, MAX_VIPS, NodeSpec, Role, VipSpec};
use super::{Severity, SpecError};
use crate::ids::{NodeName, VipName};

/// Checks all VIPs and nodes of a configuration, each by itself and together. Fields are named
/// `vips[i]....` and `nodes[i]....` after the positions in the slices. Findings with
/// [`Severity::Warning`] do not keep the configuration from being used.
pub fn validate_all(vips: &[VipSpec], nodes: &[NodeSpec]) -> Vec<SpecError> {
    let mut found = Vec::new();
    check_nodes(nodes, &mut found);
    if vips.len() > MAX_VIPS {
        found.push(SpecError::error(
            "vips",
            format!(
                "{} VIPs are declared, expected at most {MAX_VIPS}",
                vips.len()
            ),
            "put addresses that move together into one VIP, or form a second cluster",
        ));
    }
    let total = vips.iter().map(|v| v.addresses.len()).sum();
    found.extend(too_many_addresses(total));
    let mut places: BTreeMap<&VipName, usize> = BTreeMap::new();
    for (i, vip) in vips.iter().enumerate() {
        let at = format!("vips[{i}]");
        if let Err(errors) = vip.validate() {
            found.extend(errors.into_iter().map(|e| e.within(&at)));
        }
        if let Some(first) = places.get(&vip.name) {
            found.push(SpecError::error(
                format!("{at}.name"),
                format!("VIP {} is declared twice, first in vips[{first}]", vip.name),
                "give one of them another name",
            ));
        } else {
            places.insert(&vip.name, i);
        }
    }
    check_addresses(vips, nodes, &mut found);
    check_routers(vips, &mut found);
    check_references(vips, nodes, &places, &mut found);
    let nodes: Vec<&NodeSpec> = nodes.iter().collect();
    for group in groups(vips) {
        for problem in check_group(&group, &nodes) {
            let at = places.get(problem.vip).copied().unwrap_or_default();
            found.push(problem.error().within(&format!("vips[{at}]")));
        }
    }
    found
}

/// What is wrong with so many addresses of all VIPs together.
pub(crate) fn too_many_addresses(total: usize) -> Option<SpecError> {
    (total > MAX_TOTAL_ADDRESSES).then(|| {
        SpecError::error(
            "vips",
            format!(
                "all VIPs together would have {total} addresses, expected at most \
                 {MAX_TOTAL_ADDRESSES}: one node must be able to hold all of them"
            ),
            "remove some addresses first, or use another cluster for them",
        )
    })
}

fn check_nodes(nodes: &[NodeSpec], found: &mut Vec<SpecError>) {
    if nodes.is_empty() || nodes.len() > MAX_NODES {
        found.push(SpecError::error(
            "nodes",
            format!(
                "{} nodes are listed, expected 1 to {MAX_NODES}",
                nodes.len()
            ),
            if nodes.is_empty() {
                "list every node of the cluster; three are a good number"
            } else {
                "remove some; five voters survive two failures"
            },
        ));
        return;
    }
    if nodes.iter().all(|n| n.role == Role::Witness) {
        found.push(SpecError::error(
            "nodes",
            "every node is a witness, so none may hold a VIP",
            "make at least one node a member",
        ));
    }
    if nodes.len().is_multiple_of(2) {
        found.push(SpecError {
            severity: Severity::Warning,
            field: "nodes".to_owned(),
            message: format!(
                "{} voters survive the loss of {}, no more than {} voters would",
                nodes.len(),
                (nodes.len() - 1) / 2,
                nodes.len() - 1
            ),
            hint: "add a node; a small machine can be a witness".to_owned(),
        });
    }
    for (i, n) in nodes.iter().enumerate() {
        if let Some(e) = check_node(n) {
            found.push(e.within(&format!("nodes[{i}]")));
        }
        for (j, other) in nodes[..i].iter().enumerate() {
            found.extend(clashes(n, other).into_iter().map(|e| {
                e.within(&format!("nodes[{i}]"))
                    .seen_in(&format!("nodes[{j}]"))
            }));
        }
    }
}

impl SpecError {
    fn seen_in(mut self, place: &str) -> SpecError {
        self.message = format!("{}, listed in {place}", self.message);
        self
    }
}

/// What is wrong with a node by itself.
pub(crate) fn check_node(n: &NodeSpec) -> Option<SpecError> {
    if n.id.0 == 0 {
        return Some(SpecError::error(
            "id",
            format!("node {} has id 0, expected 1 or larger", n.name),
            "number the nodes 1, 2, 3",
        ));
    }
    let (ip, port) = (n.address.ip(), n.address.port());
    if ip.is_unspecified() || ip.is_multicast() || port == 0 {
        return Some(SpecError::error(
            "address",
            format!("other nodes cannot reach node {} at {}", n.name, n.address),
            "give an address of the machine and a port, such as 192.0.2.1:7400",
        ));
    }
    None
}

/// Everything that two different nodes may not have in common, and have.
pub(crate) fn clashes(n: &NodeSpec, other: &NodeSpec) -> Vec<SpecError> {
    let (name, than) = (&n.name, &other.name);
    let mut found = Vec::new();
    if n.id == other.id {
        found.push(SpecError::error(
            "id",
            format!("node {name} has the same id {} as node {than}", n.id),
            "give each node an id of its own, never used before",
        ));
    }
    if n.name == other.name {
        found.push(SpecError::error(
            "name",
            format!(
                "node {} has the same name {name} as node {}",
                n.id, other.id
            ),
            "give each node a name of its own",
        ));
    }
    let (ip, port) = (n.address.ip(), n.address.port());
    if n.address == other.address {
        found.push(SpecError::error(
            "address",
            format!(
                "node {name} has the same address {} as node {than}",
                n.address
            ),
            "give each node an address of its own",
        ));
    } else if ip == other.address.ip() && !ip.is_loopback() {
        found.push(SpecError::error(
            "address",
            format!("node {name} has the same address {ip} as node {than}, only with another port {port}"),
            "two nodes on one machine fail together, and undo each other's VIPs: give each node a machine of its own",
        ));
    }
    found
}

fn check_addresses(vips: &[VipSpec], nodes: &[NodeSpec], found: &mut Vec<SpecError>) {
    let mut owner: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (i, vip) in vips.iter().enumerate() {
        for (k, a) in vip.addresses.iter().enumerate() {
            let field = format!("vips[{i}].addresses[{k}].ip");
            let first = *owner.entry(a.ip).or_insert(i);
            if first != i {
                found.push(SpecError::error(
                    field.as_str(),
                    format!(
                        "address {} of VIP {} belongs to VIP {} already",
                        a.ip, vip.name, vips[first].name
                    ),
                    "an address belongs to at most one VIP: remove it from one of them",
                ));
            }
            found.extend(
                nodes
                    .iter()
                    .find_map(|n| node_address(vip, a.ip, n))
                    .map(|e| SpecError { field, ..e }),
            );
        }
    }
}

/// A virtual router id means one VIP on an interface.
fn check_routers(vips: &[VipSpec], found: &mut Vec<SpecError>) {
    let mut by_id: BTreeMap<(&str, u8), Vec<&VipSpec>> = BTreeMap::new();
    for (i, vip) in vips.iter().enumerate() {
        let Some(face) = &vip.vrrp else { continue };
        let others = by_id.entry((&vip.interface, face.vrid)).or_default();
        let clash = others.iter().find_map(|other| same_router(vip, other));
        found.extend(clash.map(|e| e.within(&format!("vips[{i}]"))));
        others.push(vip);
    }
}

/// A VIP may not take the address by which a node is reached.
pub(crate) fn node_address(vip: &VipSpec, ip: IpAddr, node: &NodeSpec) -> Option<SpecError> {
    (node.address.ip() == ip).then(|| {
        SpecError::error(
            "addresses",
            format!(
                "address {ip} of VIP {} is the address of node {} itself",
                vip.name, node.name
            ),
            "a VIP needs an address that no machine has of its own",
        )
    })
}

fn check_references(
    vips: &[VipSpec],
    nodes: &[NodeSpec],
    places: &BTreeMap<&VipName, usize>,
    found: &mut Vec<SpecError>,
) {
    let names: BTreeSet<&NodeName> = nodes.iter().map(|n| &n.name).collect();
    for (i, vip) in vips.iter().enumerate() {
        let errors = references(vip, |n| names.contains(n), |v| places.contains_key(v));
        found.extend(errors.into_iter().map(|e| e.within(&format!("vips[{i}]"))));
    }
}

/// Names in a VIP's placement that name nothing.
pub(crate) fn references(
    vip: &VipSpec,
    is_node: impl Fn(&NodeName) -> bool,
    is_vip: impl Fn(&VipName) -> bool,
) -> Vec<SpecError> {
    let p = &vip.placement;
    let mut found = Vec::new();
    for node in p.priority.keys().filter(|n| !is_node(n)) {
        found.push(SpecError::error(
            format!("placement.priority.{node}"),
            format!(
                "VIP {} gives a priority to node {node}, which does not exist",
                vip.name
            ),
            "check the spelling, or add the node first",
        ));
    }
    let sources = vip.vrrp.iter().flat_map(|face| face.source.keys());
    for node in sources.filter(|n| !is_node(n)) {
        found.push(SpecError::error(
            format!("vrrp.source.{node}"),
            format!(
                "VIP {} names a source for node {node}, which does not exist",
                vip.name
            ),
            "check the spelling, or add the node first",
        ));
    }
    for (field, names) in [("colocate_with", &p.colocate_with), ("avoid", &p.avoid)] {
        for other in names.iter().filter(|v| **v != vip.name && !is_vip(v)) {
            found.push(SpecError::error(
                format!("placement.{field}"),
                format!("VIP {} names VIP {other}, which does not exist", vip.name),
                "check the spelling, or declare that VIP first",
            ));
        }
    }
    found
}

/// Something that makes a group of colocated VIPs impossible.
pub(crate) struct GroupProblem<'a> {
    vip: &'a VipName,
    field: &'static str,
    message: String,
    hint: &'static str,
}

impl GroupProblem<'_> {
    /// As a finding of the VIP.
    pub(crate) fn error(&self) -> SpecError {
        SpecError::error(self.field, self.message.as_str(), self.hint)
    }
}

/// What makes a group (in order of name, see [`groups`]) impossible: members that avoid each other
/// although others keep them together, and priorities that leave no node for all of them. The latter is
/// not checked when no node is known.
pub(crate) fn check_group<'a>(group: &[&'a VipSpec], nodes: &[&NodeSpec]) -> Vec<GroupProblem<'a>> {
    let mut found = Vec::new();
    let Some(first) = group.first() else {
        return found;
    };
    for vip in group {
        for other in &vip.placement.avoid {
            let direct = vip.placement.colocate_with.contains(other) || *other == vip.name;
            if !direct && group.iter().any(|m| m.name == *other) {
                found.push(GroupProblem {
                    vip: &vip.name,
                    field: "placement.avoid",
                    message: format!(
                        "VIP {} avoids {other}, but colocate_with keeps the two together ({})",
                        vip.name,
                        list(group)
                    ),
                    hint: "remove one of the two",
                });
            }
        }
    }
    let may_hold = |n: &NodeSpec| {
        let wanted = |v: &&VipSpec| v.placement.priority_of(&n.name) > 0;
        n.role == Role::Member && group.iter().all(wanted)
    };
    let members = nodes.iter().any(|n| n.role == Role::Member);
    if members && !nodes.iter().any(|n| may_hold(n)) {
        found.push(GroupProblem {
            vip: &first.name,
            field: "placement.priority",
            message: if group.len() == 1 {
                format!("VIP {} has priority 0 on every node that is no witness: nobody may hold it", first.name)
            } else {
                format!("no node may hold all of {}, which must be together: each node that is no witness has priority 0 for one of them", list(group))
            },
            hint: "give at least one node a priority of 1 or more",
        });
    }
    found
}

fn list(group: &[&VipSpec]) -> String {
    let names: Vec<&str> = group.iter().map(|v| v.name.as_str()).collect();
    names.join(", ")
}

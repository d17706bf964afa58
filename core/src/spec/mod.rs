//! What a user declares: VIPs and where they should be. Defaults live here and nowhere else.

pub mod garp;
pub mod groups;
#[cfg(test)]
pub(crate) mod testing;
pub mod timing;
pub mod validate;
pub mod vmac;
pub mod vrrp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeName, VipName};

pub use garp::VrrpGarp;
pub use validate::{Severity, SpecError, validate_all};
pub use vmac::VirtualLink;
pub use vrrp::{Password, VrrpAuth, VrrpMac, VrrpSpec, VrrpVersion};

/// One address of a VIP, with the prefix length that it is configured with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct VipAddress {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length, 1 to 32 or 1 to 128. A VIP's default is a host address (/32, /128).
    pub prefix: u8,
}

/// Scope of an address (rtnetlink `ifa_scope`).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Valid everywhere.
    #[default]
    Global,
    /// Valid on this link.
    Link,
    /// Valid on this host.
    Host,
}

/// What happens when a better node than the present owner appears.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Preempt {
    /// The VIP stays where it is while it can (keepalived's `nopreempt`).
    #[default]
    Sticky,
    /// The VIP moves to the better node, after `preempt_delay`.
    Preempt,
}

/// Which nodes a VIP wants.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlacementSpec {
    /// Priority of each node, 1 to 254, larger is better. A node that is not listed has
    /// [`DEFAULT_PRIORITY`]; 0 means that the node never holds the VIP.
    pub priority: BTreeMap<NodeName, u8>,
    /// Whether a better node takes the VIP over.
    pub preempt: Preempt,
    /// How long a better node must have been well before it takes over.
    pub preempt_delay: Duration,
    /// VIPs that must be on the same node as this one.
    pub colocate_with: BTreeSet<VipName>,
    /// VIPs that should be on another node than this one, where one is eligible.
    pub avoid: BTreeSet<VipName>,
}

impl PlacementSpec {
    /// Priority of a node for this VIP; 0: never.
    pub fn priority_of(&self, node: &NodeName) -> u8 {
        self.priority.get(node).copied().unwrap_or(DEFAULT_PRIORITY)
    }
}

/// A VIP as the user declares it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct VipSpec {
    /// Its name.
    pub name: VipName,
    /// 1 to [`MAX_ADDRESSES`] addresses that move together.
    pub addresses: Vec<VipAddress>,
    /// Network interface that carries it, 1 to 15 bytes.
    pub interface: String,
    /// IPv4 address label (must begin with the interface name, at most 15 bytes).
    pub label: Option<String>,
    /// Scope of its addresses.
    pub scope: Scope,
    /// Where it should be.
    pub placement: PlacementSpec,
    /// How it looks to VRRP routers; `None`: they are not spoken to. Not part of a spec's stored form, which
    /// older versions read: commands and snapshots carry it beside the spec.
    #[serde(skip)]
    pub vrrp: Option<Box<VrrpSpec>>,
}

/// Role of a node.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Votes and may hold VIPs.
    #[default]
    Member,
    /// Votes and never holds.
    Witness,
}

/// A node as the configuration lists it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Raft identity, 1 or larger.
    pub id: crate::ids::NodeId,
    /// Its name.
    pub name: NodeName,
    /// `ip:port` where its peers reach it (TCP for gRPC, UDP for lease renewals).
    pub address: std::net::SocketAddr,
    /// What it does.
    pub role: Role,
}

/// Priority of a node that a VIP's placement does not list (keepalived's default).
pub const DEFAULT_PRIORITY: u8 = 100;
/// Most addresses of one VIP.
pub const MAX_ADDRESSES: usize = 64;
/// Most addresses of all VIPs together. One node must be able to claim all of them, and while they are
/// edited a part of them twice ([`crate::lease::voter::MAX_CLAIMS`]).
pub const MAX_TOTAL_ADDRESSES: usize = 12_288;
/// Most VIPs of one cluster.
pub const MAX_VIPS: usize = 10_000;
/// Most nodes of one cluster.
pub const MAX_NODES: usize = 64;
/// Events kept in the ownership history.
pub const MAX_HISTORY: usize = 10_000;

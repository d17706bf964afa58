//! Short ways to write declarations in tests.

use super::{NodeSpec, PlacementSpec, Role, Scope, VipAddress, VipSpec};
use crate::ids::NodeId;

/// A VIP on `eth0` with addresses written as `192.0.2.1/24`.
pub(crate) fn vip(name: &str, addresses: &[&str]) -> VipSpec {
    VipSpec {
        name: name.parse().unwrap(),
        addresses: addresses.iter().map(|a| address(a)).collect(),
        interface: "eth0".to_owned(),
        label: None,
        scope: Scope::Global,
        placement: PlacementSpec::default(),
        vrrp: None,
    }
}

/// An address written as `192.0.2.1/24`.
pub(crate) fn address(text: &str) -> VipAddress {
    let (ip, prefix) = text.split_once('/').unwrap();
    VipAddress {
        ip: ip.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
    }
}

/// Node `n<id>` at `10.0.0.<id>:7400`.
pub(crate) fn node(id: u64, role: Role) -> NodeSpec {
    NodeSpec {
        id: NodeId(id),
        name: format!("n{id}").parse().unwrap(),
        address: format!("10.0.0.{id}:7400").parse().unwrap(),
        role,
    }
}

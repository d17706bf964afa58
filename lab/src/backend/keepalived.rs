//! keepalived on the nodes of a lab, for comparison.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Backend, Invocation};
use crate::cluster::Lab;
use crate::legacy::{Instance, keepalived};
use crate::topology::{INTERFACE, Node, Role, Topology, Vip};

/// How long a move may take before it is given up: the master-down interval of slow settings and more.
const MOVE: Duration = Duration::from_secs(20);

/// keepalived with its settings.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Keepalived {
    /// Time between two advertisements, ms. VRRPv2 knows whole seconds only.
    pub advert_ms: u32,
    /// Protocol version, 2 or 3.
    pub version: u8,
    /// Whether a better node leaves the VIP where it is.
    pub nopreempt: bool,
}

/// The configuration file of one node: an instance for each VIP and address family.
#[must_use]
pub fn keepalived_config(settings: &Keepalived, topology: &Topology, node: &Node) -> String {
    let mut text = keepalived::global(&node.name, settings.version, &[]);
    for (at, vip) in topology.vips.iter().enumerate() {
        for v6 in [false, true] {
            text += &instance(settings, node, vip, at, v6);
        }
    }
    text
}

fn instance(settings: &Keepalived, node: &Node, vip: &Vip, at: usize, v6: bool) -> String {
    let addresses = vip.addresses.iter().copied();
    let addresses: Vec<_> = addresses.filter(|(it, _)| it.is_ipv6() == v6).collect();
    if addresses.is_empty() {
        return String::new();
    }
    // The two families count their routers apart.
    let vrid = u8::try_from(at % 255 + 1).unwrap_or(u8::MAX);
    let priority = vip.priority.get(&node.name).copied().unwrap_or(100);
    let options = keepalived::Options::from(Instance {
        version: settings.version,
        interval: Duration::from_millis(settings.advert_ms.into()),
        preempt: !settings.nopreempt,
        ..Instance::new(vrid, priority, &addresses)
    });
    let name = format!("{}{}", vip.name, if v6 { "-v6" } else { "" });
    keepalived::instance(&name, INTERFACE, &options)
}

impl Backend for Keepalived {
    fn name(&self) -> String {
        let seconds = f64::from(self.advert_ms) / 1_000.0;
        format!("keepalived (VRRPv{}, {seconds} s)", self.version)
    }

    fn runs_on(&self, node: &Node) -> bool {
        node.role == Role::Member
    }

    fn prepare(&self, topology: &Topology, node: &Node) -> Result<()> {
        keepalived::prepare(
            &topology.place(&node.name),
            &keepalived_config(self, topology, node),
        )
    }

    fn daemon(&self, topology: &Topology, node: &Node) -> Invocation {
        keepalived::invocation(&topology.place(&node.name))
    }

    /// keepalived has nobody to ask: who answers is all that can be known.
    fn healthy(&self, _: &Lab) -> Result<()> {
        Ok(())
    }

    /// keepalived has no command to move a VIP. The operator stops the daemon of the owner, waits for the
    /// other one to take over, and starts it again.
    fn move_vip(&self, lab: &Lab, vip: &str, to: &str) -> Result<()> {
        let owner = lab.owner_of(vip)?;
        if owner.as_deref() == Some(to) {
            return Ok(());
        }
        if let Some(owner) = owner {
            lab.stop_daemon(&owner)?;
            let moved = lab.wait_owner(vip, to, MOVE);
            lab.start_daemon(&owner)?;
            moved?;
        }
        ensure!(
            lab.owner_of(vip)?.as_deref() == Some(to),
            "keepalived did not move VIP {vip} to {to}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_configuration_has_an_instance_for_each_vip_and_family() {
        let mut lab = Topology::pair("lab", 3).unwrap();
        let v6: IpAddr = "fd00:192:168::13".parse().unwrap();
        lab.vips[0].addresses.push((v6, 64));
        let settings = Keepalived {
            advert_ms: 100,
            version: 3,
            nopreempt: true,
        };
        let text = keepalived_config(&settings, &lab, &lab.nodes[0]);
        assert_eq!(text.matches("vrrp_instance").count(), 3);
        assert!(text.contains("vrrp_instance web-a-v6"));
        assert!(text.contains("priority 150\n    advert_int 0.1\n    nopreempt"));
        assert!(text.contains("        192.168.192.14/24\n"));
    }
}

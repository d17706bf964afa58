//! Buoy on the nodes of a lab.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Backend, Invocation};
use crate::cli::OTHER_CLUSTER;
use crate::cluster::Lab;
use crate::topology::{INTERFACE, Node, PEER_PORT, Role, Topology};

/// Exit code of the command line when the cluster cannot be reached.
const UNREACHABLE: i32 = 3;

/// Buoy, and where its program is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buoy {
    /// The `buoy` binary.
    pub program: PathBuf,
}

/// The configuration file of one node.
#[must_use]
pub fn node_config(topology: &Topology, node: &Node) -> String {
    let mut text = format!(
        "# Written by `buoy lab`; every node has the same cluster and VIPs.\n\
         [cluster]\nname = \"{}\"\ninsecure = true\n",
        topology.name
    );
    for peer in &topology.nodes {
        let role = match peer.role {
            Role::Member => "member",
            Role::Witness => "witness",
        };
        let _ = write!(
            text,
            "\n[[cluster.node]]\nid = {}\nname = \"{}\"\naddress = \"{}:{PEER_PORT}\"\nrole = \"{role}\"\n",
            peer.id,
            peer.name,
            peer.v4()
        );
    }
    let _ = write!(
        text,
        "\n[node]\nname = \"{}\"\ndata_dir = \"{}\"\nsocket = \"{}\"\n{}\n[timing]\nprofile = \"{}\"\n",
        node.name,
        topology.place(&node.name).join("data").display(),
        topology.socket(&node.name).display(),
        topology
            .fence
            .as_ref()
            .map_or_else(String::new, |fence| format!("fence = \"{fence}\"\n")),
        topology.profile.name()
    );
    for vip in &topology.vips {
        let addresses: Vec<_> = vip
            .addresses
            .iter()
            .map(|(address, prefix)| format!("\"{address}/{prefix}\""))
            .collect();
        let priority: Vec<_> = vip
            .priority
            .iter()
            .map(|(node, priority)| format!("{node} = {priority}"))
            .collect();
        let _ = write!(
            text,
            "\n[[vip]]\nname = \"{}\"\naddresses = [{}]\ninterface = \"{INTERFACE}\"\n\
             \n[vip.placement]\npriority = {{ {} }}\n",
            vip.name,
            addresses.join(", "),
            priority.join(", ")
        );
    }
    text
}

impl Buoy {
    /// Runs the command line against the first node that can be reached; it must succeed.
    fn command(&self, lab: &Lab, arguments: &[&str]) -> Result<()> {
        let mut unreachable = None;
        for node in &lab.topology().nodes {
            if !lab.daemon_runs(&node.name) {
                continue;
            }
            let mut command = Command::new(&self.program);
            // What the caller has set for a cluster of his own must not lead us there.
            for name in OTHER_CLUSTER {
                command.env_remove(name);
            }
            let output = command
                .arg("--socket")
                .arg(lab.topology().socket(&node.name))
                .args(arguments)
                .output()
                .with_context(|| format!("run {}", self.program.display()))?;
            if output.status.success() {
                return Ok(());
            }
            let words = String::from_utf8_lossy(if output.stderr.is_empty() {
                &output.stdout
            } else {
                &output.stderr
            });
            let error = format!(
                "`buoy {}` by way of {} ended with {}: {}",
                arguments.join(" "),
                node.name,
                output.status,
                words.trim()
            );
            if output.status.code() != Some(UNREACHABLE) {
                bail!(error);
            }
            unreachable = Some(error);
        }
        bail!(unreachable.unwrap_or_else(|| "no node runs".to_owned()))
    }
}

impl Backend for Buoy {
    fn name(&self) -> String {
        "Buoy".to_owned()
    }

    fn runs_on(&self, _: &Node) -> bool {
        true
    }

    fn prepare(&self, topology: &Topology, node: &Node) -> Result<()> {
        let path = topology.place(&node.name).join("config.toml");
        fs::write(&path, node_config(topology, node))
            .with_context(|| format!("write {}", path.display()))
    }

    fn daemon(&self, topology: &Topology, node: &Node) -> Invocation {
        let config = topology.place(&node.name).join("config.toml");
        Invocation::new(
            &self.program,
            ["serve".into(), "--config".into(), config.into_os_string()],
        )
    }

    fn healthy(&self, lab: &Lab) -> Result<()> {
        self.command(lab, &["status"])
    }

    fn move_vip(&self, lab: &Lab, vip: &str, to: &str) -> Result<()> {
        self.command(lab, &["vip", "move", vip, "--to", to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_the_node_its_peers_and_the_vips() {
        let lab = Topology::pair("lab", 3).unwrap();
        let text = node_config(&lab, &lab.nodes[1]);
        for expected in [
            "[cluster]\nname = \"lab\"\ninsecure = true",
            "id = 3\nname = \"n3\"\naddress = \"192.168.192.103:7400\"\nrole = \"witness\"",
            "[node]\nname = \"n2\"\ndata_dir = \"/run/buoy-lab/lab/n2/data\"",
            "socket = \"/run/buoy-lab/lab/n2/buoy.sock\"",
            "[timing]\nprofile = \"lan\"",
            "addresses = [\"192.168.192.14/24\"]\ninterface = \"eth0\"",
            "priority = { n1 = 150, n2 = 100 }",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }
}

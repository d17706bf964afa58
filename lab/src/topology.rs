//! What a lab consists of: nodes, a client, addresses and VIPs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Where labs keep their files (sockets, logs, configuration), one directory each.
pub const DIRECTORY: &str = "/run/buoy-lab";
/// Where the nodes of labs keep their data: on a disk, which /run often is not.
pub const DATA: &str = "/var/lib/buoy-lab";
/// Most nodes of a lab.
pub const MAX_NODES: usize = 12;
/// Longest name of a lab, bytes.
pub const MAX_NAME: usize = 24;
/// Name of the client's port and namespace suffix.
pub const CLIENT: &str = "client";
/// The interface of every node and of the client.
pub const INTERFACE: &str = "eth0";
/// Prefix length of the lab's IPv4 network.
pub const PREFIX_V4: u8 = 24;
/// Prefix length of the lab's IPv6 network.
pub const PREFIX_V6: u8 = 64;
/// Where nodes hear each other.
pub const PEER_PORT: u16 = 7400;

/// What a node is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Votes, may own VIPs, and runs the service behind them.
    Member,
    /// Votes only.
    Witness,
}

/// Timing profile of the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// For one local network.
    #[default]
    Lan,
    /// For one switch and quiet machines.
    Fast,
    /// For distant sites.
    Wan,
}

impl Profile {
    /// As the configuration file names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Fast => "fast",
            Self::Wan => "wan",
        }
    }
}

/// A machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its name: n1, n2, ...
    pub name: String,
    /// Its number: 1, 2, ...
    pub id: u64,
    /// What it is for.
    pub role: Role,
}

impl Node {
    /// Its IPv4 address: 192.168.192.101 for n1.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 192, 100 + self.byte())
    }

    /// Its IPv6 address: fd00:192:168::101 for n1.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        // Read as text the last group is 101 too.
        Ipv6Addr::new(
            0xfd00,
            0x192,
            0x168,
            0,
            0,
            0,
            0,
            0x100 + u16::from(self.byte()),
        )
    }

    fn byte(&self) -> u8 {
        u8::try_from(self.id).unwrap_or(u8::MAX)
    }
}

/// A virtual IP.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vip {
    /// Its name.
    pub name: String,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Priority of each member, larger is better.
    pub priority: BTreeMap<String, u8>,
}

/// A lab.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Topology {
    /// Its name; namespaces and directories are called after it.
    pub name: String,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Names of further machines on its switch, on which it starts nothing.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Its VIPs.
    pub vips: Vec<Vip>,
    /// Timing of the nodes.
    pub profile: Profile,
    /// `node.fence` of the nodes; by itself `auto`.
    #[serde(default)]
    pub fence: Option<String>,
    /// Seed of the switch's faults.
    pub seed: u64,
}

impl Topology {
    /// The nginx pair that users know: VIPs 192.168.192.13 (at home on n1) and 192.168.192.14 (at home
    /// on n2), active/active. With three nodes the third is a witness; with any other number all are
    /// members.
    ///
    /// # Errors
    /// A name that is not one, or a number of nodes outside 1 to [`MAX_NODES`].
    pub fn pair(name: &str, nodes: usize) -> Result<Self> {
        ensure!(
            is_name(name),
            "'{name}' cannot be the name of a lab: expected 1 to {MAX_NAME} characters a-z, 0-9 and '-', \
             the first a letter"
        );
        ensure!(
            (1..=MAX_NODES).contains(&nodes),
            "a lab has 1 to {MAX_NODES} nodes, not {nodes}"
        );
        let nodes: Vec<_> = (1..=nodes)
            .map(|id| Node {
                name: format!("n{id}"),
                id: id as u64,
                role: if nodes == 3 && id == 3 {
                    Role::Witness
                } else {
                    Role::Member
                },
            })
            .collect();
        let vip = |name: &str, last, home: &str| Vip {
            name: name.to_owned(),
            addresses: vec![(IpAddr::from([192, 168, 192, last]), PREFIX_V4)],
            priority: nodes
                .iter()
                .filter(|node| node.role == Role::Member)
                .map(|node| (node.name.clone(), if node.name == home { 150 } else { 100 }))
                .collect(),
        };
        Ok(Self {
            name: name.to_owned(),
            hosts: Vec::new(),
            vips: vec![vip("web-a", 13, "n1"), vip("web-b", 14, "n2")],
            nodes,
            profile: Profile::default(),
            fence: None,
            seed: 1,
        })
    }

    /// The node of this name.
    ///
    /// # Errors
    /// There is none; the words say which there are.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let node = self.nodes.iter().find(|node| node.name == name);
        node.with_context(|| {
            let known: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            format!(
                "lab '{}' has no node '{name}'; it has {}",
                self.name,
                known.join(", ")
            )
        })
    }

    /// The nodes that may own VIPs.
    pub fn members(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role == Role::Member)
    }

    /// The ports of the switch: the nodes, the client, and further hosts.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        let nodes = self.nodes.iter().map(|node| node.name.as_str());
        let hosts = self.hosts.iter().map(String::as_str);
        nodes.chain(std::iter::once(CLIENT)).chain(hosts)
    }

    /// Says what is wrong with the names of its ports, if anything: they become parts of paths.
    ///
    /// # Errors
    /// A name that is not one, or is there twice.
    pub fn check_ports(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for port in self.ports() {
            ensure!(
                is_name(port) && seen.insert(port),
                "'{port}' cannot be the name of a host: expected one of its own, with 1 to {MAX_NAME} \
                 characters a-z, 0-9 and '-', the first a letter"
            );
        }
        Ok(())
    }

    /// Whether this is one of [`Topology::hosts`].
    #[must_use]
    pub fn is_host(&self, port: &str) -> bool {
        self.hosts.iter().any(|host| host == port)
    }

    /// Name of the namespace behind a port.
    #[must_use]
    pub fn netns(&self, port: &str) -> String {
        format!("{}-{port}", self.name)
    }

    /// MAC address behind a port: 02:00 and the IPv4 address.
    #[must_use]
    pub fn mac(&self, port: &str) -> [u8; 6] {
        let [a, b, c, d] = self.v4_of(port).octets();
        [0x02, 0x00, a, b, c, d]
    }

    /// The addresses behind a port, with their prefix lengths: the client has 192.168.192.200 and
    /// fd00:192:168::200, the first host 201, and so on.
    #[must_use]
    pub fn addresses(&self, port: &str) -> [(IpAddr, u8); 2] {
        let v6 = match self.nodes.iter().find(|node| node.name == port) {
            Some(node) => node.v6(),
            None => {
                // Read as text the last group is that of the IPv4 address.
                let last = 0x200 + u16::from(self.beyond_nodes(port));
                Ipv6Addr::new(0xfd00, 0x192, 0x168, 0, 0, 0, 0, last)
            }
        };
        [(self.v4_of(port).into(), PREFIX_V4), (v6.into(), PREFIX_V6)]
    }

    fn v4_of(&self, port: &str) -> Ipv4Addr {
        match self.nodes.iter().find(|node| node.name == port) {
            Some(node) => node.v4(),
            None => Ipv4Addr::new(192, 168, 192, 200 + self.beyond_nodes(port)),
        }
    }

    /// Place of a port that is no node: 0 is the client, 1 the first host.
    fn beyond_nodes(&self, port: &str) -> u8 {
        let at = self.hosts.iter().position(|host| host == port);
        at.map_or(0, |at| u8::try_from(at + 1).unwrap_or(u8::MAX))
    }

    /// Every address of every VIP.
    #[must_use]
    pub fn vip_addresses(&self) -> Vec<IpAddr> {
        let addresses = self.vips.iter().flat_map(|vip| &vip.addresses);
        addresses.map(|&(address, _)| address).collect()
    }

    /// The VIP that an address belongs to.
    #[must_use]
    pub fn vip_of(&self, address: IpAddr) -> Option<&Vip> {
        self.vips
            .iter()
            .find(|vip| vip.addresses.iter().any(|&(own, _)| own == address))
    }

    /// The lab's directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        directory_of(&self.name)
    }

    /// The directory of a node, or of the client.
    #[must_use]
    pub fn place(&self, port: &str) -> PathBuf {
        self.directory().join(port)
    }

    /// Where a node keeps its data; `data` in [`Topology::place`] leads there.
    #[must_use]
    pub fn data(&self, node: &str) -> PathBuf {
        data_of(&self.name).join(node)
    }

    /// The socket on which a node takes commands.
    #[must_use]
    pub fn socket(&self, node: &str) -> PathBuf {
        self.place(node).join("buoy.sock")
    }
}

/// The directory of the lab called `name`.
#[must_use]
pub fn directory_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Where the nodes of the lab called `name` keep their data.
#[must_use]
pub fn data_of(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

/// Whether a lab can be called so. Nothing that is not a name may become part of a path.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(usable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_is_as_documented() {
        let lab = Topology::pair("lab", 3).unwrap();
        let roles: Vec<_> = lab.nodes.iter().map(|node| node.role).collect();
        assert_eq!(roles, [Role::Member, Role::Member, Role::Witness]);
        assert_eq!(lab.vips[0].priority["n1"], 150);
        assert_eq!(lab.vips[1].priority["n2"], 150);
        assert!(!lab.vips[0].priority.contains_key("n3"));
        let [(v4, _), (v6, _)] = lab.addresses("n2");
        assert_eq!(v4.to_string(), "192.168.192.102");
        assert_eq!(v6.to_string(), "fd00:192:168::102");
        let [(client, _), _] = lab.addresses(CLIENT);
        assert_eq!(client.to_string(), "192.168.192.200");
        assert_eq!(Topology::pair("lab", 5).unwrap().members().count(), 5);
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        for name in ["", "..", "a/b", "-a", "A", "1", &"a".repeat(25)] {
            assert!(Topology::pair(name, 3).is_err(), "{name}");
        }
    }

    #[test]
    fn hosts_have_names_and_addresses_of_their_own() {
        let mut lab = Topology::pair("lab", 3).unwrap();
        lab.hosts = vec!["r1".into(), "r2".into()];
        lab.check_ports().unwrap();
        let [(v4, _), (v6, _)] = lab.addresses("r2");
        assert_eq!(v4.to_string(), "192.168.192.202");
        assert_eq!(v6.to_string(), "fd00:192:168::202");
        for name in ["r1", "n1", CLIENT, "../x", ""] {
            lab.hosts[1] = name.into();
            assert!(lab.check_ports().is_err(), "{name}");
        }
    }

    #[test]
    fn no_two_ports_share_an_address() {
        let mut lab = Topology::pair("lab", MAX_NODES).unwrap();
        lab.hosts = ["r1", "r2", "r3"].map(String::from).to_vec();
        let mut seen: Vec<_> = lab.ports().flat_map(|port| lab.addresses(port)).collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }
}

//! How a VIP looks to routers and keepalived machines: one VRRP router for each address family, played by
//! whichever member of the group holds the VIP (docs/vrrp.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::garp::VrrpGarp;
use super::validate::{MAX_PREEMPT_DELAY, SpecError};
use super::{DEFAULT_PRIORITY, MAX_ADDRESSES, VipSpec};
use crate::ids::NodeName;

/// Largest VRRP priority of a group: 255 is for a router whose own address the virtual one is (RFC 9568 section
/// 5.2.4), and an address of a node is never a VIP's.
pub const MAX_VRRP_PRIORITY: u8 = 254;
/// Longest interval of version 2, in seconds (RFC 3768 section 5.3.7).
pub const MAX_INTERVAL_V2: Duration = Duration::from_secs(255);
/// Longest interval of version 3: 4095 centiseconds (RFC 9568 section 5.2.7).
pub const MAX_INTERVAL_V3: Duration = Duration::from_millis(40_950);
/// Shortest interval of version 3.
pub const MIN_INTERVAL_V3: Duration = Duration::from_millis(10);
/// Interval of a face that names none (RFC 9568 section 6.1).
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest password, in bytes (RFC 2338 section 5.3.10).
pub const MAX_PASSWORD: usize = 8;
/// Most unicast peers of one face.
pub const MAX_UNICAST_PEERS: usize = 64;

/// Version of the protocol.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum VrrpVersion {
    /// RFC 3768: IPv4, whole seconds.
    V2,
    /// RFC 9568: IPv4 and IPv6, centiseconds.
    #[default]
    V3,
}

impl VrrpVersion {
    /// 2 or 3.
    pub fn number(self) -> u8 {
        match self {
            VrrpVersion::V2 => 2,
            VrrpVersion::V3 => 3,
        }
    }
}

/// A password of version 2: 1 to 8 bytes. It is not shown by `Debug`, so that no log holds it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Password(String);

impl Password {
    /// Takes over a password.
    ///
    /// # Errors
    /// It is empty, longer than [`MAX_PASSWORD`] bytes, or holds a zero byte.
    pub fn new(text: impl Into<String>) -> Result<Password, String> {
        let text = text.into();
        match text.len() {
            0 => Err("the password is empty".to_owned()),
            n if n > MAX_PASSWORD => Err(format!(
                "the password has {n} bytes, expected at most {MAX_PASSWORD}: VRRP sends no more of it"
            )),
            _ if text.contains('\0') => Err("the password holds a zero byte".to_owned()),
            _ => Ok(Password(text)),
        }
    }

    /// The eight bytes that go into packets, filled up with zeros.
    pub fn padded(&self) -> [u8; MAX_PASSWORD] {
        let mut bytes = [0; MAX_PASSWORD];
        let len = self.0.len().min(MAX_PASSWORD);
        bytes[..len].copy_from_slice(&self.0.as_bytes()[..len]);
        bytes
    }

    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Authentication of version 2, as keepalived has kept it from RFC 2338. It keeps mistakes out, not attackers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum VrrpAuth {
    /// None.
    #[default]
    None,
    /// The password, readable, in each packet.
    Pass(Password),
    /// IP Authentication Header with HMAC-MD5-96.
    Ah(Password),
}

impl VrrpAuth {
    /// keepalived's word for it: `none`, `PASS` or `AH`.
    pub fn name(&self) -> &'static str {
        match self {
            VrrpAuth::None => "none",
            VrrpAuth::Pass(_) => "PASS",
            VrrpAuth::Ah(_) => "AH",
        }
    }
}

/// Which MAC neighbours find the VIP's addresses at (keepalived's `use_vmac` and `vmac_xmit_base`).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum VrrpMac {
    /// That of the node's interface.
    #[default]
    Interface,
    /// The virtual router's, which advertisements come from as well.
    Virtual,
    /// The virtual router's; advertisements come from the interface with its own.
    VirtualXmitBase,
}

/// The face of one VIP.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct VrrpSpec {
    /// Virtual router id, 1 to 255, one for each VIP of an interface.
    pub vrid: u8,
    /// Version that is sent, and the only one that is accepted.
    pub version: VrrpVersion,
    /// VRRP priority of the whole group, 1 to [`MAX_VRRP_PRIORITY`].
    pub priority: u8,
    /// Between two advertisements: whole seconds in version 2, whole centiseconds in version 3.
    pub interval: Duration,
    /// Version 2 only.
    pub auth: VrrpAuth,
    /// Whether the group takes the VIP from a router of lower priority that is master.
    pub preempt: bool,
    /// How long the group waits before it does.
    pub preempt_delay: Duration,
    /// Routers outside the group that are addressed one by one; empty: by multicast.
    pub unicast_peers: BTreeSet<IpAddr>,
    /// Source address of a node's advertisements, at most one of each family; else the interface's first.
    pub source: BTreeMap<NodeName, BTreeSet<IpAddr>>,
    /// Addresses of the VIP that advertisements do not list (keepalived's `virtual_ipaddress_excluded`).
    pub excluded: BTreeSet<IpAddr>,
    /// Which MAC the addresses have.
    #[serde(default)]
    pub mac: VrrpMac,
    /// How often its addresses are announced.
    #[serde(default)]
    pub garp: VrrpGarp,
}

impl VrrpSpec {
    /// A face with all defaults.
    pub fn new(vrid: u8) -> VrrpSpec {
        VrrpSpec {
            vrid,
            version: VrrpVersion::default(),
            priority: DEFAULT_PRIORITY,
            interval: DEFAULT_INTERVAL,
            auth: VrrpAuth::None,
            preempt: true,
            preempt_delay: Duration::ZERO,
            unicast_peers: BTreeSet::new(),
            source: BTreeMap::new(),
            excluded: BTreeSet::new(),
            mac: VrrpMac::default(),
            garp: VrrpGarp::default(),
        }
    }

    /// The source address that a node is told to use for a family.
    pub fn source_of(&self, node: &NodeName, v4: bool) -> Option<IpAddr> {
        let all = self.source.get(node)?;
        all.iter().copied().find(|ip| ip.is_ipv4() == v4)
    }

    /// Everything that is wrong with it as the face of `vip`, as `vrrp.<field>`.
    pub(super) fn check(&self, vip: &VipSpec, found: &mut Vec<SpecError>) {
        let mut refuse = |field: &str, message: String, hint: &str| {
            found.push(SpecError::error(format!("vrrp.{field}"), message, hint));
        };
        if self.vrid == 0 {
            refuse(
                "vrid",
                "virtual router id 0 is out of range, expected 1 to 255".to_owned(),
                "use one that no other router on this LAN has; keepalived's configuration calls it virtual_router_id",
            );
        }
        if self.priority == 0 || self.priority > MAX_VRRP_PRIORITY {
            refuse(
                "priority",
                format!(
                    "VRRP priority {} is out of range, expected 1 to {MAX_VRRP_PRIORITY}",
                    self.priority
                ),
                "255 is for a router whose own address the virtual one is, and a VIP is never a node's own address",
            );
        }
        if let Some((message, hint)) = interval_problem(self.version, self.interval) {
            refuse("interval", message, hint);
        }
        if self.version == VrrpVersion::V3 && self.auth != VrrpAuth::None {
            refuse(
                "auth",
                format!(
                    "version 3 has no authentication, but {} is set",
                    self.auth.name()
                ),
                "RFC 5798 took it out; remove it, or set version = 2",
            );
        }
        if self.preempt_delay > MAX_PREEMPT_DELAY {
            refuse(
                "preempt_delay",
                format!(
                    "preempt_delay is {:?}, expected at most {MAX_PREEMPT_DELAY:?}",
                    self.preempt_delay
                ),
                "set preempt = false to leave the VIP where it is",
            );
        }
        if !self.preempt && !self.preempt_delay.is_zero() {
            refuse(
                "preempt_delay",
                format!(
                    "preempt_delay is {:?}, but the face never preempts",
                    self.preempt_delay
                ),
                "remove one of the two",
            );
        }
        if self.mac.is_virtual() {
            self.check_virtual(vip, &mut refuse);
        }
        self.check_addresses(vip, &mut refuse);
        self.garp.check(&mut refuse);
    }

    fn check_virtual(&self, vip: &VipSpec, refuse: &mut impl FnMut(&str, String, &str)) {
        if let Some(six) = vip.addresses.iter().find(|a| a.ip.is_ipv6()) {
            refuse(
                "mac",
                format!(
                    "a virtual MAC is for IPv4 only, and VIP {} has {}",
                    vip.name, six.ip
                ),
                "give the IPv6 addresses a VIP of their own, with the interface's MAC",
            );
        }
        if self.mac == VrrpMac::Virtual && !self.unicast_peers.is_empty() {
            refuse(
                "mac",
                "advertisements to unicast peers are routed like any other packet and leave with the interface's MAC"
                    .to_owned(),
                "set mac = \"virtual-xmit-base\", or use multicast",
            );
        }
    }

    fn check_addresses(&self, vip: &VipSpec, refuse: &mut impl FnMut(&str, String, &str)) {
        let has = |ip: &IpAddr| vip.addresses.iter().any(|a| a.ip == *ip);
        for ip in self.excluded.iter().filter(|ip| !has(ip)) {
            refuse(
                "excluded",
                format!("{ip} is no address of VIP {}", vip.name),
                "list addresses of the VIP only",
            );
        }
        if self.advertised(vip).next().is_none() && !vip.addresses.is_empty() {
            refuse(
                "excluded",
                format!("no address of VIP {} is left to advertise", vip.name),
                "leave at least one out of the list",
            );
        }
        let six = self.advertised(vip).find(IpAddr::is_ipv6);
        if let Some(ip) = six.filter(|_| self.version == VrrpVersion::V2) {
            refuse(
                "version",
                format!("version 2 carries no IPv6, and VIP {} has {ip}", vip.name),
                "set version = 3, or exclude the IPv6 addresses",
            );
        }
        let families: BTreeSet<bool> = self.advertised(vip).map(|ip| ip.is_ipv4()).collect();
        if self.unicast_peers.len() > MAX_UNICAST_PEERS {
            refuse(
                "unicast_peers",
                format!(
                    "{} peers are listed, expected at most {MAX_UNICAST_PEERS}",
                    self.unicast_peers.len()
                ),
                "leave the list empty to use multicast",
            );
        }
        for ip in &self.unicast_peers {
            if !families.contains(&ip.is_ipv4()) {
                refuse(
                    "unicast_peers",
                    format!(
                        "VIP {} advertises no address of the family of {ip}",
                        vip.name
                    ),
                    "list peers of the VIP's family",
                );
            } else if has(ip) || unusable(*ip) {
                refuse(
                    "unicast_peers",
                    format!("{ip} is no address of another router"),
                    "list the routers' own addresses",
                );
            }
        }
        for (node, all) in &self.source {
            let four = all.iter().filter(|ip| ip.is_ipv4()).count();
            if all.is_empty() || four > 1 || all.len() - four > 1 {
                refuse(
                    &format!("source.{node}"),
                    format!(
                        "{} addresses, expected one of each family at most",
                        all.len()
                    ),
                    "name the node's own address on the VIP's interface",
                );
            }
            for ip in all.iter().filter(|ip| has(ip) || unusable(**ip)) {
                refuse(
                    &format!("source.{node}"),
                    format!("{ip} is no address of a node"),
                    "name the node's own address on the VIP's interface",
                );
            }
        }
    }

    /// The addresses that advertisements list: for each family in the order of the VIP, but with IPv6
    /// link-local ones first (RFC 9568 section 5.2.9).
    pub fn advertised<'a>(&'a self, vip: &'a VipSpec) -> impl Iterator<Item = IpAddr> + 'a {
        let all = move |first: bool| {
            let link_local =
                |ip: &IpAddr| matches!(ip, IpAddr::V6(six) if six.is_unicast_link_local());
            vip.addresses
                .iter()
                .map(|a| a.ip)
                .filter(move |ip| link_local(ip) == first)
                .filter(|ip| !self.excluded.contains(ip))
        };
        all(true).chain(all(false)).take(MAX_ADDRESSES)
    }
}

/// A face as logs and snapshots hold it: as text with named fields, unlike everything around it, so that a later
/// version can have more of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StoredFace(pub VrrpSpec);

impl Serialize for StoredFace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for StoredFace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let face = serde_json::from_str(&text).map_err(serde::de::Error::custom)?;
        Ok(StoredFace(face))
    }
}

/// What is wrong when two VIPs play the same router: one VRID of one interface and family.
pub(crate) fn same_router(vip: &VipSpec, other: &VipSpec) -> Option<SpecError> {
    let (mine, theirs) = (vip.vrrp.as_ref()?, other.vrrp.as_ref()?);
    if vip.name == other.name || vip.interface != other.interface || mine.vrid != theirs.vrid {
        return None;
    }
    // With a virtual MAC also addresses that are not advertised belong to the router.
    let families = |face: &VrrpSpec, vip: &VipSpec| -> BTreeSet<bool> {
        let all = vip.addresses.iter().map(|a| a.ip);
        let all = all.filter(|ip| face.mac.is_virtual() || !face.excluded.contains(ip));
        all.map(|ip| ip.is_ipv4()).collect()
    };
    let (mine_are, theirs_are) = (families(mine, vip), families(theirs, other));
    (!mine_are.is_disjoint(&theirs_are)).then(|| {
        SpecError::error(
            "vrrp.vrid",
            format!(
                "virtual router id {} on {} is that of VIP {} already",
                mine.vrid, vip.interface, other.name
            ),
            "give each VIP of an interface a virtual router id of its own, or put the addresses into one VIP",
        )
    })
}

fn unusable(ip: IpAddr) -> bool {
    ip.is_multicast() || ip.is_unspecified() || ip.is_loopback()
}

fn interval_problem(version: VrrpVersion, interval: Duration) -> Option<(String, &'static str)> {
    let (step, least, most) = match version {
        VrrpVersion::V2 => (
            Duration::from_secs(1),
            Duration::from_secs(1),
            MAX_INTERVAL_V2,
        ),
        VrrpVersion::V3 => (MIN_INTERVAL_V3, MIN_INTERVAL_V3, MAX_INTERVAL_V3),
    };
    let whole = interval.as_nanos().is_multiple_of(step.as_nanos());
    if whole && (least..=most).contains(&interval) {
        return None;
    }
    Some((
        format!(
            "an interval of {interval:?} cannot be sent in version {}, expected {least:?} to {most:?} in steps of {step:?}",
            version.number()
        ),
        match version {
            VrrpVersion::V2 => "version 3 has shorter intervals",
            VrrpVersion::V3 => "the packet has 12 bits of hundredths of a second",
        },
    ))
}

#[cfg(test)]
#[path = "vrrp_tests.rs"]
mod tests;

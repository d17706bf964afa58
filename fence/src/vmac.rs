//! Interfaces with the MAC of a virtual router: macvlans of ours on top of the interfaces that VIPs name.
//!
//! They are made on every member, and carry an address only where a VIP is up. What makes neighbours see nothing but
//! the virtual MAC, and the host as it was otherwise:
//!
//! - **Mode bridge.** What a member sends with the virtual MAC reaches the other members' interfaces below as well (in
//!   mode private it would reach only their macvlan of the same MAC), so VRRP and ARP go on being heard there.
//! - **`arp_ignore` = 1 on both**, or each would answer ARP for the other's addresses with its own MAC, and
//!   **`arp_announce` = 2 on the interface below**, or what it asks on behalf of a VIP's packets would show its own MAC
//!   beside the VIP. What these were is kept in the macvlan's alias, which outlives the daemon, and is put back when the
//!   last macvlan there goes.
//! - **`rp_filter` = 2 (loose)** on the macvlan: the way back to its peers is by the interface below.
//! - **No IPv6** on it: neither a link-local address nor a router advertisement, and above all no multicast
//!   listener report that would show switches the virtual MAC at a node that does not have the VIP.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use buoy_core::spec::VirtualLink;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};

use crate::rtnl::{Request, Requests, attributes};

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_LINK_NETNSID: u16 = 37;
const AF_INET: u16 = libc::AF_INET as u16;
const IFLA_INET_CONF: u16 = 1;
/// `MACVLAN_MODE_BRIDGE`.
const BRIDGE: u32 = 4;

/// IPv4 settings of an interface, by the kernel's numbers (`IPV4_DEVCONF_*`).
const FORWARDING: u16 = 1;
const RP_FILTER: u16 = 8;
const ARP_ANNOUNCE: u16 = 18;
const ARP_IGNORE: u16 = 19;

/// An interface answers ARP for its own addresses only.
const OWN_ONLY: u32 = 1;
/// An interface asks with its own best address.
const BEST_OWN: u32 = 2;
/// `rp_filter`: by whichever interface the way back is.
const LOOSE: u32 = 2;

const MARK: &str = "buoy virtual MAC";

/// What was there before, of an interface below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Before {
    arp_ignore: u32,
    arp_announce: u32,
}

impl Before {
    fn alias(self) -> String {
        let Before {
            arp_ignore,
            arp_announce,
        } = self;
        format!("{MARK}, below was arp_ignore={arp_ignore} arp_announce={arp_announce}")
    }

    fn read(alias: &str) -> Option<Before> {
        let words = alias.strip_prefix(MARK)?;
        let number = |key: &str| {
            let mut words = words.split([' ', ',']);
            words.find_map(|word| word.strip_prefix(key)?.parse().ok())
        };
        Some(Before {
            arp_ignore: number("arp_ignore=")?,
            arp_announce: number("arp_announce=")?,
        })
    }
}

/// An interface, as far as this goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Seen {
    index: u32,
    name: String,
    mac: Option<[u8; 6]>,
    up: bool,
    kind: Option<String>,
    mode: Option<u32>,
    /// The interface below, unless it is in another network namespace.
    parent: Option<u32>,
    alias: Option<String>,
    /// IPv4 settings from number 1.
    conf: Vec<u32>,
}

impl Seen {
    fn parse(payload: &[u8]) -> Option<Seen> {
        let header: &[u8; 16] = payload.first_chunk()?;
        let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let mut seen = Seen {
            index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            up: flags & libc::IFF_UP as u32 != 0,
            ..Seen::default()
        };
        let mut elsewhere = false;
        for (kind, value) in attributes(&payload[16..]) {
            match kind {
                IFLA_IFNAME => seen.name = text(value),
                IFLA_ADDRESS => seen.mac = value.try_into().ok(),
                IFLA_LINK => seen.parent = number(value),
                IFLA_LINK_NETNSID => elsewhere = true,
                IFLA_IFALIAS => seen.alias = Some(text(value)),
                IFLA_LINKINFO => {
                    for (kind, value) in attributes(value) {
                        match kind {
                            IFLA_INFO_KIND => seen.kind = Some(text(value)),
                            IFLA_INFO_DATA => {
                                seen.mode = attributes(value)
                                    .find(|(kind, _)| *kind == IFLA_MACVLAN_MODE)
                                    .and_then(|(_, value)| number(value));
                            }
                            _ => {}
                        }
                    }
                }
                IFLA_AF_SPEC => {
                    let inet = attributes(value).find(|(kind, _)| *kind == AF_INET);
                    let conf = inet.and_then(|(_, inet)| {
                        attributes(inet).find(|(kind, _)| *kind == IFLA_INET_CONF)
                    });
                    if let Some((_, conf)) = conf {
                        seen.conf = conf.chunks_exact(4).filter_map(number).collect();
                    }
                }
                _ => {}
            }
        }
        if elsewhere {
            seen.parent = None;
        }
        Some(seen)
    }

    fn conf(&self, which: u16) -> u32 {
        let value = self.conf.get(usize::from(which) - 1);
        value.copied().unwrap_or(0)
    }

    fn is_macvlan(&self) -> bool {
        self.kind.as_deref() == Some("macvlan")
    }

    /// One that a daemon of this host made.
    fn is_ours(&self) -> bool {
        let marked = |alias: &String| alias.starts_with(MARK);
        self.is_macvlan() && self.alias.as_ref().is_some_and(marked)
    }

    fn is(&self, link: &VirtualLink, base: &Seen) -> bool {
        self.is_macvlan()
            && self.mode == Some(BRIDGE)
            && self.mac == Some(link.mac)
            && self.parent == Some(base.index)
    }

    fn before(&self) -> Option<Before> {
        self.alias.as_deref().and_then(Before::read)
    }
}

fn text(value: &[u8]) -> String {
    let bytes = value.split(|b| *b == 0).next().unwrap_or(&[]);
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// What came of a look.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settled {
    /// Interfaces that were made.
    pub made: BTreeSet<String>,
    /// Those of them that had been there before and were gone without our doing.
    pub remade: BTreeSet<String>,
    /// Interfaces that were removed.
    pub removed: BTreeSet<String>,
    /// Why others cannot be had, by name.
    pub faults: BTreeMap<String, String>,
    /// Index of each of ours that is there, wanted or not, and of the interface below it.
    pub pairs: BTreeMap<u32, u32>,
    /// The interfaces of this host are not what they were before.
    pub changed: bool,
}

/// Makes and removes them, in the network namespace of the thread that opened it.
pub struct VirtualLinks {
    requests: Requests,
    /// There at the end of the last look.
    known: BTreeSet<String>,
    /// What interfaces below were, should nobody's alias tell any more.
    before: BTreeMap<u32, Before>,
}

impl VirtualLinks {
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> io::Result<VirtualLinks> {
        Ok(VirtualLinks {
            requests: Requests::open()?,
            known: BTreeSet::new(),
            before: BTreeMap::new(),
        })
    }

    /// Sees to it that all of `wanted` whose interface below exists are there and up, and no others of ours. One that
    /// `carries` something, by its index, is not removed, and nothing that is not ours is touched.
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub fn settle(
        &mut self,
        wanted: &BTreeSet<VirtualLink>,
        carries: impl Fn(u32) -> bool,
    ) -> io::Result<Settled> {
        let mut all = self.list()?;
        let mut settled = Settled::default();
        let mut there = BTreeSet::new();
        for link in wanted {
            match self.ensure(link, &mut all, &carries, &mut settled) {
                Ok(true) => {
                    there.insert(link.name.clone());
                }
                // The interface below is missing: said of that.
                Ok(false) => {}
                Err(why) => {
                    settled.faults.insert(link.name.clone(), why);
                }
            }
        }
        let names: BTreeSet<&str> = wanted.iter().map(|link| link.name.as_str()).collect();
        let others = all.values().filter(|seen| seen.is_ours());
        let others =
            others.filter(|seen| !names.contains(seen.name.as_str()) && !carries(seen.index));
        for seen in others.cloned().collect::<Vec<_>>() {
            if self.remove(&seen, &mut all).is_ok() {
                settled.removed.insert(seen.name);
            }
        }
        self.known = there;
        settled.changed |= !settled.removed.is_empty();
        let ours = all.values().filter(|seen| seen.is_ours());
        settled.pairs = ours.filter_map(|s| Some((s.index, s.parent?))).collect();
        Ok(settled)
    }

    /// Removes all that are ours and carry nothing; their names.
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub fn remove_all(&mut self, carries: impl Fn(u32) -> bool) -> io::Result<BTreeSet<String>> {
        self.settle(&BTreeSet::new(), carries).map(|s| s.removed)
    }

    fn ensure(
        &mut self,
        link: &VirtualLink,
        all: &mut BTreeMap<u32, Seen>,
        carries: &impl Fn(u32) -> bool,
        settled: &mut Settled,
    ) -> Result<bool, String> {
        let Some(base) = named(all, &link.base).cloned() else {
            return Ok(false);
        };
        let name = &link.name;
        if matches!(base.kind.as_deref(), Some("macvlan" | "macvtap")) {
            return Err(format!(
                "{} is a macvlan itself, which can carry no interface for a virtual MAC; name the one below it",
                link.base
            ));
        }
        if let Some(seen) = named(all, name).cloned()
            && !seen.is(link, &base)
        {
            if !seen.is_ours() {
                return Err(format!(
                    "interface {name} is there and not what buoy would make (a macvlan on {} with the MAC {}); remove or rename it",
                    link.base,
                    hex(link.mac)
                ));
            }
            if carries(seen.index) {
                return Err(format!(
                    "interface {name} is not on {} any more, or has another MAC, and is made anew once it carries no address",
                    link.base
                ));
            }
            self.remove(&seen, all)?;
        }
        if named(all, name).is_none() {
            settled.changed = true;
            self.create(link, &base)?;
            settled.made.insert(name.clone());
            if self.known.contains(name) {
                settled.remade.insert(name.clone());
            }
            *all = self.list().map_err(|e| e.to_string())?;
        }
        let Some(seen) = named(all, name).cloned() else {
            return Err(format!("interface {name} is gone again"));
        };
        if self.configure(&seen, &base, all)? {
            settled.changed = true;
            *all = self.list().map_err(|e| e.to_string())?;
        }
        Ok(true)
    }

    fn create(&mut self, link: &VirtualLink, base: &Seen) -> Result<(), String> {
        let mut message = LinkMessage::default();
        let mode = InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]);
        message.attributes = vec![
            LinkAttribute::IfName(link.name.clone()),
            LinkAttribute::Address(link.mac.to_vec()),
            LinkAttribute::Link(base.index),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(mode),
            ]),
        ];
        let what = format!("make {} on {}", link.name, link.base);
        self.ask(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &what,
        )
    }

    /// Sets what is not as it should be; whether anything was. What the interface below was is written down before it is
    /// changed, and the macvlan is up only when all else is right.
    fn configure(
        &mut self,
        seen: &Seen,
        base: &Seen,
        all: &BTreeMap<u32, Seen>,
    ) -> Result<bool, String> {
        let every = setting_of_all("arp_ignore");
        if every > BEST_OWN {
            return Err(format!(
                "net.ipv4.conf.all.arp_ignore is {every}, with which no address has a MAC of its own; set it to 0, 1 or 2"
            ));
        }
        let mut changed = false;
        if seen.before().is_none() {
            let siblings = all.values().filter(|s| s.parent == Some(base.index));
            let told = siblings.filter(|s| s.is_ours()).find_map(Seen::before);
            let before = told.or(self.before.get(&base.index).copied());
            let before = before.unwrap_or(Before {
                arp_ignore: base.conf(ARP_IGNORE),
                arp_announce: base.conf(ARP_ANNOUNCE),
            });
            let alias = LinkAttribute::IfAlias(before.alias());
            self.set(seen.index, vec![alias], &format!("mark {}", seen.name))?;
            self.before.insert(base.index, before);
            changed = true;
        } else if let Some(before) = seen.before() {
            self.before.insert(base.index, before);
        }
        let mut below = Vec::new();
        if ![1, 2, 8].contains(&base.conf(ARP_IGNORE)) {
            below.push((ARP_IGNORE, OWN_ONLY));
        }
        if base.conf(ARP_ANNOUNCE) != BEST_OWN {
            below.push((ARP_ANNOUNCE, BEST_OWN));
        }
        let wanted = [
            (ARP_IGNORE, OWN_ONLY),
            (ARP_ANNOUNCE, BEST_OWN),
            (RP_FILTER, LOOSE),
            (FORWARDING, base.conf(FORWARDING)),
        ];
        let own = wanted.into_iter().filter(|(k, v)| seen.conf(*k) != *v);
        for (on, conf) in [(base, below), (seen, own.collect())] {
            if !conf.is_empty() {
                self.set_conf(on, &conf)?;
                changed = true;
            }
        }
        changed |= without_ipv6(&seen.name)?;
        if !seen.up {
            let mut message = LinkMessage::default();
            message.header.index = seen.index;
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            let what = format!("set {} up", seen.name);
            self.ask(RouteNetlinkMessage::SetLink(message), 0, &what)?;
            changed = true;
        }
        Ok(changed)
    }

    /// Removes one of ours; with the last one of an interface below, that is as it was.
    fn remove(&mut self, seen: &Seen, all: &mut BTreeMap<u32, Seen>) -> Result<(), String> {
        let mut message = LinkMessage::default();
        message.header.index = seen.index;
        let what = format!("remove {}", seen.name);
        self.ask(RouteNetlinkMessage::DelLink(message), 0, &what)?;
        all.remove(&seen.index);
        let Some(base) = seen.parent.and_then(|index| all.get(&index)) else {
            return Ok(());
        };
        let on_it = |s: &Seen| s.is_ours() && s.parent == Some(base.index);
        if all.values().any(on_it) {
            return Ok(());
        }
        let before = seen.before().or(self.before.remove(&base.index));
        self.before.remove(&base.index);
        let Some(before) = before else { return Ok(()) };
        // What somebody else has set since stays.
        let restored = [
            (ARP_IGNORE, OWN_ONLY, before.arp_ignore),
            (ARP_ANNOUNCE, BEST_OWN, before.arp_announce),
        ];
        let conf: Vec<(u16, u32)> = restored
            .into_iter()
            .filter(|(which, ours, before)| base.conf(*which) == *ours && before != ours)
            .map(|(which, _, before)| (which, before))
            .collect();
        match conf.is_empty() {
            true => Ok(()),
            false => self.set_conf(&base.clone(), &conf),
        }
    }

    fn set_conf(&mut self, on: &Seen, conf: &[(u16, u32)]) -> Result<(), String> {
        let conf = conf.iter().map(|(k, v)| attribute(*k, &v.to_ne_bytes()));
        let conf = attribute(IFLA_INET_CONF, &conf.collect::<Vec<_>>().concat());
        let family = attribute(AF_INET, &conf);
        let spec = LinkAttribute::Other(DefaultNla::new(IFLA_AF_SPEC, family));
        let what = format!("set how {} answers ARP", on.name);
        self.set(on.index, vec![spec], &what)
    }

    fn set(&mut self, index: u32, set: Vec<LinkAttribute>, what: &str) -> Result<(), String> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = set;
        self.ask(RouteNetlinkMessage::SetLink(message), 0, what)
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16, what: &str) -> Result<(), String> {
        let answers = self.requests.batch(vec![Request { message, flags }]);
        let answers = answers.map_err(|e| format!("cannot {what}: {e}"))?;
        match answers.into_iter().next() {
            Some(Err(refusal)) => Err(format!("cannot {what}: {refusal}")),
            _ => Ok(()),
        }
    }

    fn list(&mut self) -> io::Result<BTreeMap<u32, Seen>> {
        let all = self
            .requests
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let all = all.iter().filter_map(|payload| Seen::parse(payload));
        Ok(all.map(|seen| (seen.index, seen)).collect())
    }
}

fn named<'a>(all: &'a BTreeMap<u32, Seen>, name: &str) -> Option<&'a Seen> {
    all.values().find(|seen| seen.name == name)
}

fn hex(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// A netlink attribute, filled up to a multiple of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The setting that is in force on every interface if it is the larger one.
fn setting_of_all(which: &str) -> u32 {
    let path = format!("/proc/sys/net/ipv4/conf/all/{which}");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Switches IPv6 off; whether it was on. Netlink has no way to say that.
fn without_ipv6(name: &str) -> Result<bool, String> {
    let path: PathBuf = ["/proc/sys/net/ipv6/conf", name, "disable_ipv6"]
        .iter()
        .collect();
    let failed =
        |e: io::Error| format!("cannot switch IPv6 off on {name} ({}): {e}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim() == "1" => Ok(false),
        Ok(_) => std::fs::write(&path, "1").map(|()| true).map_err(failed),
        // A kernel without IPv6.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_tells_what_was_there_before() {
        let before = Before {
            arp_ignore: 0,
            arp_announce: 1,
        };
        assert_eq!(Before::read(&before.alias()), Some(before));
        assert_eq!(Before::read("uplink"), None);
        assert_eq!(Before::read(MARK), None);
        assert!(before.alias().len() < 256);
    }

    #[test]
    fn what_a_link_is_is_read_from_its_attributes() {
        let payload = |more: &[Vec<u8>]| [vec![0; 16], more.concat()].concat();
        let info = [
            attribute(IFLA_INFO_KIND, b"macvlan\0"),
            attribute(
                IFLA_INFO_DATA,
                &attribute(IFLA_MACVLAN_MODE, &BRIDGE.to_ne_bytes()),
            ),
        ];
        let conf: Vec<u8> = (1..=30u32).flat_map(u32::to_ne_bytes).collect();
        let family = attribute(AF_INET, &attribute(IFLA_INET_CONF, &conf));
        let mac = [0, 0, 0x5e, 0, 1, 51];
        let mut parts = vec![
            attribute(IFLA_IFNAME, b"vrrp.51.eth0\0"),
            attribute(IFLA_ADDRESS, &mac),
            attribute(IFLA_LINK, &2u32.to_ne_bytes()),
            attribute(IFLA_LINKINFO, &info.concat()),
            attribute(IFLA_AF_SPEC, &family),
        ];
        let link = VirtualLink {
            name: "vrrp.51.eth0".to_owned(),
            base: "eth0".to_owned(),
            mac,
        };
        let base = Seen {
            index: 2,
            ..Seen::default()
        };
        let seen = Seen::parse(&payload(&parts)).unwrap();
        assert_eq!(seen.conf(ARP_IGNORE), u32::from(ARP_IGNORE));
        assert!(seen.is(&link, &base) && !seen.is_ours());
        let other = VirtualLink {
            mac: [0, 0, 0x5e, 0, 1, 52],
            ..link.clone()
        };
        assert!(!seen.is(&other, &base));
        // Its index means nothing here.
        parts.push(attribute(IFLA_LINK_NETNSID, &[0; 4]));
        parts.push(attribute(IFLA_IFALIAS, MARK.as_bytes()));
        let seen = Seen::parse(&payload(&parts)).unwrap();
        assert!(!seen.is(&link, &base) && seen.is_ours());
    }
}

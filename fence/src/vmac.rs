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

mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use buoy_core::spec::VirtualLink;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};

use crate::rtnl::{Request, Requests};
use seen::{
    AF_INET, ARP_ANNOUNCE, ARP_IGNORE, Before, FORWARDING, IFLA_AF_SPEC, IFLA_INET_CONF, RP_FILTER,
    Seen, attribute,
};

/// An interface answers ARP for its own addresses only.
const OWN_ONLY: u32 = 1;
/// An interface asks with its own best address.
const BEST_OWN: u32 = 2;
/// `rp_filter`: by whichever interface the way back is.
const LOOSE: u32 = 2;

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

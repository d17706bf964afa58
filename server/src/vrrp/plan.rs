//! Which virtual routers this node plays, and how: from the applied state and the interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use buoy_core::health::{HealthView, Hearing};
use buoy_core::spec::{NodeSpec, Role, VipSpec, VrrpAuth, VrrpMac, VrrpSpec, VrrpVersion};
use buoy_core::state::{State, Vip};
use buoy_core::{Mono, NodeId, VipName};
use buoy_fence::link::{FoundAddress, Snapshot};
use buoy_vrrp_compat::accept::{Auth, Delivery, Expected, Version};
use buoy_vrrp_compat::packet::{GROUP_V4, GROUP_V6};
use buoy_vrrp_compat::router::Settings;

/// `IFA_F_DADFAILED | IFA_F_TENTATIVE`: not to be sent from.
const UNUSABLE: u32 = 0x08 | 0x40;

/// One router: a VIP and an address family.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RouterId {
    /// Which VIP.
    pub vip: VipName,
    /// IPv4, or IPv6.
    pub v4: bool,
}

/// What a router is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Name of its interface.
    pub interface: String,
    /// Timers and priority.
    pub settings: Settings,
    /// What is sent, and accepted.
    pub expected: Expected,
    /// All addresses of the VIP: the lease over them permits advertisements.
    pub addresses: Vec<IpAddr>,
    /// Where advertisements go to.
    pub destinations: Vec<IpAddr>,
    /// Where it is now; `None`: its interface cannot be used.
    pub place: Option<Place>,
}

impl Wish {
    /// Is it another router on the LAN than `old`, so that the old one ends?
    pub fn is_another(&self, old: &Wish) -> bool {
        let of = |w: &Wish| (w.interface.clone(), w.expected.vrid, w.expected.version);
        of(self) != of(old)
    }
}

/// An interface as it is now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Its index.
    pub ifindex: u32,
    /// Where this node sends from.
    pub source: IpAddr,
    /// The interface that advertisements leave by, if it is the one of the virtual MAC on top.
    pub out: Option<u32>,
}

/// All routers of this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// What each is to be.
    pub routers: BTreeMap<RouterId, Wish>,
    /// VIPs that this node cannot speak for, and why.
    pub problems: BTreeMap<VipName, String>,
}

/// What `me` has to play. VIPs without a face have no router.
pub fn plan(me: &NodeSpec, state: &State, snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    if me.role == Role::Witness {
        return plan;
    }
    for (name, vip) in &state.vips {
        let Some(face) = &vip.spec.vrrp else { continue };
        for v4 in [true, false] {
            let family = |ip: &IpAddr| ip.is_ipv4() == v4;
            let listed: Vec<IpAddr> = face.advertised(&vip.spec).filter(family).collect();
            if listed.is_empty() {
                continue;
            }
            let place = match place(me, state, &vip.spec, face, snapshot, v4) {
                Ok(place) => place,
                Err(problem) => {
                    plan.problems.insert(name.clone(), problem);
                    None
                }
            };
            let router = RouterId {
                vip: name.clone(),
                v4,
            };
            let wish = wish(me, state, &vip.spec, face, listed, place);
            plan.routers.insert(router, wish);
        }
    }
    plan
}

/// A VIP that goes down on `me` goes to nobody of the group, so routers outside need not wait for it: it is deleted,
/// or nobody can have it, or it is left to a router outside with one that is outranked; or it was not taken over from
/// a node that stops. Otherwise another node has it, or may have it when the lease of this one has ended.
pub fn gives_up(state: &State, me: NodeId, vip: &VipName, stopping: bool) -> bool {
    match state.vips.get(vip).map(Vip::owner) {
        None | Some(None) => true,
        Some(Some(owner)) => owner == me && stopping,
    }
}

/// May a VIP that waits come up on `me`, which hears this itself? One that began to listen only just takes the word of
/// those that have listened for longer: they would know of a master outside.
pub fn is_free(
    own: Option<&Hearing>,
    vip: &VipName,
    me: NodeId,
    health: &HealthView,
    heard_since: Mono,
) -> bool {
    let told = || {
        let others = health
            .iter()
            .filter(|(id, h)| **id != me && h.last_heard.is_some_and(|at| at >= heard_since));
        others.filter_map(|(_, h)| h.report.as_ref()?.vrrp.get(vip))
    };
    match own {
        Some(Hearing::Clear) => true,
        Some(Hearing::Unsure) => {
            told().any(|h| *h == Hearing::Clear)
                && !told().any(|h| matches!(h, Hearing::Outranked(_)))
        }
        Some(Hearing::Outranked(_)) | None => false,
    }
}

fn wish(
    me: &NodeSpec,
    state: &State,
    spec: &VipSpec,
    face: &VrrpSpec,
    listed: Vec<IpAddr>,
    place: Option<Place>,
) -> Wish {
    let v4 = listed.iter().any(IpAddr::is_ipv4);
    let version = match face.version {
        VrrpVersion::V2 => Version::V2,
        VrrpVersion::V3 => Version::V3,
    };
    let peers: Vec<IpAddr> = face
        .unicast_peers
        .iter()
        .copied()
        .filter(|ip| ip.is_ipv4() == v4)
        .collect();
    let (delivery, destinations) = if face.unicast_peers.is_empty() {
        let group = if v4 { GROUP_V4.into() } else { GROUP_V6.into() };
        (Delivery::Multicast, vec![group])
    } else {
        let mut all = members(me, state, face, v4);
        all.extend(peers.iter().copied());
        (Delivery::Unicast { peers }, all.into_iter().collect())
    };
    Wish {
        interface: spec.interface.clone(),
        settings: Settings {
            priority: face.priority,
            interval: face.interval,
            version,
            preempt: face.preempt,
            preempt_delay: face.preempt_delay,
        },
        expected: Expected {
            vrid: face.vrid,
            version,
            addresses: listed,
            interval: face.interval,
            auth: match &face.auth {
                VrrpAuth::None => Auth::None,
                VrrpAuth::Pass(password) => Auth::Pass(password.padded()),
                VrrpAuth::Ah(password) => Auth::Ah(password.padded()),
            },
            delivery,
        },
        addresses: spec.addresses.iter().map(|a| a.ip).collect(),
        destinations,
        place,
    }
}

/// Where the other members send from: where they are told to, or else the addresses at which nodes reach each other.
/// A witness sends nothing, and its kernel would answer each advertisement with a complaint.
fn members(me: &NodeSpec, state: &State, face: &VrrpSpec, v4: bool) -> BTreeSet<IpAddr> {
    let plays = |n: &NodeSpec| n.id != me.id && n.role != Role::Witness;
    let others = state.nodes.values().filter(|n| plays(&n.spec));
    others
        .map(|n| {
            let told = face.source_of(&n.spec.name, v4);
            told.unwrap_or(n.spec.address.ip())
        })
        .filter(|ip| ip.is_ipv4() == v4)
        .collect()
}

/// Where the router is on this host; `None` while its interface is missing or down, which others report.
fn place(
    me: &NodeSpec,
    state: &State,
    spec: &VipSpec,
    face: &VrrpSpec,
    snapshot: &Snapshot,
    v4: bool,
) -> Result<Option<Place>, String> {
    let interface = &spec.interface;
    let Some(link) = snapshot.link(interface).filter(|link| link.usable()) else {
        return Ok(None);
    };
    let here = |a: &&FoundAddress| a.ifindex == link.index && a.ip.is_ipv4() == v4;
    let mut own = snapshot.addresses.iter().filter(here);
    let source = match face.source_of(&me.name, v4) {
        Some(told) => own.find(|a| a.ip == told).ok_or_else(|| {
            format!(
                "VRRP cannot be spoken on {interface}: it does not have the source address {told} of vrrp.source.{}",
                me.name
            )
        })?,
        None => own
            .find(|a| {
                let right = match a.ip {
                    IpAddr::V4(_) => true,
                    // RFC 9568 section 5.1.2.1.
                    IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(&ip),
                };
                right && a.flags & UNUSABLE == 0 && !state.addresses.contains_key(&a.ip)
            })
            .ok_or_else(|| {
                let kind = if v4 { "IPv4" } else { "IPv6 link-local" };
                format!("VRRP cannot be spoken on {interface}: it has no {kind} address of this machine to send from")
            })?,
    };
    let out = match face.mac {
        VrrpMac::Interface | VrrpMac::VirtualXmitBase => None,
        VrrpMac::Virtual => {
            let mut own = spec.virtual_links().into_iter();
            let own = own.find_map(|own| snapshot.link(&own.name).filter(|link| link.usable()));
            let Some(own) = own else { return Ok(None) };
            Some(own.index)
        }
    };
    Ok(Some(Place {
        ifindex: link.index,
        source: source.ip,
        out,
    }))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

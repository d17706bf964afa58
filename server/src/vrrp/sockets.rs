//! The sockets of the VRRP thread: which ones its routers need, what comes in by them, and by which a router speaks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};

use buoy_fence::packets::interface_name;

use super::port::{Kind, Outlet, Port, Received};
use super::router::Face;

/// Packets that are taken together, at most.
const BATCH: usize = 512;

/// The interface that a port listens at, by its index, and what for.
pub type PortId = (u32, Kind);

/// A packet and the port that it came in by.
pub type Arrived = (PortId, Received);

/// Opened as routers need them; what the kernel refuses is kept with its reason, and tried again by the next
/// [`Sockets::open`].
#[derive(Default)]
pub struct Sockets {
    ports: BTreeMap<PortId, Port>,
    /// Why ports could not be opened.
    shut: BTreeMap<PortId, String>,
    /// Where advertisements with a virtual MAC leave, or why they cannot.
    outlets: BTreeMap<u32, Result<Outlet, String>>,
}

/// What a router speaks by.
pub enum Way<'a> {
    Port(&'a Port),
    Outlet(&'a Outlet),
}

impl Way<'_> {
    /// # Errors
    /// The kernel does not send it.
    pub fn send(&self, to: IpAddr, packet: &[u8]) -> io::Result<()> {
        match self {
            Way::Port(port) => port.send(to, packet),
            Way::Outlet(outlet) => outlet.send(to, packet),
        }
    }
}

impl Sockets {
    /// The kernel has refused some.
    pub fn refused(&self) -> bool {
        !self.shut.is_empty() || self.outlets.values().any(Result::is_err)
    }

    /// Opens what these need and closes what they do not.
    pub fn open<'a>(&mut self, faces: impl Iterator<Item = &'a Face> + Clone) {
        let wanted: BTreeMap<PortId, &str> = faces
            .clone()
            .flat_map(|face| ports(face).map(|id| (id, face.wish.interface.as_str())))
            .collect();
        self.ports.retain(|id, _| wanted.contains_key(id));
        self.shut.retain(|id, _| wanted.contains_key(id));
        for (id, interface) in wanted {
            if self.ports.contains_key(&id) {
                continue;
            }
            match Port::open(id.0, interface, id.1) {
                Ok(port) => {
                    self.shut.remove(&id);
                    self.ports.insert(id, port);
                }
                Err(e) => {
                    self.shut.insert(id, refusal(interface, &e));
                }
            }
        }
        let wanted: BTreeSet<u32> = faces.filter_map(outlet).collect();
        self.outlets
            .retain(|out, outlet| wanted.contains(out) && outlet.is_ok());
        for out in wanted {
            self.outlets.entry(out).or_insert_with(|| {
                let interface = interface_name(out);
                Outlet::open(out, &interface).map_err(|e| refusal(&interface, &e))
            });
        }
    }

    /// All that a router has to hear comes in.
    pub fn hear(&self, face: &Face) -> bool {
        face.wish.place.is_some() && ports(face).all(|id| self.ports.contains_key(&id))
    }

    /// Why a router cannot hear or speak.
    pub fn fault(&self, face: &Face) -> Option<&String> {
        let shut = ports(face).find_map(|id| self.shut.get(&id));
        shut.or_else(|| self.outlets.get(&outlet(face)?)?.as_ref().err())
    }

    /// By what a router speaks; `None`: it has no place, or [`Sockets::fault`] says why.
    pub fn way(&self, face: &Face) -> Option<Way<'_>> {
        match outlet(face) {
            Some(out) => self.outlets.get(&out)?.as_ref().ok().map(Way::Outlet),
            None => self.ports.get(&ports(face).last()?).map(Way::Port),
        }
    }

    /// Ready when packets were received. All that waits is taken, up to a bound.
    pub fn poll(&self, received: &mut Vec<Arrived>, cx: &mut Context<'_>) -> Poll<()> {
        for (id, port) in &self.ports {
            while received.len() < BATCH {
                let Poll::Ready(Ok(mut guard)) = port.ready().poll_read_ready(cx) else {
                    break;
                };
                match port.receive() {
                    Ok(Some(packet)) => received.push((*id, packet)),
                    // Nothing more, or the interface is gone, which the next look sees.
                    Ok(None) | Err(_) => guard.clear_ready(),
                }
            }
        }
        match received.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    /// Takes what waits, up to a bound, without waiting for it.
    pub fn drain(&self, received: &mut Vec<Arrived>) {
        for (id, port) in &self.ports {
            while received.len() < BATCH {
                match port.receive() {
                    Ok(Some(packet)) => received.push((*id, packet)),
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }
}

/// The ports that a router needs: none without a place.
fn ports(face: &Face) -> impl Iterator<Item = PortId> + use<> {
    let kinds = face.kinds();
    let place = face.wish.place;
    place
        .into_iter()
        .flat_map(move |place| kinds.iter().map(move |kind| (place.ifindex, *kind)))
}

fn outlet(face: &Face) -> Option<u32> {
    face.wish.place?.out
}

fn refusal(interface: &str, e: &io::Error) -> String {
    format!(
        "VRRP cannot be spoken on {interface}, the kernel refuses a raw socket: {e} (it needs CAP_NET_RAW)"
    )
}

//! What network interfaces and addresses this host has, and whether a VIP may live on one of them.

mod found;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;

use crate::rtnl::Requests;

pub use found::{FoundAddress, Link};
pub use snapshot::{LinkFault, Snapshot};

/// `ARPHRD_ETHER`: Ethernet, and everything that looks like it (VLAN, bond, bridge, veth, Wi-Fi).
pub const ARPHRD_ETHER: u16 = 1;
/// `ARPHRD_LOOPBACK`.
pub const ARPHRD_LOOPBACK: u16 = 772;

/// Looks interfaces and addresses up, in the network namespace of the thread that opened it.
///
/// Each look-up is two netlink dumps (about 0.1 ms with few addresses); it waits for the kernel's
/// locks only, so asynchronous code may call it now and then.
pub struct Links {
    requests: Mutex<Requests>,
}

impl Links {
    /// Opens the netlink socket.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> io::Result<Links> {
        let requests = Mutex::new(Requests::open()?);
        Ok(Links { requests })
    }

    /// Interfaces and addresses as they are now.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        snapshot(&mut self.lock())
    }

    /// Hardware addresses of all interfaces.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn macs(&self) -> io::Result<BTreeSet<[u8; 6]>> {
        let links = links(&mut self.lock())?;
        Ok(links.values().filter_map(|link| link.mac).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All interfaces by index.
pub(crate) fn links(requests: &mut Requests) -> io::Result<BTreeMap<u32, Link>> {
    let links = requests.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let links = links.iter().filter_map(|payload| Link::parse(payload));
    Ok(links.map(|link| (link.index, link)).collect())
}

/// Interfaces first: an address of an interface made in between has an index without a name, which
/// [`Snapshot::name`] allows for.
pub(crate) fn snapshot(requests: &mut Requests) -> io::Result<Snapshot> {
    Ok(Snapshot {
        links: links(requests)?,
        addresses: addresses(requests)?,
    })
}

/// All addresses of all interfaces.
pub(crate) fn addresses(requests: &mut Requests) -> io::Result<Vec<FoundAddress>> {
    let all = requests.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let all = all
        .iter()
        .filter_map(|payload| FoundAddress::parse(payload));
    Ok(all.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let snapshot = Links::open().expect("a socket").snapshot().expect("links");
        let lo = snapshot.link("lo").expect("lo");
        assert_eq!(lo.arphrd, ARPHRD_LOOPBACK);
        assert!(lo.mtu > 0);
    }
}

//! Addresses as the kernel is asked for them: messages, batches, dumps.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use buoy_core::spec::Scope;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::link::{FoundAddress, Link, Snapshot, addresses, links, snapshot};
use crate::rtnl::{Refusal, Request, Requests};

use super::{Action, AddressError, AddressSpec, VALID_LIFETIME};

/// How an address is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Write {
    /// Only if it is not there; else the kernel says `EEXIST`.
    New,
    /// Also if it is there: its lifetimes begin anew.
    Refresh,
}

/// Why one request of a batch came to nothing.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// The kernel said no.
    Refused(Refusal),
    /// The socket failed.
    Failed(String),
}

impl Told {
    /// The error of an address that was to be as `spec` says.
    pub(super) fn error(self, action: Action, spec: &AddressSpec) -> AddressError {
        self.error_for(action, spec.ip, spec.prefix, spec.interface.clone())
    }

    /// The error of any address.
    pub(super) fn error_for(
        self,
        action: Action,
        ip: IpAddr,
        prefix: u8,
        interface: String,
    ) -> AddressError {
        match self {
            Told::Refused(refusal) => AddressError::Refused {
                action,
                ip,
                prefix,
                interface,
                refusal,
            },
            Told::Failed(problem) => AddressError::Netlink {
                action,
                ip,
                interface,
                problem,
            },
        }
    }

    /// It could not be added because it is there.
    pub(super) fn is_there(&self) -> bool {
        matches!(self, Told::Refused(r) if r.errno == libc::EEXIST)
    }

    /// The kernel may have done it or not.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Told::Failed(_))
    }

    /// It could not be removed because it is not there: the kernel says EADDRNOTAVAIL, or that the
    /// interface is gone, which took its addresses along.
    pub(super) fn is_absent(&self) -> bool {
        let absent = [libc::EADDRNOTAVAIL, libc::ENODEV, libc::ENXIO];
        matches!(self, Told::Refused(r) if absent.contains(&r.errno))
    }
}

/// What came of each request of a batch, in order.
pub(super) type Answers = Vec<Result<(), Told>>;

/// The socket for requests about addresses.
pub(super) struct Kernel {
    requests: Requests,
    /// Every removal fails.
    #[cfg(test)]
    pub(super) removes_nothing: bool,
}

impl Kernel {
    pub(super) fn open() -> io::Result<Kernel> {
        Requests::open().map(|requests| Kernel {
            requests,
            #[cfg(test)]
            removes_nothing: false,
        })
    }

    /// Address of the socket, as events carry it.
    pub(super) fn port(&self) -> u32 {
        self.requests.port()
    }

    pub(super) fn write<'a>(
        &mut self,
        how: Write,
        all: impl Iterator<Item = (&'a AddressSpec, u32)>,
    ) -> Answers {
        let flags = match how {
            Write::New => NLM_F_CREATE | NLM_F_EXCL,
            Write::Refresh => NLM_F_CREATE | NLM_F_REPLACE,
        };
        let request = |(spec, ifindex)| Request {
            message: RouteNetlinkMessage::NewAddress(added(spec, ifindex)),
            flags,
        };
        self.batch(all.map(request).collect())
    }

    /// Removes an address of exactly that prefix from that interface, for each `(ip, prefix, ifindex)`.
    pub(super) fn delete(&mut self, all: impl Iterator<Item = (IpAddr, u8, u32)>) -> Answers {
        #[cfg(test)]
        if self.removes_nothing {
            return all
                .map(|_| Err(Told::Failed("a test".to_owned())))
                .collect();
        }
        let request = |(ip, prefix, ifindex)| Request {
            message: RouteNetlinkMessage::DelAddress(bare(ip, ip, prefix, ifindex)),
            flags: 0,
        };
        self.batch(all.map(request).collect())
    }

    /// As [`Kernel::delete`], for addresses that were found.
    pub(super) fn delete_found<'a>(
        &mut self,
        all: impl Iterator<Item = &'a FoundAddress>,
    ) -> Answers {
        let request = |a: &FoundAddress| Request {
            message: RouteNetlinkMessage::DelAddress(bare(a.ip, a.peer, a.prefix, a.ifindex)),
            flags: 0,
        };
        self.batch(all.map(request).collect())
    }

    /// A failure of the socket is the answer to every request.
    fn batch(&mut self, requests: Vec<Request>) -> Answers {
        let count = requests.len();
        match self.requests.batch(requests) {
            Ok(answers) => answers
                .into_iter()
                .map(|a| a.map_err(Told::Refused))
                .collect(),
            Err(e) => vec![Err(Told::Failed(e.to_string())); count],
        }
    }

    pub(super) fn snapshot(&mut self) -> io::Result<Snapshot> {
        snapshot(&mut self.requests)
    }

    pub(super) fn links(&mut self) -> io::Result<BTreeMap<u32, Link>> {
        links(&mut self.requests)
    }

    pub(super) fn addresses(&mut self) -> io::Result<Vec<FoundAddress>> {
        addresses(&mut self.requests)
    }
}

fn bare(ip: IpAddr, peer: IpAddr, prefix: u8, ifindex: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.prefix_len = prefix;
    message.header.index = ifindex;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(peer)];
    message
}

/// A VIP never changes the routing table (no prefix route), waits for no duplicate address detection
/// (the lease has done that), and as IPv6 is never chosen as the source of new connections.
fn added(spec: &AddressSpec, ifindex: u32) -> AddressMessage {
    let mut message = bare(spec.ip, spec.ip, spec.prefix, ifindex);
    message.header.scope = match spec.scope {
        Scope::Global => AddressScope::Universe,
        Scope::Link => AddressScope::Link,
        Scope::Host => AddressScope::Host,
    };
    let flags = match spec.ip {
        IpAddr::V4(_) => AddressFlags::Noprefixroute,
        IpAddr::V6(_) => AddressFlags::Noprefixroute | AddressFlags::Nodad,
    };
    message.attributes.push(AddressAttribute::Flags(flags));
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = VALID_LIFETIME;
    lifetimes.ifa_preferred = if spec.ip.is_ipv6() { 0 } else { VALID_LIFETIME };
    message
        .attributes
        .push(AddressAttribute::CacheInfo(lifetimes));
    if let (IpAddr::V4(_), Some(label)) = (spec.ip, &spec.label) {
        message
            .attributes
            .push(AddressAttribute::Label(label.clone()));
    }
    message
}

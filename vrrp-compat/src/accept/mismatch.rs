//! Why a packet is no valid advertisement of a virtual router.

use std::fmt;
use std::net::IpAddr;

use crate::ah::OpenError;
use crate::packet::DecodeError;

/// What mismatches are counted by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// Not VRRP.
    Protocol,
    /// Sent from an address of this node.
    OwnSource,
    /// Unicast where multicast is expected, or the other way round.
    Delivery,
    /// From a host that is no configured unicast peer.
    Peer,
    /// TTL or hop limit not 255.
    Ttl,
    /// Bytes missing or left over.
    Malformed,
    /// Other version of the protocol.
    Version,
    /// Not an advertisement.
    Type,
    /// Wrong checksum.
    Checksum,
    /// For another virtual router.
    Vrid,
    /// Other kind of authentication, other password, or not authentic.
    Authentication,
    /// Other interval (version 2), or none (version 3).
    Interval,
    /// Other addresses.
    Addresses,
}

impl Cause {
    /// Every cause once.
    pub const ALL: [Cause; 13] = [
        Cause::Protocol,
        Cause::OwnSource,
        Cause::Delivery,
        Cause::Peer,
        Cause::Ttl,
        Cause::Malformed,
        Cause::Version,
        Cause::Type,
        Cause::Checksum,
        Cause::Vrid,
        Cause::Authentication,
        Cause::Interval,
        Cause::Addresses,
    ];

    /// Its name in counters, in snake case; it stays the same between versions.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Protocol => "protocol",
            Cause::OwnSource => "own_source",
            Cause::Delivery => "delivery",
            Cause::Peer => "peer",
            Cause::Ttl => "ttl",
            Cause::Malformed => "malformed",
            Cause::Version => "version",
            Cause::Type => "type",
            Cause::Checksum => "checksum",
            Cause::Vrid => "vrid",
            Cause::Authentication => "authentication",
            Cause::Interval => "interval",
            Cause::Addresses => "addresses",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What exactly is wrong. No password ever stands here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reason {
    /// Neither VRRP nor an authentication header.
    #[error("IP protocol {0}, expected 112 (VRRP)")]
    Protocol(u8),
    /// The sender is this node.
    #[error(
        "the sender's address is one of this node: another host uses it too, or the network returns packets"
    )]
    OwnSource,
    /// Multicast expected, and here is the destination.
    #[error("sent to {0}, expected a multicast address (no unicast peers are configured)")]
    Unicast(IpAddr),
    /// Unicast expected, and here is the destination.
    #[error("sent to {0}, expected a unicast address (unicast peers are configured)")]
    Multicast(IpAddr),
    /// The sender is no peer.
    #[error("the sender is not one of the configured unicast peers")]
    Peer,
    /// TTL or hop limit.
    #[error("TTL {0}, expected 255: the packet came through a router")]
    Ttl(u8),
    /// No advertisement can be read from it.
    #[error(transparent)]
    Packet(DecodeError),
    /// Other version.
    #[error("VRRP version {found}, expected {expected}")]
    Version {
        /// Version of this router.
        expected: u8,
        /// Version of the packet.
        found: u8,
    },
    /// Other virtual router.
    #[error("virtual router id {found}, expected {expected}")]
    Vrid {
        /// Id of this router.
        expected: u8,
        /// Id in the packet.
        found: u8,
    },
    /// Authentication header expected.
    #[error("no authentication header, expected one (IP protocol 51)")]
    NoAuthenticationHeader,
    /// No authentication header expected.
    #[error("has an authentication header (IP protocol 51), expected none")]
    UnwantedAuthenticationHeader,
    /// The authentication header does not hold.
    #[error(transparent)]
    AuthenticationHeader(OpenError),
    /// Other type of authentication.
    #[error(
        "authentication type {found}, expected {expected} (0 none, 1 password, 2 authentication header)"
    )]
    AuthenticationType {
        /// Type of this router.
        expected: u8,
        /// Type in the packet.
        found: u8,
    },
    /// Other password.
    #[error("another password than the configured one")]
    Password,
    /// Other interval in version 2.
    #[error(
        "advertisement interval of {found} s, expected {expected} s (in version 2 all routers need the same)"
    )]
    Interval {
        /// Seconds between advertisements of this router.
        expected: u8,
        /// Seconds that the packet announces.
        found: u8,
    },
    /// Interval of 0 in version 3.
    #[error("advertisement interval of 0 cs, expected 1 to 4095")]
    NoInterval,
    /// Other number of addresses.
    #[error("{found} virtual addresses, expected {expected}")]
    Count {
        /// Addresses of this router.
        expected: usize,
        /// Addresses in the packet.
        found: usize,
    },
    /// An address of this router that the packet does not have.
    #[error("virtual address {0} is missing")]
    Address(IpAddr),
}

impl Reason {
    /// What it is counted by.
    pub fn cause(&self) -> Cause {
        match self {
            Reason::Protocol(_) => Cause::Protocol,
            Reason::OwnSource => Cause::OwnSource,
            Reason::Unicast(_) | Reason::Multicast(_) => Cause::Delivery,
            Reason::Peer => Cause::Peer,
            Reason::Ttl(_) => Cause::Ttl,
            Reason::Packet(error) => match error {
                DecodeError::Truncated { .. }
                | DecodeError::Trailing(_)
                | DecodeError::Families(..) => Cause::Malformed,
                DecodeError::Version(_) => Cause::Version,
                DecodeError::Type(_) => Cause::Type,
                DecodeError::Vrid => Cause::Vrid,
                DecodeError::Checksum { .. } => Cause::Checksum,
            },
            Reason::Version { .. } => Cause::Version,
            Reason::Vrid { .. } => Cause::Vrid,
            Reason::NoAuthenticationHeader
            | Reason::UnwantedAuthenticationHeader
            | Reason::AuthenticationHeader(_)
            | Reason::AuthenticationType { .. }
            | Reason::Password => Cause::Authentication,
            Reason::Interval { .. } | Reason::NoInterval => Cause::Interval,
            Reason::Count { .. } | Reason::Address(_) => Cause::Addresses,
        }
    }
}

/// A packet that is no valid advertisement of a virtual router, for a line in the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("virtual router {vrid}: advertisement from {sender} not accepted: {reason}")]
pub struct Mismatch {
    /// The virtual router that it was held against.
    pub vrid: u8,
    /// Who sent it.
    pub sender: IpAddr,
    /// What is wrong.
    pub reason: Reason,
}

impl Mismatch {
    /// What it is counted by.
    pub fn cause(&self) -> Cause {
        self.reason.cause()
    }
}

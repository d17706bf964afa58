//! Which received packet is a valid advertisement of a virtual router as it is configured here: the rules of
//! keepalived 2.2.7, as measured, and those of RFC 3768 section 7.1 and RFC 9568 section 7.1.
//!
//! What is not accepted does not exist: no timer is armed for it, and it makes nobody give way. So a rule that is
//! looser or stricter than keepalived's makes two owners out of one. Where Buoy differs all the same:
//!
//! - An interval of 0 in version 3 is refused. keepalived believes it and takes over at once, so a single such
//!   packet makes a second owner.
//! - A unicast packet must come from a configured peer. keepalived looks at that only with `check_unicast_src`;
//!   without it, any host that routes here can silence the owner.
//! - Whether a sequence number of the authentication header is new is judged elsewhere, as it takes memory:
//!   [`crate::ah::Sequence::check`].
//!
//! Whether the priority is high enough, and what follows from it, is for the router to say: a lower one is no
//! mismatch.

use std::net::IpAddr;
use std::time::Duration;

use crate::ah;
use crate::ip::{Packet, TTL};
use crate::packet::{Advertisement, Body, IP_PROTOCOL, MAX_CENTISECONDS, PseudoHeader};

mod mismatch;
mod send;

pub use mismatch::{Cause, Mismatch, Reason};
pub use send::SendError;

/// Version of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// RFC 3768: IPv4, intervals of whole seconds, authentication.
    V2,
    /// RFC 9568: IPv4 and IPv6, intervals of centiseconds, no authentication.
    V3,
}

/// How advertisements of version 2 prove that they are from a router of the same configuration. Version 3 has
/// none: there it is ignored, as keepalived does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Type 0; whatever stands in the authentication data is ignored.
    None,
    /// Type 1: a password in clear text, see [`Auth::key`]. All 8 bytes count.
    Pass([u8; 8]),
    /// Type 2: the authentication header with a key, see [`Auth::key`].
    Ah([u8; ah::KEY]),
}

impl Auth {
    /// The 8 bytes that keepalived makes of a password: cut, or padded with NUL.
    pub fn key(password: &[u8]) -> [u8; 8] {
        let mut key = [0; 8];
        for (to, from) in key.iter_mut().zip(password) {
            *to = *from;
        }
        key
    }

    /// The authentication type on the wire.
    pub fn wire_type(&self) -> u8 {
        match self {
            Auth::None => 0,
            Auth::Pass(_) => 1,
            Auth::Ah(_) => 2,
        }
    }
}

/// Without the password: this goes into logs.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Auth::None => "None",
            Auth::Pass(_) => "Pass(..)",
            Auth::Ah(_) => "Ah(..)",
        })
    }
}

/// How advertisements travel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// To a multicast group, with a TTL of 255.
    Multicast,
    /// To each peer, through routers if need be: the TTL is not looked at.
    Unicast {
        /// The other routers; from others nothing is accepted.
        peers: Vec<IpAddr>,
    },
}

/// A virtual router as it is configured here: what its advertisements have to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Virtual router id, 1 to 255.
    pub vrid: u8,
    /// Version of the protocol.
    pub version: Version,
    /// The virtual addresses, all of one family, in the order in which they are sent; a list of IPv6 begins with
    /// a link-local one (RFC 9568 section 5.2.9).
    pub addresses: Vec<IpAddr>,
    /// Advertisement interval. Version 2 sends whole seconds from 1 to 255, version 3 centiseconds from 1 to
    /// 4095; anything between is rounded as keepalived does.
    pub interval: Duration,
    /// Authentication; only version 2 has any.
    pub auth: Auth,
    /// How advertisements travel.
    pub delivery: Delivery,
}

/// A valid advertisement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Who sent it.
    pub source: IpAddr,
    /// 0 (gives up) to 255 (owns the addresses).
    pub priority: u8,
    /// The interval that it announces. In version 3 it may be another than one's own, and counts for timers.
    pub interval: Duration,
    /// The form of its checksum. keepalived answers the old form in the old form.
    pub pseudo: PseudoHeader,
    /// Number from the authentication header, if there is one; to be checked before it is believed.
    pub sequence: Option<u32>,
}

impl Expected {
    /// The interval of version 2 in seconds.
    fn seconds(&self) -> u8 {
        let rounded = self.interval.as_millis().saturating_add(500) / 1000;
        u8::try_from(rounded).unwrap_or(u8::MAX).max(1)
    }

    /// The interval of version 3 in centiseconds.
    fn centiseconds(&self) -> u16 {
        let rounded = self.interval.as_millis().saturating_add(5) / 10;
        u16::try_from(rounded)
            .unwrap_or(MAX_CENTISECONDS)
            .clamp(1, MAX_CENTISECONDS)
    }

    /// The key of the authentication header, if this router uses one.
    fn header_key(&self) -> Option<&[u8; ah::KEY]> {
        match (self.version, &self.auth) {
            (Version::V2, Auth::Ah(key)) => Some(key),
            _ => None,
        }
    }
}

/// For which virtual router a packet claims to be, so that its receiver finds the configuration to judge it by;
/// `None` if it is no VRRP at all. Nothing is checked.
pub fn vrid(packet: &Packet<'_>) -> Option<u8> {
    let at = match packet.protocol {
        IP_PROTOCOL => 1,
        ah::IP_PROTOCOL_AH if packet.payload.first() == Some(&IP_PROTOCOL) => ah::HEADER + 1,
        _ => return None,
    };
    packet.payload.get(at).copied()
}

/// Judges a packet. `own` are the addresses that this node sends from: the kernel may hand back what it sent
/// itself. The virtual addresses do not belong there, as keepalived accepts them as a source.
///
/// # Errors
/// The packet is no valid advertisement of this router; says why.
pub fn judge(expected: &Expected, packet: &Packet<'_>, own: &[IpAddr]) -> Result<Heard, Mismatch> {
    examine(expected, packet, own).map_err(|reason| Mismatch {
        vrid: expected.vrid,
        sender: packet.source,
        reason,
    })
}

fn examine(expected: &Expected, packet: &Packet<'_>, own: &[IpAddr]) -> Result<Heard, Reason> {
    envelope(expected, packet, own)?;
    let (payload, sequence) = match expected.header_key() {
        Some(key) => {
            let opened = ah::open(packet, key).map_err(Reason::AuthenticationHeader)?;
            (opened.payload, Some(opened.sequence))
        }
        None => (packet.payload, None),
    };
    let (advert, pseudo) = Advertisement::decode(payload, packet.source, packet.destination)
        .map_err(Reason::Packet)?;
    contents(expected, &advert)?;
    addresses(&expected.addresses, &advert.addresses)?;
    Ok(Heard {
        source: packet.source,
        priority: advert.priority,
        interval: advert.interval(),
        pseudo,
        sequence,
    })
}

/// What can be told before the VRRP part is read.
fn envelope(expected: &Expected, packet: &Packet<'_>, own: &[IpAddr]) -> Result<(), Reason> {
    match (packet.protocol, expected.header_key().is_some()) {
        (IP_PROTOCOL, false) | (ah::IP_PROTOCOL_AH, true) => {}
        (IP_PROTOCOL, true) => return Err(Reason::NoAuthenticationHeader),
        (ah::IP_PROTOCOL_AH, false) => return Err(Reason::UnwantedAuthenticationHeader),
        (found, _) => return Err(Reason::Protocol(found)),
    }
    if own.contains(&packet.source) {
        return Err(Reason::OwnSource);
    }
    let destination = packet.destination;
    match &expected.delivery {
        Delivery::Multicast if !destination.is_multicast() => Err(Reason::Unicast(destination)),
        Delivery::Multicast if packet.ttl != TTL => Err(Reason::Ttl(packet.ttl)),
        Delivery::Multicast => Ok(()),
        Delivery::Unicast { .. } if destination.is_multicast() => {
            Err(Reason::Multicast(destination))
        }
        Delivery::Unicast { peers } if !peers.contains(&packet.source) => Err(Reason::Peer),
        Delivery::Unicast { .. } => Ok(()),
    }
}

fn contents(expected: &Expected, advert: &Advertisement) -> Result<(), Reason> {
    if advert.vrid != expected.vrid {
        return Err(Reason::Vrid {
            expected: expected.vrid,
            found: advert.vrid,
        });
    }
    match (advert.body, expected.version) {
        (
            Body::V2 {
                seconds,
                authentication_type: found,
                authentication,
            },
            Version::V2,
        ) => {
            let wanted = expected.auth.wire_type();
            if found != wanted {
                return Err(Reason::AuthenticationType {
                    expected: wanted,
                    found,
                });
            }
            if let Auth::Pass(password) = &expected.auth
                && !same(password, &authentication)
            {
                return Err(Reason::Password);
            }
            let wanted = expected.seconds();
            if seconds != wanted {
                return Err(Reason::Interval {
                    expected: wanted,
                    found: seconds,
                });
            }
        }
        (Body::V3 { centiseconds }, Version::V3) => {
            // keepalived would take over at once, beside the sender that goes on. Nobody means that: RFC 9568
            // section 5.2.7 knows no interval below 1.
            if centiseconds == 0 {
                return Err(Reason::NoInterval);
            }
        }
        (Body::V2 { .. }, Version::V3) => {
            return Err(Reason::Version {
                expected: 3,
                found: 2,
            });
        }
        (Body::V3 { .. }, Version::V2) => {
            return Err(Reason::Version {
                expected: 2,
                found: 3,
            });
        }
    }
    Ok(())
}

/// As many addresses as here, and every one of here among them: in any order, as keepalived compares.
fn addresses(expected: &[IpAddr], found: &[IpAddr]) -> Result<(), Reason> {
    // Nearly always; the comparison below grows with the square of the count.
    if expected == found {
        return Ok(());
    }
    if expected.len() != found.len() {
        return Err(Reason::Count {
            expected: expected.len(),
            found: found.len(),
        });
    }
    match expected.iter().find(|address| !found.contains(address)) {
        Some(missing) => Err(Reason::Address(*missing)),
        None => Ok(()),
    }
}

/// Compares without telling by its duration how much was right.
fn same(a: &[u8; 8], b: &[u8; 8]) -> bool {
    a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

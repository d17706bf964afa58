//! The IP authentication header (RFC 2402) around advertisements of version 2, as keepalived's `auth_type AH`
//! writes and reads it.
//!
//! ```text
//! +---------------+---------------+-------------------------------+
//! |  Next = 112   |  Length = 4   |           Reserved            |
//! +---------------+---------------+-------------------------------+
//! |             SPI = IPv4 source address                         |
//! +---------------------------------------------------------------+
//! |             Sequence number                                   |
//! +---------------------------------------------------------------+
//! |             ICV: HMAC-MD5-96 (RFC 2403), 12 bytes             |
//! +---------------------------------------------------------------+
//! ```
//!
//! The ICV is taken over the whole IP packet, and differs from RFC 2402 section 3.3.3.1.1: type of service,
//! fragment field, header checksum and the ICV itself count as zero, but the TTL only does in packets to a
//! unicast address, and IP options count as they are. The key is the password cut or padded with NUL to 8 bytes.

use std::net::{IpAddr, Ipv4Addr};

use hmac::{Hmac, Mac};
use md5::Md5;

use crate::ip::{self, Packet, V4_HEADER, WriteError};
use crate::packet::IP_PROTOCOL;

mod sequence;

pub use sequence::{Replay, Sequence};

/// IP protocol number of the authentication header.
pub const IP_PROTOCOL_AH: u8 = 51;
/// Bytes of the header.
pub const HEADER: usize = 24;
/// Bytes of a key.
pub const KEY: usize = 8;

/// Length of the header in 32-bit words, minus 2 (RFC 2402 section 2.2).
const LENGTH: u8 = 4;
const ICV: usize = 12;
/// Where the ICV begins in the header.
const ICV_AT: usize = HEADER - ICV;

/// What an authentic packet held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened<'a> {
    /// Number of the packet; whether it is a repetition is for [`Sequence::check`] to say.
    pub sequence: u32,
    /// The VRRP part.
    pub payload: &'a [u8],
}

/// What an authentication header claims. Without the key nothing of it is proved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claimed<'a> {
    /// The SPI; keepalived writes the source address there.
    pub spi: Ipv4Addr,
    /// Number of the packet.
    pub sequence: u32,
    /// The VRRP part.
    pub payload: &'a [u8],
}

/// Why a packet is not authentic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Another protocol follows the IP header.
    #[error("IP protocol {0}, expected 51 (authentication header)")]
    Protocol(u8),
    /// The ICV covers the IP header, and there is none of IPv4.
    #[error("no IPv4 header in front of the authentication header")]
    NoHeader,
    /// The packet ends too early.
    #[error("authentication header of {0} bytes, expected {HEADER}")]
    Truncated(usize),
    /// Another protocol follows the authentication header.
    #[error("authentication header before IP protocol {0}, expected 112 (VRRP)")]
    NextHeader(u8),
    /// Not the size of HMAC-MD5-96.
    #[error("authentication header of length {0}, expected {LENGTH} (HMAC-MD5-96)")]
    Length(u8),
    /// Another password, or a packet changed on its way.
    #[error(
        "wrong HMAC-MD5-96 value: the password is another, or the packet was changed on its way"
    )]
    Icv,
    /// Authentic, but not what keepalived sends.
    #[error("SPI {found} in the authentication header, expected the source address {expected}")]
    Spi {
        /// The source of the packet.
        expected: Ipv4Addr,
        /// What the packet says.
        found: Ipv4Addr,
    },
}

/// A whole IPv4 packet (for `IP_HDRINCL`) around the VRRP part of an advertisement, authenticated with `key`.
/// The mark counts for the ICV, so it may not be 0, which the kernel would replace.
///
/// # Errors
/// The VRRP part is too long for a packet.
pub fn seal(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    mark: u16,
    sequence: u32,
    key: &[u8; KEY],
    vrrp: &[u8],
) -> Result<Vec<u8>, WriteError> {
    let mut payload = Vec::with_capacity(HEADER + vrrp.len());
    payload.extend([IP_PROTOCOL, LENGTH, 0, 0]);
    payload.extend(source.octets());
    payload.extend(sequence.to_be_bytes());
    payload.extend([0; ICV]);
    payload.extend(vrrp);
    let mut out = ip::write_v4(source, destination, IP_PROTOCOL_AH, mark, &payload)?;
    let (header, payload) = out.split_at(V4_HEADER);
    let unicast = !destination.is_multicast();
    let full = icv(key, header, &payload[..ICV_AT], &payload[HEADER..], unicast);
    let value = full.finalize().into_bytes();
    out[V4_HEADER + ICV_AT..V4_HEADER + HEADER].copy_from_slice(&value[..ICV]);
    Ok(out)
}

/// Checks the authentication header of a packet, the ICV in constant time.
///
/// # Errors
/// See [`OpenError`]; nothing outside the packet is ever read.
pub fn open<'a>(packet: &Packet<'a>, key: &[u8; KEY]) -> Result<Opened<'a>, OpenError> {
    let (source, head, claimed) = parts(packet)?;
    let unicast = !packet.destination.is_multicast();
    let (before, found) = head.split_at(ICV_AT);
    icv(key, packet.header, before, claimed.payload, unicast)
        .verify_truncated_left(found)
        .map_err(|_| OpenError::Icv)?;
    // After the ICV, as keepalived does: before it, no field is to be believed.
    claimed.check_spi(source)?;
    Ok(Opened {
        sequence: claimed.sequence,
        payload: claimed.payload,
    })
}

/// What a packet claims, for people who look on without the password. Its form is checked, its ICV is not.
///
/// # Errors
/// The header has not the form that keepalived writes.
pub fn peek<'a>(packet: &Packet<'a>) -> Result<Claimed<'a>, OpenError> {
    parts(packet).map(|(_, _, claimed)| claimed)
}

impl Claimed<'_> {
    /// Whether the SPI is the source of the packet, as keepalived demands.
    ///
    /// # Errors
    /// [`OpenError::Spi`].
    pub fn check_spi(&self, source: Ipv4Addr) -> Result<(), OpenError> {
        if self.spi == source {
            return Ok(());
        }
        Err(OpenError::Spi {
            expected: source,
            found: self.spi,
        })
    }
}

/// The source, the authentication header as it is, and what it claims.
fn parts<'a>(packet: &Packet<'a>) -> Result<(Ipv4Addr, &'a [u8; HEADER], Claimed<'a>), OpenError> {
    if packet.protocol != IP_PROTOCOL_AH {
        return Err(OpenError::Protocol(packet.protocol));
    }
    let (IpAddr::V4(source), true) = (packet.source, packet.header.len() >= V4_HEADER) else {
        return Err(OpenError::NoHeader);
    };
    let Some((head, payload)) = packet.payload.split_first_chunk::<HEADER>() else {
        return Err(OpenError::Truncated(packet.payload.len()));
    };
    let [next, length, _, _, s, p, i, x, a, b, c, d, ..] = *head;
    if next != IP_PROTOCOL {
        return Err(OpenError::NextHeader(next));
    }
    if length != LENGTH {
        return Err(OpenError::Length(length));
    }
    let claimed = Claimed {
        spi: Ipv4Addr::new(s, p, i, x),
        sequence: u32::from_be_bytes([a, b, c, d]),
        payload,
    };
    Ok((source, head, claimed))
}

/// The MAC over a packet in its parts. `header` is at least [`V4_HEADER`] long, `ah` ends before the ICV.
fn icv(key: &[u8; KEY], header: &[u8], ah: &[u8], vrrp: &[u8], unicast: bool) -> Hmac<Md5> {
    let mut block = [0; 64];
    block[..KEY].copy_from_slice(key);
    let mut fixed = [0; V4_HEADER];
    let (plain, options) = header.split_at(V4_HEADER.min(header.len()));
    fixed[..plain.len()].copy_from_slice(plain);
    fixed[1] = 0;
    fixed[6..8].fill(0);
    if unicast {
        fixed[8] = 0;
    }
    fixed[10..12].fill(0);
    let mut mac = <Hmac<Md5> as hmac::digest::KeyInit>::new(&block.into());
    mac.update(&fixed);
    mac.update(options);
    mac.update(ah);
    mac.update(&[0; ICV]);
    mac.update(vrrp);
    mac
}

//! Whole IP packets as raw sockets and captures hand them over: IPv4 (RFC 791) and IPv6 (RFC 8200).
//!
//! The header checksum of IPv4 is written but not checked on reading: the kernel delivers no packet with a
//! wrong one, and leaves it unset on copies that it loops back. Extension headers of IPv6 are not walked
//! through: an advertisement has none (RFC 9568 section 5.1.2), so one shows as a foreign protocol number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;

/// Traffic class of what is written, as keepalived sends it: internetwork control (RFC 2474 section 4.2.2.2).
pub const TOS: u8 = 0xc0;
/// TTL or hop limit of what is written (RFC 9568 sections 5.1.1.3 and 5.1.2.3).
pub const TTL: u8 = 255;
/// Bytes of an IPv4 header without options.
pub const V4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
pub const V6_HEADER: usize = 40;

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// One received packet, borrowed from the buffer that it was read into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Who sent it.
    pub source: IpAddr,
    /// Where to; of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit as received.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Number of the protocol in `payload`.
    pub protocol: u8,
    /// The identification of IPv4, or the low 16 bits of the flow label of IPv6.
    pub mark: u16,
    /// What the packet carries.
    pub payload: &'a [u8],
    /// The IP header with its options; empty when the kernel kept it, as it does for IPv6.
    pub header: &'a [u8],
}

/// Why bytes are no IP packet that can be looked into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// The packet ends too early.
    #[error("IP packet of {got} bytes, expected {expected}")]
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        got: usize,
    },
    /// Neither IPv4 nor IPv6.
    #[error("IP version {0}, expected 4 or 6")]
    Version(u8),
    /// An IPv4 header that claims to be shorter than one can be.
    #[error("IPv4 header of {0} bytes, expected 20 to 60")]
    HeaderLength(usize),
    /// An IPv4 total length that does not even cover the header.
    #[error("IPv4 total length {total} is shorter than the header of {header} bytes")]
    TotalLength {
        /// Length of the header in bytes.
        header: usize,
        /// What the packet says.
        total: usize,
    },
    /// Part of an IPv4 packet: the kernel puts them together before delivery, so nobody honest sends one here.
    #[error("fragment of an IPv4 packet (offset {offset} bytes, more to come: {more})")]
    Fragment {
        /// Where in the whole packet it belongs, in bytes.
        offset: u16,
        /// Whether others follow.
        more: bool,
    },
}

/// Why a packet cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// Source and destination are of different families.
    #[error("IP packet from {0} to {1}: the families differ")]
    Families(IpAddr, IpAddr),
    /// The length field has 16 bits.
    #[error("IP packet with a payload of {payload} bytes, at most {limit} fit")]
    TooLong {
        /// Bytes given.
        payload: usize,
        /// Bytes that fit.
        limit: usize,
    },
}

impl<'a> Packet<'a> {
    /// Reads a whole packet; bytes after its stated end (padding of the link) are left out.
    ///
    /// # Errors
    /// See [`ReadError`]; nothing outside `bytes` is ever read.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ReadError> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::read_v4(bytes),
            Some(6) => Self::read_v6(bytes),
            Some(version) => Err(ReadError::Version(version)),
            None => Err(ReadError::Truncated {
                expected: V4_HEADER,
                got: 0,
            }),
        }
    }

    /// A packet whose header the kernel kept: an IPv6 raw socket delivers only the payload, and the rest as
    /// ancillary data (RFC 3542 section 6).
    pub fn from_parts_v6(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        hop_limit: u8,
        traffic_class: u8,
        flow_label: u32,
        protocol: u8,
        payload: &'a [u8],
    ) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            ttl: hop_limit,
            tos: traffic_class,
            protocol,
            mark: flow_label as u16,
            payload,
            header: &[],
        }
    }

    fn read_v4(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let Some(fixed) = bytes.first_chunk::<V4_HEADER>() else {
            return Err(ReadError::Truncated {
                expected: V4_HEADER,
                got: bytes.len(),
            });
        };
        let length = usize::from(fixed[0] & 0x0f) * 4;
        if length < V4_HEADER {
            return Err(ReadError::HeaderLength(length));
        }
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if total < length {
            return Err(ReadError::TotalLength {
                header: length,
                total,
            });
        }
        let Some((header, payload)) = bytes.get(..total).and_then(|p| p.split_at_checked(length))
        else {
            return Err(ReadError::Truncated {
                expected: total,
                got: bytes.len(),
            });
        };
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        if fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0 {
            return Err(ReadError::Fragment {
                offset: (fragment & FRAGMENT_OFFSET) << 3,
                more: fragment & MORE_FRAGMENTS != 0,
            });
        }
        let (source, destination) = ends_v4(fixed);
        Ok(Self {
            source,
            destination,
            ttl: fixed[8],
            tos: fixed[1],
            protocol: fixed[9],
            mark: u16::from_be_bytes([fixed[4], fixed[5]]),
            payload,
            header,
        })
    }

    fn read_v6(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let Some((header, rest)) = bytes.split_first_chunk::<V6_HEADER>() else {
            return Err(ReadError::Truncated {
                expected: V6_HEADER,
                got: bytes.len(),
            });
        };
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let Some(payload) = rest.get(..length) else {
            return Err(ReadError::Truncated {
                expected: V6_HEADER + length,
                got: bytes.len(),
            });
        };
        let (source, destination) = ends_v6(header);
        Ok(Self {
            source,
            destination,
            ttl: header[7],
            tos: header[0] << 4 | header[1] >> 4,
            protocol: header[6],
            mark: u16::from_be_bytes([header[2], header[3]]),
            payload,
            header: &bytes[..V6_HEADER],
        })
    }
}

/// Source and destination of a packet, whatever else is wrong with it; `None` if not even they are there.
pub fn ends(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match bytes.first()? >> 4 {
        4 => bytes.first_chunk().map(ends_v4),
        6 => bytes.first_chunk().map(ends_v6),
        _ => None,
    }
}

fn ends_v4(header: &[u8; V4_HEADER]) -> (IpAddr, IpAddr) {
    let [.., a, b, c, d, e, f, g, h] = *header;
    let (source, destination) = ([a, b, c, d], [e, f, g, h]);
    (source.into(), destination.into())
}

fn ends_v6(header: &[u8; V6_HEADER]) -> (IpAddr, IpAddr) {
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::from(octets)
    };
    (address(8), address(24))
}

/// A whole packet of either family, for a raw socket that takes the header from the sender.
///
/// # Errors
/// The families differ, or the payload is too long.
pub fn write(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    mark: u16,
    payload: &[u8],
) -> Result<Vec<u8>, WriteError> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            write_v4(source, destination, protocol, mark, payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            write_v6(source, destination, protocol, mark, payload)
        }
        _ => Err(WriteError::Families(source, destination)),
    }
}

/// A whole IPv4 packet (for `IP_HDRINCL`): 20 bytes of header with its checksum, [`TOS`], [`TTL`], no
/// "don't fragment", identification = `mark`. The kernel would replace a mark of 0.
///
/// # Errors
/// The payload is longer than 65,515 bytes.
pub fn write_v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    mark: u16,
    payload: &[u8],
) -> Result<Vec<u8>, WriteError> {
    let total = u16::try_from(V4_HEADER + payload.len()).map_err(|_| WriteError::TooLong {
        payload: payload.len(),
        limit: usize::from(u16::MAX) - V4_HEADER,
    })?;
    let mut out = Vec::with_capacity(total.into());
    out.extend([0x45, TOS]);
    out.extend(total.to_be_bytes());
    out.extend(mark.to_be_bytes());
    out.extend([0, 0, TTL, protocol, 0, 0]);
    out.extend(source.octets());
    out.extend(destination.octets());
    let sum = Sum::default().with(&out).finish();
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend(payload);
    Ok(out)
}

/// A whole IPv6 packet (for `IPV6_HDRINCL`): 40 bytes of header, traffic class [`TOS`], hop limit [`TTL`],
/// flow label = `mark`.
///
/// # Errors
/// The payload is longer than 65,535 bytes.
pub fn write_v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    mark: u16,
    payload: &[u8],
) -> Result<Vec<u8>, WriteError> {
    let length = u16::try_from(payload.len()).map_err(|_| WriteError::TooLong {
        payload: payload.len(),
        limit: u16::MAX.into(),
    })?;
    let mut out = Vec::with_capacity(V6_HEADER + payload.len());
    out.extend([0x60 | TOS >> 4, TOS << 4]);
    out.extend(mark.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend([protocol, TTL]);
    out.extend(source.octets());
    out.extend(destination.octets());
    out.extend(payload);
    Ok(out)
}

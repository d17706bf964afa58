//! VRRP advertisements as bytes: version 2 (RFC 3768) and version 3 (RFC 9568) for IPv4, version 3 for
//! IPv6. Encoding and decoding only: which advertisement is believed is decided elsewhere.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version| Type  | Virtual Rtr ID|   Priority    |Count IPvX Addr|
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! v2: |   Auth Type   |   Adver Int   |          Checksum         |
//! v3: |(rsvd) |     Max Adver Int     |          Checksum         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                      IPvX Address(es)                         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! v2: |                Authentication Data (8 bytes)              |
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::checksum::Sum;

/// IP protocol number of VRRP.
pub const IP_PROTOCOL: u8 = 112;
/// IPv4 group that advertisements go to.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// IPv6 group that advertisements go to.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Largest interval of version 3, in centiseconds (12 bits).
pub const MAX_CENTISECONDS: u16 = 0x0fff;

const HEADER: usize = 8;
const AUTHENTICATION: usize = 8;
const TYPE_ADVERTISEMENT: u8 = 1;

/// What differs between the versions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// RFC 3768: IPv4 only.
    V2 {
        /// Advertisement interval in seconds.
        seconds: u8,
        /// Authentication type 0 (none), 1 (simple text password) or 2 (IP AH).
        authentication_type: u8,
        /// The authentication data; present on the wire whatever the type.
        authentication: [u8; AUTHENTICATION],
    },
    /// RFC 9568.
    V3 {
        /// Maximum advertisement interval in centiseconds, at most [`MAX_CENTISECONDS`].
        centiseconds: u16,
    },
}

/// Which addresses the pseudo-header of an IPv4 version 3 checksum is taken over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PseudoHeader {
    /// The packet's own source and destination (RFC 9568).
    Standard,
    /// The multicast group in place of a unicast destination (keepalived's `old_unicast_checksum`).
    OldUnicast,
}

/// One advertisement.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Advertisement {
    /// Virtual router id, 1 to 255.
    pub vrid: u8,
    /// 0 (gives up) to 255 (owns the addresses).
    pub priority: u8,
    /// The virtual addresses, all of one family, at most 255.
    pub addresses: Vec<IpAddr>,
    /// Fields of the version.
    pub body: Body,
}

/// Why bytes are no valid advertisement.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The packet ends too early.
    #[error("VRRP packet of {got} bytes, expected {expected}")]
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        got: usize,
    },
    /// Bytes are left over.
    #[error("VRRP packet has {0} bytes too many")]
    Trailing(usize),
    /// Neither version 2 nor 3, or version 2 over IPv6.
    #[error("VRRP version {0} is not understood here (expected 2 or 3 over IPv4, 3 over IPv6)")]
    Version(u8),
    /// Not an advertisement.
    #[error("VRRP packet of type {0}, expected 1 (advertisement)")]
    Type(u8),
    /// Virtual router id 0.
    #[error("virtual router id 0 is not valid (expected 1 to 255)")]
    Vrid,
    /// The checksum is wrong.
    #[error("wrong VRRP checksum {got:#06x}, expected {expected:#06x}")]
    Checksum {
        /// What it should be.
        expected: u16,
        /// What the packet says.
        got: u16,
    },
    /// Source and destination are of different families.
    #[error("VRRP packet from {0} to {1}: the families differ")]
    Families(IpAddr, IpAddr),
}

/// Why an advertisement cannot be written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// An address of the other family than the packet's.
    #[error("virtual router {vrid}: address {address} is not of the family of the packet")]
    Family {
        /// Which router.
        vrid: u8,
        /// Which address.
        address: IpAddr,
    },
    /// Too many addresses.
    #[error("virtual router {vrid}: {count} addresses, a packet holds 255")]
    Count {
        /// Which router.
        vrid: u8,
        /// How many.
        count: usize,
    },
    /// The interval does not fit.
    #[error(
        "virtual router {vrid}: interval of {centiseconds} cs, expected 1 to {MAX_CENTISECONDS}"
    )]
    Interval {
        /// Which router.
        vrid: u8,
        /// Given interval.
        centiseconds: u16,
    },
    /// Version 2 has no IPv6.
    #[error("virtual router {vrid}: version 2 carries no IPv6 (use version 3)")]
    Version2OverIpv6 {
        /// Which router.
        vrid: u8,
    },
}

impl Advertisement {
    /// The interval it announces.
    pub fn interval(&self) -> Duration {
        match self.body {
            Body::V2 { seconds, .. } => Duration::from_secs(seconds.into()),
            Body::V3 { centiseconds } => Duration::from_millis(10 * u64::from(centiseconds)),
        }
    }

    /// The VRRP part of the packet, checksum included.
    ///
    /// # Errors
    /// Something in it does not fit the version or the packet's family.
    pub fn encode(
        &self,
        source: IpAddr,
        destination: IpAddr,
        pseudo: PseudoHeader,
    ) -> Result<Vec<u8>, EncodeError> {
        let vrid = self.vrid;
        let count = u8::try_from(self.addresses.len()).map_err(|_| EncodeError::Count {
            vrid,
            count: self.addresses.len(),
        })?;
        let version = match self.body {
            Body::V2 { .. } if source.is_ipv6() => {
                return Err(EncodeError::Version2OverIpv6 { vrid });
            }
            Body::V2 { .. } => 2,
            Body::V3 { .. } => 3,
        };
        let mut out = vec![
            version << 4 | TYPE_ADVERTISEMENT,
            vrid,
            self.priority,
            count,
        ];
        match self.body {
            Body::V2 {
                seconds,
                authentication_type,
                ..
            } => {
                out.extend([authentication_type, seconds]);
            }
            Body::V3 { centiseconds } => {
                if !(1..=MAX_CENTISECONDS).contains(&centiseconds) {
                    return Err(EncodeError::Interval { vrid, centiseconds });
                }
                out.extend(centiseconds.to_be_bytes());
            }
        }
        out.extend([0, 0]);
        for address in &self.addresses {
            match address {
                IpAddr::V4(a) if source.is_ipv4() => out.extend(a.octets()),
                IpAddr::V6(a) if source.is_ipv6() => out.extend(a.octets()),
                _ => {
                    return Err(EncodeError::Family {
                        vrid,
                        address: *address,
                    });
                }
            }
        }
        if let Body::V2 { authentication, .. } = self.body {
            out.extend(authentication);
        }
        let sum = checksum(&out, version, source, destination, pseudo);
        out[6..8].copy_from_slice(&sum.to_be_bytes());
        Ok(out)
    }

    /// Reads the VRRP part of a packet and says which form of checksum it carried.
    ///
    /// Reserved bits of version 3 are ignored (RFC 9568 section 5.2.6).
    ///
    /// # Errors
    /// See [`DecodeError`]; nothing outside `bytes` is ever read.
    pub fn decode(
        bytes: &[u8],
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<(Advertisement, PseudoHeader), DecodeError> {
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(DecodeError::Families(source, destination));
        }
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(DecodeError::Truncated {
                expected: HEADER,
                got: bytes.len(),
            });
        };
        let [version_type, vrid, _, count, _, _, sum @ ..] = *header;
        let (version, kind) = (version_type >> 4, version_type & 0x0f);
        if !understood(version, source) {
            return Err(DecodeError::Version(version));
        }
        if kind != TYPE_ADVERTISEMENT {
            return Err(DecodeError::Type(kind));
        }
        let list = usize::from(count) * width(source.is_ipv4());
        let expected = HEADER + list + if version == 2 { AUTHENTICATION } else { 0 };
        if bytes.len() < expected {
            return Err(DecodeError::Truncated {
                expected,
                got: bytes.len(),
            });
        }
        if bytes.len() > expected {
            return Err(DecodeError::Trailing(bytes.len() - expected));
        }
        let pseudo = verify(bytes, version, source, destination, u16::from_be_bytes(sum))?;
        if vrid == 0 {
            return Err(DecodeError::Vrid);
        }
        Ok((Self::fields(header, rest, source.is_ipv4()), pseudo))
    }

    /// What a packet claims, for people who look for what is wrong with it: nothing is checked, and what is cut off
    /// is left out. `None` if it has no whole header, or one of a version that is not understood in this family.
    ///
    /// What counts is what [`Advertisement::decode`] says.
    pub fn peek(bytes: &[u8], source: IpAddr) -> Option<Advertisement> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        understood(header[0] >> 4, source).then(|| Self::fields(header, rest, source.is_ipv4()))
    }

    /// The fields of a packet of a version that is understood; less than the header promises may follow it.
    fn fields(header: &[u8; HEADER], rest: &[u8], v4: bool) -> Advertisement {
        let [version_type, vrid, priority, count, a, b, ..] = *header;
        let list = usize::from(count) * width(v4);
        let (list, tail) = rest.split_at_checked(list).unwrap_or((rest, &[]));
        let body = if version_type >> 4 == 2 {
            Body::V2 {
                seconds: b,
                authentication_type: a,
                authentication: tail.first_chunk().copied().unwrap_or_default(),
            }
        } else {
            Body::V3 {
                centiseconds: u16::from_be_bytes([a, b]) & MAX_CENTISECONDS,
            }
        };
        Advertisement {
            vrid,
            priority,
            addresses: addresses(list, v4),
            body,
        }
    }
}

/// Version 2 has no IPv6.
fn understood(version: u8, source: IpAddr) -> bool {
    version == 3 || version == 2 && source.is_ipv4()
}

/// Bytes of an address.
fn width(v4: bool) -> usize {
    if v4 { 4 } else { 16 }
}

fn addresses(list: &[u8], v4: bool) -> Vec<IpAddr> {
    if v4 {
        list.as_chunks::<4>()
            .0
            .iter()
            .map(|a| Ipv4Addr::from(*a).into())
            .collect()
    } else {
        list.as_chunks::<16>()
            .0
            .iter()
            .map(|a| Ipv6Addr::from(*a).into())
            .collect()
    }
}

/// The checksum over a packet whose own field does not count.
fn checksum(
    bytes: &[u8],
    version: u8,
    source: IpAddr,
    destination: IpAddr,
    pseudo: PseudoHeader,
) -> u16 {
    let sum = Sum::default().with(&bytes[..6]).with(&bytes[HEADER..]);
    if version == 2 {
        return sum.finish();
    }
    let destination = match pseudo {
        PseudoHeader::OldUnicast if source.is_ipv4() => GROUP_V4.into(),
        _ => destination,
    };
    sum.pseudo_header(source, destination, bytes.len()).finish()
}

fn verify(
    bytes: &[u8],
    version: u8,
    source: IpAddr,
    destination: IpAddr,
    got: u16,
) -> Result<PseudoHeader, DecodeError> {
    let expected = checksum(bytes, version, source, destination, PseudoHeader::Standard);
    if got == expected {
        return Ok(PseudoHeader::Standard);
    }
    let unicast = source.is_ipv4() && !destination.is_multicast() && version == 3;
    if unicast
        && got
            == checksum(
                bytes,
                version,
                source,
                destination,
                PseudoHeader::OldUnicast,
            )
    {
        return Ok(PseudoHeader::OldUnicast);
    }
    Err(DecodeError::Checksum { expected, got })
}

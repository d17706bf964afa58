//! The prober's frames: ARP probes (RFC 5227 section 2.1.1) and neighbour solicitations (RFC 4861
//! section 4.3), built and read byte by byte.
//!
//! The number of a probe travels in the prober's own MAC address, `02:b0` and four bytes, so that each
//! answer names the probe that it answers. An ARP probe has the sender address 0.0.0.0 and changes no
//! neighbour cache. A neighbour solicitation from `::` would be answered to all nodes, without the number,
//! and would refresh the caches whose staleness the lab wants to see; so it comes from one link-local
//! address, and costs the answering node one cache entry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest probe, bytes.
pub const MAX_PROBE: usize = 86;
/// First two bytes of the prober's MAC addresses.
pub const PROBER_MAC: [u8; 2] = [0x02, 0xb0];
/// Source of neighbour solicitations.
pub const PROBER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x00b0, 0, 0, 1);

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The probe for one address, ready but for its number.
#[derive(Clone)]
pub struct Probe {
    bytes: [u8; MAX_PROBE],
    length: usize,
    ipv6: bool,
    /// One's complement sum of the ICMPv6 part with checksum and MAC zero.
    sum: u32,
}

impl Probe {
    /// A probe for `address`.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => Self::arp(ip),
            IpAddr::V6(ip) => Self::solicitation(ip),
        }
    }

    fn arp(target: Ipv4Addr) -> Self {
        let mut bytes = [0; MAX_PROBE];
        bytes[..6].fill(0xff);
        bytes[12..14].copy_from_slice(&ETHERTYPE_ARP);
        // Ethernet, IPv4, 6 and 4 bytes, request; sender 0.0.0.0 and target MAC stay zero.
        bytes[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        bytes[38..42].copy_from_slice(&target.octets());
        Self {
            bytes,
            length: 60, // the shortest Ethernet frame, without its checksum
            ipv6: false,
            sum: 0,
        }
    }

    fn solicitation(target: Ipv6Addr) -> Self {
        let mut bytes = [0; MAX_PROBE];
        let target = target.octets();
        let group = {
            let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
            group[13..].copy_from_slice(&target[13..]);
            group
        };
        bytes[..2].fill(0x33);
        bytes[2..6].copy_from_slice(&group[12..]);
        bytes[12..14].copy_from_slice(&ETHERTYPE_IPV6);
        bytes[14] = 0x60;
        bytes[18..20].copy_from_slice(&[0, 32]); // payload length
        bytes[20] = ICMPV6;
        bytes[21] = 255; // hop limit: RFC 4861 section 7.1.1
        bytes[22..38].copy_from_slice(&PROBER_IPV6.octets());
        bytes[38..54].copy_from_slice(&group);
        bytes[54] = NEIGHBOUR_SOLICITATION;
        bytes[62..78].copy_from_slice(&target);
        bytes[78..80].copy_from_slice(&[1, 1]); // source link-layer address, 8 bytes
        let pseudo_header = words(&bytes[22..54]) + 32 + u32::from(ICMPV6);
        let sum = pseudo_header + words(&bytes[54..86]);
        Self {
            bytes,
            length: MAX_PROBE,
            ipv6: true,
            sum,
        }
    }

    /// The frame of the probe with this number.
    pub fn frame(&mut self, number: u32) -> &[u8] {
        let mac = mac_of(number);
        self.bytes[6..12].copy_from_slice(&mac);
        if self.ipv6 {
            self.bytes[80..86].copy_from_slice(&mac);
            let mut sum = self.sum + words(&mac);
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let checksum = !u16::try_from(sum).unwrap_or(0);
            self.bytes[56..58].copy_from_slice(&checksum.to_be_bytes());
        } else {
            self.bytes[22..28].copy_from_slice(&mac);
        }
        &self.bytes[..self.length]
    }
}

fn words(bytes: &[u8]) -> u32 {
    bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

fn mac_of(number: u32) -> [u8; 6] {
    let mut mac = [PROBER_MAC[0], PROBER_MAC[1], 0, 0, 0, 0];
    mac[2..].copy_from_slice(&number.to_be_bytes());
    mac
}

/// The number of the probe to whose sender the frame is addressed, if it is addressed to the prober.
#[must_use]
pub fn addressed_probe(frame: &[u8]) -> Option<u32> {
    let rest = frame.get(..6)?.strip_prefix(&PROBER_MAC)?;
    Some(u32::from_be_bytes(rest.try_into().ok()?))
}

/// The address that an answer to a probe speaks for: an ARP reply or a neighbour advertisement.
#[must_use]
pub fn answered_address(frame: &[u8]) -> Option<IpAddr> {
    match ethertype(frame)? {
        ETHERTYPE_ARP if frame.get(20..22)? == [0, 2] => ipv4_at(frame, 28),
        ETHERTYPE_IPV6 => advertised(frame),
        _ => None,
    }
}

/// The address in whose name a frame was sent: ARP sender, advertised neighbour, or IP source.
#[must_use]
pub fn spoken_for(frame: &[u8]) -> Option<IpAddr> {
    match ethertype(frame)? {
        ETHERTYPE_ARP => ipv4_at(frame, 28),
        ETHERTYPE_IPV4 => ipv4_at(frame, 26),
        ETHERTYPE_IPV6 => advertised(frame).or_else(|| ipv6_at(frame, 22)),
        _ => None,
    }
}

fn ethertype(frame: &[u8]) -> Option<[u8; 2]> {
    frame.get(12..14)?.try_into().ok()
}

fn advertised(frame: &[u8]) -> Option<IpAddr> {
    (*frame.get(20)? == ICMPV6 && *frame.get(54)? == NEIGHBOUR_ADVERTISEMENT)
        .then(|| ipv6_at(frame, 62))
        .flatten()
}

fn ipv4_at(frame: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    Some(IpAddr::from(octets))
}

fn ipv6_at(frame: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = frame.get(at..at + 16)?.try_into().ok()?;
    Some(IpAddr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solicitation_has_a_right_checksum_for_every_number() {
        let mut probe = Probe::new("fd00:192:168::13".parse().unwrap());
        for number in [0, 1, 0xffff, 0xffff_ffff, 0x1234_5678] {
            let frame = probe.frame(number);
            let mut sum = words(&frame[22..54]) + 32 + 58 + words(&frame[54..86]);
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            assert_eq!(sum, 0xffff, "number {number}");
        }
    }

    #[test]
    fn an_answer_names_its_probe_and_address() {
        let mut reply = Probe::new("192.168.192.13".parse().unwrap())
            .frame(77)
            .to_vec();
        let sender: [u8; 6] = reply[6..12].try_into().unwrap();
        reply[..6].copy_from_slice(&sender);
        reply[21] = 2;
        reply[28..32].copy_from_slice(&[192, 168, 192, 13]);
        assert_eq!(addressed_probe(&reply), Some(77));
        assert_eq!(
            answered_address(&reply),
            Some("192.168.192.13".parse().unwrap())
        );
    }

    #[test]
    fn short_and_foreign_frames_are_nobodys() {
        let mut frame = [0; 14];
        frame[12..14].copy_from_slice(&ETHERTYPE_ARP);
        for length in 0..=14 {
            assert_eq!(spoken_for(&frame[..length]), None);
            assert_eq!(answered_address(&frame[..length]), None);
        }
        assert_eq!(addressed_probe(&[2, 0xb0, 0]), None);
        assert_eq!(addressed_probe(&[2, 0, 0xc0, 0xa8, 0xc0, 0x65]), None);
    }
}

//! Crafted frames, byte by byte from the RFCs, for trials of the gate.
#![allow(
    dead_code,
    reason = "every test file compiles its own copy and uses a part of it"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const ETH_IP: u16 = 0x0800;
pub const ETH_ARP: u16 = 0x0806;
pub const ETH_IPV6: u16 = 0x86dd;
pub const VLAN: u16 = 0x8100;
pub const QINQ: u16 = 0x88a8;

pub const HOP_BY_HOP: u8 = 0;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const ESP: u8 = 50;
pub const AUTHENTICATION: u8 = 51;
pub const ICMPV6: u8 = 58;
pub const NO_NEXT: u8 = 59;
pub const DESTINATION: u8 = 60;

pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;

/// An Ethernet frame; each tag is (type, VLAN id).
pub fn tagged(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    for (kind, id) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

pub fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    tagged(&[], ethertype, payload)
}

/// An ARP packet (RFC 826) without its frame; operation 1 asks, 2 answers.
pub fn arp_packet(operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend([0x02, 0, 0, 0, 0, 2]);
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    packet
}

pub fn arp(operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    frame(ETH_ARP, &arp_packet(operation, sender, target))
}

/// An IPv4 packet (RFC 791) with `options` bytes of options, at a fragment offset (units of 8).
pub fn ipv4_packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    options: usize,
    fragment: u16,
) -> Vec<u8> {
    assert!(options.is_multiple_of(4) && options <= 40);
    let words = 5 + options / 4;
    let mut packet = vec![0x40 | words as u8, 0, 0, words as u8 * 4 + 8, 0, 7];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, UDP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(vec![1; options]);
    packet.extend([0; 8]);
    packet
}

pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    frame(ETH_IP, &ipv4_packet(source, destination, 0, 0))
}

/// An IPv6 packet (RFC 8200).
pub fn ipv6_packet(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    frame(ETH_IPV6, &ipv6_packet(source, destination, next, payload))
}

/// A neighbour solicitation or advertisement (RFC 4861), or any ICMPv6 message of that form.
pub fn nd_message(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message
}

pub fn nd(kind: u8, source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    ipv6(source, destination, ICMPV6, &nd_message(kind, target))
}

/// Puts extension headers in front of an upper-layer message: the first header's number and the
/// bytes. Plain ones get `units` further units of 8 bytes.
pub fn behind(headers: &[u8], units: u8, upper: u8, message: &[u8]) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    for (i, kind) in headers.iter().enumerate() {
        let next = headers.get(i + 1).copied().unwrap_or(upper);
        match *kind {
            FRAGMENT => bytes.extend([next, 0, 0, 1, 0, 0, 0, 9]),
            // Payload length in words of 4 bytes, minus 2: 24 bytes in all (RFC 4302).
            AUTHENTICATION => bytes.extend([&[next, 4][..], &[0xaa; 22]].concat()),
            _ => bytes.extend([&[next, units][..], &vec![0; 6 + 8 * units as usize]].concat()),
        }
    }
    bytes.extend(message);
    (headers.first().copied().unwrap_or(upper), bytes)
}

/// Solicited-node multicast address (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let tail = [0xff00 | u16::from(a), u16::from_be_bytes([b, c])];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, tail[0], tail[1])
}

pub fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

pub fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an IPv6 address")
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An unsolicited advertisement to all nodes, from 02:00:00:00:00:02 and with its checksum (RFC 4861, 7.2.6).
pub fn announcement(address: Ipv6Addr) -> Vec<u8> {
    let all = v6("ff02::1");
    let mut message = nd_message(ADVERTISEMENT, address);
    // Override.
    message[4] = 0x20;
    // Target link-layer address.
    message.extend([2, 1, 0x02, 0, 0, 0, 0, 2]);
    let checksum = icmpv6_checksum(address, all, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = ipv6(address, all, ICMPV6, &message);
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame
}

/// RFC 8200, 8.1.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = [source.octets(), destination.octets()].concat();
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, ICMPV6]);
    bytes.extend(message);
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

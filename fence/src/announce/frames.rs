//! The frames that tell neighbours where a VIP is: gratuitous ARP and unsolicited neighbour advertisements.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Length of a gratuitous ARP frame, in bytes, without padding.
pub const ARP_FRAME: usize = 42;
/// Length of an unsolicited neighbour advertisement frame, in bytes.
pub const NA_FRAME: usize = 86;
/// Length of an ARP packet for IPv4 on Ethernet, in bytes.
pub(super) const ARP_PACKET: usize = 28;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Ethernet address of the group of all nodes, ff02::1.
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
/// ICMPv6 type of a neighbour advertisement (RFC 4861 section 4.4).
pub(super) const ADVERTISEMENT: u8 = 136;
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;
/// Option: target link-layer address, of one unit of 8 bytes (RFC 4861 section 4.6.1).
const TARGET_LINK_LAYER: u8 = 2;

/// The two forms of a gratuitous ARP (RFC 5227 section 3): neighbours differ in which one they heed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ArpForm {
    /// An ARP request (an "ARP announcement", and what keepalived sends).
    Request,
    /// An ARP reply that nobody asked for.
    Reply,
}

/// A gratuitous ARP to everybody: `ip` is at `mac`. Sender and target address are both the VIP, the
/// target hardware address is all ones (as keepalived has it).
pub fn gratuitous_arp(mac: [u8; 6], ip: Ipv4Addr, form: ArpForm) -> [u8; ARP_FRAME] {
    let operation = match form {
        ArpForm::Request => 1,
        ArpForm::Reply => 2,
    };
    let mut frame = [0; ARP_FRAME];
    Writer(&mut frame)
        .put(&BROADCAST)
        .put(&mac)
        .put(&ETHERTYPE_ARP)
        // Ethernet, IPv4, address lengths 6 and 4.
        .put(&[0, 1, 8, 0, 6, 4, 0, operation])
        .put(&mac)
        .put(&ip.octets())
        .put(&BROADCAST)
        .put(&ip.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes: `ip` is at `mac` (RFC 4861 section 7.2.6).
/// Override is set, solicited is not; `router` says whether this host forwards IPv6.
pub fn unsolicited_na(mac: [u8; 6], ip: Ipv6Addr, router: bool) -> [u8; NA_FRAME] {
    const PAYLOAD: u16 = 32;
    let flags = OVERRIDE | if router { ROUTER } else { 0 };
    let mut message = [0; PAYLOAD as usize];
    Writer(&mut message)
        .put(&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0])
        .put(&ip.octets())
        .put(&[TARGET_LINK_LAYER, 1])
        .put(&mac);
    let sum = checksum(ip, ALL_NODES, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = [0; NA_FRAME];
    Writer(&mut frame)
        .put(&ALL_NODES_MAC)
        .put(&mac)
        .put(&ETHERTYPE_IPV6)
        .put(&[0x60, 0, 0, 0])
        .put(&PAYLOAD.to_be_bytes())
        // Hop limit 255: a receiver takes a smaller one for a forgery from afar.
        .put(&[ICMPV6, 255])
        .put(&ip.octets())
        .put(&ALL_NODES.octets())
        .put(&message);
    frame
}

/// ICMPv6 checksum with the pseudo-header of RFC 8200 section 8.1; `message` is of even length.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks_exact(2);
        pairs
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum()
    };
    let mut sum = words(&source.octets())
        + words(&destination.octets())
        + words(message)
        + message.len() as u32
        + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(self, bytes: &[u8]) -> Self {
        let (head, rest) = self.0.split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        Writer(rest)
    }
}

/// What an ARP packet or a neighbour advertisement of somebody else says: `ip` is at `mac`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Assertion<A> {
    pub(super) ip: A,
    pub(super) mac: [u8; 6],
}

/// Reads an ARP packet (without its Ethernet header); `None` if it asserts nothing, as probes do.
pub(super) fn read_arp(packet: &[u8]) -> Option<Assertion<Ipv4Addr>> {
    let packet: &[u8; ARP_PACKET] = packet.first_chunk()?;
    let operation = u16::from_be_bytes([packet[6], packet[7]]);
    if packet[..6] != [0, 1, 8, 0, 6, 4] || !(1..=2).contains(&operation) {
        return None;
    }
    let mac = packet[8..14].try_into().ok()?;
    let ip = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[14..18]).ok()?);
    (!ip.is_unspecified()).then_some(Assertion { ip, mac })
}

/// Reads an ICMPv6 message; `None` unless it is a neighbour advertisement with the target's hardware
/// address.
pub(super) fn read_na(message: &[u8]) -> Option<Assertion<Ipv6Addr>> {
    let fixed: &[u8; 24] = message.first_chunk()?;
    if fixed[0] != ADVERTISEMENT || fixed[1] != 0 {
        return None;
    }
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&fixed[8..24]).ok()?);
    let mut options = &message[24..];
    while let [kind, units, ..] = *options {
        let option = options
            .get(..usize::from(units) * 8)
            .filter(|o| !o.is_empty())?;
        if kind == TARGET_LINK_LAYER {
            let mac = option.get(2..8)?.try_into().ok()?;
            return Some(Assertion { ip, mac });
        }
        options = &options[option.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Type, LaxPacketHeaders, NetHeaders, TransportHeader};

    use super::*;

    const MAC: [u8; 6] = [0x02, 0x77, 0, 0, 0, 0x0b];

    fn hex(text: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    /// As keepalived 2.2.7 sends them.
    #[test]
    fn frames_are_keepalived_s_byte_for_byte() {
        let arp = gratuitous_arp(MAC, Ipv4Addr::new(10, 77, 0, 200), ArpForm::Request);
        let sent =
            "ffffffffffff02770000000b0806000108000604000102770000000b0a4d00c8ffffffffffff0a4d00c8";
        assert_eq!(arp.to_vec(), hex(sent));
        let ip = "fe80::77:200".parse().expect("an address");
        let na = unsolicited_na(MAC, ip, false);
        let sent = "33330000000102770000000b86dd6000000000203afffe800000000000000000000000770200ff020000000000000000\
                    0000000000018800522e20000000fe800000000000000000000000770200020102770000000b";
        assert_eq!(na.to_vec(), hex(sent));
    }

    #[test]
    fn both_arp_forms_say_what_they_should() {
        let ip = Ipv4Addr::new(192, 0, 2, 7);
        for (form, operation) in [(ArpForm::Request, 1), (ArpForm::Reply, 2)] {
            let frame = gratuitous_arp(MAC, ip, form);
            let read = LaxPacketHeaders::from_ethernet(&frame).expect("a frame");
            let Some(NetHeaders::Arp(arp)) = read.net else {
                panic!("no ARP: {read:?}");
            };
            assert_eq!(arp.operation.0, operation);
            assert_eq!(
                (arp.sender_hw_addr(), arp.target_hw_addr()),
                (&MAC[..], &[0xff; 6][..])
            );
            assert_eq!(
                (arp.sender_protocol_addr(), arp.target_protocol_addr()),
                (&ip.octets()[..], &ip.octets()[..])
            );
            let said = Assertion { ip, mac: MAC };
            assert_eq!(read_arp(&frame[14..]), Some(said));
        }
    }

    #[test]
    fn advertisements_carry_flags_target_and_checksum() {
        let ip: Ipv6Addr = "2001:db8::7".parse().expect("an address");
        for router in [false, true] {
            let frame = unsolicited_na(MAC, ip, router);
            let read = LaxPacketHeaders::from_ethernet(&frame).expect("a frame");
            let (Some(NetHeaders::Ipv6(v6, _)), Some(TransportHeader::Icmpv6(icmp))) =
                (&read.net, &read.transport)
            else {
                panic!("no ICMPv6: {read:?}");
            };
            assert_eq!(
                (v6.hop_limit, v6.source, v6.destination),
                (255, ip.octets(), ALL_NODES.octets())
            );
            let Icmpv6Type::NeighborAdvertisement(na) = &icmp.icmp_type else {
                panic!("no advertisement: {icmp:?}");
            };
            assert_eq!(
                (na.router, na.solicited, na.r#override),
                (router, false, true)
            );
            let payload = read.payload.slice();
            let again = icmp
                .icmp_type
                .calc_checksum(v6.source, v6.destination, payload);
            assert_eq!(again.expect("a length"), icmp.checksum);
            assert_eq!(read_na(&frame[54..]), Some(Assertion { ip, mac: MAC }));
        }
    }

    #[test]
    fn what_asserts_nothing_is_none() {
        let good = gratuitous_arp(MAC, Ipv4Addr::new(10, 0, 0, 1), ArpForm::Reply);
        let changed = |at: usize, to: u8| {
            let mut packet = good[14..].to_vec();
            packet[at] = to;
            read_arp(&packet)
        };
        assert_eq!(read_arp(&good[14..41]), None);
        assert_eq!(changed(4, 8), None, "another address length");
        assert_eq!(changed(7, 3), None, "another operation");
        let probe = gratuitous_arp(MAC, Ipv4Addr::UNSPECIFIED, ArpForm::Request);
        assert_eq!(read_arp(&probe[14..]), None, "a probe asserts nothing");

        let na = unsolicited_na(MAC, Ipv6Addr::LOCALHOST, false);
        assert_eq!(read_na(&na[54..78]), None, "no option");
        assert_eq!(read_na(&na[54..80]), None, "half an option");
        let mut zero = na[54..].to_vec();
        zero[25] = 0;
        assert_eq!(
            read_na(&zero),
            None,
            "an option of no length is no endless loop"
        );
        let mut solicitation = na[54..].to_vec();
        solicitation[0] = 135;
        assert_eq!(read_na(&solicitation), None);
    }
}

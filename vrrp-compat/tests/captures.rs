//! Frames captured from keepalived 2.2.7 decode to what was configured, and encode to the same bytes.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use buoy_vrrp_compat::packet::{Advertisement, Body, DecodeError, IP_PROTOCOL, PseudoHeader};
use common::{bytes, matrix, vectors};
use proptest::prelude::*;

/// The VRRP part of an IP packet, with its addresses; `None` for another protocol.
fn vrrp(ip: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let four = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap()).into();
    let six = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap()).into();
    match ip[0] >> 4 {
        4 if ip[9] == IP_PROTOCOL => {
            let header = usize::from(ip[0] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            Some((four(12), four(16), ip.get(header..total)?))
        }
        6 if ip[6] == IP_PROTOCOL => Some((six(8), six(24), &ip[40..])),
        _ => None,
    }
}

#[test]
fn captured_advertisements_survive_both_directions() {
    let mut seen = 0;
    for (name, frames) in vectors() {
        for (kind, hex) in frames {
            let frame = bytes(&hex);
            let Some((source, destination, body)) = vrrp(&frame[14..]) else {
                continue;
            };
            let (advert, pseudo) = Advertisement::decode(body, source, destination)
                .unwrap_or_else(|e| panic!("{name}/{kind}: {e}"));
            assert_eq!(
                advert.encode(source, destination, pseudo).unwrap(),
                body,
                "{name}/{kind}"
            );
            assert_eq!(advert.vrid, 51, "{name}/{kind}");
            let old = name == "v3-unicast-oldcsum";
            assert_eq!(pseudo == PseudoHeader::OldUnicast, old, "{name}/{kind}");
            assert_eq!(
                advert.priority == 0,
                kind.contains("prio0"),
                "{name}/{kind}"
            );
            seen += 1;
        }
    }
    assert!(seen >= 20, "only {seen} advertisements in the fixtures");
}

#[test]
fn fields_are_what_was_configured() {
    let all = vectors();
    let decode = |name: &str, kind: &str| {
        let frame = bytes(&all[name][kind]);
        let (s, d, body) = vrrp(&frame[14..]).unwrap();
        Advertisement::decode(body, s, d).unwrap().0
    };
    let v2 = decode("v2-pass", "advert");
    assert_eq!(v2.priority, 150);
    assert_eq!(v2.addresses, ["10.77.0.200".parse::<IpAddr>().unwrap()]);
    let authentication = *b"1111\0\0\0\0";
    assert_eq!(
        v2.body,
        Body::V2 {
            seconds: 1,
            authentication_type: 1,
            authentication
        }
    );
    let v3 = decode("v3-ipv4", "advert");
    let list = ["10.77.0.200", "10.77.0.201", "10.77.0.7"].map(|a| a.parse::<IpAddr>().unwrap());
    assert_eq!(v3.addresses, list, "addresses stay in their order");
    assert_eq!(v3.body, Body::V3 { centiseconds: 100 });
    let fast = decode("v3-ipv4-centisec", "advert");
    assert_eq!(fast.interval(), std::time::Duration::from_millis(100));
    let six = decode("v3-ipv6", "advert6");
    assert!(
        six.addresses[0].to_string().starts_with("fe80:"),
        "the link-local address comes first"
    );
}

/// What can be told from the bytes alone, of what a real BACKUP refused.
#[test]
fn crafted_packets_are_refused_for_the_right_reason() {
    let mut refused = 0;
    for (number, what, verdict, _, hex) in matrix() {
        let ip = bytes(&hex);
        let Some((source, destination, body)) = vrrp(&ip) else {
            continue;
        };
        let decoded = Advertisement::decode(body, source, destination);
        if verdict.starts_with("ACCEPT") {
            decoded.unwrap_or_else(|e| panic!("case {number}, {what}: {e}"));
        } else if what.contains("checksum") && what.contains("bad") {
            assert!(
                matches!(decoded, Err(DecodeError::Checksum { .. })),
                "case {number}, {what}"
            );
            refused += 1;
        }
    }
    assert!(refused >= 1);
}

proptest! {
    #[test]
    fn decoding_never_panics(body in proptest::collection::vec(any::<u8>(), 0..64), six: bool) {
        let (s, d): (IpAddr, IpAddr) = if six {
            (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into())
        } else {
            (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into())
        };
        if let Ok((advert, pseudo)) = Advertisement::decode(&body, s, d)
            && advert.interval() > std::time::Duration::ZERO
        {
            let again = advert.encode(s, d, pseudo).unwrap();
            prop_assert_eq!(Advertisement::decode(&again, s, d).unwrap().0, advert);
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed(at in 0usize..20, bit in 0u8..8) {
        let s: IpAddr = "10.0.0.1".parse().unwrap();
        let d: IpAddr = buoy_vrrp_compat::packet::GROUP_V4.into();
        let addresses = vec!["10.0.0.9".parse().unwrap(), "10.0.0.10".parse().unwrap()];
        let body = Body::V3 { centiseconds: 100 };
        let advert = Advertisement { vrid: 9, priority: 100, addresses, body };
        let mut packet = advert.encode(s, d, PseudoHeader::Standard).unwrap();
        let at = at % packet.len();
        packet[at] ^= 1 << bit;
        prop_assert!(Advertisement::decode(&packet, s, d).is_err());
    }
}

/// What decodes is also what is claimed; and of what does not, as much is shown as there is.
#[test]
fn claims_are_read_whatever_is_wrong_with_the_packet() {
    let mut seen = 0;
    for (name, packet) in common::packets() {
        let Some((source, destination, body)) = vrrp(&packet) else {
            continue;
        };
        let Ok((advert, _)) = Advertisement::decode(body, source, destination) else {
            continue;
        };
        assert_eq!(
            Advertisement::peek(body, source).as_ref(),
            Some(&advert),
            "{name}"
        );
        let mut wrong = body.to_vec();
        wrong[6] ^= 1;
        assert_eq!(
            Advertisement::peek(&wrong, source).as_ref(),
            Some(&advert),
            "{name}"
        );
        for length in 0..body.len() {
            let cut = Advertisement::peek(&body[..length], source);
            assert_eq!(cut.is_some(), length >= 8, "{name}, {length} bytes");
            let cut = cut.map_or(vec![], |cut| cut.addresses);
            assert_eq!(cut, advert.addresses[..cut.len()], "{name}, {length} bytes");
        }
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} packets");
    let six = Ipv6Addr::LOCALHOST.into();
    assert_eq!(Advertisement::peek(&[0x21, 1, 1, 0, 0, 1, 0, 0], six), None);
}

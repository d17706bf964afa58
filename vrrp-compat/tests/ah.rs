//! The authentication header of keepalived's `auth_type AH`, both ways.

mod common;

use std::net::{IpAddr, Ipv4Addr};

use buoy_vrrp_compat::ah::{self, OpenError};
use buoy_vrrp_compat::ip::{self, Packet};
use buoy_vrrp_compat::packet::{Advertisement, Body, GROUP_V4};
use proptest::prelude::*;

const KEY: [u8; 8] = *b"1111\0\0\0\0";

fn captured() -> Vec<u8> {
    common::packet("v2-ah", "advert_ah")
}

fn opened(bytes: &[u8], key: &[u8; 8]) -> Result<u32, OpenError> {
    ah::open(&Packet::read(bytes).unwrap(), key).map(|opened| opened.sequence)
}

#[test]
fn captured_packet_opens() {
    let bytes = captured();
    let packet = Packet::read(&bytes).unwrap();
    let opened = ah::open(&packet, &KEY).unwrap();
    assert_eq!(opened.sequence, 1);
    let (advert, _) =
        Advertisement::decode(opened.payload, packet.source, packet.destination).unwrap();
    assert_eq!((advert.vrid, advert.priority), (51, 150));
    let body = Body::V2 {
        seconds: 1,
        authentication_type: 2,
        authentication: [0; 8],
    };
    assert_eq!(advert.body, body);
}

#[test]
fn captured_packet_is_written_again() {
    let bytes = captured();
    let packet = Packet::read(&bytes).unwrap();
    let IpAddr::V4(source) = packet.source else {
        panic!("{} is not IPv4", packet.source);
    };
    let vrrp = &packet.payload[ah::HEADER..];
    let again = ah::seal(source, GROUP_V4, packet.mark, 1, &KEY, vrrp).unwrap();
    assert_eq!(again, bytes);
}

/// What routers on the way may change does not count, except that keepalived lets the TTL count.
#[test]
fn every_bit_but_the_mutable_ones_counts() {
    let bytes = captured();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let Ok(packet) = Packet::read(&changed) else {
                continue;
            };
            // Type of service, the two flags of the fragment field that a whole packet can have, checksum.
            let mutable = at == 1 || at == 6 && bit >= 6 || (10..12).contains(&at);
            let result = ah::open(&packet, &KEY);
            assert_eq!(result.is_ok(), mutable, "byte {at} bit {bit}: {result:?}");
        }
    }
}

#[test]
fn to_a_unicast_address_the_ttl_does_not_count() {
    let (source, peer) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let mut bytes = ah::seal(source, peer, 1, 9, &KEY, b"vrrp").unwrap();
    bytes[8] = 12;
    assert_eq!(opened(&bytes, &KEY), Ok(9));
    let mut bytes = ah::seal(source, GROUP_V4, 1, 9, &KEY, b"vrrp").unwrap();
    bytes[8] = 12;
    assert_eq!(opened(&bytes, &KEY), Err(OpenError::Icv));
}

#[test]
fn errors_say_what_is_wrong() {
    let bytes = captured();
    assert_eq!(opened(&bytes, b"1112\0\0\0\0"), Err(OpenError::Icv));
    let with = |at: usize, value: u8| {
        let mut changed = bytes.clone();
        changed[at] = value;
        opened(&changed, &KEY).unwrap_err()
    };
    assert_eq!(with(9, 112), OpenError::Protocol(112));
    assert_eq!(with(20, 6), OpenError::NextHeader(6));
    assert_eq!(with(21, 5), OpenError::Length(5));
    let packet = Packet::read(&bytes).unwrap();
    let short = Packet {
        payload: &packet.payload[..23],
        ..packet
    };
    assert_eq!(ah::open(&short, &KEY), Err(OpenError::Truncated(23)));
    let bare = Packet {
        header: &[],
        ..packet
    };
    assert_eq!(ah::open(&bare, &KEY), Err(OpenError::NoHeader));
    let six = Packet {
        source: "::1".parse().unwrap(),
        ..packet
    };
    assert_eq!(ah::open(&six, &KEY), Err(OpenError::NoHeader));
}

/// The ICV, whose place is at `at`, as keepalived takes it over a packet to a multicast group.
fn value_over(packet: &[u8], at: usize) -> [u8; 12] {
    use hmac::Mac;
    let mut covered = packet.to_vec();
    for zero in [1, 6, 7, 10, 11].into_iter().chain(at..at + 12) {
        covered[zero] = 0;
    }
    let mut mac = hmac::Hmac::<md5::Md5>::new_from_slice(&KEY).unwrap();
    mac.update(&covered);
    mac.finalize().into_bytes()[..12].try_into().unwrap()
}

/// RFC 2402 has mutable options count as zero; keepalived takes its header as it came.
#[test]
fn options_count_as_they_are() {
    let mut bytes = captured();
    assert_eq!(value_over(&bytes, 32), bytes[32..44], "the formula");
    bytes[0] = 0x46;
    bytes[3] += 4;
    bytes.splice(20..20, [0x94, 4, 0, 0]);
    assert_eq!(
        opened(&bytes, &KEY),
        Err(OpenError::Icv),
        "put in on the way"
    );
    let value = value_over(&bytes, 36);
    bytes[36..48].copy_from_slice(&value);
    assert_eq!(opened(&bytes, &KEY), Ok(1));
    bytes[23] = 1;
    assert_eq!(
        opened(&bytes, &KEY),
        Err(OpenError::Icv),
        "changed on the way"
    );
}

/// A sender that knows the password but is not keepalived's kind: sealed as from another address.
#[test]
fn another_spi_is_refused() {
    let (source, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let bytes = ah::seal(source, GROUP_V4, 1, 9, &KEY, b"vrrp").unwrap();
    let mut payload = bytes[ip::V4_HEADER..].to_vec();
    payload[4..8].copy_from_slice(&other.octets());
    let mut forged = ip::write_v4(source, GROUP_V4, ah::IP_PROTOCOL_AH, 1, &payload).unwrap();
    assert_eq!(
        opened(&forged, &KEY),
        Err(OpenError::Icv),
        "the SPI is covered"
    );
    let value = value_over(&forged, 32);
    forged[32..44].copy_from_slice(&value);
    let expected = OpenError::Spi {
        expected: source,
        found: other,
    };
    assert_eq!(opened(&forged, &KEY), Err(expected));
}

proptest! {
    #[test]
    fn round_trip(
        source: u32, destination: u32, mark: u16, sequence: u32, key: [u8; 8],
        vrrp in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let (s, d) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
        let bytes = ah::seal(s, d, mark, sequence, &key, &vrrp).unwrap();
        let packet = Packet::read(&bytes).unwrap();
        let opened = ah::open(&packet, &key).unwrap();
        prop_assert_eq!(opened.sequence, sequence);
        prop_assert_eq!(opened.payload, &vrrp);
    }
}

/// Without the password the form is checked, and nothing else.
#[test]
fn claims_are_read_without_the_password() {
    let mut bytes = captured();
    bytes[20 + 23] ^= 1; // the last byte of the ICV
    assert_eq!(opened(&bytes, &KEY), Err(OpenError::Icv));
    let packet = Packet::read(&bytes).unwrap();
    let claimed = ah::peek(&packet).unwrap();
    assert_eq!(claimed.sequence, 1);
    assert_eq!(claimed.payload, &packet.payload[ah::HEADER..]);
    claimed.check_spi(claimed.spi).unwrap();
    let other = Ipv4Addr::new(10, 77, 0, 99);
    assert!(matches!(
        claimed.check_spi(other),
        Err(OpenError::Spi { expected, found }) if (expected, found) == (other, claimed.spi)
    ));
    bytes[20] = 6;
    let tcp = Packet::read(&bytes).unwrap();
    assert_eq!(ah::peek(&tcp), Err(OpenError::NextHeader(6)));
}

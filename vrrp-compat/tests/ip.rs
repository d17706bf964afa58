//! IP headers: what is read is what was written, and nothing outside the packet is looked at.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use buoy_vrrp_compat::ip::{self, Packet, ReadError, WriteError};
use buoy_vrrp_compat::packet::{GROUP_V4, GROUP_V6, IP_PROTOCOL};
use proptest::prelude::*;

const PAYLOAD: &[u8] = b"payload";

fn v4() -> Vec<u8> {
    ip::write_v4(
        Ipv4Addr::new(10, 0, 0, 1),
        GROUP_V4,
        IP_PROTOCOL,
        7,
        PAYLOAD,
    )
    .unwrap()
}

fn v6() -> Vec<u8> {
    let source = "fe80::1".parse().unwrap();
    ip::write_v6(source, GROUP_V6, IP_PROTOCOL, 7, PAYLOAD).unwrap()
}

/// Every header that keepalived wrote comes out of the writer again, given its mark.
#[test]
fn captured_headers_are_written_again() {
    let mut seen = 0;
    for (name, bytes) in common::packets() {
        if name.starts_with("case") {
            continue;
        }
        let read = Packet::read(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((read.tos, read.ttl), (ip::TOS, ip::TTL), "{name}");
        let mut expected = bytes.clone();
        if read.source.is_ipv6() {
            // The kernel chooses a label of 20 bits; a mark has 16.
            expected[1] &= 0xf0;
        }
        let again = ip::write(
            read.source,
            read.destination,
            read.protocol,
            read.mark,
            read.payload,
        );
        assert_eq!(again.unwrap(), expected, "{name}");
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} packets in the fixtures");
}

#[test]
fn options_belong_to_the_header() {
    let (_, what, .., hex) = common::matrix().swap_remove(31);
    assert!(what.contains("IP options"), "{what}");
    let bytes = common::bytes(&hex);
    let packet = Packet::read(&bytes).unwrap();
    assert_eq!(packet.header.len(), 24);
    assert_eq!(packet.payload[0], 0x21);
}

#[test]
fn padding_of_the_link_is_left_out() {
    for mut bytes in [v4(), v6()] {
        bytes.extend([0; 9]);
        assert_eq!(Packet::read(&bytes).unwrap().payload, PAYLOAD);
    }
}

#[test]
fn every_cut_is_refused() {
    for whole in [v4(), v6()] {
        for end in 0..whole.len() {
            assert!(
                matches!(
                    Packet::read(&whole[..end]),
                    Err(ReadError::Truncated { got, .. }) if got == end
                ),
                "{end} of {} bytes",
                whole.len()
            );
        }
    }
}

#[test]
fn lies_about_lengths_are_refused() {
    let with = |at: usize, value: u8| {
        let mut bytes = v4();
        bytes[at] = value;
        Packet::read(&bytes).unwrap_err()
    };
    assert_eq!(with(0, 0x44), ReadError::HeaderLength(16));
    assert_eq!(
        with(0, 0x4f),
        ReadError::TotalLength {
            header: 60,
            total: 27
        }
    );
    assert_eq!(
        with(3, 19),
        ReadError::TotalLength {
            header: 20,
            total: 19
        }
    );
    assert_eq!(
        with(3, 28),
        ReadError::Truncated {
            expected: 28,
            got: 27
        }
    );
    assert_eq!(with(0, 0x55), ReadError::Version(5));
}

#[test]
fn fragments_are_refused_and_only_they() {
    let with = |flags: u16| {
        let mut bytes = v4();
        bytes[6..8].copy_from_slice(&flags.to_be_bytes());
        Packet::read(&bytes).map(|_| ())
    };
    let first = ReadError::Fragment {
        offset: 0,
        more: true,
    };
    let last = ReadError::Fragment {
        offset: 65528,
        more: false,
    };
    assert_eq!(with(0x2000), Err(first));
    assert_eq!(with(0x1fff), Err(last));
    assert_eq!(with(0x4000), Ok(()), "don't fragment");
}

#[test]
fn too_long_or_of_two_families_is_not_written() {
    let (four, six) = (IpAddr::from(GROUP_V4), IpAddr::from(GROUP_V6));
    let long = vec![0; 65_536];
    assert!(matches!(
        ip::write(four, four, 112, 1, &long[..65_516]),
        Err(WriteError::TooLong { limit: 65_515, .. })
    ));
    assert!(ip::write(four, four, 112, 1, &long[..65_515]).is_ok());
    assert!(matches!(
        ip::write(six, six, 112, 1, &long),
        Err(WriteError::TooLong { limit: 65_535, .. })
    ));
    assert!(ip::write(six, six, 112, 1, &long[..65_535]).is_ok());
    assert_eq!(
        ip::write(four, six, 112, 1, PAYLOAD),
        Err(WriteError::Families(four, six))
    );
}

/// The kernel's own sum over the header with its checksum field in it is zero.
fn header_checksum_holds(bytes: &[u8]) -> bool {
    buoy_vrrp_compat::checksum::Sum::default()
        .with(&bytes[..ip::V4_HEADER])
        .finish()
        == 0
}

proptest! {
    #[test]
    fn ipv4_round_trip(
        source: u32, destination: u32, protocol: u8, mark: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..80),
        padding in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let (s, d) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
        let mut bytes = ip::write_v4(s, d, protocol, mark, &payload).unwrap();
        prop_assert!(header_checksum_holds(&bytes));
        let header = bytes[..20].to_vec();
        bytes.extend(padding);
        let expected = Packet {
            source: s.into(), destination: d.into(), ttl: 255, tos: 0xc0, protocol, mark,
            payload: &payload, header: &header,
        };
        prop_assert_eq!(Packet::read(&bytes).unwrap(), expected);
    }

    #[test]
    fn ipv6_round_trip(
        source: u128, destination: u128, protocol: u8, mark: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..80),
        padding in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let (s, d) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
        let mut bytes = ip::write_v6(s, d, protocol, mark, &payload).unwrap();
        let header = bytes[..40].to_vec();
        bytes.extend(padding);
        let read = Packet::read(&bytes).unwrap();
        let parts = Packet::from_parts_v6(s, d, 255, 0xc0, mark.into(), protocol, &payload);
        prop_assert_eq!(read, Packet { header: &header, ..parts });
        prop_assert_eq!(&bytes[1] & 0x0f, 0, "the label has no more than the mark");
    }

    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), first in 0x40u8..0x70) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        if let Ok(packet) = Packet::read(&bytes) {
            prop_assert!(packet.header.len() + packet.payload.len() <= bytes.len());
        }
    }
}

#[test]
fn both_ends_are_told_as_soon_as_they_are_there() {
    for (bytes, header) in [(v4(), ip::V4_HEADER), (v6(), ip::V6_HEADER)] {
        let whole = Packet::read(&bytes).unwrap();
        for length in 0..=bytes.len() {
            let expected = (length >= header).then_some((whole.source, whole.destination));
            assert_eq!(ip::ends(&bytes[..length]), expected, "{length} bytes");
        }
    }
    assert_eq!(ip::ends(&[0x50; 60]), None);
}

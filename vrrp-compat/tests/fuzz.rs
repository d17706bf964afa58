//! Hostile packets: those of the fixtures, damaged in every way that came to mind, always the same ones; and made up
//! ones. `fuzz/` does the same with coverage to guide it.

mod common;

use std::net::IpAddr;
use std::time::Duration;

use buoy_vrrp_compat::accept::{self, Auth, Delivery, Expected, Version};
use buoy_vrrp_compat::ah;
use buoy_vrrp_compat::checksum::Sum;
use buoy_vrrp_compat::ip::Packet;
use buoy_vrrp_compat::packet::{GROUP_V4, GROUP_V6, IP_PROTOCOL, PseudoHeader};
use common::routers;
use proptest::prelude::*;

const ROUNDS: u32 = 200_000;
const KEY: [u8; 8] = *b"1111\0\0\0\0";

/// Marsaglia's xorshift: the same numbers everywhere and for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end.max(1)
    }
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(8) {
        0..=2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        3 | 4 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff][random.below(7)];
            }
        }
        5 => bytes.truncate(at),
        6 => bytes.extend((0..random.below(40)).map(|_| random.next() as u8)),
        _ => {
            let from = random.below(other.len());
            bytes.truncate(at);
            bytes.extend(&other[from..]);
        }
    }
}

/// Makes lengths, checksum and ICV right again, so that the damage is found by what comes after them.
fn repair(bytes: &mut Vec<u8>) {
    if bytes.len() >= 20 && bytes[0] >> 4 == 4 {
        let total = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&total);
    } else if bytes.len() >= 40 && bytes[0] >> 4 == 6 {
        let length = (bytes.len() as u16 - 40).to_be_bytes();
        bytes[4..6].copy_from_slice(&length);
    }
    let Ok(packet) = Packet::read(bytes) else {
        return;
    };
    let (s, d) = (packet.source, packet.destination);
    let skip = match packet.protocol {
        ah::IP_PROTOCOL_AH => ah::HEADER,
        _ => 0,
    };
    let Some(vrrp) = packet.payload.get(skip..).filter(|v| v.len() >= 8) else {
        return;
    };
    let mut vrrp = vrrp.to_vec();
    vrrp[6..8].fill(0);
    let mut sum = Sum::default().with(&vrrp);
    if vrrp[0] >> 4 != 2 {
        sum = sum.pseudo_header(s, d, vrrp.len());
    }
    vrrp[6..8].copy_from_slice(&sum.finish().to_be_bytes());
    let start = packet.header.len() + skip;
    let mark = packet.mark;
    bytes.truncate(start);
    bytes.extend(&vrrp);
    if let (ah::HEADER, IpAddr::V4(s), IpAddr::V4(d)) = (skip, s, d) {
        *bytes = ah::seal(s, d, mark, 7, &KEY, &vrrp).unwrap();
    }
}

#[test]
fn damaged_packets_neither_panic_nor_change_what_is_accepted() {
    let seeds: Vec<Vec<u8>> = common::packets().into_iter().map(|(_, p)| p).collect();
    let captured = routers::routers();
    let mut random = Random(0x0062_756f_7921);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(3) {
            damage(&mut bytes, &seeds[random.below(seeds.len())], &mut random);
        }
        if random.below(4) != 0 {
            repair(&mut bytes);
        }
        let vrid = Packet::read(&bytes).ok().and_then(|p| accept::vrid(&p));
        let count = match vrid {
            Some(number @ 1..=44) => routers::everything(&bytes, &[routers::configured(number)]),
            _ => routers::everything(&bytes, &captured),
        };
        accepted += u32::from(count > 0);
        refused += u32::from(count == 0);
    }
    // Damage that nobody looks at is frequent, and the rest must not all die at the first check.
    assert!(
        accepted > ROUNDS / 50,
        "only {accepted} packets were accepted"
    );
    assert!(refused > ROUNDS / 2, "only {refused} packets were refused");
}

/// Not a test: seeds for `fuzz/`, whose directory of seeds is not in the repository.
#[test]
#[ignore = "writes the seeds of fuzz/"]
fn seeds() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/decode");
    std::fs::create_dir_all(directory).unwrap();
    for (number, (_, packet)) in common::packets().into_iter().enumerate() {
        std::fs::write(format!("{directory}/{number}"), packet).unwrap();
    }
}

fn addresses(v6: bool) -> impl Strategy<Value = Vec<IpAddr>> {
    let one = any::<u128>().prop_map(move |n| match v6 {
        true => IpAddr::from(n.to_be_bytes()),
        false => IpAddr::from((n as u32).to_be_bytes()),
    });
    proptest::collection::vec(one, 0..20)
}

fn any_router() -> impl Strategy<Value = (Expected, bool)> {
    let kind = prop_oneof![Just((2, false)), Just((3, false)), Just((3, true))];
    (
        kind,
        1u8..,
        0u64..300_000,
        0u8..3,
        any::<[u8; 8]>(),
        any::<bool>(),
    )
        .prop_flat_map(|((version, v6), vrid, milliseconds, auth, key, unicast)| {
            addresses(v6).prop_map(move |addresses| {
                let peers = vec![source(v6)];
                let expected = Expected {
                    vrid,
                    version: if version == 2 {
                        Version::V2
                    } else {
                        Version::V3
                    },
                    addresses,
                    interval: Duration::from_millis(milliseconds),
                    auth: match auth {
                        0 => Auth::None,
                        1 => Auth::Pass(key),
                        _ => Auth::Ah(key),
                    },
                    delivery: match unicast {
                        true => Delivery::Unicast { peers },
                        false => Delivery::Multicast,
                    },
                };
                (expected, v6)
            })
        })
}

fn source(v6: bool) -> IpAddr {
    let text = if v6 { "fe80::1" } else { "10.0.0.1" };
    text.parse().unwrap()
}

fn destination(expected: &Expected, v6: bool) -> IpAddr {
    match (&expected.delivery, v6) {
        (Delivery::Unicast { .. }, true) => "fd00::2".parse().unwrap(),
        (Delivery::Unicast { .. }, false) => "10.0.0.2".parse().unwrap(),
        (Delivery::Multicast, true) => GROUP_V6.into(),
        (Delivery::Multicast, false) => GROUP_V4.into(),
    }
}

proptest! {
    /// Whatever the configuration: routers that share it accept each other.
    #[test]
    fn what_a_router_sends_its_like_accepts(
        (expected, v6) in any_router(), priority: u8, mark in 1u16.., sequence: u32,
    ) {
        let to = destination(&expected, v6);
        let bytes = expected
            .packet(priority, source(v6), to, mark, PseudoHeader::Standard, sequence)
            .unwrap();
        let packet = Packet::read(&bytes).unwrap();
        let heard = accept::judge(&expected, &packet, &[]).unwrap();
        prop_assert_eq!((heard.priority, packet.mark), (priority, mark));
        let interval = expected.advertisement(priority).interval();
        prop_assert_eq!(heard.interval, interval);
        prop_assert_eq!(routers::everything(&bytes, std::slice::from_ref(&expected)), 1);
        let mismatch = accept::judge(&expected, &packet, &[source(v6)]).unwrap_err();
        prop_assert_eq!(mismatch.cause(), accept::Cause::OwnSource);
    }

    #[test]
    fn made_up_packets_never_panic(
        payload in proptest::collection::vec(any::<u8>(), 0..120), v6: bool, ah: bool,
    ) {
        let to = if v6 { GROUP_V6.into() } else { GROUP_V4.into() };
        let protocol = if ah { ah::IP_PROTOCOL_AH } else { IP_PROTOCOL };
        let bytes =
            buoy_vrrp_compat::ip::write(source(v6), to, protocol, 1, &payload).unwrap();
        routers::everything(&bytes, &routers::routers());
        routers::everything(&payload, &routers::routers());
    }
}

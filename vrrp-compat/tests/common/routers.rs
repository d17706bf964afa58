//! The routers that the fixtures are of, and what has to hold for whatever they receive.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::net::IpAddr;
use std::time::Duration;

use buoy_vrrp_compat::accept::{self, Auth, Delivery, Expected, Heard, Version};
use buoy_vrrp_compat::ah;
use buoy_vrrp_compat::ip::{self, Packet};
use buoy_vrrp_compat::packet::{Advertisement, Body, IP_PROTOCOL};

pub fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

pub fn password() -> Auth {
    Auth::Pass(Auth::key(b"1111"))
}

/// The virtual router that the captures are of.
pub fn router(version: Version, addresses: &[&str], auth: Auth) -> Expected {
    Expected {
        vrid: 51,
        version,
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        interval: Duration::from_secs(1),
        auth,
        delivery: Delivery::Multicast,
    }
}

/// How the BACKUP of the matrix was configured for a case: virtual router = number of the case.
pub fn configured(number: u8) -> Expected {
    let mut expected = router(Version::V2, &[], password());
    expected.vrid = number;
    let count = if matches!(number, 12 | 13 | 15 | 44) {
        2
    } else {
        1
    };
    expected.addresses = (1..=count)
        .map(|n| IpAddr::from([10, 78, number, n]))
        .collect();
    if matches!(number, 6 | 7) {
        expected.auth = Auth::None;
    }
    if number >= 35 {
        expected.version = Version::V3;
    }
    expected
}

/// The routers of the captures, as they were configured.
pub fn captured(name: &str) -> Expected {
    let one = ["10.77.0.200"];
    let three = ["10.77.0.200", "10.77.0.201", "10.77.0.7"];
    let six = ["fe80::77:200", "fd77::200"];
    let mut expected = match name {
        "v2-ah" => router(Version::V2, &one, Auth::Ah(Auth::key(b"1111"))),
        "v2-noauth" => router(Version::V2, &one, Auth::None),
        "v2-novip" => router(Version::V2, &[], password()),
        "v2-pass" | "v2-prio255" | "v2-unicast" => router(Version::V2, &one, password()),
        "v2-pass8-3vips" => router(Version::V2, &three, Auth::Pass(Auth::key(b"k@L9secret"))),
        "v3-ipv4" => router(Version::V3, &three, Auth::None),
        "v3-ipv6" | "v3-vmac-ipv6" => router(Version::V3, &six, Auth::None),
        _ => router(Version::V3, &one, Auth::None),
    };
    if name == "v3-ipv4-centisec" {
        expected.interval = Duration::from_millis(100);
    }
    if name.contains("unicast") {
        let peers = vec![ip("10.77.0.11")];
        expected.delivery = Delivery::Unicast { peers };
    }
    expected
}

/// One router of every kind in the fixtures; their virtual router ids are those of the packets.
pub fn routers() -> Vec<Expected> {
    [
        "v2-ah",
        "v2-noauth",
        "v2-novip",
        "v2-pass",
        "v2-pass8-3vips",
        "v2-unicast",
        "v3-ipv4",
        "v3-ipv4-centisec",
        "v3-ipv6",
        "v3-unicast",
    ]
    .map(captured)
    .into()
}

/// Shows a packet to all routers, and says how many accept it. Nothing may panic; what is accepted has to come out of
/// the writer again, and what is not has to be said.
pub fn everything(bytes: &[u8], routers: &[Expected]) -> usize {
    let packet = match Packet::read(bytes) {
        Ok(packet) => packet,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return 0;
        }
    };
    assert!(packet.header.len() + packet.payload.len() <= bytes.len());
    accept::vrid(&packet);
    let mut accepted = 0;
    for expected in routers {
        match accept::judge(expected, &packet, &[]) {
            Ok(heard) => {
                comes_out_again(expected, &packet, &heard);
                accepted += 1;
            }
            Err(mismatch) => assert!(!mismatch.to_string().is_empty()),
        }
    }
    accepted
}

/// Encoding is the inverse of decoding, but for bits that nobody looks at.
fn comes_out_again(expected: &Expected, packet: &Packet<'_>, heard: &Heard) {
    let (s, d) = (packet.source, packet.destination);
    let vrrp = match (expected.version, expected.auth) {
        (Version::V2, Auth::Ah(key)) => ah::open(packet, &key).unwrap().payload,
        _ => packet.payload,
    };
    let (advert, pseudo) = Advertisement::decode(vrrp, s, d).unwrap();
    let again = advert.encode(s, d, heard.pseudo).unwrap();
    assert_eq!(pseudo, heard.pseudo);
    // The upper 4 bits of the interval field of version 3 are reserved, and sent as 0.
    let reserved = matches!(advert.body, Body::V3 { .. }) && vrrp[4] >> 4 != 0;
    if reserved {
        assert_eq!(Advertisement::decode(&again, s, d), Ok((advert, pseudo)));
    } else {
        assert_eq!(again, vrrp);
    }
    let whole = match (heard.sequence, expected.auth, s, d) {
        (Some(number), Auth::Ah(key), IpAddr::V4(s), IpAddr::V4(d)) => {
            ah::seal(s, d, packet.mark, number, &key, vrrp).unwrap()
        }
        _ => ip::write(s, d, IP_PROTOCOL, packet.mark, vrrp).unwrap(),
    };
    let written = Packet::read(&whole).unwrap();
    assert_eq!((written.source, written.destination), (s, d));
    assert_eq!(
        (written.mark, written.protocol),
        (packet.mark, packet.protocol)
    );
    // Options and the TTL count for the authentication header, and these are not written again.
    if heard.sequence.is_none() || packet.header.len() == ip::V4_HEADER && packet.ttl == ip::TTL {
        assert_eq!(written.payload, packet.payload);
    }
}

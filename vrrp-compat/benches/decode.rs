//! How many received packets one core reads and judges in a second. The goal is two million: one node has to keep
//! up with a flood on a link of 1 Gbit/s (1.5 million packets) and still hear the owner.

use std::hint::black_box;
use std::time::Duration;

use buoy_vrrp_compat::accept::{self, Auth, Delivery, Expected, Version};
use buoy_vrrp_compat::ip::Packet;
use buoy_vrrp_compat::packet::{GROUP_V4, GROUP_V6, PseudoHeader};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

struct Case {
    name: &'static str,
    expected: Expected,
    packet: Vec<u8>,
}

fn case(
    name: &'static str,
    version: Version,
    auth: Auth,
    source: &str,
    addresses: &[&str],
) -> Case {
    let expected = Expected {
        vrid: 51,
        version,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        interval: Duration::from_secs(1),
        auth,
        delivery: Delivery::Multicast,
    };
    let source: std::net::IpAddr = source.parse().unwrap();
    let group = if source.is_ipv4() {
        GROUP_V4.into()
    } else {
        GROUP_V6.into()
    };
    let packet = expected
        .packet(150, source, group, 1, PseudoHeader::Standard, 1)
        .unwrap();
    Case {
        name,
        expected,
        packet,
    }
}

fn decode(c: &mut Criterion) {
    let key = Auth::key(b"1111");
    let (v4, v6) = ("10.77.0.11", "fe80::11");
    let one = ["10.77.0.200"];
    let three = ["10.77.0.200", "10.77.0.201", "10.77.0.7"];
    let six = ["fe80::77:200", "fd77::200"];
    let mut cases = vec![
        case("v2_pass_1", Version::V2, Auth::Pass(key), v4, &one),
        case("v3_ipv4_3", Version::V3, Auth::None, v4, &three),
        case("v3_ipv6_2", Version::V3, Auth::None, v6, &six),
        case("v2_ah_1", Version::V2, Auth::Ah(key), v4, &one),
    ];
    let mut flood = case("v2_bad_checksum", Version::V2, Auth::Pass(key), v4, &one);
    flood.packet[26] ^= 1;
    let own = ["10.77.0.12".parse().unwrap(), "fe80::12".parse().unwrap()];
    // A refusal would be measured as a fast success.
    for case in &cases {
        let packet = Packet::read(&case.packet).unwrap();
        accept::judge(&case.expected, &packet, &own)
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
    cases.push(flood);
    let mut group = c.benchmark_group("decode_and_judge");
    group.throughput(Throughput::Elements(1));
    for case in &cases {
        group.bench_function(case.name, |b| {
            b.iter(|| {
                let packet = Packet::read(black_box(&case.packet)).unwrap();
                accept::judge(black_box(&case.expected), &packet, &own)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);

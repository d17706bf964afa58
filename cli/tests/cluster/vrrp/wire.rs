//! What Buoy sends, as tshark and a neighbour's capture have it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use buoy_lab::legacy::tshark::{Packet, dissect};
use buoy_lab::sys::clock::{duration_ns, ns_to_ms};
use buoy_vrrp_compat::accept::Auth;
use buoy_vrrp_compat::packet::IP_PROTOCOL;
use buoy_vrrp_compat::{ah, ip};

use super::{ADDRESS_V6, Bed, GROUP, INTERVAL, LINK_LOCAL, put};
use crate::harness::{Cluster, report, v4, wait};

/// A VIP of its own for each way to speak.
struct Face {
    name: &'static str,
    vrid: u8,
    addresses: Vec<(IpAddr, u8)>,
    more: &'static str,
    version: u8,
    protocols: &'static str,
    destination: &'static str,
    /// Destinations of one advertisement that the neighbour's port sees.
    watched: IpAddr,
}

fn faces() -> Vec<Face> {
    let four = |name, vrid, last, more, version, protocols| Face {
        name,
        vrid,
        addresses: vec![(v4(last), 24)],
        more,
        version,
        protocols,
        destination: "224.0.0.18",
        watched: v4(last),
    };
    let ip = "eth:ethertype:ip:vrrp";
    let pass = "version = 2\nauth = \"pass\"\npassword = \"1111\"";
    let header = "version = 2\nauth = \"ah\"\npassword = \"1111\"";
    let fast = "interval = \"200ms\"";
    vec![
        four("pass", 51, 51, pass, 2, ip),
        four("ah", 52, 52, header, 2, "eth:ethertype:ip:ah:vrrp"),
        four("three", 53, 53, fast, 3, ip),
        Face {
            name: "six",
            vrid: 54,
            addresses: vec![(LINK_LOCAL, 64), (ADDRESS_V6, 64)],
            more: fast,
            version: 3,
            protocols: "eth:ethertype:ipv6:vrrp",
            destination: "ff02::12",
            watched: ADDRESS_V6,
        },
        Face {
            destination: "192.168.192.201",
            ..four(
                "unicast",
                55,
                55,
                "interval = \"200ms\"\nunicast_peers = [\"192.168.192.201\"]",
                3,
                ip,
            )
        },
    ]
}

/// The MAC of a node, as tshark writes it.
fn mac(cluster: &Cluster, node: &str) -> String {
    let bytes = cluster.lab.topology().mac(node);
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// How many advertisements a node has sent, for each of its VIPs.
fn sent(cluster: &Cluster, node: &str) -> BTreeMap<String, u64> {
    let status = cluster.json(node, &["vrrp", "status"]);
    let routers = status["routers"].as_array().unwrap().iter();
    let of = |r: &serde_json::Value| (r["vip"].to_string(), r["sent"].as_u64().unwrap());
    routers.map(of).collect()
}

#[test]
fn tshark_finds_no_fault_and_only_the_holder_speaks() {
    let faces = faces();
    let watched: Vec<IpAddr> = faces.iter().map(|f| f.watched).collect();
    let Some(bed) = Bed::empty(&["tshark"], 1, &watched) else {
        return;
    };
    let (cluster, host) = (&bed.cluster, bed.host(1));
    let capture = host.capture("buoy.pcap").unwrap();
    for face in &faces {
        let text = format!("vrid = {}\n{}", face.vrid, face.more);
        put(cluster, face.name, &face.addresses, "", &text);
    }
    let on = |node: &str| {
        for face in &faces {
            cluster.wait_on(face.watched, node);
        }
        let before = sent(cluster, node);
        wait("all have spoken twice more", || {
            let now = sent(cluster, node);
            before.iter().all(|(vip, n)| now.get(vip) >= Some(&(n + 2)))
        });
    };
    on("n1");
    for node in ["n2", "n1"] {
        for face in &faces {
            cluster.ok("n3", &["vip", "move", face.name, "--to", node]);
        }
        on(node);
    }
    for face in &faces {
        cluster.ok("n3", &["vip", "delete", face.name]);
        cluster.wait_silent(face.watched);
    }
    // The last advertisement goes before its router does; the address may be gone before either.
    for node in ["n1", "n2"] {
        wait("no router is left", || sent(cluster, node).is_empty());
    }
    // What was sent until then is in the capture when it has ended.
    let path = capture.stop().unwrap();
    let packets = dissect(&path).unwrap();
    let macs: BTreeMap<String, &str> = ["n1", "n2", "n3"]
        .map(|node| (mac(cluster, node), node))
        .into();
    let spoken = |p: &&Packet| {
        ["vrrp", "arp", "icmpv6"]
            .iter()
            .any(|it| p.protocols.ends_with(it))
    };
    let heard: Vec<(&str, &Packet)> = (packets.iter().filter(spoken))
        .filter_map(|p| Some((*macs.get(&p.mac)?, p)))
        .collect();
    let wrong: Vec<_> = heard
        .iter()
        .filter(|(_, p)| !p.warnings.is_empty())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for face in &faces {
        is_as_it_should(face, &heard);
    }
    headers_are_right(&path, &macs.into_keys().collect::<Vec<_>>());
    cluster.never_dual();
}

fn is_as_it_should(face: &Face, sent: &[(&str, &Packet)]) {
    let mine: Vec<_> = (sent.iter())
        .filter_map(|(node, p)| Some((*node, *p, p.vrrp?)))
        .filter(|(_, _, v)| v.vrid == face.vrid)
        .collect();
    let name = face.name;
    assert!(mine.len() > 6, "{name}: {mine:#?}");
    for (_, packet, advertisement) in &mine {
        assert_eq!(advertisement.version, face.version, "{packet:#?}");
        assert_eq!(packet.protocols, face.protocols);
        assert_eq!(packet.destination, face.destination);
    }
    // One holder after the other, and none comes back of whom it was taken.
    let mut holders = mine.clone();
    holders.dedup_by_key(|(node, ..)| *node);
    let holders: Vec<&str> = holders.iter().map(|(node, ..)| *node).collect();
    assert_eq!(holders, ["n1", "n2", "n1"], "{name}");
    let moves = mine.windows(2).filter(|pair| pair[0].0 != pair[1].0);
    for pair in moves {
        report(
            &format!("{name}: from the last advertisement of one to the first of the other"),
            ns_to_ms(pair[1].1.at - pair[0].1.at),
        );
    }
    // Priority 0 when it was deleted, once, and at no other time.
    let priorities: Vec<u8> = mine.iter().map(|(_, _, v)| v.priority).collect();
    let (last, before) = priorities.split_last().unwrap();
    assert_eq!(*last, 0, "{name}: {priorities:?}");
    assert!(before.iter().all(|p| *p == GROUP), "{name}: {priorities:?}");
    // Told to the neighbours, by each of the three that came up.
    for (address, _) in &face.addresses {
        let told = |node: &str| {
            let of = |p: &Packet| {
                p.source == address.to_string()
                    && p.protocols
                        .ends_with(if address.is_ipv4() { "arp" } else { "icmpv6" })
            };
            sent.iter().filter(|(n, p)| *n == node && of(p)).count()
        };
        assert!(told("n1") >= 2 && told("n2") >= 1, "{name}: {address}");
    }
    // Intervals of version 3 are kept: on a busy machine not each of them, but most.
    if face.version == 3 {
        let gaps = mine.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        let mut gaps: Vec<u64> = gaps.map(|pair| pair[1].1.at - pair[0].1.at).collect();
        gaps.sort_unstable();
        let middle = gaps[gaps.len() / 2];
        let wanted = duration_ns(INTERVAL);
        assert!(middle.abs_diff(wanted) < wanted / 10, "{name}: {middle}");
    }
}

/// What tshark does not judge: TTL, the integrity value of the authentication header, and that no identification is
/// 0, which the kernel would have replaced.
fn headers_are_right(path: &Path, macs: &[String]) {
    let key = Auth::key(b"1111");
    let (mut opened, mut six) = (0, 0);
    let mut last: BTreeMap<IpAddr, u32> = BTreeMap::new();
    for frame in frames(path) {
        let (header, bytes) = frame.split_at(14);
        let from: Vec<String> = header[6..12].iter().map(|b| format!("{b:02x}")).collect();
        let is_ip = matches!(header, [.., 0x08, 0x00] | [.., 0x86, 0xdd]);
        if !is_ip || !macs.contains(&from.join(":")) {
            continue;
        }
        let packet = ip::Packet::read(bytes).unwrap();
        match packet.protocol {
            ah::IP_PROTOCOL_AH => {
                let inner = ah::open(&packet, &key).unwrap();
                let before = last.insert(packet.source, inner.sequence);
                assert!(before < Some(inner.sequence), "{before:?}, {inner:?}");
                opened += 1;
            }
            IP_PROTOCOL => {}
            _ => continue,
        }
        assert_eq!((packet.ttl, packet.tos), (255, 0xc0), "{packet:?}");
        assert_ne!(packet.mark, 0);
        if let IpAddr::V6(source) = packet.source {
            assert!(source.is_unicast_link_local(), "{source}");
            six += 1;
        }
    }
    assert!(opened > 6 && six > 6, "{opened}, {six}");
}

/// The frames of a recording.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[24..];
    let mut frames = Vec::new();
    while rest.len() >= 16 {
        let kept = u32::from_le_bytes(rest[8..12].try_into().unwrap());
        let (frame, more) = rest[16..].split_at(usize::try_from(kept).unwrap());
        frames.push(frame.to_vec());
        rest = more;
    }
    frames
}

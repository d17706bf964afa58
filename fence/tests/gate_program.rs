//! The gate's program on crafted frames: each rule, both ways.

mod common;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/trial.rs"]
mod trial;

use std::net::{IpAddr, Ipv6Addr};

use buoy_fence::gate::Direction::{Egress, Ingress};
use buoy_fence::gate::{Gate, Verdict};
use common::skip_without_gate;
use frames::*;
use trial::*;

#[test]
fn arp() {
    if skip_without_gate() {
        return;
    }
    let (vip, peer, none) = (v4(VIP4), v4(PEER4), v4("0.0.0.0"));
    fenced("request for the VIP", Ingress, &frames::arp(1, peer, vip));
    fenced("probe for the VIP", Ingress, &frames::arp(1, none, vip));
    fenced("answer to the VIP", Ingress, &frames::arp(2, peer, vip));
    fenced("answer of the VIP", Egress, &frames::arp(2, vip, peer));
    fenced("request by the VIP", Egress, &frames::arp(1, vip, peer));
    fenced("our announcement", Egress, &frames::arp(1, vip, vip));
    // This node as a client of a VIP that another node owns.
    free(
        "our request for another's VIP",
        Egress,
        &frames::arp(1, peer, vip),
    );
    free("the owner's answer", Ingress, &frames::arp(2, vip, peer));
    free("the owner's question", Ingress, &frames::arp(1, vip, peer));
    free(
        "the owner's announcement, request form",
        Ingress,
        &frames::arp(1, vip, vip),
    );
    free(
        "the owner's announcement, reply form",
        Ingress,
        &frames::arp(2, vip, vip),
    );
    free(
        "other addresses",
        Ingress,
        &frames::arp(1, peer, v4("192.168.192.14")),
    );
    free(
        "other addresses",
        Egress,
        &frames::arp(2, peer, v4("192.168.192.14")),
    );
}

#[test]
fn ipv4() {
    if skip_without_gate() {
        return;
    }
    let (vip, peer) = (v4(VIP4), v4(PEER4));
    fenced("to the VIP", Ingress, &frames::ipv4(peer, vip));
    fenced("from the VIP", Egress, &frames::ipv4(vip, peer));
    fenced(
        "from the VIP to itself, in",
        Ingress,
        &frames::ipv4(vip, vip),
    );
    fenced(
        "from the VIP to itself, out",
        Egress,
        &frames::ipv4(vip, vip),
    );
    for (name, packet) in [
        ("with options", ipv4_packet(peer, vip, 40, 0)),
        ("first fragment", ipv4_packet(peer, vip, 0, 0x2000)),
        ("later fragment", ipv4_packet(peer, vip, 0, 185)),
    ] {
        fenced(name, Ingress, &frame(ETH_IP, &packet));
    }
    free("to another's VIP", Egress, &frames::ipv4(peer, vip));
    free("from another's VIP", Ingress, &frames::ipv4(vip, peer));
    free(
        "other addresses",
        Ingress,
        &frames::ipv4(peer, v4("192.168.192.14")),
    );
    free(
        "other addresses",
        Egress,
        &frames::ipv4(peer, v4("192.168.192.14")),
    );
}

#[test]
fn ipv6() {
    if skip_without_gate() {
        return;
    }
    let (vip, peer) = (v6(VIP6), v6(PEER6));
    fenced(
        "to the VIP",
        Ingress,
        &frames::ipv6(peer, vip, TCP, &[0; 20]),
    );
    fenced(
        "from the VIP",
        Egress,
        &frames::ipv6(vip, peer, TCP, &[0; 20]),
    );
    let (next, payload) = behind(&[FRAGMENT], 0, UDP, &[0; 8]);
    fenced(
        "fragment to the VIP",
        Ingress,
        &frames::ipv6(peer, vip, next, &payload),
    );
    fenced(
        "fragment from the VIP",
        Egress,
        &frames::ipv6(vip, peer, next, &payload),
    );
    free(
        "to another's VIP",
        Egress,
        &frames::ipv6(peer, vip, TCP, &[0; 20]),
    );
    free(
        "from another's VIP",
        Ingress,
        &frames::ipv6(vip, peer, TCP, &[0; 20]),
    );
    free(
        "other addresses",
        Ingress,
        &frames::ipv6(peer, v6("fd00:192::14"), UDP, &[0; 8]),
    );
}

#[test]
fn neighbour_discovery() {
    if skip_without_gate() {
        return;
    }
    let (vip, peer, none) = (v6(VIP6), v6(PEER6), Ipv6Addr::UNSPECIFIED);
    let (group, all) = (solicited_node(vip), v6("ff02::1"));
    fenced(
        "solicitation, multicast",
        Ingress,
        &nd(SOLICITATION, peer, group, vip),
    );
    fenced(
        "solicitation, unicast to a node's own address",
        Ingress,
        &nd(SOLICITATION, peer, v6("fe80::7"), vip),
    );
    fenced(
        "another's duplicate address detection",
        Ingress,
        &nd(SOLICITATION, none, group, vip),
    );
    fenced(
        "our advertisement",
        Egress,
        &nd(ADVERTISEMENT, v6("fe80::7"), peer, vip),
    );
    fenced(
        "our announcement",
        Egress,
        &nd(ADVERTISEMENT, vip, all, vip),
    );
    fenced(
        "our duplicate address detection",
        Egress,
        &nd(SOLICITATION, none, group, vip),
    );
    fenced(
        "question by the VIP",
        Egress,
        &nd(SOLICITATION, vip, solicited_node(peer), peer),
    );
    // Half of a source is none of `::`.
    for source in ["fd00:192::", "::192:99"] {
        free(
            "our question",
            Egress,
            &nd(SOLICITATION, v6(source), group, vip),
        );
    }
    // This node as a client of a VIP that another node owns.
    free(
        "our question for another's VIP",
        Egress,
        &nd(SOLICITATION, peer, group, vip),
    );
    free(
        "the owner's answer",
        Ingress,
        &nd(ADVERTISEMENT, vip, peer, vip),
    );
    free(
        "the owner's announcement",
        Ingress,
        &nd(ADVERTISEMENT, vip, all, vip),
    );
    free(
        "other targets",
        Ingress,
        &nd(SOLICITATION, peer, group, v6("fd00:192::14")),
    );
    free(
        "other targets",
        Egress,
        &nd(ADVERTISEMENT, peer, all, v6("fd00:192::14")),
    );
    // The same bytes in messages that have no target.
    for kind in [128, 129, 133, 134, 137] {
        free("other ICMPv6, in", Ingress, &nd(kind, peer, group, vip));
        free("other ICMPv6, out", Egress, &nd(kind, peer, all, vip));
    }
}

/// The destination is one VIP that is open, the target another that is shut.
#[test]
fn both_addresses_of_a_solicitation_count() {
    if skip_without_gate() {
        return;
    }
    let mut gate = shut_gate();
    let other: IpAddr = ip("fd00:192::14");
    gate.manage(other).expect("manage");
    gate.store(2, FOREVER).expect("store");
    gate.open(other, 2).expect("open");
    let packet = nd(SOLICITATION, v6(PEER6), v6("fd00:192::14"), v6(VIP6));
    assert_eq!(gate.judge(Ingress, &packet).expect("judge"), Verdict::Drop);
    gate.open(ip(VIP6), 2).expect("open");
    assert_eq!(gate.judge(Ingress, &packet).expect("judge"), Verdict::Pass);
}

#[test]
fn other_protocols_pass() {
    if skip_without_gate() {
        return;
    }
    // The bytes of an IPv4 packet to the VIP under other types: LLDP, MPLS, RARP, an 802.3 length.
    let packet = ipv4_packet(v4(PEER4), v4(VIP4), 0, 0);
    for ethertype in [0x88cc, 0x8847, 0x8035, 0x0040] {
        free("another ethertype", Ingress, &frame(ethertype, &packet));
    }
}

//! The gate's program on crafted frames: every header that can stand in the way, and frames cut short.

mod common;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/trial.rs"]
mod trial;

use buoy_fence::gate::Direction::{Egress, Ingress};
use buoy_fence::gate::{MAX_EXTENSION_HEADERS, MAX_VLAN_TAGS, Verdict};
use common::skip_without_gate;
use frames::*;
use trial::*;

#[test]
fn neighbour_discovery_behind_extension_headers() {
    if skip_without_gate() {
        return;
    }
    let (vip, peer) = (v6(VIP6), v6(PEER6));
    let question = |headers: &[u8], units| {
        let (next, payload) = behind(headers, units, ICMPV6, &nd_message(SOLICITATION, vip));
        frames::ipv6(peer, solicited_node(vip), next, &payload)
    };
    let answer = |headers: &[u8], units| {
        let (next, payload) = behind(headers, units, ICMPV6, &nd_message(ADVERTISEMENT, vip));
        frames::ipv6(peer, v6("ff02::1"), next, &payload)
    };
    for kind in [
        HOP_BY_HOP,
        DESTINATION,
        ROUTING,
        FRAGMENT,
        AUTHENTICATION,
        135,
        139,
        140,
    ] {
        fenced(
            &format!("header {kind}, in"),
            Ingress,
            &question(&[kind], 0),
        );
        fenced(&format!("header {kind}, out"), Egress, &answer(&[kind], 0));
    }
    for units in [1, 5, 31] {
        fenced(
            "long options",
            Ingress,
            &question(&[HOP_BY_HOP, DESTINATION], units),
        );
    }
    let rfc8200 = [
        HOP_BY_HOP,
        DESTINATION,
        ROUTING,
        FRAGMENT,
        AUTHENTICATION,
        DESTINATION,
    ];
    fenced("all in their order, in", Ingress, &question(&rfc8200, 2));
    fenced("all in their order, out", Egress, &answer(&rfc8200, 2));
    assert_eq!(
        MAX_EXTENSION_HEADERS, 8,
        "RFC 8200 names 6, and destination options may come twice"
    );
    let most = [DESTINATION; MAX_EXTENSION_HEADERS];
    fenced(
        "as many as are looked through",
        Ingress,
        &question(&most, 0),
    );
    // The kernel's answer to it has none, and is caught on its way out.
    free(
        "one more",
        Ingress,
        &question(&[DESTINATION; MAX_EXTENSION_HEADERS + 1], 0),
    );
    // Headers whose inside cannot be read, or that end the chain.
    for kind in [ESP, NO_NEXT, TCP, UDP] {
        free(&format!("header {kind}"), Ingress, &question(&[kind], 0));
    }
}

/// Only the first fragment has the ICMPv6 header: the same bytes in a later one are data.
#[test]
fn later_fragments_have_no_target() {
    if skip_without_gate() {
        return;
    }
    let (vip, peer) = (v6(VIP6), v6(PEER6));
    let fragment = |offset: u16| {
        let mut payload = vec![ICMPV6, 0];
        payload.extend((offset << 3 | 1).to_be_bytes());
        payload.extend([0, 0, 0, 9]);
        payload.extend(nd_message(SOLICITATION, vip));
        frames::ipv6(peer, solicited_node(vip), FRAGMENT, &payload)
    };
    fenced("first fragment", Ingress, &fragment(0));
    for offset in [1, 32, 0x1fff] {
        free("later fragment", Ingress, &fragment(offset));
    }
}

#[test]
fn vlan_tags_in_the_frame() {
    if skip_without_gate() {
        return;
    }
    let (vip, peer) = (v4(VIP4), v4(PEER4));
    let arp = arp_packet(1, peer, vip);
    let ipv4 = ipv4_packet(peer, vip, 0, 0);
    let nd = ipv6_packet(
        v6(PEER6),
        solicited_node(v6(VIP6)),
        ICMPV6,
        &nd_message(SOLICITATION, v6(VIP6)),
    );
    let (q, ad) = ((VLAN, 100), (QINQ, 7));
    for tags in [&[q][..], &[ad], &[q, q], &[ad, q]] {
        fenced("ARP", Ingress, &tagged(tags, ETH_ARP, &arp));
        fenced("IPv4", Ingress, &tagged(tags, ETH_IP, &ipv4));
        fenced("ND", Ingress, &tagged(tags, ETH_IPV6, &nd));
        let out = ipv4_packet(vip, peer, 0, 0);
        fenced("IPv4 out", Egress, &tagged(tags, ETH_IP, &out));
    }
    // The kernel keeps the outermost tag of real traffic outside the frame: this would be a fourth, seen again
    // by the gate of the VLAN device below it.
    free(
        "too many tags",
        Ingress,
        &tagged(&[q; MAX_VLAN_TAGS + 1], ETH_ARP, &arp),
    );
}

/// A frame cut short before the field that decides cannot be used by any stack, and is let pass; from the
/// byte on that completes the field it is fenced.
#[test]
fn frames_shorter_than_their_headers() {
    if skip_without_gate() {
        return;
    }
    let (vip, peer) = (v4(VIP4), v4(PEER4));
    let gate = shut_gate();
    let question = nd(SOLICITATION, v6(PEER6), solicited_node(v6(VIP6)), v6(VIP6));
    let announcement = nd(ADVERTISEMENT, v6(PEER6), v6("ff02::1"), v6(VIP6));
    // (what, direction, the frame, length at which its VIP is complete)
    let cases = [
        ("ARP in", Ingress, frames::arp(1, peer, vip), 14 + 28),
        ("ARP out", Egress, frames::arp(2, vip, peer), 14 + 18),
        (
            "IPv6 in",
            Ingress,
            frames::ipv6(v6(PEER6), v6(VIP6), NO_NEXT, &[]),
            14 + 40,
        ),
        (
            "IPv6 out",
            Egress,
            frames::ipv6(v6(VIP6), v6(PEER6), NO_NEXT, &[]),
            14 + 40,
        ),
        ("solicitation in", Ingress, question, 14 + 40 + 24),
        ("advertisement out", Egress, announcement, 14 + 40 + 24),
        ("IPv4 in", Ingress, frames::ipv4(peer, vip), 14 + 20),
        ("IPv4 out", Egress, frames::ipv4(vip, peer), 14 + 16),
    ];
    for (name, direction, frame, complete) in cases {
        for length in 14..=frame.len() {
            let expected = if length < complete {
                Verdict::Pass
            } else {
                Verdict::Drop
            };
            match gate.judge(direction, &frame[..length]) {
                Ok(got) => assert_eq!(got, expected, "{name}, {length} bytes"),
                // Kernels that refuse a trial with half an IP header: no such packet reaches the program there.
                Err(e) => assert!(
                    length < complete.max(14 + 40),
                    "{name}, {length} bytes: {e}"
                ),
            }
        }
    }
}

//! Stopped between any two steps of a renewal, and of a VIP's way up and down: when it goes on, not one packet of a VIP.

use std::time::Instant;

use buoy_fence::fault::{Flow, Mode};
use buoy_fence::gate::GateKind;
use buoy_lab::sys::clock::now_ns;

use super::bed::{At, Bed, WEB_A6, other, places};
use crate::harness::{WEB_A, WEB_B, wait};

/// Stops a node at a place, waits until the other one has taken over, and lets it go on place by place. Returns what
/// was wrong. The node has all VIPs, or, at a place on the way up, is about to get one.
pub fn stop_at(bed: &Bed, node: &'static str, at: At) -> Vec<String> {
    let heir = other(node);
    bed.gather(match at.point.flow {
        Flow::Renewal | Flow::Down => node,
        Flow::Up => heir,
    });
    let from = now_ns();
    let before = bed.count(node);
    bed.order(node, Mode::Step, at);
    let moving = match at.point.flow {
        Flow::Renewal => None,
        Flow::Up => Some(bed.moving(node)),
        Flow::Down => Some(bed.moving(heir)),
    };
    let stopped = bed.wait_noted(node, before, at);
    bed.wait_stopped(node);
    for address in [WEB_A.1, WEB_A6, WEB_B.1] {
        // Not "only the heir": a bug may let both answer.
        wait(
            &format!("{heir} answers for {address}, {node} being stopped at {at:?}"),
            || {
                bed.cluster
                    .answering(address)
                    .iter()
                    .any(|port| port == heir)
            },
        );
    }
    if let Some(mut moving) = moving {
        moving.wait().unwrap();
        bed.nobodys_order(WEB_A.0);
    }
    let awake = now_ns();
    let steps = bed.step(node);
    assert!(steps > 3, "{node} took {steps} steps after {at:?}");
    bed.wrongs(from, node, stopped, awake)
}

fn everywhere(gate: GateKind, all: &[(Flow, Vec<usize>)]) {
    let Some(bed) = Bed::new(gate, None) else {
        return;
    };
    let began = Instant::now();
    let (mut node, mut count) = ("n1", 0);
    for (flow, numbers) in all {
        for number in numbers {
            // Which peers there are depends on who is stopped, but not how many.
            let at = places(*flow, gate, node)[*number];
            let wrongs = stop_at(&bed, node, at);
            assert!(wrongs.is_empty(), "{node} stopped at {at:?}: {wrongs:#?}");
            bed.settled();
            // The next one is where the VIPs are now, or, on the way up, are not.
            node = match flow {
                Flow::Renewal | Flow::Down => other(node),
                Flow::Up => node,
            };
            count += 1;
        }
    }
    bed.converged();
    bed.cluster.never_dual();
    bed.nothing_waits();
    println!(
        "  {gate}: stopped at {count} places in {:.0?}",
        began.elapsed()
    );
}

/// Every place of a renewal.
fn in_a_renewal(gate: GateKind) {
    let count = places(Flow::Renewal, gate, "n1").len();
    everywhere(gate, &[(Flow::Renewal, (0..count).collect())]);
}

/// Every place up and down that only this gate has, and every other one of the rest: `first` or the one after it.
fn on_the_way(gate: GateKind, first: usize) {
    let of = |flow| {
        let all = places(flow, gate, "n1");
        let mut common = 0;
        let mut chosen = Vec::new();
        for (number, at) in all.iter().enumerate() {
            if at.point.gate.is_some() || common % 2 == first {
                chosen.push(number);
            }
            common += usize::from(at.point.gate.is_none());
        }
        (flow, chosen)
    };
    everywhere(gate, &[of(Flow::Up), of(Flow::Down)]);
}

#[test]
fn a_daemon_stopped_anywhere_in_a_renewal_wakes_up_to_a_shut_ebpf_gate() {
    in_a_renewal(GateKind::Ebpf);
}

#[test]
fn a_daemon_stopped_anywhere_in_a_renewal_wakes_up_to_a_shut_nftables_gate() {
    in_a_renewal(GateKind::Nft);
}

#[test]
fn a_daemon_stopped_on_a_vips_way_up_or_down_wakes_up_to_a_shut_ebpf_gate() {
    on_the_way(GateKind::Ebpf, 0);
}

#[test]
fn a_daemon_stopped_on_a_vips_way_up_or_down_wakes_up_to_a_shut_nftables_gate() {
    on_the_way(GateKind::Nft, 1);
}

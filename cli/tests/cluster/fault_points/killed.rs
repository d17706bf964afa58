//! Killed in the middle of holding VIPs, and at every step up and down, and started again by a supervisor, within the
//! lease and after it.

use std::time::Instant;

use buoy_fence::fault::{Flow, Mode};
use buoy_fence::gate::GateKind;

use super::bed::{At, Bed, other, places};
use crate::harness::LIMIT;

/// When the supervisor starts a daemon that was killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Restart {
    /// At once: the lease still runs.
    Within,
    /// When another node has taken over.
    After,
}

impl Restart {
    const BOTH: [Restart; 2] = [Restart::Within, Restart::After];
}

/// Kills `node` as it renews, or as web-a goes up or down there, starts it again, and waits until all is well.
fn kill_at(bed: &Bed, node: &'static str, at: At, restart: Restart) {
    let heir = other(node);
    let (from, to) = match at.point.flow {
        Flow::Renewal => (node, None),
        Flow::Up => (heir, Some(node)),
        Flow::Down => (node, Some(heir)),
    };
    bed.gather(from);
    let daemon = bed.cluster.process(node);
    let before = bed.count(node);
    bed.order(node, Mode::Kill, at);
    let moving = to.map(|to| bed.moving(to));
    bed.wait_noted(node, before, at);
    daemon.wait_exit(LIMIT).unwrap();
    if restart == Restart::After {
        bed.taken_over(node);
    }
    bed.start(node);
    if let Some(mut moving) = moving {
        // It may have been answered or not: the leader may have died.
        moving.wait().unwrap();
    }
    bed.converged();
    bed.cluster.never_dual();
}

/// `order` of the restarts: with the other one every place has seen both.
fn every_place(gate: GateKind, order: [Restart; 2]) {
    let Some(bed) = Bed::new(gate, None) else {
        return;
    };
    let began = Instant::now();
    let mut all = places(Flow::Up, gate, "n1");
    all.extend(places(Flow::Down, gate, "n1"));
    let (of_one, of_both): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|at| at.point.gate.is_some());
    for (at, restart) in of_both.iter().zip(order.iter().cycle()) {
        kill_at(&bed, "n1", *at, *restart);
    }
    // What a renewal is at makes no difference to who is killed.
    let renewing = places(Flow::Renewal, gate, "n1")[0];
    for at in of_one.iter().chain([&renewing]) {
        for restart in Restart::BOTH {
            kill_at(&bed, "n1", *at, restart);
        }
    }
    bed.nothing_waits();
    println!(
        "  {gate}: killed at {} places in {:.0?}",
        of_both.len() + of_one.len() + 1,
        began.elapsed()
    );
}

#[test]
fn a_daemon_killed_on_a_vips_way_up_or_down_leaves_nothing_behind_an_ebpf_gate() {
    every_place(GateKind::Ebpf, [Restart::Within, Restart::After]);
}

#[test]
fn a_daemon_killed_on_a_vips_way_up_or_down_leaves_nothing_behind_an_nftables_gate() {
    every_place(GateKind::Nft, [Restart::After, Restart::Within]);
}

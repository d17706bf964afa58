//! Every fault point, in the order in which a daemon comes by.

use super::{Each, Flow, Point};
use crate::gate::GateKind::{self, Ebpf, Nft};

const fn point(flow: Flow, name: &'static str) -> Point {
    Point {
        name,
        flow,
        gate: None,
        each: Each::Time,
    }
}

const fn each(flow: Flow, name: &'static str, each: Each) -> Point {
    let mut point = point(flow, name);
    point.each = each;
    point
}

const fn only(gate: GateKind, flow: Flow, name: &'static str) -> Point {
    let mut point = point(flow, name);
    point.gate = Some(gate);
    point
}

/// Every place.
pub const POINTS: &[Point] = &[
    // The lease thread renews.
    point(Flow::Renewal, "renewal.due"),
    point(Flow::Renewal, "renewal.timed"),
    point(Flow::Renewal, "renewal.decided"),
    point(Flow::Renewal, "arm.before"),
    only(Nft, Flow::Renewal, "nft.arm.planned"),
    only(Nft, Flow::Renewal, "nft.arm.posted"),
    only(Nft, Flow::Renewal, "nft.arm.confirmed"),
    point(Flow::Renewal, "arm.after"),
    point(Flow::Renewal, "own.judged"),
    point(Flow::Renewal, "own.timed"),
    point(Flow::Renewal, "own.counted"),
    each(Flow::Renewal, "send.encoded", Each::Peer),
    each(Flow::Renewal, "send.queued", Each::Peer),
    point(Flow::Renewal, "renewal.done"),
    point(Flow::Renewal, "answer.arrived"),
    each(Flow::Renewal, "answer.decoded", Each::Peer),
    point(Flow::Renewal, "answer.timed"),
    point(Flow::Renewal, "answer.counted"),
    point(Flow::Renewal, "deadline.noted"),
    only(Ebpf, Flow::Renewal, "ebpf.store"),
    only(Ebpf, Flow::Renewal, "ebpf.stored"),
    only(Nft, Flow::Renewal, "nft.move.planned"),
    only(Nft, Flow::Renewal, "nft.move.posted"),
    only(Nft, Flow::Renewal, "nft.move.confirmed"),
    only(Nft, Flow::Renewal, "nft.move.noted"),
    point(Flow::Renewal, "deadline.moved"),
    point(Flow::Renewal, "answer.done"),
    // A quorum grants a VIP: gate, address, announcement.
    point(Flow::Up, "up.granted"),
    only(Nft, Flow::Up, "nft.open.posted"),
    each(Flow::Up, "up.rested", Each::Family),
    point(Flow::Up, "up.opened"),
    point(Flow::Up, "up.told"),
    point(Flow::Up, "up.adding"),
    point(Flow::Up, "up.writing"),
    point(Flow::Up, "up.written"),
    point(Flow::Up, "up.added"),
    point(Flow::Up, "up.announcing"),
    each(Flow::Up, "up.frame", Each::Family),
    point(Flow::Up, "up.announced"),
    point(Flow::Up, "up.reported"),
    // A VIP moves away: gate, announcement, address, release.
    point(Flow::Down, "down.decided"),
    only(Nft, Flow::Down, "nft.shut.posted"),
    each(Flow::Down, "down.one-shut", Each::Family),
    point(Flow::Down, "down.shut"),
    point(Flow::Down, "down.told"),
    point(Flow::Down, "down.silencing"),
    point(Flow::Down, "down.quiet"),
    point(Flow::Down, "down.deleting"),
    point(Flow::Down, "down.deleted"),
    point(Flow::Down, "down.removed"),
    point(Flow::Down, "down.lowered"),
    point(Flow::Down, "down.reported"),
    point(Flow::Down, "release.heard"),
    point(Flow::Down, "release.counted"),
    point(Flow::Down, "release.queued"),
];

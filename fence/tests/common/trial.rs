//! Trials of the gate's program: a frame is fenced, or none of the gate's business.
#![allow(
    dead_code,
    reason = "every test file compiles its own copy and uses a part of it"
)]

use buoy_core::Mono;
use buoy_fence::gate::{Direction, EbpfGate, EbpfOptions, Gate, Verdict};

use crate::frames::ip;

pub const VIP4: &str = "192.168.192.13";
pub const PEER4: &str = "192.168.192.99";
pub const VIP6: &str = "fd00:192::13";
pub const PEER6: &str = "fd00:192::99";
pub const FOREVER: Mono = Mono(u64::MAX);

pub fn gate() -> EbpfGate {
    EbpfGate::new(EbpfOptions {
        capacity: 64,
        mapped: true,
    })
    .expect("a gate")
}

/// A gate with both VIPs shut.
pub fn shut_gate() -> EbpfGate {
    let mut gate = gate();
    gate.manage(ip(VIP4)).expect("manage");
    gate.manage(ip(VIP6)).expect("manage");
    gate
}

pub fn open(gate: &mut EbpfGate, at: Mono) {
    gate.store(1, at).expect("store");
    gate.open(ip(VIP4), 1).expect("open");
    gate.open(ip(VIP6), 1).expect("open");
}

/// The frame belongs to a VIP: dropped when shut and when expired, passed while the lease lasts.
#[track_caller]
pub fn fenced(name: &str, direction: Direction, frame: &[u8]) {
    let mut gate = gate();
    assert_eq!(
        gate.judge(direction, frame).expect("judge"),
        Verdict::Pass,
        "{name}: nothing managed"
    );
    gate.manage(ip(VIP4)).expect("manage");
    gate.manage(ip(VIP6)).expect("manage");
    assert_eq!(
        gate.judge(direction, frame).expect("judge"),
        Verdict::Drop,
        "{name}: not ours"
    );
    open(&mut gate, FOREVER);
    assert_eq!(
        gate.judge(direction, frame).expect("judge"),
        Verdict::Pass,
        "{name}: lease lasts"
    );
    // The last nanosecond of a lease, its deadline, and the first one after it.
    let deadline = Mono(0x1234_5678_9abc_def0);
    open(&mut gate, deadline);
    for (now, expected) in [
        (deadline.0 - 1, Verdict::Pass),
        (deadline.0, Verdict::Drop),
        (deadline.0 + 1, Verdict::Drop),
    ] {
        let verdict = gate.judge_at(direction, frame, Mono(now)).expect("judge");
        let from = now.wrapping_sub(deadline.0).cast_signed();
        assert_eq!(verdict, expected, "{name}: {from} ns after the deadline");
    }
    open(&mut gate, Mono::ZERO);
    assert_eq!(
        gate.judge(direction, frame).expect("judge"),
        Verdict::Drop,
        "{name}: lease over"
    );
}

/// The frame is none of the gate's business: passed even when everything is shut.
#[track_caller]
pub fn free(name: &str, direction: Direction, frame: &[u8]) {
    let gate = shut_gate();
    assert_eq!(
        gate.judge(direction, frame).expect("judge"),
        Verdict::Pass,
        "{name}"
    );
    assert_eq!(gate.dropped().expect("drops").total(), 0, "{name}: counted");
}

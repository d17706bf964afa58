//! The gate's deadlines: absolute, exclusive, a slot's own, and over by themselves.

mod common;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/trial.rs"]
mod trial;

use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::clock::boottime;
use buoy_fence::gate::Direction::Ingress;
use buoy_fence::gate::{Gate, GateError, SLOTS, Verdict};
use common::skip_without_gate;
use frames::*;
use trial::*;

/// `now < deadline` at the very packet: a frame judged between two readings of the clock was judged right.
#[test]
fn the_deadline_is_absolute_and_exclusive() {
    if skip_without_gate() {
        return;
    }
    let mut gate = shut_gate();
    let packet = frames::ipv4(v4(PEER4), v4(VIP4));
    open(&mut gate, FOREVER);
    let judge = |at: Mono| {
        gate.store(1, at).expect("store");
        let before = boottime();
        let verdict = gate.judge(Ingress, &packet).expect("judge");
        (before, verdict, boottime())
    };
    assert_eq!(judge(Mono(0)).1, Verdict::Drop);
    assert_eq!(judge(Mono(1)).1, Verdict::Drop);
    assert_eq!(judge(Mono(u64::MAX)).1, Verdict::Pass);
    // As signed numbers these would lie in the past.
    assert_eq!(judge(Mono(1 << 63)).1, Verdict::Pass);
    let (mut passed, mut dropped) = (0, 0);
    for step in 0..4_000u64 {
        // Deadlines from 1 us behind to 3 us ahead, so that many fall within the run itself.
        let at = Mono((boottime().0 + step).saturating_sub(1_000));
        let (before, verdict, after) = judge(at);
        match verdict {
            Verdict::Pass => {
                assert!(
                    before < at,
                    "passed although {before:?} was not before {at:?}"
                );
                passed += 1;
            }
            Verdict::Drop => {
                assert!(after >= at, "dropped although {after:?} was before {at:?}");
                dropped += 1;
            }
        }
    }
    assert!(
        dropped > 0,
        "no deadline of {passed} fell before its packet"
    );
}

#[test]
fn a_lease_ends_by_itself() {
    if skip_without_gate() {
        return;
    }
    let mut gate = shut_gate();
    let packet = frames::arp(1, v4(PEER4), v4(VIP4));
    let end = boottime() + Duration::from_millis(50);
    open(&mut gate, end);
    let mut passed = 0u32;
    loop {
        let before = boottime();
        let verdict = gate.judge(Ingress, &packet).expect("judge");
        let after = boottime();
        match verdict {
            Verdict::Pass => assert!(
                before < end,
                "passed at {before:?}, the lease ended at {end:?}"
            ),
            Verdict::Drop => assert!(
                after >= end,
                "dropped at {after:?}, the lease ends at {end:?}"
            ),
        }
        if verdict == Verdict::Drop {
            break;
        }
        passed += 1;
    }
    assert!(passed > 0, "never open");
    // Renewed by one store; shut for good in slot 0, whatever the deadlines say.
    gate.store(1, FOREVER).expect("store");
    assert_eq!(gate.judge(Ingress, &packet).expect("judge"), Verdict::Pass);
    (1..SLOTS).for_each(|slot| gate.store(slot, FOREVER).expect("store"));
    gate.shut(ip(VIP4)).expect("shut");
    assert_eq!(gate.judge(Ingress, &packet).expect("judge"), Verdict::Drop);
}

#[test]
fn slots_are_kept_apart() {
    if skip_without_gate() {
        return;
    }
    let mut gate = gate();
    let packet = |n: u32| frames::ipv4(v4(PEER4), v4(&format!("10.0.0.{n}")));
    for n in 1..SLOTS {
        gate.manage(ip(&format!("10.0.0.{n}"))).expect("manage");
        gate.open(ip(&format!("10.0.0.{n}")), n).expect("open");
    }
    let last = SLOTS - 1;
    for live in [1, 2, last] {
        gate.store(live, FOREVER).expect("store");
        for n in 1..SLOTS {
            let expected = if n == live {
                Verdict::Pass
            } else {
                Verdict::Drop
            };
            assert_eq!(
                gate.judge(Ingress, &packet(n)).expect("judge"),
                expected,
                "slot {n} with {live} live"
            );
        }
        gate.store(live, Mono::ZERO).expect("store");
    }
    for slot in [0, SLOTS, u32::MAX] {
        assert!(matches!(
            gate.store(slot, FOREVER),
            Err(GateError::NoSuchSlot { .. })
        ));
        assert!(matches!(
            gate.open(ip("10.0.0.1"), slot),
            Err(GateError::NoSuchSlot { .. })
        ));
        assert_eq!(gate.deadlines().load(slot), Mono::ZERO);
    }
}

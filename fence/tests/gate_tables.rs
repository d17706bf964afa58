//! The gate's books and tables: bounded, used again, by memory or by calls; and its self-test.

mod common;
#[path = "common/frames.rs"]
mod frames;

use buoy_core::Mono;
use buoy_fence::gate::{Direction, EbpfGate, EbpfOptions, Gate, GateError, Verdict};
use common::skip_without_gate;
use frames::{ip, v4};

const VIP4: &str = "10.77.0.100";
const FOREVER: Mono = Mono(u64::MAX);

#[test]
fn the_self_test_leaves_nothing_and_needs_a_gate_of_its_own() {
    if skip_without_gate() {
        return;
    }
    for mapped in [true, false] {
        let mut gate = EbpfGate::new(EbpfOptions {
            capacity: 2,
            mapped,
        })
        .expect("a gate");
        gate.self_test().expect("self-test");
        assert!(gate.list().expect("list").is_empty());
        assert_eq!(gate.dropped().expect("drops").total(), 0);
        assert!((1..64).all(|slot| gate.deadlines().load(slot) == Mono::ZERO));
        gate.manage(ip(VIP4)).expect("manage");
        assert!(matches!(gate.self_test(), Err(GateError::InUse)));
    }
}

/// The same tables, by calls instead of memory.
#[test]
fn works_without_mapped_tables() {
    if skip_without_gate() {
        return;
    }
    let mut gate = EbpfGate::new(EbpfOptions {
        capacity: 8,
        mapped: false,
    })
    .expect("a gate");
    let packet = frames::ipv4(v4("10.77.0.2"), v4(VIP4));
    gate.manage(ip(VIP4)).expect("manage");
    assert_eq!(
        gate.judge(Direction::Ingress, &packet).expect("judge"),
        Verdict::Drop
    );
    gate.store(63, FOREVER).expect("store");
    gate.open(ip(VIP4), 63).expect("open");
    assert_eq!(
        gate.judge(Direction::Ingress, &packet).expect("judge"),
        Verdict::Pass
    );
    assert_eq!(gate.deadlines().load(63), FOREVER);
    gate.shut_all().expect("shut");
    assert_eq!(gate.deadlines().load(63), Mono::ZERO);
    assert_eq!(
        gate.judge(Direction::Ingress, &packet).expect("judge"),
        Verdict::Drop
    );
    assert_eq!(gate.list().expect("list")[0].drops.not_ours, 2);
}

#[test]
fn the_table_of_addresses_is_bounded_and_its_places_are_used_again() {
    if skip_without_gate() {
        return;
    }
    let mut gate = EbpfGate::new(EbpfOptions {
        capacity: 4,
        mapped: true,
    })
    .expect("a gate");
    let packet = |n: u32| frames::ipv4(v4("10.77.0.2"), v4(&format!("10.0.0.{n}")));
    let judge = |gate: &EbpfGate, n| gate.judge(Direction::Ingress, &packet(n)).expect("judge");
    let vip = |n: u32| ip(&format!("10.0.0.{n}"));
    gate.store(1, FOREVER).expect("store");
    for n in 1..=4 {
        gate.manage(vip(n)).expect("manage");
        gate.open(vip(n), 1).expect("open");
    }
    let e = gate.manage(vip(5)).expect_err("full");
    assert!(matches!(e, GateError::Full { capacity: 4, .. }), "{e}");
    assert_eq!(judge(&gate, 5), Verdict::Pass, "never managed");
    gate.shut(vip(2)).expect("shut");
    assert_eq!(judge(&gate, 2), Verdict::Drop);
    gate.forget(vip(2)).expect("forget");
    gate.forget(vip(2)).expect("forget again");
    assert_eq!(judge(&gate, 2), Verdict::Pass, "forgotten");
    // The place of an open address is taken over: the new one begins shut and uncounted.
    gate.forget(vip(3)).expect("forget");
    for n in [5, 6] {
        gate.manage(vip(n)).expect("manage");
        assert_eq!(judge(&gate, n), Verdict::Drop, "a new address begins shut");
    }
    assert_eq!(
        gate.list()
            .expect("list")
            .iter()
            .map(|row| row.drops.total())
            .sum::<u64>(),
        2
    );
    assert_eq!(
        gate.dropped().expect("drops").not_ours,
        3,
        "with that of a forgotten address"
    );
    gate.open(vip(5), 1).expect("open");
    gate.manage(vip(5)).expect("manage again");
    assert_eq!(
        judge(&gate, 5),
        Verdict::Pass,
        "managing again shuts nothing"
    );
    assert!(matches!(
        gate.shut(vip(9)),
        Err(GateError::NotManaged { .. })
    ));
    // IPv4-mapped IPv6 addresses are the same address.
    gate.shut(ip("::ffff:10.0.0.5")).expect("shut");
    assert_eq!(judge(&gate, 5), Verdict::Drop);
    gate.clear_all().expect("clear");
    assert!((1..=6).all(|n| judge(&gate, n) == Verdict::Pass));
    assert_eq!(gate.deadlines().load(1), Mono::ZERO);
}

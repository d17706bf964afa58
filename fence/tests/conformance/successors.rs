//! One gate after another, and a gate that is put back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use buoy_fence::gate::{GateError, MAX_ADDRESSES, SLOTS};

use crate::common::{NetNs, wait_until};
use crate::contender::{Contender, LONG, renew};
use crate::frames::ip;
use crate::traffic::{BOTH, open, sentry, shut_gate};
use crate::wire::{Asker, Echo, VIP4, VIP6, Wire};

pub fn the_self_test_passes(contender: Contender) {
    let ns = NetNs::new("self");
    let mut gate = contender.make(&ns);
    ns.run(|| {
        gate.self_test().expect("self-test");
        gate.self_test().expect("again");
        assert!(gate.list().expect("list").is_empty());
        assert_eq!(gate.dropped().expect("drops").total(), 0);
        gate.manage(ip(VIP4)).expect("manage");
        assert!(matches!(gate.self_test(), Err(GateError::InUse)));
    });
}

/// Raises a flag when it is dropped.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Packets stream to a VIP while `changes` happen; none gets through, and many are dropped.
fn nothing_gets_through(wire: &Wire, mut changes: impl FnMut(&dyn Fn()) + Send) {
    let echo = Echo::start(&wire.owner, VIP4);
    let asker = Asker::new(&wire.client, VIP4);
    let heard = || echo.heard.load(Ordering::Relaxed);
    let before = heard();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut sent = 0u64;
            while !stop.load(Ordering::Relaxed) {
                asker.send(2);
                sent += 1;
            }
            sent
        });
        {
            // Also where a change fails: the scope waits for the stream.
            let _stop = OnDrop(&stop);
            changes(&|| assert_eq!(heard(), before, "a packet got through"));
        }
        stream.join().expect("the stream")
    });
    assert!(sent > 1_000, "only {sent} packets were sent");
    assert_eq!(heard(), before, "of {sent} packets some got through");
}

pub fn taking_over_opens_nothing(contender: Contender) {
    let wire = Wire::new("swap");
    let own = wire.owner.ifindex("own");
    let mut gate = shut_gate(contender, &wire);
    open(gate.as_mut());
    wire.pin_neighbours();
    gate.shut_all().expect("shut");
    let mut gate = Some(gate);
    nothing_gets_through(&wire, |check| {
        for _ in 0..30 {
            // The predecessor is dead: what it made stays.
            drop(gate.take());
            check();
            // The successor knows no address: it inherits them, shut, before it takes over.
            let mut next = contender.make(&wire.owner);
            next.attach(own).expect("attach");
            let inherited = next.list().expect("list");
            assert!(
                inherited.len() == 2 && inherited.iter().all(|row| row.inherited),
                "{inherited:?}"
            );
            wait_until("the new gate drops", || {
                next.dropped().expect("drops").total() > 20
            });
            gate = Some(next);
        }
    });
    let mut gate = gate.take().expect("the last");
    assert!(gate.verify(own).expect("verify"));
    gate.manage(ip(VIP4)).expect("manage");
    let rows = gate.list().expect("list");
    assert!(rows.iter().any(|row| !row.inherited));
}

pub fn repairing_opens_nothing_and_leaks_nothing(contender: Contender) {
    let wire = Wire::new("again");
    let own = wire.owner.ifindex("own");
    let mut gate = shut_gate(contender, &wire);
    wire.pin_neighbours();
    let mut sentry = sentry(&mut gate, &wire);
    nothing_gets_through(&wire, |check| {
        for round in 0..200 {
            match round % 2 {
                0 => gate.repair(own).expect("repair"),
                _ => sentry.repair(own).expect("repair"),
            }
            check();
        }
    });
    assert!(gate.verify(own).expect("verify"));
    assert!(sentry.verify(own).expect("verify"));
    assert_eq!(gate.list().expect("list").len(), 2);
    // And it still opens.
    let (_echo, asker) = (
        Echo::start(&wire.owner, VIP4),
        Asker::new(&wire.client, VIP4),
    );
    open(gate.as_mut());
    assert!(asker.answered(7));
}

pub fn refusals_change_nothing(contender: Contender) {
    let wire = Wire::new("no");
    let mut gate = shut_gate(contender, &wire);
    let refused = |done: Result<(), GateError>| done.expect_err("a refusal").to_string();
    assert!(refused(gate.open(ip("192.0.2.1"), 1)).contains("does not manage"));
    assert!(refused(gate.shut(ip("192.0.2.1"))).contains("does not manage"));
    assert!(refused(gate.open(ip(VIP4), 0)).contains("no lease slot 0"));
    assert!(refused(gate.open(ip(VIP4), SLOTS)).contains("no lease slot"));
    assert!(refused(gate.attach(4_711)).contains("no such interface"));
    renew(gate.as_mut(), 1, LONG);
    let rows = gate.list().expect("list");
    assert!(rows.iter().all(|row| row.slot.is_none()), "{rows:?}");
    // A mapped address is the same address.
    gate.open(ip(&format!("::ffff:{VIP4}")), 1).expect("open");
    let asker = Asker::new(&wire.client, VIP4);
    let _echo = Echo::start(&wire.owner, VIP4);
    assert!(asker.answered(1));
    assert_eq!(gate.list().expect("list").len(), BOTH.len());
    assert!(gate.verify(wire.owner.ifindex("own")).expect("verify"));
    const { assert!(MAX_ADDRESSES > 10_000) };
}

pub fn a_sentry_takes_over_beside_the_gate(contender: Contender) {
    let wire = Wire::new("beside");
    let own = wire.owner.ifindex("own");
    drop(shut_gate(contender, &wire));
    let mut next = contender.make(&wire.owner);
    let mut sentry = sentry(&mut next, &wire);
    let found = wire
        .owner
        .run(|| sentry.inheritance(own).expect("its addresses"));
    let found = BTreeSet::from_iter(found);
    assert_eq!(found, BTreeSet::from(BOTH.map(ip)));
    let found: Vec<_> = found.into_iter().collect();
    next.inherit(&found).expect("inherit");
    wire.owner.run(|| sentry.attach(own).expect("attach"));
    assert!(next.verify(own).expect("verify"), "filters and tables");
    assert!(next.list().expect("list").iter().all(|row| row.inherited));
    let nothing = wire.owner.run(|| sentry.inheritance(own).expect("nothing"));
    assert!(nothing.is_empty(), "{nothing:?}");
    next.detach(own).expect("it is attached, and comes off");
    assert!(sentry.repair(own).is_err());
}

pub fn only_what_nobody_has_managed_since_is_forgotten_as_inherited(contender: Contender) {
    let wire = Wire::new("heir");
    let own = wire.owner.ifindex("own");
    drop(shut_gate(contender, &wire));
    let mut next = contender.make(&wire.owner);
    next.attach(own).expect("attach");
    next.manage(ip(VIP6)).expect("manage");
    for vip in BOTH {
        next.forget_inherited(ip(vip)).expect("forget");
    }
    let rows = next.list().expect("list");
    let addresses: Vec<_> = rows.iter().map(|row| row.address).collect();
    assert_eq!(addresses, [ip(VIP6)]);
    assert!(next.verify(own).expect("verify"));
}

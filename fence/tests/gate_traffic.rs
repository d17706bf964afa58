//! The gate between real machines: what goes through, what does not, and when.

mod common;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/raw.rs"]
mod raw;
#[path = "common/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::clock::boottime;
use buoy_fence::gate::{EbpfGate, Gate};
use common::{skip_without_gate, wait_until};
use frames::{ip, v4};
use wire::{Asker, Echo, VIP4, VIP6, Wire};

const FOREVER: Mono = Mono(u64::MAX);
const BOTH: [&str; 2] = [VIP4, VIP6];

/// A gate on the owner's device, both VIPs shut.
fn shut_gate(wire: &Wire) -> EbpfGate {
    let mut gate = wire.gate();
    gate.self_test().expect("self-test");
    BOTH.iter()
        .for_each(|vip| gate.manage(ip(vip)).expect("manage"));
    gate.attach(wire.owner.ifindex("own")).expect("attach");
    assert!(gate.verify(wire.owner.ifindex("own")).expect("verify"));
    gate
}

fn open(gate: &mut EbpfGate, at: Mono) {
    gate.store(1, at).expect("store");
    BOTH.iter()
        .for_each(|vip| gate.open(ip(vip), 1).expect("open"));
}

/// Asks until the gate has counted one more drop: the question arrived and was dropped.
fn ask_until_dropped(gate: &EbpfGate, asker: &Asker) {
    let before = gate.dropped().expect("drops").total();
    wait_until("the gate drops the question", || {
        asker.send(0);
        gate.dropped().expect("drops").total() > before
    });
    assert_eq!(
        asker.answer(Duration::from_millis(10)),
        None,
        "answered although dropped"
    );
}

#[test]
fn opens_and_shuts_for_arp_nd_and_ip() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("gate");
    let mut gate = shut_gate(&wire);
    for vip in BOTH {
        let (_echo, asker) = (Echo::start(&wire.owner, vip), Asker::new(&wire.client, vip));
        // Nobody has its MAC address yet: ARP or ND is dropped.
        ask_until_dropped(&gate, &asker);
        open(&mut gate, FOREVER);
        wire.forget_neighbours();
        assert!(asker.answered(1), "{vip}: open");
        // Its MAC address is known: IP is dropped.
        gate.shut(ip(vip)).expect("shut");
        ask_until_dropped(&gate, &asker);
        open(&mut gate, FOREVER);
        assert!(asker.answered(2), "{vip}: open again");
        // A lease that is over is as shut.
        gate.store(1, boottime()).expect("store");
        ask_until_dropped(&gate, &asker);
        wire.forget_neighbours();
        ask_until_dropped(&gate, &asker);
        gate.shut_all().expect("shut");
        wire.forget_neighbours();
    }
    let rows = gate.list().expect("list");
    assert!(
        rows.iter()
            .all(|row| row.drops.lease_over > 0 && row.drops.not_ours > 0),
        "{rows:?}"
    );
    // The node's own addresses are never fenced.
    let _echo = Echo::start(&wire.owner, "10.77.0.1");
    assert!(Asker::new(&wire.client, "10.77.0.1").answered(3));
}

/// No question sent at or after the deadline is answered, and there is no call between the store and that.
#[test]
fn nothing_sent_after_the_deadline_is_answered() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("late");
    let mut gate = shut_gate(&wire);
    let (_echo, asker) = (
        Echo::start(&wire.owner, VIP4),
        Asker::new(&wire.client, VIP4),
    );
    open(&mut gate, FOREVER);
    assert!(asker.answered(u64::MAX), "open");
    for _ in 0..10 {
        let end = boottime() + Duration::from_millis(40);
        gate.store(1, end).expect("store");
        let mut sent = BTreeMap::new();
        let (mut late, mut answers, mut number) = (0, 0, 0);
        // Some hundred questions around the deadline, and 100 after it.
        while late < 100 {
            number += 1;
            let now = boottime();
            sent.insert(number, now);
            asker.send(number);
            late += u32::from(now >= end);
            while let Some(answered) = asker.answer(Duration::from_micros(50)) {
                // Answers to an earlier round are not in `sent`.
                if let Some(at) = sent.get(&answered) {
                    assert!(
                        *at < end,
                        "asked {:?} after the deadline, answered",
                        at.since(end)
                    );
                    answers += 1;
                }
            }
        }
        assert!(answers > 0, "nothing was answered before the deadline");
    }
}

/// A raw socket decides what a packet's metadata say; the gate goes by the frame.
#[test]
fn raw_sockets_do_not_get_past() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("raw");
    let mut gate = shut_gate(&wire);
    let announcement = raw::broadcast(&frames::arp(1, v4(VIP4), v4(VIP4)));
    for (n, protocol) in [frames::ETH_ARP, frames::ETH_IP, 0x88b5, 0x0003]
        .into_iter()
        .enumerate()
    {
        let sent = raw::send(&wire.owner, "own", protocol, &announcement);
        let errno = sent.as_ref().err().and_then(std::io::Error::raw_os_error);
        assert_eq!(
            errno,
            Some(libc::ENOBUFS),
            "protocol {protocol:#06x}: {sent:?}"
        );
        assert_eq!(gate.dropped().expect("drops").not_ours, n as u64 + 1);
    }
    open(&mut gate, FOREVER);
    raw::send(&wire.owner, "own", frames::ETH_ARP, &announcement).expect("open");
}

/// The kernel takes a frame's outermost tag out of the frame before the gate sees it, and keeps it beside
/// it. A tag with VLAN 0 (a priority) reaches the stack without any VLAN device.
#[test]
fn tags_that_the_kernel_keeps_beside_the_frame() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("vlan");
    let mut gate = shut_gate(&wire);
    let (vip, client) = (v4(VIP4), v4("10.77.0.2"));
    let question = |tags: &[(u16, u16)]| {
        let packet = frames::arp_packet(1, client, vip);
        let frame = frames::tagged(tags, frames::ETH_ARP, &packet);
        raw::send(
            &wire.client,
            "cli",
            frames::ETH_ARP,
            &raw::broadcast(&frame),
        )
        .expect("send");
    };
    let (priority, vlan) = ((frames::VLAN, 0), (frames::VLAN, 100));
    // The last has one tag beside the frame and two in it.
    for tags in [
        &[priority][..],
        &[vlan],
        &[(frames::QINQ, 7), vlan],
        &[vlan, vlan, vlan],
    ] {
        let before = gate.dropped().expect("drops").not_ours;
        wait_until("the tagged question is dropped", || {
            question(tags);
            gate.dropped().expect("drops").not_ours > before
        });
    }
    let heard = || {
        wire.owner
            .ip("neigh show 10.77.0.2")
            .contains("02:00:00:00:00:02")
    };
    assert!(
        !heard(),
        "the owner's stack heard a question that the gate dropped"
    );
    open(&mut gate, FOREVER);
    wait_until("the owner hears the question", || {
        question(&[priority]);
        heard()
    });
}

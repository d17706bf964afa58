//! The gate's filters on a device: put there, read back, repaired, taken away, beside those of others.

mod common;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/wire.rs"]
mod wire;

use buoy_core::Mono;
use buoy_fence::gate::{Direction, Gate, GateError, Verdict, leftovers, remove};
use common::{NetNs, skip, skip_without_gate};
use frames::{ip, v4};
use wire::{VIP4, VIP6, Wire};

const FOREVER: Mono = Mono(u64::MAX);

fn filters(ns: &NetNs, device: &str) -> String {
    let both =
        ["ingress", "egress"].map(|way| ns.tool("tc", &format!("filter show dev {device} {way}")));
    both.concat()
}

fn has_clsact(ns: &NetNs, device: &str) -> bool {
    ns.tool("tc", &format!("qdisc show dev {device}"))
        .contains("clsact")
}

#[test]
fn comes_and_goes_without_a_trace() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("trace");
    let own = wire.owner.ifindex("own");
    let mut gate = wire.gate();
    gate.manage(ip(VIP4)).expect("manage");
    assert!(!gate.verify(own).expect("verify"), "not attached yet");
    gate.attach(own).expect("attach");
    gate.attach(own).expect("attach again");
    assert!(gate.verify(own).expect("verify"));
    let shown = filters(&wire.owner, "own");
    assert_eq!(shown.matches("buoy direct-action").count(), 2, "{shown}");
    assert!(gate.preceding(own).expect("preceding").is_empty());
    gate.detach(own).expect("detach");
    assert!(!gate.verify(own).expect("verify"));
    assert!(
        !has_clsact(&wire.owner, "own"),
        "a clsact of ours stays behind"
    );
    gate.detach(own).expect("detach again");
}

#[test]
fn is_repaired_after_every_kind_of_removal() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("repair");
    let own = wire.owner.ifindex("own");
    let mut gate = wire.gate();
    gate.manage(ip(VIP4)).expect("manage");
    gate.store(5, FOREVER).expect("store");
    gate.open(ip(VIP4), 5).expect("open");
    gate.attach(own).expect("attach");
    let ours = "parent ffff:fff2 prio 1 handle 0x42554f59 bpf";
    for removal in [
        "qdisc del dev own clsact".to_string(),
        format!("filter del dev own {ours}"),
        "filter del dev own egress".to_string(),
        "filter del dev own ingress prio 1".to_string(),
    ] {
        wire.owner.tool("tc", &removal);
        assert!(!gate.verify(own).expect("verify"), "{removal}");
        gate.repair(own).expect("repair");
        assert!(gate.verify(own).expect("verify"), "{removal}");
        // With its state: the address is still open.
        let row = gate.list().expect("list")[0];
        assert_eq!((row.slot, row.deadline), (Some(5), Some(FOREVER)));
    }
}

/// The thread that renews owns the gate; another watches its filters.
#[test]
fn a_sentry_repairs_beside_the_gate() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("sentry");
    let own = wire.owner.ifindex("own");
    let mut gate = wire.gate();
    gate.manage(ip(VIP4)).expect("manage");
    let mut sentry = wire.owner.run(|| gate.sentry().expect("a sentry"));
    let e = sentry.repair(own).expect_err("nothing to repair");
    assert!(matches!(e, GateError::NotAttached { .. }), "{e}");
    gate.attach(own).expect("attach");
    assert!(sentry.verify(own).expect("verify"));
    for removal in ["qdisc del dev own clsact", "filter del dev own egress"] {
        wire.owner.tool("tc", removal);
        assert!(!sentry.verify(own).expect("verify"), "{removal}");
        std::thread::scope(|s| s.spawn(|| sentry.repair(own).expect("repair")).join())
            .expect("a thread");
        assert!(sentry.verify(own).expect("verify"), "{removal}");
        assert!(gate.verify(own).expect("verify"), "{removal}");
    }
    // The clsact that the sentry made again is the gate's to remove, and is not made once more.
    gate.detach(own).expect("detach");
    assert!(!has_clsact(&wire.owner, "own"));
    assert!(
        sentry.repair(own).is_err(),
        "repaired what was taken away on purpose"
    );
    assert!(!has_clsact(&wire.owner, "own"));
}

/// A second gate in our place is another program, under the same name.
#[test]
fn notices_another_gate_in_its_place() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("second");
    let own = wire.owner.ifindex("own");
    let mut first = wire.gate();
    first.attach(own).expect("attach");
    let mut second = wire.gate();
    second.attach(own).expect("attach");
    assert!(!first.verify(own).expect("verify"));
    assert!(second.verify(own).expect("verify"));
    first.repair(own).expect("repair");
    assert!(first.verify(own).expect("verify"));
}

#[test]
fn leaves_the_filters_of_others_alone() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("others");
    let own = wire.owner.ifindex("own");
    let other = "filter add dev own ingress prio 5 protocol ip u32 match u32 0 0 classid 1:1";
    wire.owner.tool("tc", "qdisc add dev own clsact");
    let mut gate = wire.gate();
    gate.attach(own).expect("attach");
    gate.detach(own).expect("detach");
    assert!(
        has_clsact(&wire.owner, "own"),
        "a clsact that was there before us is gone"
    );
    // A clsact of ours, but used by others by now.
    wire.owner.tool("tc", "qdisc del dev own clsact");
    gate.attach(own).expect("attach");
    wire.owner.tool("tc", other);
    assert!(
        gate.preceding(own).expect("preceding").is_empty(),
        "priority 5 comes after ours"
    );
    assert!(gate.verify(own).expect("verify"));
    gate.detach(own).expect("detach");
    assert!(
        filters(&wire.owner, "own").contains("u32"),
        "their filter went with our clsact"
    );
}

#[test]
fn takes_no_place_that_is_taken() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("taken");
    let own = wire.owner.ifindex("own");
    let mut gate = wire.gate();
    wire.owner.tool("tc", "qdisc add dev own clsact");
    wire.owner.tool(
        "tc",
        "filter add dev own egress prio 1 protocol ip u32 match u32 0 0 classid 1:1",
    );
    let e = gate.attach(own).expect_err("the first place is taken");
    assert!(
        matches!(&e, GateError::Interface { interface, .. } if interface == "own"),
        "{e}"
    );
    assert!(
        e.to_string().contains("`u32`") && e.to_string().contains("tc filter show dev own egress"),
        "{e}"
    );
    assert!(!gate.verify(own).expect("verify"));
    // A bpf filter that happens to have our handle, but not our name.
    wire.owner.tool("tc", "filter del dev own egress prio 1");
    classic_filter(&wire.owner, "own", "0x42554f59");
    let e = gate.attach(own).expect_err("our place is taken");
    assert!(e.to_string().contains("`bpf`"), "{e}");
    assert!(
        filters(&wire.owner, "own").contains("bytecode"),
        "their filter was replaced"
    );
    gate.detach(own).expect("detach");
    assert!(
        filters(&wire.owner, "own").contains("bytecode"),
        "their filter was deleted"
    );
}

/// Classic bytecode `ret 0` on ingress, priority 1: matches nothing.
fn classic_filter(ns: &NetNs, device: &str, handle: &str) {
    let place =
        format!("filter add dev {device} ingress prio 1 handle {handle} protocol all bpf bytecode");
    let done = ns.run(|| {
        let mut tc = std::process::Command::new("tc");
        tc.args(place.split(' '))
            .arg("1,6 0 0 0")
            .output()
            .expect("tc")
    });
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// bpf filters of others may share our priority; what packets meet first is reported.
#[test]
fn reports_what_decides_before_it() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("before");
    let own = wire.owner.ifindex("own");
    let mut gate = wire.gate();
    gate.attach(own).expect("attach");
    classic_filter(&wire.owner, "own", "0x7");
    let preceding = gate.preceding(own).expect("preceding");
    assert_eq!(preceding.len(), 1, "{preceding:?}");
    let first = &preceding[0];
    assert_eq!(
        (
            first.direction,
            first.kind.as_str(),
            first.priority,
            first.handle
        ),
        ("ingress", "bpf", 1, 7)
    );
    gate.detach(own).expect("detach");
    assert!(filters(&wire.owner, "own").contains("handle 0x7"));
}

#[test]
fn refuses_devices_that_it_cannot_fence_with_words() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("refuse");
    let mut gate = wire.gate();
    let e = gate.attach(4_000_000).expect_err("no such device");
    assert!(e.to_string().contains("no such interface"), "{e}");
    assert!(!gate.verify(4_000_000).expect("verify"));
    gate.detach(4_000_000).expect("detach");

    wire.owner.tool("tc", "qdisc add dev own ingress");
    let e = gate
        .attach(wire.owner.ifindex("own"))
        .expect_err("an ingress qdisc");
    assert!(
        e.to_string().contains("`ingress`")
            && e.to_string().contains("tc qdisc del dev own ingress"),
        "{e}"
    );

    // A tun device has packets without Ethernet headers.
    let tun = ["tuntap", "add", "dev", "tun0", "mode", "tun"];
    let made = wire.owner.run(|| {
        std::process::Command::new("ip")
            .args(tun)
            .status()
            .expect("ip")
            .success()
    });
    if !made {
        skip("no tun devices here (/dev/net/tun)");
        return;
    }
    let e = gate
        .attach(wire.owner.ifindex("tun0"))
        .expect_err("no Ethernet header");
    assert!(
        e.to_string().contains("tun0") && e.to_string().contains("no Ethernet header"),
        "{e}"
    );
    assert!(!has_clsact(&wire.owner, "tun0"));
}

#[test]
fn a_dead_gate_can_be_read_and_removed() {
    if skip_without_gate() {
        return;
    }
    let wire = Wire::new("left");
    let own = wire.owner.ifindex("own");
    let mut gate = wire.gate();
    gate.manage(ip(VIP4)).expect("manage");
    gate.manage(ip(VIP6)).expect("manage");
    let arp = frames::arp(1, v4("10.77.0.2"), v4(VIP4));
    assert_eq!(
        gate.judge(Direction::Ingress, &arp).expect("judge"),
        Verdict::Drop
    );
    gate.store(9, Mono(12_345)).expect("store");
    gate.open(ip(VIP4), 9).expect("open");
    assert_eq!(
        gate.judge(Direction::Ingress, &arp).expect("judge"),
        Verdict::Drop
    );
    gate.attach(own).expect("attach");
    let books = gate.list().expect("list");
    drop(gate);
    let left = wire.owner.run(|| leftovers(own).expect("leftovers"));
    assert_eq!(
        left.iter().map(|l| l.direction).collect::<Vec<_>>(),
        Direction::BOTH
    );
    for filter in &left {
        assert_eq!(filter.fenced.as_ref().expect("readable"), &books);
        assert!(filter.gate.is_some() && filter.gate == left[0].gate);
    }
    assert_eq!((books[0].drops.lease_over, books[0].drops.not_ours), (1, 1));
    assert!(wire.owner.run(|| remove(own).expect("remove")));
    assert!(!wire.owner.run(|| remove(own).expect("remove again")));
    assert!(
        wire.owner
            .run(|| leftovers(own).expect("leftovers"))
            .is_empty()
    );
}

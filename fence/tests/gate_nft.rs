//! What only the nftables gate has: tables that somebody else could change, and predecessors of another kind.

mod common;
#[path = "conformance/contender.rs"]
mod contender;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/wire.rs"]
mod wire;

use std::process::Command;
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::clock::boottime;
use buoy_fence::gate::{GateError, leftovers, nft_leftover, remove, remove_nft, supersede};
use common::{NetNs, skip, wait_until};
use contender::{Contender, LONG, renew};
use frames::ip;
use wire::{Asker, Echo, VIP4, VIP6, Wire};

#[test]
fn what_a_dead_process_left_is_shown_and_removed() {
    if Contender::Nft.is_missing() {
        return;
    }
    let wire = Wire::new("left");
    let own = wire.owner.ifindex("own");
    assert!(wire.owner.run(|| nft_leftover().expect("none")).is_none());
    assert!(!wire.owner.run(|| remove_nft().expect("none")));
    let mut gate = Contender::Nft.make(&wire.owner);
    gate.manage(ip(VIP4)).expect("manage");
    gate.manage(ip(VIP6)).expect("manage");
    gate.attach(own).expect("attach");
    gate.open(ip(VIP4), 7).expect("open");
    let until = renew(gate.as_mut(), 7, LONG);

    let begun = boottime();
    let left = wire
        .owner
        .run(|| nft_leftover().expect("read").expect("a gate"));
    // What is left was counted at some time meanwhile.
    let read_within = boottime().since(begun);
    assert_eq!(left.devices, [own]);
    assert_eq!(left.fenced.len(), 2);
    assert_eq!(left.fenced[0].slot, Some(7));
    let deadline = left.fenced[0].deadline.expect("open");
    assert!(
        deadline <= until + read_within + Duration::from_millis(10),
        "{deadline:?} for {until:?}"
    );
    assert!(
        deadline + read_within + Duration::from_millis(100) > until,
        "{deadline:?} for {until:?}"
    );
    assert_eq!(left.fenced[1].slot, None);
    if left.owner.is_some() {
        let refused = wire.owner.run(|| remove_nft().expect_err("owned"));
        assert!(
            matches!(refused, GateError::Unavailable { .. }),
            "{refused}"
        );
    }
    drop(gate);
    // A program that another test is about to start holds a copy of the socket until then.
    wait_until("nobody owns what stays", || {
        let left = wire.owner.run(|| nft_leftover().expect("read"));
        left.expect("it stays").owner.is_none()
    });
    assert!(wire.owner.run(|| remove_nft().expect("remove")));
    assert!(wire.owner.run(|| nft_leftover().expect("none")).is_none());
    let _echo = Echo::start(&wire.owner, VIP6);
    assert!(Asker::new(&wire.client, VIP6).answered(1));
}

/// Shut for ever, a predecessor's gate of another kind would silence what this one opens.
#[test]
fn a_predecessor_of_another_kind_is_superseded() {
    if Contender::ALL.iter().any(|c| c.is_missing()) {
        return;
    }
    for (old, new) in [
        (Contender::Ebpf, Contender::Nft),
        (Contender::Nft, Contender::Ebpf),
    ] {
        let wire = Wire::new("kind");
        let own = wire.owner.ifindex("own");
        let mut gate = old.make(&wire.owner);
        gate.manage(ip(VIP4)).expect("manage");
        gate.manage(ip(VIP6)).expect("manage");
        gate.attach(own).expect("attach");
        drop(gate);
        let mut next = new.make(&wire.owner);
        next.manage(ip(VIP4)).expect("manage");
        next.attach(own).expect("attach");
        let mut next = wire.owner.run(move || {
            supersede(next.as_mut()).expect("supersede");
            next
        });
        let gone = match old {
            Contender::Ebpf => wire.owner.run(|| leftovers(own).expect("read")).is_empty(),
            Contender::Nft => wire.owner.run(|| nft_leftover().expect("read")).is_none(),
        };
        assert!(gone, "{old:?} is still there");
        // The other VIP, which the new one did not know, is fenced as well.
        assert_eq!(next.list().expect("list").len(), 2);
        let (_echo, asker) = (
            Echo::start(&wire.owner, VIP4),
            Asker::new(&wire.client, VIP4),
        );
        let before = next.dropped().expect("drops").total();
        wait_until("the new gate drops", || {
            asker.send(0);
            next.dropped().expect("drops").total() > before
        });
        next.open(ip(VIP4), 1).expect("open");
        renew(next.as_mut(), 1, LONG);
        assert!(asker.answered(1), "{new:?} after {old:?}");
        assert!(!wire.owner.run(|| match old {
            Contender::Ebpf => remove(own).expect("remove"),
            Contender::Nft => remove_nft().expect("remove"),
        }));
    }
}

fn skip_without_nft() -> bool {
    let version = Command::new("nft").arg("--version").output();
    version.is_err() && skip("no program nft (Debian package nftables)")
}

/// The ruleset of a namespace as `nft` shows it, as text and as JSON. `nft` aborts at rules that it cannot show.
fn listed(ns: &NetNs) -> [String; 2] {
    let text = ns.tool("nft", "list ruleset");
    let json = ns.tool("nft", "-j list ruleset");
    assert!(json.trim_end().ends_with("]}"), "cut off: {json}");
    [text, json]
}

/// An operator can list and save the firewall of a machine with this gate.
#[test]
fn nft_lists_the_gate() {
    if Contender::Nft.is_missing() || skip_without_nft() {
        return;
    }
    let wire = Wire::new("list");
    let own = wire.owner.ifindex("own");
    let mut gate = Contender::Nft.make(&wire.owner);
    let (shut, over) = ("10.77.0.101", "10.77.0.102");
    for vip in [VIP4, VIP6, shut, over] {
        gate.manage(ip(vip)).expect("manage");
    }
    gate.attach(own).expect("attach");
    let shows_addresses = |when: &str| {
        for shown in listed(&wire.owner) {
            for vip in [VIP4, VIP6, shut, over] {
                assert!(shown.contains(vip), "{when}, {vip}: {shown}");
            }
        }
    };
    shows_addresses("nothing is open");
    gate.open(ip(VIP4), 1).expect("open");
    gate.open(ip(VIP6), 63).expect("open");
    gate.open(ip(over), 2).expect("open");
    shows_addresses("slots without a renewal");
    renew(gate.as_mut(), 1, LONG);
    renew(gate.as_mut(), 63, LONG);
    renew(gate.as_mut(), 2, Duration::from_millis(30));
    shows_addresses("open, shut and expired");
    let [text, _] = listed(&wire.owner);
    for words in [
        "ip daddr @slot4-1 goto slot-1",
        "elements = { \"own\" }",
        "== @armed return",
        "goto over",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    gate.advance(&[(1, Mono::ZERO)]).expect("advance");
    shows_addresses("a slot without a round");
    gate.repair(own).expect("repair");
    shows_addresses("made anew");
    renew(gate.as_mut(), 1, LONG);
    gate.shut_all().expect("shut");
    shows_addresses("all shut");
    assert!(gate.verify(own).expect("verify"));
    drop(gate);
    // As text only: nft 1.0.6 breaks off its JSON at a table with a single flag, and a table that persists
    // and is owned no more has one.
    let text = wire.owner.tool("nft", "list ruleset");
    assert!(text.contains("goto over"), "left by a dead process: {text}");
}

/// Tables that another version made: what they fence is taken over, and shut.
#[test]
fn tables_of_another_layout_are_superseded() {
    if Contender::Nft.is_missing() || skip_without_nft() {
        return;
    }
    let wire = Wire::new("older");
    let own = wire.owner.ifindex("own");
    for other in [
        "table inet buoy {
            map slots4 { type ipv4_addr : mark; elements = { 10.77.0.100 : 1 }; }
            set armed { type mark; flags timeout; }
            set over4 { type ipv4_addr; counter; elements = { 10.77.0.100 }; }
            chain judge { drop; }",
        // Chains and sets of the names of today, which say something else.
        "table inet buoy {
            set slot4-1 { type ipv4_addr; elements = { 10.77.0.100 }; }
            chain slot-1 { accept; }
            chain judge { ip daddr @slot4-1 goto slot-1; drop; }",
    ] {
        let file = std::env::temp_dir().join(format!("{}.nft", wire.owner.name));
        let sets = "set managed4 { type ipv4_addr; elements = { 10.77.0.100 }; }
            set managed6 { type ipv6_addr; elements = { fd77::100 }; }
            set interfaces { type iface_index; elements = { \"own\" }; }
            chain in { type filter hook prerouting priority 0; ip daddr @managed4 jump judge; }
        }";
        std::fs::write(&file, format!("{other}\n{sets}\n")).expect("a file");
        wire.owner.tool("nft", &format!("-f {}", file.display()));
        std::fs::remove_file(&file).expect("removed");

        let left = wire.owner.run(|| nft_leftover().expect("read"));
        let left = left.expect("tables");
        assert_eq!(left.devices, [own]);
        let addresses: Vec<_> = left.fenced.iter().map(|row| row.address).collect();
        assert_eq!(addresses, [ip(VIP4), ip(VIP6)]);
        assert!(
            left.fenced
                .iter()
                .all(|row| row.deadline.is_none_or(|at| at == Mono::ZERO))
        );

        let mut gate = Contender::Nft.make(&wire.owner);
        gate.attach(own).expect("attach");
        let rows = gate.list().expect("list");
        assert!(
            rows.len() == 2 && rows.iter().all(|row| row.inherited && row.slot.is_none()),
            "{rows:?}"
        );
        assert!(gate.verify(own).expect("verify"));
        let (_echo, asker) = (
            Echo::start(&wire.owner, VIP4),
            Asker::new(&wire.client, VIP4),
        );
        gate.open(ip(VIP4), 1).expect("open");
        let before = gate.dropped().expect("drops").total();
        wait_until("a question without a lease is dropped", || {
            asker.send(1);
            gate.dropped().expect("drops").total() > before
        });
        assert_eq!(asker.answer(Duration::from_millis(10)), None);
        renew(gate.as_mut(), 1, LONG);
        assert!(asker.answered(2));
        drop(gate);
        assert!(wire.owner.run(|| remove_nft().expect("remove")));
    }
}

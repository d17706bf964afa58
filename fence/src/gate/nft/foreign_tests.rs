//! Somebody else changes the tables of a kernel that lets them: it is noticed, and put right.

use std::process::Command;
use std::time::Duration;

use super::*;
use crate::clock::boottime;

const LOOPBACK: u32 = 1;
const LEASE: Duration = Duration::from_secs(60);

/// Tables that nobody owns, as before Linux 6.9, in a new network namespace that the calling thread then lives
/// in; `None` where that cannot be.
fn unowned() -> Option<NftGate> {
    let skip = |why: &str| {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "this test must run in CI, but: {why}"
        );
        println!("SKIP: {why}");
        None
    };
    // SAFETY: plain calls; unshare changes this test's thread only.
    if unsafe { libc::geteuid() != 0 || libc::unshare(libc::CLONE_NEWNET) != 0 } {
        return skip("no network namespace of our own");
    }
    if Command::new("nft").arg("--version").output().is_err() {
        return skip("no program nft (Debian package nftables)");
    }
    let mut probe = open(features::PROBE).expect("a socket");
    let features = match Features::probe(&mut probe) {
        Ok(features) => Features {
            owner: false,
            ..features
        },
        Err(e) => return skip(&e.to_string()),
    };
    let [nl, stand_in] = [TABLE, STAND_IN].map(|name| open(name).expect("a socket"));
    let tables = Tables::new(nl, stand_in, features);
    Some(NftGate::of(tables).expect("a gate"))
}

fn nft(commands: &str) {
    let done = Command::new("nft").arg(commands).output().expect("nft");
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{commands}: {words}");
}

fn addresses() -> [IpAddr; 3] {
    ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|a| a.parse().expect("an address"))
}

/// A gate on the loopback interface: one address open on slot 1, one on slot 2 without a lease, one shut.
fn gate() -> Option<NftGate> {
    let mut gate = unowned()?;
    let [open, over, shut] = addresses();
    for address in [open, over, shut] {
        gate.manage(address).expect("manage");
    }
    gate.attach(LOOPBACK).expect("attach");
    gate.open(open, 1).expect("open");
    gate.open(over, 2).expect("open");
    renew(&mut gate, 1);
    Some(gate)
}

fn renew(gate: &mut NftGate, slot: SlotId) {
    let until = boottime() + LEASE;
    gate.arm(until).expect("arm");
    gate.advance(&[(slot, until)]).expect("advance");
}

#[test]
fn other_peoples_changes_are_noticed_and_undone() {
    let Some(mut gate) = gate() else { return };
    let mut sentry = gate.sentry().expect("a sentry");
    for change in [
        "flush ruleset",
        "delete table arp buoy",
        "flush chain inet buoy in",
        "insert rule inet buoy in accept",
        "add rule inet buoy in4 accept",
        "flush chain inet buoy over",
        "add chain inet buoy slot-9",
        "add set inet buoy slot4-9 { type ipv4_addr; }",
        "add chain inet buoy mine",
        // A slot's chain.
        "insert rule inet buoy slot-1 accept",
        "add rule arp buoy slot-2 accept",
        "flush chain inet buoy slot-2",
        "flush chain inet buoy slot-1; add rule inet buoy slot-1 return",
        "flush chain inet buoy slot-1; add rule inet buoy slot-1 goto over",
        // Another round than that of the last renewal.
        "flush chain inet buoy slot-1; \
         add rule inet buoy slot-1 meta mark & 0x7 | 0x7 == @armed return; \
         add rule inet buoy slot-1 goto over",
        "flush chain inet buoy slot-2; \
         add rule inet buoy slot-2 meta mark & 0x1 | 0x1 == @armed return; \
         add rule inet buoy slot-2 goto over",
        "delete element inet buoy interfaces { lo }",
    ] {
        assert!(sentry.verify(LOOPBACK).expect("verify"), "before {change}");
        nft(change);
        assert!(!sentry.verify(LOOPBACK).expect("verify"), "{change}");
        assert!(!gate.verify(LOOPBACK).expect("verify"), "{change}");
        sentry.repair(LOOPBACK).expect("repair");
        assert!(gate.verify(LOOPBACK).expect("verify"), "after {change}");
        renew(&mut gate, 1);
    }
}

#[test]
fn other_peoples_addresses_are_noticed_and_undone() {
    let Some(mut gate) = gate() else { return };
    for change in [
        "delete element inet buoy managed4 { 10.0.0.1 }",
        "add element inet buoy managed4 { 10.0.0.9 }",
        "delete element inet buoy slot4-1 { 10.0.0.1 }",
        "add element arp buoy slot4-1 { 10.0.0.2 }",
        "add element inet buoy slot6-1 { fd00::1 }",
    ] {
        assert!(gate.verify(LOOPBACK).expect("verify"), "before {change}");
        nft(change);
        assert!(!gate.verify(LOOPBACK).expect("verify"), "{change}");
        gate.repair(LOOPBACK).expect("repair");
    }
    assert!(gate.verify(LOOPBACK).expect("verify"));
}

/// Until somebody else changed the tables, or `patience` was over.
async fn told(notices: &mut TableNotices, patience: Duration) -> bool {
    let told = tokio::time::timeout(patience, notices.changed()).await;
    told.is_ok_and(|told| told.is_ok())
}

#[test]
fn other_peoples_changes_are_told_at_once_and_our_own_are_not() {
    let Some(mut gate) = gate() else { return };
    let sentry = gate.sentry().expect("a sentry");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut notices = sentry.notices().expect("a socket").expect("notices");
        let [open, over, shut] = addresses();
        renew(&mut gate, 1);
        gate.open(shut, 3).expect("open");
        gate.shut(open).expect("shut");
        gate.forget(over).expect("forget");
        gate.repair(LOOPBACK).expect("repair");
        gate.shut_all().expect("shut");
        // Another table's changes are nobody's business here; ours come after them.
        nft("add table inet other; add chain inet other c; delete table inet other");
        assert!(
            !told(&mut notices, Duration::from_millis(50)).await,
            "our own doing"
        );
        for change in [
            "add element inet buoy managed4 { 10.0.0.9 }",
            "add rule inet buoy in accept",
            "add table inet another; flush ruleset",
        ] {
            nft(change);
            assert!(told(&mut notices, Duration::from_secs(5)).await, "{change}");
            gate.repair(LOOPBACK).expect("repair");
            assert!(
                !told(&mut notices, Duration::from_millis(20)).await,
                "after {change}"
            );
        }
    });
}

/// What the gate itself changes is not taken for somebody else's doing.
#[test]
fn renewals_and_moves_are_our_own_doing() {
    let Some(mut gate) = gate() else { return };
    let mut sentry = gate.sentry().expect("a sentry");
    let [address, ..] = addresses();
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for n in 0..600u64 {
                let slot = 1 + (n % 3) as SlotId;
                let until = boottime() + LEASE + Duration::from_secs(4 * n);
                gate.arm(until).expect("arm");
                gate.advance(&[(slot, until)]).expect("advance");
                match n % 10 {
                    // Slots come and go.
                    0 => gate
                        .open(address, 1 + (n / 10 % 3) as SlotId)
                        .expect("open"),
                    5 => gate.shut(address).expect("shut"),
                    7 => gate.advance(&[(slot, Mono::ZERO)]).expect("advance"),
                    9 => gate.shut_all().expect("shut"),
                    _ => {}
                }
            }
        });
        let mut looks = 0;
        while !changes.is_finished() || looks < 10 {
            assert!(sentry.verify(LOOPBACK).expect("verify"), "look {looks}");
            looks += 1;
        }
        changes.join().expect("the changes");
    });
    assert!(gate.verify(LOOPBACK).expect("verify"));
}

/// Slots that nobody needs any more do not stay in the way of every packet.
#[test]
fn no_more_slots_stand_than_were_used_at_a_time() {
    let Some(mut gate) = gate() else { return };
    let [moving, resting, _] = addresses();
    for slot in 3..crate::gate::SLOTS {
        // It is moved before any address rests on it.
        renew(&mut gate, slot);
        gate.open(moving, slot).expect("open");
        let mut tables = gate.lock();
        assert_eq!(tables.standing, [2, slot].into());
        let there = read::picture(&mut tables.nl).expect("the tables");
        let chains: Vec<_> = there.slots.keys().map(|(_, slot)| *slot).collect();
        assert_eq!(
            chains.len(),
            2 * tables.features.families().count(),
            "{chains:?}"
        );
        let rounds = read::rounds(&mut tables.nl, message::INET).expect("rounds");
        assert_eq!(rounds[&slot], Some(tables.rests[slot as usize]));
        assert_ne!(rounds[&slot], Some(rounds::NO_ROUND));
    }
    for address in [moving, resting] {
        gate.shut(address).expect("shut");
    }
    gate.open(resting, 1).expect("open");
    assert_eq!(gate.lock().standing, [1].into());
    assert!(gate.verify(LOOPBACK).expect("verify"));
}

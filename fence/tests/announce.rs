//! Announcements as a neighbour receives them, and conflicts as a neighbour makes them.

mod common;
#[path = "common/ear.rs"]
mod ear;
#[path = "common/host.rs"]
mod host;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use buoy_core::Mono;
use buoy_fence::announce::{
    AnnounceEvent, Announcer, ArpForm, OFFSETS, Target, gratuitous_arp, unsolicited_na,
};
use buoy_fence::gate::{EbpfGate, EbpfOptions, Gate};
use common::{is_emulated, skip_without_gate, skip_without_root};
use ear::{Ear, frames, raw, target};
use host::{Host, PATIENCE, event, ip, until};

const STRANGER: [u8; 6] = [2, 0xbb, 0, 0, 0, 9];

fn v4(target: &Target) -> Ipv4Addr {
    match target.ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => panic!("{ip} is not IPv4"),
    }
}

#[test]
fn a_neighbour_hears_the_series_byte_for_byte() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("series");
    let router = || std::fs::write("/proc/sys/net/ipv6/conf/eth0/forwarding", "1");
    host.ns.run(router).expect("the sysctl");
    let mut ear = Ear::new(&host);
    let targets = [target(&host, "10.0.0.50"), target(&host, "fd00::50")];
    let mac = targets[0].mac;
    // The first six: up to one second.
    let rounds = 6;
    let began = host.run(|| async {
        let (announcer, _events) = Announcer::start(Arc::new(|_| true)).expect("an announcer");
        let began = Instant::now();
        announcer.up(targets.to_vec()).await;
        until("six rounds are heard", PATIENCE, || {
            ear.listen(mac) >= 3 * rounds
        })
        .await;
        assert_eq!(announcer.counts().sent, 3 * rounds as u64);
        began
    });
    let late = Duration::from_millis(if is_emulated() { 3_000 } else { 500 });
    for target in &targets {
        let expected = frames(target, true);
        let heard: Vec<_> = ear
            .heard
            .iter()
            .filter(|(_, f)| expected.contains(f))
            .collect();
        let bytes: Vec<_> = heard.iter().map(|(_, frame)| frame.clone()).collect();
        let series = vec![expected.clone(); rounds].concat();
        assert_eq!(bytes, series, "{}", target.ip);
        for (round, offset) in OFFSETS.iter().enumerate().take(rounds) {
            let at = heard[round * expected.len()].0.duration_since(began);
            println!("{} round {round} at {at:?}", target.ip);
            assert!(at >= *offset, "round {round} came early: {at:?}");
            assert!(at < *offset + late, "round {round} came late: {at:?}");
        }
    }
    assert_eq!(ear.heard.len(), 3 * rounds, "and nothing else");
}

#[test]
fn two_hundred_vips_are_announced_quickly_each_once_before_any_twice() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("many");
    let mut ear = Ear::new(&host);
    let one = target(&host, "10.0.0.1");
    let targets: Vec<_> = (0..200)
        .map(|n| Target {
            ip: ip(&format!("10.0.1.{n}")),
            ..one.clone()
        })
        .collect();
    host.run(|| async {
        let (announcer, _events) = Announcer::start(Arc::new(|_| true)).expect("an announcer");
        announcer.up(targets.clone()).await;
        until("the first round is heard", PATIENCE, || {
            ear.listen(one.mac) >= 400
        })
        .await;
    });
    let mut order = BTreeMap::<Vec<u8>, usize>::new();
    for (_, frame) in &ear.heard[..400] {
        *order.entry(frame[28..32].to_vec()).or_default() += 1;
    }
    assert!(
        order.len() == 200 && order.values().all(|count| *count == 2),
        "{order:?}"
    );
    let took = ear.heard[399].0.duration_since(ear.heard[0].0);
    println!("200 VIPs announced once within {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn nothing_is_announced_without_a_lease_or_after_going_down() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("silent");
    let mut ear = Ear::new(&host);
    let targets: Vec<_> = ["10.0.0.50", "10.0.0.51", "fd00::50"]
        .map(|text| target(&host, text))
        .to_vec();
    let mac = targets[0].mac;
    let live = Arc::new(AtomicBool::new(false));
    let lease = Arc::clone(&live);
    host.run(|| async {
        let (announcer, _events) =
            Announcer::start(Arc::new(move |_| lease.load(Ordering::Relaxed)))
                .expect("an announcer");
        announcer.up(targets.clone()).await;
        // Three rounds of each would have left.
        until("announcements are withheld", PATIENCE, || {
            announcer.counts().withheld >= 9
        })
        .await;
        assert_eq!((ear.listen(mac), announcer.counts().sent), (0, 0));
        live.store(true, Ordering::SeqCst);
        announcer.up(targets.clone()).await;
        until("a first round is heard", PATIENCE, || ear.listen(mac) >= 5).await;

        announcer.down(&[targets[0].ip, targets[2].ip]);
        ear.listen(mac);
        ear.heard.clear();
        until("the other one goes on", PATIENCE, || ear.listen(mac) >= 6).await;
        let expected = frames(&targets[1], false);
        assert!(
            ear.heard.iter().all(|(_, frame)| expected.contains(frame)),
            "an announcement after `down`"
        );
    });
}

#[test]
fn what_the_gate_stops_is_counted_and_not_tried_again() {
    if skip_without_gate() {
        return;
    }
    let host = Host::new("fenced");
    let mut ear = Ear::new(&host);
    let targets = ["10.0.0.50", "fd00::50"].map(|text| target(&host, text));
    let (mac, ifindex) = (targets[0].mac, targets[0].ifindex);
    let gate = || EbpfGate::new(EbpfOptions::default()).expect("a gate");
    let mut gate = host.ns.run(gate);
    let managed = targets.iter().try_for_each(|target| gate.manage(target.ip));
    managed.expect("managed, and shut");
    gate.attach(ifindex).expect("attached");
    host.run(|| async {
        let (announcer, mut events) = Announcer::start(Arc::new(|_| true)).expect("an announcer");
        announcer.up(targets.to_vec()).await;
        until("three rounds are stopped", PATIENCE, || {
            announcer.counts().fenced >= 9
        })
        .await;
        let counts = announcer.counts();
        assert_eq!((counts.sent, counts.failed, ear.listen(mac)), (0, 0, 0));
        assert!(counts.fenced <= 3 * OFFSETS.len() as u64, "{counts:?}");
        // The gate opens for the rest of the series.
        gate.store(1, Mono(u64::MAX)).expect("stored");
        let opened = targets
            .iter()
            .try_for_each(|target| gate.open(target.ip, 1));
        opened.expect("open");
        until("the rest is heard", PATIENCE, || ear.listen(mac) >= 3).await;
        assert!(events.try_recv().is_err(), "the fence is no failure");
    });
}

#[test]
fn a_conflict_is_told_and_answered() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("conflict");
    let mut ear = Ear::new(&host);
    let mouth = raw(&host.peer, "eth0");
    let targets = [target(&host, "10.0.0.50"), target(&host, "fd00::50")];
    let mac = targets[0].mac;
    // Another interface of this host, perhaps on the same link.
    host.ns.ip("link add second type bridge");
    host.ns.ip("link set second address 02:cc:00:00:00:02");
    let second = [2, 0xcc, 0, 0, 0, 2];
    host.run(|| async {
        let (announcer, mut events) = Announcer::start(Arc::new(|_| true)).expect("an announcer");
        announcer.up(targets.to_vec()).await;
        // Past the quick part of the series, so that an answer stands out.
        until("five rounds are heard", PATIENCE, || ear.listen(mac) >= 15).await;
        for target in &targets {
            let ours = Target {
                mac: STRANGER,
                ..target.clone()
            };
            let claim = frames(&ours, false).pop().expect("a frame");
            let before = announcer.counts();
            mouth.send(&claim).expect("the stranger's claim");
            let told = event(&mut events, "the conflict", |e| {
                matches!(e, AnnounceEvent::Conflict { .. })
            })
            .await;
            let expected = AnnounceEvent::Conflict {
                ip: target.ip,
                mac: STRANGER,
                ifindex: target.ifindex,
            };
            assert_eq!(told, expected);
            assert_eq!(announcer.counts().conflicts, before.conflicts + 1);
            ear.listen(mac);
            let answer = frames(target, false);
            let mut answered = || {
                ear.listen(mac);
                let last = Instant::now() - Duration::from_millis(300);
                ear.heard
                    .iter()
                    .filter(|(at, frame)| *at > last && answer.contains(frame))
                    .count()
            };
            // Two at least within 300 ms, where the series would have sent none.
            until("it is answered", Duration::from_secs(2), || answered() >= 2).await;
        }

        // Not conflicts: our own word, a probe, another address, an advertisement from afar.
        let before = announcer.counts().conflicts;
        let quiet = [
            gratuitous_arp(mac, v4(&targets[0]), ArpForm::Reply).to_vec(),
            gratuitous_arp(second, v4(&targets[0]), ArpForm::Request).to_vec(),
            gratuitous_arp(STRANGER, Ipv4Addr::UNSPECIFIED, ArpForm::Request).to_vec(),
            gratuitous_arp(STRANGER, Ipv4Addr::new(10, 0, 0, 51), ArpForm::Reply).to_vec(),
            {
                let mut afar =
                    unsolicited_na(STRANGER, "fd00::50".parse().expect("an address"), false)
                        .to_vec();
                afar[21] = 64;
                afar
            },
        ];
        for frame in &quiet {
            mouth.send(frame).expect("a frame");
        }
        // One of each kind behind them: what comes before it has been heard by then.
        for target in &targets {
            let ours = Target {
                mac: STRANGER,
                ..target.clone()
            };
            mouth
                .send(&frames(&ours, false).pop().expect("a frame"))
                .expect("a claim");
        }
        until("the claims are heard", PATIENCE, || {
            announcer.counts().conflicts >= before + 2
        })
        .await;
        assert_eq!(announcer.counts().conflicts, before + 2);
    });
}

#[test]
fn a_link_that_changes_its_address_is_announced_again() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("again");
    let mut ear = Ear::new(&host);
    let target = target(&host, "10.0.0.50");
    let moved = [2, 0xaa, 0, 0, 0, 7];
    host.run(|| async {
        let (announcer, _events) = Announcer::start(Arc::new(|_| true)).expect("an announcer");
        announcer.up(vec![target.clone()]).await;
        until("it is heard", PATIENCE, || ear.listen(target.mac) >= 2).await;
        announcer.announce_again(target.ifindex, moved).await;
        ear.heard.clear();
        until("it is heard from its new address", PATIENCE, || {
            ear.listen(moved) >= 6
        })
        .await;
    });
    let expected = frames(
        &Target {
            mac: moved,
            ..target
        },
        false,
    );
    assert!(
        ear.heard[..6]
            .iter()
            .all(|(_, frame)| expected.contains(frame))
    );
}

#[test]
fn an_interface_that_cannot_send_is_told_once() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("cannot");
    let target = target(&host, "10.0.0.50");
    host.run(|| async {
        let (announcer, mut events) = Announcer::start(Arc::new(|_| true)).expect("an announcer");
        host.ns.ip("link set eth0 down");
        announcer.up(vec![target.clone()]).await;
        let told = event(&mut events, "it failed", |e| {
            matches!(e, AnnounceEvent::Failed { .. })
        })
        .await;
        let AnnounceEvent::Failed {
            ip,
            interface,
            error,
        } = told
        else {
            panic!("{told:?}");
        };
        assert_eq!((ip, interface.as_str()), (target.ip, "eth0"));
        assert!(error.contains("down"), "{error}");
        until("it failed again", PATIENCE, || {
            announcer.counts().failed >= 3
        })
        .await;
        assert!(events.try_recv().is_err(), "it was told twice");
        // It works again with the link.
        host.ns.ip("link set eth0 up");
        until("it is sent", PATIENCE, || announcer.counts().sent >= 2).await;
    });
}

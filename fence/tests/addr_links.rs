//! Addresses and the interface that carries them: down, gone, made anew, without a gate.

mod common;
#[path = "common/host.rs"]
mod host;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use buoy_fence::addr::{AddressError, Addresses};
use buoy_fence::watch::KernelEvent;
use common::skip_without_root;
use host::{Host, PATIENCE, add, event, ip, is_there, until, vip};

/// So long is looked that an address stays away.
const QUIET: Duration = Duration::from_secs(1);

#[test]
fn ipv6_addresses_come_back_with_their_interface() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("downup");
    let links = host.links();
    let (addresses, mut events) = host.keeper();
    let local = || {
        host.ns
            .ip("-6 route show table local")
            .contains("local fd00::50 ")
    };
    host.run(|| async {
        add(&addresses, &["10.0.0.50", "fd00::50"]).await;
        host.ns.ip("link set eth0 down");
        event(&mut events, "eth0 is down", |e| {
            matches!(e, KernelEvent::LinkDown { up: false, .. })
        })
        .await;
        event(&mut events, "the kernel took the address", |e| {
            matches!(
                e,
                KernelEvent::AddressRemoved {
                    repaired: false,
                    ..
                }
            )
        })
        .await;
        host.ns.ip("link set eth0 up");
        event(&mut events, "eth0 is up", |e| {
            matches!(e, KernelEvent::LinkUp { .. })
        })
        .await;
        until("the IPv6 address is back", PATIENCE, || {
            is_there(&links, ip("fd00::50")) && local()
        })
        .await;
        assert!(is_there(&links, ip("10.0.0.50")));
        // The host's own address is nobody's to bring back, and an answer needs a way.
        host.ns.ip("addr add fd00::1/64 dev eth0 nodad");
        until("it can be reached", PATIENCE, || {
            let ping = ["-6", "-c1", "-W1", "fd00::50"];
            host.peer.run(|| {
                let ping = Command::new("ping")
                    .args(ping)
                    .stdout(Stdio::null())
                    .status();
                ping.is_ok_and(|status| status.success())
            })
        })
        .await;

        // An interface made anew under the same name.
        host.ns.ip("link del eth0");
        event(&mut events, "eth0 is gone", |e| {
            matches!(e, KernelEvent::LinkGone { .. })
        })
        .await;
        host.ns.veth("eth0", &host.peer, "eth0");
        until("both are back", PATIENCE, || {
            ["10.0.0.50", "fd00::50"]
                .iter()
                .all(|text| is_there(&links, ip(text)))
        })
        .await;
    });
}

#[test]
fn no_address_is_where_no_gate_is() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("ungated");
    let links = host.links();
    let index = || {
        links
            .snapshot()
            .expect("a snapshot")
            .link("eth0")
            .map(|l| l.index)
    };
    let gated = Arc::new(Mutex::new(BTreeSet::new()));
    let set = Arc::clone(&gated);
    let check = Arc::new(move |index: u32| set.lock().unwrap().contains(&index));
    let (addresses, mut events) = host
        .ns
        .run(|| Addresses::start(Arc::new(|_| true), check))
        .expect("a keeper");
    let gate = || gated.lock().unwrap().extend(index());
    let vips = ["10.0.0.50", "fd00::50"];
    let there = |all: bool| {
        vips.iter()
            .filter(|text| is_there(&links, ip(text)))
            .count()
            == if all { 2 } else { 0 }
    };
    host.run(|| async {
        for result in addresses.add(vips.map(vip).to_vec()).await {
            let error = result.expect_err("there is no gate");
            assert!(matches!(error, AddressError::NoGate { .. }), "{error}");
            assert!(error.to_string().contains("eth0"), "{error}");
        }
        assert!(there(false));
        gate();
        add(&addresses, &vips).await;
        assert!(there(true));

        // Made anew under its name, it has no gate at first; the addresses wait for it.
        host.ns.ip("link del eth0");
        event(&mut events, "eth0 is gone", |e| {
            matches!(e, KernelEvent::LinkGone { .. })
        })
        .await;
        host.ns.veth("eth0", &host.peer, "eth0");
        event(&mut events, "eth0 is up", |e| {
            matches!(e, KernelEvent::LinkUp { .. })
        })
        .await;
        let end = Instant::now() + QUIET;
        while Instant::now() < end {
            assert!(there(false), "an address is on an interface without a gate");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gate();
        until("both are back", PATIENCE, || there(true)).await;
    });
}

//! What the server hears of interfaces and traffic control.

mod common;
#[path = "common/host.rs"]
mod host;

use buoy_fence::gate::{EbpfGate, EbpfOptions, Gate};
use buoy_fence::link::LinkFault;
use buoy_fence::watch::KernelEvent;
use common::{skip_without_gate, skip_without_root};
use host::{Host, event, ip};

#[test]
fn interfaces_are_watched_from_birth_to_death() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("watch");
    let (_addresses, mut events) = host.keeper();
    let index = host.ns.ifindex("eth0");
    host.run(|| async {
        // Its own end stays up: only the carrier goes.
        host.peer.ip("link set eth0 down");
        let down = event(&mut events, "no carrier", |e| {
            matches!(e, KernelEvent::LinkDown { .. })
        })
        .await;
        let name = || "eth0".to_owned();
        assert_eq!(
            down,
            KernelEvent::LinkDown {
                ifindex: index,
                name: name(),
                up: true,
                usable_before: true
            }
        );
        host.peer.ip("link set eth0 up");
        let up = event(&mut events, "a carrier", |e| {
            matches!(e, KernelEvent::LinkUp { .. })
        })
        .await;
        assert_eq!(
            up,
            KernelEvent::LinkUp {
                ifindex: index,
                name: name()
            }
        );

        host.ns.ip("link set eth0 address 02:00:00:00:00:07");
        let mac = event(&mut events, "another address", |e| {
            matches!(e, KernelEvent::LinkMacChanged { .. })
        })
        .await;
        let expected = Some([2, 0, 0, 0, 0, 7]);
        assert_eq!(
            mac,
            KernelEvent::LinkMacChanged {
                ifindex: index,
                name: name(),
                mac: expected
            }
        );

        host.ns.ip("link set eth0 down");
        host.ns.ip("link set eth0 name lan0");
        let renamed = event(&mut events, "another name", |e| {
            matches!(e, KernelEvent::LinkRenamed { .. })
        })
        .await;
        let to = || "lan0".to_owned();
        assert_eq!(
            renamed,
            KernelEvent::LinkRenamed {
                ifindex: index,
                from: name(),
                to: to()
            }
        );
        host.ns.ip("link del lan0");
        let gone = event(&mut events, "it is gone", |e| {
            matches!(e, KernelEvent::LinkGone { .. })
        })
        .await;
        assert_eq!(
            gone,
            KernelEvent::LinkGone {
                ifindex: index,
                name: to()
            }
        );
        host.ns.veth("eth0", &host.peer, "eth0");
        let born =
            |e: &KernelEvent| matches!(e, KernelEvent::LinkUp { name, .. } if name == "eth0");
        event(&mut events, "a new one", born).await;
    });
}

#[test]
fn a_port_that_leaves_a_bridge_is_not_gone() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("bridge");
    host.ns.ip("link add br0 type bridge");
    let (_addresses, mut events) = host.keeper();
    host.ns.ip("link set eth0 master br0");
    host.ns.ip("link set eth0 nomaster");
    host.ns.ip("link del br0");
    host.run(|| async {
        let gone = event(&mut events, "the bridge is gone", |e| {
            matches!(e, KernelEvent::LinkGone { .. })
        })
        .await;
        assert!(matches!(gone, KernelEvent::LinkGone { name, .. } if name == "br0"));
    });
}

#[test]
fn changes_of_traffic_control_are_told() {
    if skip_without_gate() {
        return;
    }
    let host = Host::new("tc");
    let (_addresses, mut events) = host.keeper();
    let ifindex = host.ns.ifindex("eth0");
    let gate = || EbpfGate::new(EbpfOptions::default()).expect("a gate");
    let mut gate = host.ns.run(gate);
    host.run(|| async {
        let mut change = async |what: &str, change: &mut dyn FnMut()| {
            while events.try_recv().is_ok() {}
            change();
            let tc = |e: &KernelEvent| matches!(e, KernelEvent::TcChanged { .. });
            let told = event(&mut events, what, tc).await;
            assert_eq!(told, KernelEvent::TcChanged { ifindex }, "{what}");
        };
        let clsact = "qdisc add dev eth0 clsact";
        change(clsact, &mut || drop(host.ns.tool("tc", clsact))).await;
        change("the gate is attached", &mut || {
            gate.attach(ifindex).expect("attached")
        })
        .await;
        let filters = "filter del dev eth0 egress";
        change(filters, &mut || drop(host.ns.tool("tc", filters))).await;
        assert!(!gate.verify(ifindex).expect("verified"));
        let clsact = "qdisc del dev eth0 clsact";
        change(clsact, &mut || drop(host.ns.tool("tc", clsact))).await;
    });
}

#[test]
fn what_keeps_a_vip_away_is_seen() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("faults");
    let links = host.links();
    let check = |interface: &str, vip: &str| {
        let snapshot = links.snapshot().expect("a snapshot");
        snapshot.check(interface, &[ip(vip)])
    };
    assert_eq!(check("eth0", "10.0.0.50"), Ok(()));
    assert_eq!(check("eth0", "fd00::50"), Ok(()));
    assert_eq!(check("lo", "192.0.2.1"), Ok(()));
    assert!(matches!(
        check("eth0", "10.0.1.50"),
        Err(LinkFault::OutsidePrefixes { .. })
    ));
    assert!(matches!(
        check("eth1", "10.0.0.50"),
        Err(LinkFault::Missing { .. })
    ));
    host.peer.ip("link set eth0 down");
    assert!(matches!(
        check("eth0", "10.0.0.50"),
        Err(LinkFault::NoCarrier { .. })
    ));
    host.ns.ip("link set eth0 down");
    assert!(matches!(
        check("eth0", "10.0.0.50"),
        Err(LinkFault::Down { .. })
    ));
}

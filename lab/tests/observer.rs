//! The observer on a real network: it must see an owner, two owners, none, and who speaks out of turn.

mod common;

use std::time::Duration;

use buoy_lab::observer::{Figures, figures};
use buoy_lab::switch::SwitchHandle;
use buoy_lab::sys::clock::now_ns;
use common::{Net, eventually, possible};

const V4: &str = "10.9.0.100";
const V6: &str = "fd00:9::100";
const MS: Duration = Duration::from_millis(1);

fn observe(net: &Net) {
    let addresses = [V4.parse().unwrap(), V6.parse().unwrap()];
    net.handle().observe(&addresses, MS).unwrap();
}

fn add(net: &Net, host: usize) {
    net.must(host, &format!("ip addr add {V4}/24 dev eth0"));
    net.must(host, &format!("ip addr add {V6}/64 dev eth0 nodad"));
}

fn remove(net: &Net, host: usize) {
    net.must(host, &format!("ip addr del {V4}/24 dev eth0"));
    net.must(host, &format!("ip addr del {V6}/64 dev eth0"));
}

/// Waits until exactly these ports answer for both addresses.
fn settled(handle: &SwitchHandle, ports: &[&str]) {
    eventually("the owners are seen", || {
        handle
            .owners()
            .unwrap()
            .iter()
            .all(|owner| owner.ports == ports)
    });
}

fn seen(net: &Net, from: u64, to: u64) -> Vec<Figures> {
    figures(&net.handle().observed(from, to).unwrap(), from, to)
}

#[test]
fn one_owner_then_dark_then_another() {
    if !possible() {
        return;
    }
    let net = Net::new(3);
    observe(&net);
    add(&net, 0);
    settled(net.handle(), &["h0"]);
    let from = now_ns();
    remove(&net, 0);
    settled(net.handle(), &[]);
    add(&net, 1);
    settled(net.handle(), &["h1"]);
    let to = now_ns();
    for figures in seen(&net, from, to) {
        let owners: Vec<_> = figures.owners.iter().map(|it| it.port.as_str()).collect();
        assert_eq!(owners, ["h0", "h1"], "{figures:?}");
        assert_eq!(figures.dark.len(), 1, "{figures:?}");
        let gap = figures.owners[1].first_answer - figures.owners[0].last_answer;
        let dark = figures.dark[0].to - figures.dark[0].from;
        assert!(dark < gap && gap < dark + 50_000_000, "{figures:?}");
        assert_eq!(figures.dual_probes, 0);
    }
}

#[test]
fn two_owners_are_found_out() {
    if !possible() {
        return;
    }
    let net = Net::new(3);
    observe(&net);
    add(&net, 0);
    settled(net.handle(), &["h0"]);
    let from = now_ns();
    add(&net, 2);
    settled(net.handle(), &["h0", "h2"]);
    remove(&net, 0);
    settled(net.handle(), &["h2"]);
    for figures in seen(&net, from, now_ns()) {
        assert!(figures.dual_ms > 5.0, "{figures:?}");
        assert_eq!(figures.dual[0].ports, ["h0", "h2"]);
        assert_eq!(figures.dark_ms, 0.0, "{figures:?}");
    }
}

#[test]
fn two_owners_are_found_out_on_both_sides_of_a_partition() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    observe(&net);
    net.handle()
        .partition(&[vec!["h0".into()], vec!["h1".into()]])
        .unwrap();
    add(&net, 0);
    add(&net, 1);
    settled(net.handle(), &["h0", "h1"]);
}

#[test]
fn who_speaks_for_an_address_of_another_is_astray() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    observe(&net);
    add(&net, 0);
    settled(net.handle(), &["h0"]);
    let from = now_ns();
    net.hosts[1]
        .enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
            socket.set_ip_transparent_v4(true)?; // may send from addresses that are not its own
            let source: std::net::SocketAddr = format!("{V4}:9").parse()?;
            socket.bind(&source.into())?;
            let target = std::net::SocketAddr::new(common::v4(0), 9);
            socket.send_to(b"not mine", &target.into())?;
            Ok(())
        })
        .unwrap();
    let mut figures = seen(&net, from, now_ns()).remove(0);
    eventually("the frame is astray", || {
        // A frame counts for the probe that was sent before it.
        figures = seen(&net, from - 10_000_000, now_ns()).remove(0);
        figures.stray_intervals > 0
    });
    assert_eq!(figures.stray_ports, ["h1"]);
    assert_eq!(figures.dual_probes, 0);
    // The owner's own traffic is not.
    let from = now_ns();
    net.must(0, &format!("ping -c 3 -i 0.02 -W 1 -I {V4} 10.9.0.2"));
    assert_eq!(seen(&net, from, now_ns())[0].stray_intervals, 0);
}

#[test]
fn a_pulled_cable_makes_it_dark_at_once() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    observe(&net);
    add(&net, 0);
    settled(net.handle(), &["h0"]);
    let at = net.handle().cable("h0", false).unwrap();
    settled(net.handle(), &[]);
    for figures in seen(&net, at, now_ns()) {
        assert!(figures.owners.is_empty(), "{figures:?}");
    }
}

#[test]
fn probing_leaves_no_trace_of_the_vip_in_other_caches() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    observe(&net);
    add(&net, 0);
    settled(net.handle(), &["h0"]);
    // The client knows the owner, who then loses the address silently to another: without an
    // announcement the client must stay wrong, or the lab would hide missing announcements.
    let net_owner = net.must(1, "ip neigh show");
    assert!(
        !net_owner.contains(V4) && !net_owner.contains(V6),
        "{net_owner}"
    );
    let cache = net.must(0, "ip neigh show nud all");
    assert!(!cache.contains("0.0.0.0"), "{cache}");
    let entries = cache
        .lines()
        .filter(|line| line.contains("fe80::b0"))
        .count();
    assert!(entries <= 1, "{cache}");
}

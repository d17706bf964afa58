//! Interfaces that fail, flap, lose their name, or go.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Child;

use buoy_lab::sys::clock::now_ns;

use crate::hands::{REPAIR_MS, in_time};
use crate::harness::{Cluster, WEB_A, WEB_B, ms_since, report, wait};

/// Address of a VIP on an interface of its own.
pub const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 5));

/// A cluster with the VIP `svc` on the interfaces svc0 of its members; it is on n1.
pub fn with_service() -> Option<Cluster> {
    let mut cluster = Cluster::formed()?;
    for node in ["n1", "n2"] {
        plug_in(&cluster, node);
    }
    cluster.observe(&[WEB_A.1, WEB_B.1, SERVICE]);
    let put =
        "vip put svc --address 10.77.0.5/32 --interface svc0 --priority n1=150 --priority n2=100";
    cluster.ok("n3", &put.split(' ').collect::<Vec<_>>());
    cluster.wait_on(SERVICE, "n1");
    Some(cluster)
}

#[test]
fn a_failed_interface_costs_its_vips_and_says_so() {
    let Some(cluster) = with_service() else {
        return;
    };
    let service = SERVICE;
    let at = now_ns();
    cluster.exec("n1", "ip link set svc0 down");
    cluster.wait_on(service, "n2");
    let dark = cluster.dark("interface down: its VIP was dark for", service, at);
    assert!(dark < 2.0 * REPAIR_MS, "the move took {dark} ms");
    let (eligible, reasons) = cluster.verdict("n2", "svc", "n1");
    assert!(!eligible, "{reasons}");
    assert!(
        reasons.contains("svc0") && reasons.contains("down"),
        "{reasons}"
    );
    assert_eq!(cluster.owner(WEB_A.1), "n1", "its other interface is fine");

    cluster.exec("n1", "ip link del svc0");
    wait("n1 says that svc0 is missing", || {
        let (_, reasons) = cluster.verdict("n2", "svc", "n1");
        reasons.contains("svc0") && !reasons.contains("down")
    });
    // One that comes back: the node is eligible again, and nothing moves by itself.
    plug_in(&cluster, "n1");
    wait("n1 is eligible again", || {
        cluster.verdict("n2", "svc", "n1").0
    });
    assert_eq!(cluster.owner(service), "n2");
    cluster.never_dual();
}

#[test]
fn a_pulled_cable_and_a_downed_port_say_why() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let (_, a) = WEB_A;
    let explained = |words: &[&str]| {
        let mut said = String::new();
        wait(&format!("n1 says {words:?}"), || {
            let (eligible, reasons) = cluster.verdict("n1", "web-a", "n1");
            said = reasons;
            !eligible && words.iter().all(|word| said.contains(word))
        });
    };
    let at = cluster.lab.switch().cable("n1", false).unwrap();
    cluster.wait_on(a, "n2");
    cluster.dark("cable pulled: web-a was dark for", a, at);
    explained(&["eth0", "carrier"]);
    let other = cluster.buoy("n2", &["vip", "explain", "web-a"]);
    assert!(
        other.out.contains("n1") && other.out.contains("silent"),
        "{other:?}"
    );
    cluster.lab.heal().unwrap();
    cluster.settled(&["n1", "n2", "n3"]);

    cluster.move_to(WEB_A, "n1");
    let at = now_ns();
    cluster.exec("n1", "ip link set eth0 down");
    cluster.wait_on(a, "n2");
    cluster.dark("interface set down: web-a was dark for", a, at);
    explained(&["eth0", "down"]);
    cluster.exec("n1", "ip link set eth0 up");
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.never_dual();
}

#[test]
fn a_flapping_interface_does_not_get_its_vip_back_until_it_is_calm() {
    let Some(mut cluster) = Cluster::formed() else {
        return;
    };
    let service: IpAddr = "10.77.0.5".parse().unwrap();
    for node in ["n1", "n2"] {
        plug_in(&cluster, node);
    }
    cluster.observe(&[WEB_A.1, WEB_B.1, service]);
    let put = "vip put svc --address 10.77.0.5/32 --interface svc0 --priority n1=150 --priority n2=100 --preempt --preempt-delay 0s";
    cluster.ok("n3", &put.split(' ').collect::<Vec<_>>());
    cluster.wait_on(service, "n1");

    // Twice it comes back to where it is preferred; after the third time it does not.
    for time in 1..=3 {
        cluster.exec("n1", "ip link set svc0 down");
        cluster.wait_on(service, "n2");
        cluster.exec("n1", "ip link set svc0 up");
        if time < 3 {
            cluster.wait_on(service, "n1");
        }
    }
    let up = now_ns();
    let mut said = String::new();
    wait("n1 says that svc0 is flapping", || {
        let (eligible, reasons) = cluster.verdict("n2", "svc", "n1");
        said = reasons;
        !eligible && said.contains("svc0 is flapping")
    });
    assert!(said.contains("went down 3 times within 30 s"), "{said}");
    let status = cluster.buoy("n3", &["status"]);
    assert!(status.words().contains("svc0 is flapping"), "{status:?}");
    assert_eq!(cluster.owner(WEB_A.1), "n1", "its other interface is fine");

    cluster.wait_on(service, "n1");
    let calm = ms_since(up);
    report("the VIP is back on a calm interface after", calm);
    assert!(calm > 9_000.0, "back after {calm} ms already");
    let seen = cluster.seen(service, up);
    let bounces = seen.owners.iter().filter(|o| o.port == "n2").count();
    assert_eq!(bounces, 1, "{:?}", seen.owners);
    cluster.never_dual();
}

/// Gives a node another interface, svc0, with a carrier.
pub fn plug_in(cluster: &Cluster, node: &str) {
    cluster.exec(node, "ip link add svc0 type veth peer name svc1");
    let own = node.replace('n', "10.77.0.10");
    cluster.exec(node, &format!("ip addr add {own}/24 dev svc0"));
    for interface in ["svc0", "svc1"] {
        cluster.exec(node, &format!("ip link set {interface} up"));
    }
}

#[test]
fn an_interface_that_loses_its_name_or_goes_takes_its_vip_with_it() {
    let Some(cluster) = with_service() else {
        return;
    };
    // The kernel keeps IPv4 addresses through a rename; nothing may answer for them.
    let at = now_ns();
    cluster.exec("n1", "ip link set svc0 down");
    cluster.exec("n1", "ip link set svc0 name other0 up");
    wait("the address is gone", || {
        !cluster.has_address("n1", SERVICE)
    });
    in_time("interface renamed: address gone after", vec![ms_since(at)]);
    cluster.wait_on(SERVICE, "n2");
    let (eligible, reasons) = cluster.verdict("n2", "svc", "n1");
    assert!(!eligible && reasons.contains("svc0"), "{reasons}");
    cluster.exec("n1", "ip link set other0 down");
    cluster.exec("n1", "ip link set other0 name svc0 up");
    back_on_n1(&cluster);

    let at = now_ns();
    cluster.exec("n1", "ip link del svc0");
    cluster.wait_on(SERVICE, "n2");
    cluster.dark("interface deleted: its VIP was dark for", SERVICE, at);
    plug_in(&cluster, "n1");
    back_on_n1(&cluster);

    // What a network namespace does to interfaces that are taken out of it, or that end with another one.
    let other = OtherNamespace::beside(&cluster, "n1");
    cluster.exec("n1", &format!("ip link set svc1 netns {}", other.0.id()));
    let at = now_ns();
    drop(other);
    cluster.wait_on(SERVICE, "n2");
    cluster.dark(
        "namespace of the peer torn down: its VIP was dark for",
        SERVICE,
        at,
    );
    assert!(!cluster.has_address("n1", SERVICE));
    assert_eq!(cluster.owner(WEB_A.1), "n1", "its other interface is fine");
    cluster.never_dual();
}

fn back_on_n1(cluster: &Cluster) {
    wait("n1 may hold it again", || {
        cluster.verdict("n2", "svc", "n1").0
    });
    cluster.move_to(("svc", SERVICE), "n1");
}

/// A network namespace that lives as long as this process in it.
struct OtherNamespace(Child);

impl OtherNamespace {
    fn beside(cluster: &Cluster, node: &str) -> OtherNamespace {
        let mut command = cluster.command(node, "unshare");
        let child = command.args(["--net", "sleep", "60"]).spawn().unwrap();
        let place = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let node = cluster
            .lab
            .daemon(node)
            .unwrap()
            .unwrap()
            .id()
            .pid
            .cast_unsigned();
        wait("the other namespace", || place(child.id()) != place(node));
        OtherNamespace(child)
    }
}

impl Drop for OtherNamespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

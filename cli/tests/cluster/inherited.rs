//! What the packet gate of a dead predecessor leaves to its successor.

use std::collections::BTreeSet;
use std::net::IpAddr;

use buoy_fence::gate::{EbpfGate, EbpfOptions, Gate, leftovers};
use buoy_fence::link::Links;

use crate::harness::{Cluster, WEB_A, v4};
use crate::interfaces::plug_in;

fn index(interface: &str) -> u32 {
    let snapshot = Links::open().unwrap().snapshot().unwrap();
    snapshot.link(interface).unwrap().index
}

/// Addresses that the gate on an interface of a node fences.
fn fenced(cluster: &Cluster, node: &str, interface: &str) -> BTreeSet<IpAddr> {
    let look = || {
        let found = leftovers(index(interface)).unwrap();
        assert_eq!(found.len(), 2, "in and out: {found:?}");
        let rows = found[0].fenced.as_ref().unwrap().iter();
        Ok(rows.map(|row| row.address).collect())
    };
    cluster.lab.netns(node).unwrap().enter(look).unwrap()
}

#[test]
fn addresses_that_no_vip_has_any_more_are_not_fenced_for_ever() {
    let Some(cluster) = Cluster::unstarted() else {
        return;
    };
    let (unused, used) = (v4(77), v4(78));
    plug_in(&cluster, "n1");
    // A daemon that was killed, and whose VIPs were deleted while nobody ran here.
    let die = || {
        let mut gate = EbpfGate::new(EbpfOptions::default()).unwrap();
        for address in [unused, used] {
            gate.manage(address).unwrap();
        }
        for interface in ["eth0", "svc0"] {
            gate.attach(index(interface)).unwrap();
        }
        Ok(())
    };
    cluster.lab.netns("n1").unwrap().enter(die).unwrap();
    cluster.exec("n1", &format!("ip addr add {used}/24 dev eth0"));

    // Alone it cannot know what was decided meanwhile.
    cluster.start("n1");
    cluster.wait_log("n1", 0, "listening");
    let on = |interface| fenced(&cluster, "n1", interface);
    assert!(on("eth0").is_superset(&[unused, used, WEB_A.1].into()));
    // One gate for all, also where no VIP is any more: its deadlines move.
    assert_eq!(on("svc0"), on("eth0"));

    cluster.start("n2");
    cluster.start("n3");
    cluster.settled(&["n1", "n2", "n3"]);
    let let_go = |ip| format!("{ip}, which an earlier run of buoy fenced, belongs to no VIP");
    cluster.wait_log("n1", 0, &let_go(unused));
    cluster.wait_log("n1", 0, &format!("{used} is on eth0, not by buoy"));
    let rest = on("eth0");
    assert!(!rest.contains(&unused), "{rest:?}");
    assert!(rest.is_superset(&[used, WEB_A.1].into()), "{rest:?}");
    assert!(cluster.has_address("n1", used), "it is somebody else's");

    cluster.exec("n1", &format!("ip addr del {used}/24 dev eth0"));
    cluster.wait_log("n1", 0, &let_go(used));
    assert!(!on("eth0").contains(&used));
    cluster.never_dual();
}

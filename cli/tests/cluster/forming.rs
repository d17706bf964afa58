//! A cluster forms by itself, and comes together again.

use std::time::Duration;

use buoy_lab::sys::clock::now_ns;

use crate::harness::{Cluster, WEB_A, WEB_B, ms_since, report, wait};

#[test]
fn a_cluster_forms_whatever_the_order_of_starts() {
    let Some(cluster) = Cluster::unstarted() else {
        return;
    };
    // The witness first; both VIPs' homes later, one of them much later.
    cluster.start("n3");
    std::thread::sleep(Duration::from_millis(700));
    let alone = cluster.buoy("n3", &["status"]);
    assert_eq!(alone.code, 1, "one of three is no cluster: {alone:?}");
    let begun = now_ns();
    cluster.start("n2");
    for (_, address) in [WEB_A, WEB_B] {
        cluster.wait_on(address, "n2");
    }
    report("two of three: every VIP is up after", ms_since(begun));
    // Its own renewals are answered already; those of the others may still be on their way to it.
    wait("both nodes are heard, and the third is missed", || {
        let two = cluster.buoy("n2", &["status"]);
        two.code == 1
            && two.out.contains("2 of 3 voters heard")
            && two.out.contains("2 of 2 owned exactly once")
    });

    std::thread::sleep(Duration::from_secs(2));
    let begun = now_ns();
    cluster.start("n1");
    cluster.settled(&["n1", "n2", "n3"]);
    report("the late node is part of it after", ms_since(begun));
    // Sticky: a node that comes takes nothing away.
    for (_, address) in [WEB_A, WEB_B] {
        let seen = cluster.seen(address, begun);
        assert_eq!(seen.owners.len(), 1, "{:?}", seen.owners);
        assert_eq!(seen.owners[0].port, "n2");
    }
    cluster.never_dual();
}

#[test]
fn nodes_and_clusters_come_back_with_their_data() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    cluster.ok(
        "n1",
        &[
            "vip",
            "put",
            "extra",
            "--address",
            "192.168.192.30/24",
            "--interface",
            "eth0",
        ],
    );
    for node in ["n1", "n2", "n3"] {
        cluster.lab.kill_daemon(node).unwrap();
        cluster.start(node);
        cluster.settled(&["n1", "n2", "n3"]);
        // Some address may have been on the way back.
        wait("every VIP is held", || {
            cluster.buoy("n1", &["vip", "list"]).code == 0
        });
    }

    let before = cluster.json("n1", &["vip", "history"]);
    let begun = now_ns();
    for node in ["n1", "n2", "n3"] {
        cluster.lab.kill_daemon(node).unwrap();
    }
    for (_, address) in [WEB_A, WEB_B] {
        cluster.wait_silent(address);
    }
    report("the whole cluster killed: silent after", ms_since(begun));
    let begun = now_ns();
    for node in ["n3", "n2", "n1"] {
        cluster.start(node);
    }
    cluster.settled(&["n1", "n2", "n3"]);
    report(
        "the whole cluster restarted: all well after",
        ms_since(begun),
    );

    let after = cluster.json("n1", &["vip", "history"]);
    let (old, new) = (
        before["events"].as_array().unwrap(),
        after["events"].as_array().unwrap(),
    );
    assert!(new.starts_with(old), "history was lost:\n{before}\n{after}");
    let extra = cluster.json("n2", &["vip", "show", "extra"]);
    assert_eq!(extra["spec"]["addresses"][0], "192.168.192.30/24");
    assert_eq!(extra["lease"], "held");
    cluster.never_dual();
}

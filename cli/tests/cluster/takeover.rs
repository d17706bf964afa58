//! An owner that dies, stops, or is cut off: the survivor takes over, and never are there two.

use std::time::Duration;

use buoy_lab::sys::clock::{now_ns, ns_to_ms};

use crate::harness::{BLINK_MS, Cluster, WEB_A, WEB_B, report};

/// A takeover is over by then on a loaded machine; the printed figures say what it usually is.
const TAKEOVER_MS: f64 = 2_000.0;
/// Lease, guard, and one probe that was under way.
const LEASE_MS: f64 = 330.0;

#[test]
fn a_crashed_machine_loses_its_vips_and_gets_none_back_by_itself() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let (_, a) = WEB_A;
    assert_eq!(cluster.owner(a), "n1", "the home of web-a");
    let at = cluster.lab.crash("n1").unwrap();
    cluster.wait_on(a, "n2");
    let dark = cluster.dark("power cut: web-a was dark for", a, at);
    assert!(dark < TAKEOVER_MS, "takeover took {dark} ms");
    let history = cluster.json("n2", &["vip", "history", "web-a"]);
    let last = history["events"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        (&last["cause"], &last["from"], &last["to"]),
        (&"owner-silent".into(), &"n1".into(), &"n2".into())
    );

    let back = now_ns();
    cluster.lab.boot("n1").unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    for (_, address) in [WEB_A, WEB_B] {
        let seen = cluster.seen(address, back);
        assert_eq!(
            seen.owners.len(),
            1,
            "the return moved it: {:?}",
            seen.owners
        );
        assert_eq!(seen.owners[0].port, "n2");
    }
    cluster.never_dual();
}

#[test]
fn the_kernel_falls_silent_when_the_daemon_is_killed() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let (_, a) = WEB_A;
    let at = now_ns();
    cluster.lab.kill_daemon("n1").unwrap();
    cluster.wait_on(a, "n2");
    // The address is still there, as far as the kernel is concerned: what is silent is the gate.
    assert!(
        cluster.has_address("n1", a),
        "the address outlives the daemon for a while"
    );
    let seen = cluster.seen(a, at);
    let old = seen.owners.iter().find(|o| o.port == "n1");
    let silent = old.map_or(0.0, |o| ns_to_ms(o.last_answer - at));
    report("daemon killed: the kernel answered on for", silent);
    assert!(
        silent < LEASE_MS,
        "it answered for {silent} ms after its death"
    );
    let dark = cluster.dark("daemon killed: web-a was dark for", a, at);
    assert!(dark < TAKEOVER_MS, "takeover took {dark} ms");

    // Nobody is there to take it away: the next daemon does, also when it has no lifetime.
    cluster.exec(
        "n1",
        &format!("ip addr replace {a}/24 dev eth0 valid_lft forever"),
    );
    cluster.start("n1");
    cluster.settled(&["n1", "n2", "n3"]);
    assert!(!cluster.has_address("n1", a), "the leftover stays");
    assert!(cluster.log("n1").contains(&format!(
        "{a}/24 was left on eth0 by an earlier process: removed"
    )));
    assert_eq!(cluster.owner(a), "n2");
    cluster.never_dual();
}

#[test]
fn a_stopped_daemon_wakes_up_to_a_shut_gate() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let (_, a) = WEB_A;
    let at = now_ns();
    cluster.lab.pause_daemon("n1").unwrap();
    cluster.wait_on(a, "n2");
    let dark = cluster.dark("daemon stopped: web-a was dark for", a, at);
    assert!(dark < TAKEOVER_MS, "takeover took {dark} ms");
    std::thread::sleep(Duration::from_secs(2));
    let awake = now_ns();
    cluster.lab.resume_daemon("n1").unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.only("n2", a, awake);
    assert!(!cluster.has_address("n1", a));
    cluster.never_dual();
}

/// Without eBPF: the kernel of the old owner falls silent by nftables alone, before the new owner answers.
#[test]
fn the_nftables_gate_silences_stopped_and_killed_daemons() {
    let Some(cluster) = Cluster::formed_of(|topology| topology.fence = Some("nft".to_owned()))
    else {
        return;
    };
    let (_, a) = WEB_A;
    assert!(
        cluster.log("n1").contains("gate=nft"),
        "{}",
        cluster.log("n1")
    );
    let silent_within = |at: u64, port: &str| {
        let seen = cluster.seen(a, at);
        let old = seen.owners.iter().find(|o| o.port == port);
        let silent = old.map_or(0.0, |o| ns_to_ms(o.last_answer - at));
        report("nft: the kernel answered on for", silent);
        assert!(silent < LEASE_MS, "it answered for {silent} ms");
    };
    let at = now_ns();
    cluster.lab.pause_daemon("n1").unwrap();
    cluster.wait_on(a, "n2");
    silent_within(at, "n1");
    let dark = cluster.dark("nft, daemon stopped: web-a was dark for", a, at);
    assert!(dark < TAKEOVER_MS, "takeover took {dark} ms");
    let awake = now_ns();
    cluster.lab.resume_daemon("n1").unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.only("n2", a, awake);

    let at = now_ns();
    cluster.lab.kill_daemon("n2").unwrap();
    cluster.wait_on(a, "n1");
    silent_within(at, "n2");
    let dark = cluster.dark("nft, daemon killed: web-a was dark for", a, at);
    assert!(dark < TAKEOVER_MS, "takeover took {dark} ms");
    // Its successor takes over the tables that it left.
    cluster.start("n2");
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.move_to(WEB_A, "n2");
    cluster.never_dual();
}

#[test]
fn a_partitioned_owner_gives_up_before_another_begins() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let (_, a) = WEB_A;
    let group = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    for (old, new, client) in [
        ("n1", "n2", "with the majority"),
        ("n2", "n1", "with the owner"),
    ] {
        cluster.move_to(WEB_A, old);
        let (mut minority, mut majority) = (group(&[old]), group(&[new, "n3"]));
        match client {
            "with the owner" => minority.push("client".to_owned()),
            _ => majority.push("client".to_owned()),
        }
        let log = cluster.log(old).len();
        let at = cluster
            .lab
            .switch()
            .partition(&[minority, majority])
            .unwrap();
        cluster.wait_on(a, new);
        let dark = cluster.dark(&format!("partition, client {client}: dark for"), a, at);
        assert!(dark < TAKEOVER_MS, "takeover took {dark} ms");
        assert!(!cluster.has_address(old, a), "{old} gave it up");
        let said = cluster.log(old).split_off(log);
        assert!(
            !said.contains("buoy_server::leader: mov"),
            "it moved nothing:\n{said}"
        );
        let alone = cluster.buoy(old, &["status"]);
        assert_eq!(alone.code, 1, "{alone:?}");
        assert!(alone.out.contains("NO QUORUM"), "{alone:?}");
        let healed = now_ns();
        cluster.lab.heal().unwrap();
        cluster.settled(&["n1", "n2", "n3"]);
        let seen = cluster.seen(a, healed);
        assert_eq!(seen.owners.len(), 1, "healing moved it: {:?}", seen.owners);
        assert!(
            seen.longest_dark_ms <= BLINK_MS,
            "healing cost {} ms",
            seen.longest_dark_ms
        );
    }
    cluster.never_dual();
}

#[test]
fn an_isolated_leader_that_owns_everything_is_replaced() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let leader = cluster.lead_elsewhere("n3");
    let other = if leader == "n1" { "n2" } else { "n1" };
    for vip in [WEB_A, WEB_B] {
        cluster.move_to(vip, &leader);
    }
    assert_eq!(cluster.wait_leader("n1"), leader);
    let epoch = cluster.epoch("n1", "web-a");
    let groups = [
        vec![leader.clone()],
        vec![other.to_owned(), "n3".to_owned(), "client".to_owned()],
    ];
    let at = cluster.lab.switch().partition(&groups).unwrap();
    for (name, address) in [WEB_A, WEB_B] {
        cluster.wait_on(address, other);
        let dark = cluster.dark(
            &format!("isolated leader: {name} was dark for"),
            address,
            at,
        );
        assert!(dark < TAKEOVER_MS, "takeover took {dark} ms");
    }
    assert_ne!(cluster.wait_leader(other), leader);
    assert!(
        cluster.epoch(other, "web-a") > epoch,
        "a new owner has a larger epoch"
    );
    cluster.lab.heal().unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    assert_eq!(cluster.owner(WEB_A.1), other);
    cluster.never_dual();
}

#[test]
fn the_loss_of_a_leader_that_owns_nothing_costs_nothing() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let leader = cluster.wait_leader("n1");
    let owner = if leader == "n1" { "n2" } else { "n1" };
    for vip in [WEB_A, WEB_B] {
        cluster.move_to(vip, owner);
    }
    assert_eq!(cluster.wait_leader(owner), leader);
    let at = now_ns();
    cluster.lab.crash(&leader).unwrap();
    crate::harness::wait("there is another leader", || {
        cluster.leader(owner).is_some_and(|new| new != leader)
    });
    report("leader lost: another one after", ns_to_ms(now_ns() - at));
    std::thread::sleep(Duration::from_secs(1));
    for (name, address) in [WEB_A, WEB_B] {
        let seen = cluster.seen(address, at);
        assert_eq!(
            seen.owners.len(),
            1,
            "{name} moved or blinked: {:?}",
            seen.owners
        );
        assert_eq!(seen.owners[0].port, owner);
        let dark = cluster.dark(&format!("leader lost: {name} was dark for"), address, at);
        assert!(dark <= BLINK_MS, "{name} was dark for {dark} ms");
    }
    cluster.never_dual();
}

#[test]
fn a_bad_network_moves_nothing() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let epochs = || ["web-a", "web-b"].map(|vip| cluster.epoch("n1", vip));
    let before = epochs();
    let faults = buoy_lab::switch::protocol::Faults {
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.05,
        ..Default::default()
    };
    cluster
        .lab
        .switch()
        .link_faults(None, None, faults)
        .unwrap();
    std::thread::sleep(Duration::from_secs(20));
    cluster.lab.heal().unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    assert_eq!(
        before,
        epochs(),
        "{}",
        cluster.ok("n1", &["vip", "history"]).out
    );
    cluster.never_dual();
}

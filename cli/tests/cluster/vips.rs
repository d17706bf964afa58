//! VIPs that are declared, edited, deleted and placed while the cluster runs.

use std::net::IpAddr;
use std::time::Duration;

use buoy_lab::sys::clock::{now_ns, ns_to_ms};

use crate::harness::{Cluster, Ran, WEB_A, WEB_B, report, v4, wait};

fn put(cluster: &Cluster, name: &str, rest: &[&str]) -> Ran {
    let mut arguments = vec!["vip", "put", name, "--interface", "eth0"];
    arguments.extend(rest);
    cluster.buoy("n3", &arguments)
}

#[track_caller]
fn fine(ran: Ran) {
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_live_vip_is_edited_deleted_and_its_address_used_again() {
    let Some(mut cluster) = Cluster::formed() else {
        return;
    };
    let (old, new) = (v4(20), v4(21));
    let six: IpAddr = "fd00:192:168::20".parse().unwrap();
    cluster.observe(&[old, new, six, WEB_A.1]);
    let home = ["--priority", "n1=150", "--label", "eth0:dual"];
    let declare = |v4: &str| {
        let mut rest = vec!["--address", v4, "--address", "fd00:192:168::20/64"];
        rest.extend(home);
        put(&cluster, "dual", &rest)
    };
    fine(declare("192.168.192.20/28"));
    cluster.wait_on(old, "n1");
    cluster.wait_on(six, "n1");
    let shown = cluster.exec("n1", "ip -o addr show dev eth0");
    let line = |ip: &str| {
        shown
            .lines()
            .find(|l| l.contains(ip))
            .unwrap_or_else(|| panic!("{shown}"))
            .to_owned()
    };
    assert!(line(" 192.168.192.20/28 ").contains("eth0:dual"), "{shown}");
    assert!(
        !line(" fd00:192:168::20/64 ").contains("tentative"),
        "{shown}"
    );

    let epoch = cluster.epoch("n1", "dual");
    let at = now_ns();
    fine(declare("192.168.192.21/28"));
    cluster.wait_on(new, "n1");
    cluster.wait_silent(old);
    assert!(
        cluster.epoch("n1", "dual") > epoch,
        "an edit is a new epoch"
    );
    wait("the old address is gone", || {
        !cluster.has_address("n1", old)
    });
    cluster.wait_on(six, "n1");
    cluster.dark("address edited: the one that stayed was dark for", six, at);

    // An address is in one VIP only.
    let clash = put(&cluster, "thief", &["--address", "192.168.192.21/28"]);
    assert_eq!(clash.code, 1, "{clash:?}");
    assert!(
        clash.words().contains("dual") && clash.words().contains("192.168.192.21"),
        "{clash:?}"
    );

    fine(cluster.buoy("n3", &["vip", "delete", "dual"]));
    cluster.wait_silent(new);
    cluster.wait_silent(six);
    wait("the kernel has them no more", || {
        !cluster.has_address("n1", new) && !cluster.has_address("n1", six)
    });
    let gone = cluster.buoy("n3", &["vip", "show", "dual"]);
    assert_eq!(gone.code, 1, "{gone:?}");

    fine(put(
        &cluster,
        "heir",
        &["--address", "192.168.192.21/24", "--priority", "n2=150"],
    ));
    cluster.wait_on(new, "n2");
    assert!(cluster.epoch("n1", "heir") > epoch);
    cluster.never_dual();
}

#[test]
fn drained_nodes_pinned_vips_and_witnesses() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let (_, a) = WEB_A;
    let at = now_ns();
    fine(cluster.buoy("n1", &["node", "drain", "n1", "--reason", "new disk"]));
    cluster.wait_on(a, "n2");
    cluster.dark("drained: web-a was dark for", a, at);
    let why = cluster.buoy("n3", &["vip", "explain", "web-a"]);
    assert!(why.out.contains("new disk"), "{why:?}");
    let refused = cluster.buoy("n2", &["vip", "move", "web-a", "--to", "n1"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("drained"), "{refused:?}");
    fine(cluster.buoy("n2", &["node", "undrain", "n1"]));
    cluster.settled(&["n1", "n2", "n3"]);
    assert_eq!(cluster.owner(a), "n2", "sticky");

    let at = now_ns();
    fine(cluster.buoy("n3", &["vip", "move", "web-a", "--to", "n1"]));
    cluster.wait_on(a, "n1");
    cluster.dark("moved: web-a was dark for", a, at);
    assert_eq!(
        cluster.json("n1", &["vip", "show", "web-a"])["pinned"],
        "n1"
    );
    fine(cluster.buoy("n3", &["vip", "move", "web-a", "--auto"]));
    assert!(cluster.json("n1", &["vip", "show", "web-a"])["pinned"].is_null());
    assert_eq!(cluster.owner(a), "n1", "given back, not moved");

    for force in [&[][..], &["--force"]] {
        let mut line = vec!["vip", "move", "web-a", "--to", "n3"];
        line.extend(force);
        let refused = cluster.buoy("n1", &line);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("witness"), "{refused:?}");
    }
    // Nobody is left to take over: the drained owner keeps what it has, for any owner is better than none.
    for node in ["n1", "n2"] {
        fine(cluster.buoy("n3", &["node", "drain", node]));
    }
    for (_, address) in [WEB_A, WEB_B] {
        cluster.wait_on(address, "n2");
    }
    // It dies: then nobody has them, neither the other drained node nor the witness.
    cluster.lab.kill_daemon("n2").unwrap();
    for (_, address) in [WEB_A, WEB_B] {
        cluster.wait_silent(address);
    }
    std::thread::sleep(Duration::from_secs(1));
    for (_, address) in [WEB_A, WEB_B] {
        assert!(cluster.answering(address).is_empty());
        assert!(!cluster.has_address("n3", address) && !cluster.has_address("n1", address));
    }
    let status = cluster.buoy("n3", &["status"]);
    assert_eq!(status.code, 1, "no VIP is up: {status:?}");
    fine(cluster.buoy("n3", &["node", "undrain", "n1"]));
    for (_, address) in [WEB_A, WEB_B] {
        cluster.wait_on(address, "n1");
    }
    cluster.start("n2");
    fine(cluster.buoy("n3", &["node", "undrain", "n2"]));
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.never_dual();
}

#[test]
fn placement_follows_policies() {
    let Some(mut cluster) = Cluster::formed() else {
        return;
    };
    let (eager, friend, shy) = (v4(40), v4(41), v4(42));
    cluster.observe(&[eager, friend, shy]);
    fine(put(
        &cluster,
        "eager",
        &[
            "--address",
            "192.168.192.40/24",
            "--priority",
            "n1=150",
            "--preempt",
            "--preempt-delay",
            "2s",
        ],
    ));
    cluster.wait_on(eager, "n1");
    fine(put(
        &cluster,
        "friend",
        &["--address", "192.168.192.41/24", "--colocate-with", "eager"],
    ));
    cluster.wait_on(friend, "n1");
    fine(put(
        &cluster,
        "shy",
        &[
            "--address",
            "192.168.192.42/24",
            "--avoid",
            "eager",
            "--priority",
            "n1=200",
        ],
    ));
    cluster.wait_on(shy, "n2");

    cluster.lab.kill_daemon("n1").unwrap();
    for address in [eager, friend, shy] {
        cluster.wait_on(address, "n2");
    }
    let back = now_ns();
    cluster.start("n1");
    // Whoever is colocated comes along.
    for address in [eager, friend] {
        cluster.wait_on(address, "n1");
    }
    let seen = cluster.seen(eager, back);
    let first = seen.owners.iter().find(|o| o.port == "n1").unwrap();
    let after = ns_to_ms(first.first_answer - back);
    report(
        "preempted after the start of the better node's daemon by",
        after,
    );
    assert!(
        after >= 2_000.0,
        "preempted after {after} ms, before its delay was over"
    );
    assert_eq!(cluster.owner(shy), "n2");
    let history = cluster.json("n1", &["vip", "history", "eager"]);
    let last = history["events"].as_array().unwrap().last().unwrap();
    assert_eq!(last["cause"], "preempted", "{last}");
    // Moving one moves the other.
    fine(cluster.buoy("n1", &["vip", "move", "friend", "--to", "n2"]));
    for address in [eager, friend] {
        cluster.wait_on(address, "n2");
    }
    cluster.never_dual();
}

/// Addresses of the VIP that is edited: what stays, what the edits take and give.
const STAYS: [IpAddr; 2] = [v4(50), v6(0x50)];
const SWAPPED: [IpAddr; 2] = [v4(51), v4(52)];

const fn v6(last: u16) -> IpAddr {
    let (a, b, c) = (0xfd00, 0x192, 0x168);
    IpAddr::V6(std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last))
}

/// Declares the VIP with what stays and one address that does not.
fn edit(cluster: &Cluster, other: IpAddr, rest: &[&str]) -> Ran {
    let addresses = [STAYS[0], STAYS[1], other].map(|ip| ip.to_string());
    let mut words = Vec::new();
    for address in &addresses {
        words.extend(["--address", address]);
    }
    words.extend(rest);
    put(cluster, "edited", &words)
}

fn wait_gone(cluster: &Cluster, node: &str, addresses: &[IpAddr]) {
    wait(&format!("{node} has none of {addresses:?}"), || {
        !addresses.iter().any(|a| cluster.has_address(node, *a))
    });
}

#[test]
fn an_edit_leaves_what_it_does_not_change_on_the_interface() {
    let Some(mut cluster) = Cluster::formed() else {
        return;
    };
    cluster.observe(&[STAYS[0], STAYS[1], SWAPPED[0], SWAPPED[1]]);
    let home = ["--priority", "n1=150"];
    let (mut there, mut gone) = (SWAPPED[0], SWAPPED[1]);
    fine(edit(&cluster, there, &home));
    for address in [STAYS[0], STAYS[1], there] {
        cluster.wait_on(address, "n1");
    }
    let notices = cluster.notices("n1", STAYS[0]);
    // The old epoch ends by a voter's denial or by the applied entry, whichever is first: several edits see both.
    for round in 1..=10 {
        (there, gone) = (gone, there);
        let (epoch, at) = (cluster.epoch("n1", "edited"), now_ns());
        fine(edit(&cluster, there, &home));
        for address in [STAYS[0], STAYS[1], there] {
            cluster.wait_on(address, "n1");
        }
        cluster.wait_silent(gone);
        wait_gone(&cluster, "n1", &[gone]);
        assert!(cluster.epoch("n1", "edited") > epoch);
        // The kernel tells in order: what was removed before this has been told.
        notices.wait_added(there);
        assert!(notices.removals(gone) > 0, "{gone} was removed");
        let removed = STAYS.map(|address| notices.removals(address));
        assert_eq!(
            removed,
            [0, 0],
            "edit {round} removed what it did not change"
        );
        cluster.dark("edited: what stayed was dark for", STAYS[0], at);
    }
    cluster.never_dual();
}

#[test]
fn what_an_edit_left_goes_with_the_vip() {
    let Some(mut cluster) = Cluster::formed() else {
        return;
    };
    let all = [STAYS[0], STAYS[1], SWAPPED[0], SWAPPED[1]];
    cluster.observe(&all);
    let home = ["--priority", "n1=150"];
    let up = |cluster: &Cluster, node: &str, other: IpAddr| {
        for address in [STAYS[0], STAYS[1], other] {
            cluster.wait_on(address, node);
        }
    };
    // Less than what is left of an address's lifetime: the daemon removes it, not the kernel.
    let soon = |what: &str, at: u64| {
        let ms = ns_to_ms(now_ns() - at);
        report(what, ms);
        assert!(ms < 1_500.0, "{what}: {ms} ms");
    };

    for round in 0..3 {
        fine(edit(&cluster, SWAPPED[0], &home));
        up(&cluster, "n1", SWAPPED[0]);
        let at = now_ns();
        fine(edit(
            &cluster,
            SWAPPED[1],
            &["--priority", "n1=150", "--no-wait"],
        ));
        fine(cluster.buoy("n3", &["vip", "delete", "edited"]));
        wait_gone(&cluster, "n1", &all);
        soon(&format!("edited and deleted, {round}: gone after"), at);
        all.iter().for_each(|address| cluster.wait_silent(*address));
    }

    // The edit itself sends it to another node.
    fine(edit(&cluster, SWAPPED[0], &home));
    up(&cluster, "n1", SWAPPED[0]);
    let at = now_ns();
    fine(edit(&cluster, SWAPPED[1], &["--priority", "n1=0"]));
    wait_gone(&cluster, "n1", &all);
    soon("edited and moved: gone after", at);
    up(&cluster, "n2", SWAPPED[1]);

    // The daemon stops while an edit is under way.
    fine(edit(&cluster, SWAPPED[0], &["--no-wait"]));
    cluster.lab.stop_daemon("n2").unwrap();
    assert!(!all.iter().any(|a| cluster.has_address("n2", *a)));
    up(&cluster, "n1", SWAPPED[0]);
    cluster.never_dual();
}

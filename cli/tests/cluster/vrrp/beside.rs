//! A keepalived of lower priority notices nothing of what happens among the nodes; one of higher priority gets the VIP.

use std::net::IpAddr;
use std::time::Duration;

use buoy_lab::legacy::keepalived::{Auth, Options};
use buoy_lab::legacy::{Instance, State};
use buoy_lab::sys::clock::{duration_ns, now_ns};

use super::{
    ADDRESS, BETTER, Bed, GROUP, Kind, VRID, WORSE, declare, is_left_to, last_answer,
    let_it_have_its_time, put, started, stopped, unchanged, within, yielded, yields,
};
use crate::harness::{Cluster, wait};

/// The VIP goes there and back.
fn moved_about(cluster: &Cluster, address: IpAddr) {
    for node in ["n2", "n1"] {
        cluster.ok("n3", &["vip", "move", "lan", "--to", node]);
        cluster.wait_on(address, node);
    }
    cluster.ok("n3", &["vip", "move", "lan", "--auto"]);
}

#[test]
fn version_2_with_a_password() {
    let Some(bed) = Bed::new(Kind::V2, 1) else {
        return;
    };
    worse(&bed);
    better(&bed);
}

#[test]
fn version_3() {
    let Some(bed) = Bed::new(Kind::V3, 1) else {
        return;
    };
    edits(&bed);
    worse(&bed);
    better(&bed);
}

#[test]
fn version_3_of_ipv6() {
    let Some(bed) = Bed::new(Kind::V6, 1) else {
        return;
    };
    worse(&bed);
    better(&bed);
}

#[test]
fn unicast() {
    let Some(bed) = Bed::new(Kind::Unicast, 1) else {
        return;
    };
    worse(&bed);
    better(&bed);
}

/// A worse keepalived stays backup through moves and crashes.
fn worse(bed: &Bed) {
    let Bed { cluster, kind } = bed;
    let address = kind.address();
    let router = started(&bed.host(1), &kind.router(WORSE), State::Backup);
    let began = now_ns();
    moved_about(cluster, address);
    // Who leads is gone, and has nothing to do with the VIP.
    let leader = cluster.lead_elsewhere("n1");
    bed.home();
    cluster.lab.crash(&leader).unwrap();
    let_it_have_its_time(&kind.instance(WORSE));
    cluster.lab.boot(&leader).unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    unchanged(&router.states_since(began));

    // Its owner's daemon is killed, and comes back.
    bed.home();
    let at = now_ns();
    cluster.lab.kill_daemon("n1").unwrap();
    cluster.start("n1");
    cluster.settled(&["n1", "n2", "n3"]);
    let_it_have_its_time(&kind.instance(WORSE));
    cluster.dark(&format!("{kind:?}: daemon killed: dark"), address, at);
    unchanged(&router.states_since(began));
    bed.home();

    let at = cluster.lab.crash("n1").unwrap();
    cluster.wait_on(address, "n2");
    cluster.dark(&format!("{kind:?}: owner crashed: dark"), address, at);
    let_it_have_its_time(&kind.instance(WORSE));
    unchanged(&router.states_since(began));
    assert_eq!(yields(cluster), Vec::<String>::new());
    stopped(&router);
    cluster.never_dual();
    cluster.lab.boot("n1").unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    bed.home();
}

/// A better keepalived gets the VIP, and gives it back, by a farewell and without.
fn better(bed: &Bed) {
    let Bed { cluster, kind } = bed;
    let address = kind.address();
    let options = kind.router(BETTER);
    let group = kind.instance(GROUP);
    for crashes in [false, true] {
        let router = started(&bed.host(1), &options, State::Master);
        let since = router.states().since(0).last().unwrap().at;
        let words = is_left_to(cluster, address, "r1");
        assert!(words.contains("priority 200"), "{words}");
        within(
            &format!("{kind:?}: keepalived is master: n1 answered until"),
            last_answer(cluster, address, "n1", since),
            options.instance.master_down(),
        );
        let alone = now_ns();
        let_it_have_its_time(&options.instance);
        unchanged(&router.states_since(alone));
        let owners = cluster.seen(address, alone).owners;
        assert!(owners.iter().all(|o| o.port == "r1"), "{owners:?}");

        let (how, at, limit) = if crashes {
            let at = cluster.lab.crash("r1").unwrap();
            ("crashes", at, group.master_down())
        } else {
            ("is stopped", stopped(&router), group.skew())
        };
        cluster.wait_on(address, "n1");
        within(
            &format!("{kind:?}: keepalived {how}: dark"),
            cluster.seen(address, at).longest_dark_ms,
            limit,
        );
        assert_eq!(yielded(cluster, "lan"), None);
    }
    assert_eq!(yields(cluster).len(), 2, "{:?}", yields(cluster));
    cluster.never_two_nodes();
}

/// What is edited and is not on the wire shows nowhere.
fn edits(bed: &Bed) {
    let Bed { cluster, kind } = bed;
    let router = started(&bed.host(1), &kind.router(WORSE), State::Backup);
    let began = now_ns();
    for more in ["preempt_delay = \"1s\"", "preempt = false", ""] {
        declare(cluster, *kind, more);
        let_it_have_its_time(&kind.instance(WORSE));
        unchanged(&router.states_since(began));
    }
    assert_eq!(yields(cluster), Vec::<String>::new());
    stopped(&router);
    cluster.never_dual();
}

#[test]
fn version_2_with_an_authentication_header() {
    let Some(bed) = Bed::empty(&["keepalived"], 1, &[ADDRESS]) else {
        return;
    };
    let cluster = &bed.cluster;
    let face = format!("vrid = {VRID}\nversion = 2\nauth = \"ah\"\npassword = \"1111\"");
    put(cluster, "lan", &[(ADDRESS, 24)], "", &face);
    cluster.wait_on(ADDRESS, "n1");
    let router = |priority| Options {
        auth: Some(Auth::Ah("1111".to_owned())),
        ..Options::from(Kind::V2.instance(priority))
    };
    let worse = started(&bed.host(1), &router(WORSE), State::Backup);
    let began = now_ns();
    moved_about(cluster, ADDRESS);
    let_it_have_its_time(&Kind::V2.instance(WORSE));
    unchanged(&worse.states_since(began));
    stopped(&worse);
    // Its numbers begin again.
    for _ in 0..2 {
        let better = started(&bed.host(1), &router(BETTER), State::Master);
        is_left_to(cluster, ADDRESS, "r1");
        stopped(&better);
        cluster.wait_on(ADDRESS, "n1");
    }
    cluster.never_two_nodes();
}

#[test]
#[ignore = "takes more than a minute"]
fn a_worse_keepalived_stays_backup_for_a_minute() {
    let Some(bed) = Bed::empty(&["keepalived"], 1, &[ADDRESS]) else {
        return;
    };
    let cluster = &bed.cluster;
    let face = format!("vrid = {VRID}");
    put(cluster, "lan", &[(ADDRESS, 24)], "", &face);
    cluster.wait_on(ADDRESS, "n1");
    let instance = Instance::new(VRID, WORSE, &[(ADDRESS, 24)]);
    let router = started(&bed.host(1), &instance.clone().into(), State::Backup);
    let began = now_ns();
    let end = began + duration_ns(Duration::from_secs(60));
    while now_ns() < end {
        moved_about(cluster, ADDRESS);
        cluster.lab.crash("n1").unwrap();
        cluster.wait_on(ADDRESS, "n2");
        let_it_have_its_time(&instance);
        cluster.lab.boot("n1").unwrap();
        cluster.settled(&["n1", "n2", "n3"]);
        wait("n1 may own it", || cluster.verdict("n1", "lan", "n1").0);
        unchanged(&router.states_since(began));
    }
    cluster.never_dual();
}

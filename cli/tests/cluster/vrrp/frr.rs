//! The group beside FRR's vrrpd.

use buoy_lab::legacy::frr::VRRPD;
use buoy_lab::legacy::{Frr, State};
use buoy_lab::sys::clock::{duration_ns, now_ns};

use super::{
    BETTER, Bed, GROUP, Kind, WORSE, have, is_left_to, last_answer, let_it_have_its_time,
    unchanged, within, yielded, yields,
};
use crate::harness::{LIMIT, wait};

/// A backup from some moment on: at its start it may be master until it hears the first advertisement.
fn is_backup(router: &Frr) {
    let quiet = duration_ns(Kind::V3.instance(WORSE).master_down());
    wait("FRR is backup", || {
        router.states().state() == Some(State::Backup)
            && router.states_since(now_ns() - quiet).is_empty()
    });
}

fn a_worse_frr_stays_backup_and_a_better_one_gets_the_vip(kind: Kind) {
    if !have(&[VRRPD]) {
        return;
    }
    let Some(bed) = Bed::new(kind, 1) else {
        return;
    };
    let cluster = &bed.cluster;
    let address = kind.address();
    let host = bed.host(1);
    // Or its kernel answers on eth0 for what it has on the interface that FRR has taken down.
    cluster.exec("r1", "sysctl -q -w net.ipv4.conf.all.arp_ignore=1");
    let router = Frr::start(&host, &kind.instance(WORSE)).unwrap();
    is_backup(&router);
    let began = now_ns();
    for node in ["n2", "n1"] {
        cluster.ok("n3", &["vip", "move", "lan", "--to", node]);
        cluster.wait_on(address, node);
    }
    cluster.ok("n3", &["vip", "move", "lan", "--auto"]);
    cluster.lab.crash("n1").unwrap();
    cluster.wait_on(address, "n2");
    let_it_have_its_time(&kind.instance(WORSE));
    unchanged(&router.states_since(began));
    assert_eq!(yields(cluster), Vec::<String>::new());
    router.stop().unwrap();
    cluster.lab.boot("n1").unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    bed.home();

    let router = Frr::start(&bed.host(1), &kind.instance(BETTER)).unwrap();
    let since = router.wait_state(State::Master, LIMIT).unwrap().at;
    is_left_to(cluster, address, "r1");
    within(
        &format!("{kind:?}: FRR is master: n1 answered until"),
        last_answer(cluster, address, "n1", since),
        kind.instance(BETTER).master_down(),
    );
    let alone = now_ns();
    let_it_have_its_time(&kind.instance(BETTER));
    let owners = cluster.seen(address, alone).owners;
    assert!(owners.iter().all(|o| o.port == "r1"), "{owners:?}");

    let at = cluster.lab.crash("r1").unwrap();
    cluster.wait_on(address, "n1");
    within(
        &format!("{kind:?}: FRR crashed: dark"),
        cluster.seen(address, at).longest_dark_ms,
        kind.instance(GROUP).master_down(),
    );
    assert_eq!(yielded(cluster, "lan"), None);
    assert_eq!(yields(cluster).len(), 1, "{:?}", yields(cluster));
    cluster.never_two_nodes();
}

#[test]
fn beside_frr_by_ipv4() {
    a_worse_frr_stays_backup_and_a_better_one_gets_the_vip(Kind::V3);
}

#[test]
fn beside_frr_by_ipv6() {
    a_worse_frr_stays_backup_and_a_better_one_gets_the_vip(Kind::V6);
}

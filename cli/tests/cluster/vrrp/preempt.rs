//! Who is master and lower stays so: because it is told to on either side, or for a while.

use std::time::Duration;

use buoy_lab::legacy::State;
use buoy_lab::sys::clock::{now_ns, ns_to_ms};

use super::{
    ADDRESS, BETTER, Bed, GROUP, Kind, WORSE, declare, is_left_to, last_answer,
    let_it_have_its_time, started, stopped, unchanged, within, yielded, yields,
};
use crate::harness::{LIMIT, report};

/// A worse keepalived that is master before the group has the VIP at all.
fn master_first(bed: &Bed) -> buoy_lab::legacy::Keepalived {
    bed.cluster.ok("n3", &["vip", "delete", "lan"]);
    bed.cluster.wait_silent(ADDRESS);
    let router = started(&bed.host(1), &bed.kind.router(WORSE), State::Master);
    bed.cluster.wait_on(ADDRESS, "r1");
    router
}

#[test]
fn a_group_that_does_not_preempt_or_waits_leaves_the_vip_where_it_is() {
    let Some(bed) = Bed::new(Kind::V3, 1) else {
        return;
    };
    let Bed { cluster, kind } = &bed;
    let router = master_first(&bed);
    let began = now_ns();
    declare(cluster, *kind, "preempt = false");
    is_left_to(cluster, ADDRESS, "r1");
    let_it_have_its_time(&kind.instance(GROUP));
    unchanged(&router.states_since(began));
    let owners = cluster.seen(ADDRESS, began).owners;
    assert!(owners.iter().all(|o| o.port == "r1"), "{owners:?}");

    let at = stopped(&router);
    cluster.wait_on(ADDRESS, "n1");
    within(
        "no preemption, SIGTERM of keepalived: dark",
        cluster.seen(ADDRESS, at).longest_dark_ms,
        kind.instance(GROUP).skew(),
    );
    // Now the group is master, and no lower one gets a right to stay.
    let router = started(&bed.host(1), &kind.router(WORSE), State::Backup);
    let began = now_ns();
    let_it_have_its_time(&kind.instance(WORSE));
    unchanged(&router.states_since(began));
    stopped(&router);

    let router = master_first(&bed);
    let began = now_ns();
    declare(cluster, *kind, "preempt_delay = \"2s\"");
    is_left_to(cluster, ADDRESS, "r1");
    unchanged(&router.states_since(began));
    let event = router.wait_state(State::Backup, LIMIT).unwrap();
    let after = ns_to_ms(event.at - began);
    within("taken after its delay", after, Duration::from_secs(2));
    assert!(after >= 2000.0, "{after}");
    cluster.wait_on(ADDRESS, "n1");
    assert_eq!(yielded(cluster, "lan"), None);
    report(
        "keepalived answered after that for",
        last_answer(cluster, ADDRESS, "r1", event.at),
    );
    cluster.never_two_nodes();
}

#[test]
fn a_better_keepalived_that_does_not_preempt_stays_backup() {
    let Some(bed) = Bed::new(Kind::V3, 1) else {
        return;
    };
    let cluster = &bed.cluster;
    for kind in [Kind::V3, Kind::V2] {
        declare(cluster, kind, "");
        bed.home();
        let mut options = kind.router(BETTER);
        options.instance.preempt = false;
        let router = started(&bed.host(1), &options, State::Backup);
        let began = now_ns();
        let_it_have_its_time(&options.instance);
        cluster.ok("n3", &["vip", "move", "lan", "--to", "n2"]);
        cluster.wait_on(ADDRESS, "n2");
        let_it_have_its_time(&options.instance);
        unchanged(&router.states_since(began));
        stopped(&router);
    }
    assert_eq!(yields(cluster), Vec::<String>::new());
    cluster.never_dual();
}

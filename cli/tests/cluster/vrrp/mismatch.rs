//! A keepalived that does not agree changes nothing, however high its priority is, and the log names the reason.

use std::time::Duration;

use buoy_lab::legacy::keepalived::{Auth, Options, Unicast};
use buoy_lab::legacy::{Keepalived, State};

use super::{
    ADDRESS, BETTER, Bed, GROUP, Kind, declare, is_left_to, let_it_have_its_time, started, stopped,
    yielded, yields,
};
use crate::harness::{Cluster, LIMIT, v4};

/// What the logs of both members say of a source, each once.
#[track_caller]
fn named(cluster: &Cluster, host: usize, words: &str) {
    let source = format!("192.168.192.{} ", 200 + host);
    for node in ["n1", "n2"] {
        let log = cluster.log(node);
        let lines: Vec<&str> = (log.lines())
            .filter(|line| line.contains("it changes nothing") && line.contains(&source))
            .collect();
        let once = matches!(lines[..], [line] if line.contains(words));
        assert!(once, "{node} on r{host}: expected {words:?}: {lines:#?}");
    }
}

/// A better keepalived that is changed.
fn but(kind: Kind, change: impl FnOnce(&mut Options)) -> Options {
    let mut options = kind.router(BETTER);
    change(&mut options);
    options
}

#[test]
fn a_keepalived_that_does_not_agree_changes_nothing() {
    let v2 = |change: fn(&mut Options)| but(Kind::V2, change);
    let two = [
        (
            v2(|o| o.auth = Some(Auth::Pass("2222".to_owned()))),
            "another password",
        ),
        (
            v2(|o| o.instance.interval = Duration::from_secs(2)),
            "interval of 2 s, expected 1 s",
        ),
        (
            v2(|o| o.instance.addresses.push((v4(51), 24))),
            "2 virtual addresses, expected 1",
        ),
        (v2(|o| o.auth = None), "authentication type 0, expected 1"),
        (Kind::V3.router(BETTER), "VRRP version 3, expected 2"),
    ];
    let v3 = |change: fn(&mut Options)| but(Kind::V3, change);
    let three = [
        (Kind::V2.router(BETTER), "VRRP version 2, expected 3"),
        (
            v3(|o| {
                o.unicast = Some(Unicast {
                    source: v4(207),
                    peers: vec![v4(101), v4(102)],
                });
            }),
            "expected a multicast address",
        ),
        (
            v3(|o| o.instance.addresses = vec![(v4(51), 24)]),
            "192.168.192.50",
        ),
    ];
    let hosts = two.len() + three.len();
    let Some(bed) = Bed::empty(&["keepalived"], hosts, &[ADDRESS]) else {
        return;
    };
    none_of_them_counts(&bed, Kind::V2, 1, &two);
    // Each on a machine that was not heard of yet: the log has a line for each source.
    none_of_them_counts(&bed, Kind::V3, 1 + two.len(), &three);
    // One that agrees is believed in spite of them.
    let _router = started(&bed.host(1), &Kind::V3.router(BETTER), State::Master);
    is_left_to(&bed.cluster, ADDRESS, "r1");
}

fn none_of_them_counts(bed: &Bed, kind: Kind, first: usize, all: &[(Options, &str)]) {
    let cluster = &bed.cluster;
    declare(cluster, kind, "");
    cluster.wait_on(ADDRESS, "n1");
    // None of them agrees with any other either: each becomes master for itself.
    let routers: Vec<_> = (first..)
        .zip(all)
        .map(|(i, (options, _))| Keepalived::start(&bed.host(i), options).unwrap())
        .collect();
    for router in &routers {
        router.wait_state(State::Master, LIMIT).unwrap();
    }
    let_it_have_its_time(&kind.instance(GROUP));
    assert_eq!(yielded(cluster, "lan"), None);
    assert_eq!(yields(cluster), Vec::<String>::new());
    assert!(cluster.has_address("n1", ADDRESS));
    for (i, (_, words)) in (first..).zip(all) {
        named(cluster, i, words);
    }
    for router in &routers {
        stopped(router);
    }
    cluster.never_two_nodes();
}

//! Members never take each other for outsiders, and VIPs that belong together go together.

use buoy_lab::legacy::{Instance, State};

use super::{
    ADDRESS, BETTER, Bed, INTERVAL, Kind, VRID, WORSE, declare, let_it_have_its_time, put, started,
    stopped, unchanged, yielded, yields,
};
use crate::harness::{Cluster, v4, wait};
use buoy_lab::sys::clock::now_ns;

fn to(cluster: &Cluster, node: &str) {
    cluster.ok("n3", &["vip", "move", "lan", "--to", node]);
    cluster.wait_on(ADDRESS, node);
}

/// Another address to send from, added, named, and taken away again, each with the VIP here and there.
#[test]
fn a_member_that_sends_from_elsewhere_is_still_a_member() {
    let Some(bed) = Bed::new(Kind::V3, 1) else {
        return;
    };
    let cluster = &bed.cluster;
    for kind in [Kind::V3, Kind::V2, Kind::Unicast] {
        declare(cluster, kind, "");
        bed.home();
        let mut options = kind.router(WORSE);
        if let Some(unicast) = &mut options.unicast {
            unicast.peers.push(v4(112));
        }
        let router = started(&bed.host(1), &options, State::Backup);
        let began = now_ns();
        to(cluster, "n2");
        // While it holds the VIP.
        cluster.exec("n2", "ip address add 192.168.192.112/24 dev eth0");
        declare(cluster, kind, "source = { n2 = \"192.168.192.112\" }");
        let_it_have_its_time(&kind.instance(WORSE));
        assert_eq!(cluster.answering(ADDRESS), ["n2"]);
        to(cluster, "n1");
        to(cluster, "n2");
        // Gone without a word to the group: it cannot speak for the VIP any more.
        cluster.exec("n2", "ip address del 192.168.192.112/24 dev eth0");
        cluster.wait_on(ADDRESS, "n1");
        declare(cluster, kind, "");
        wait("n2 may own it again", || {
            cluster.verdict("n1", "lan", "n2").0
        });
        to(cluster, "n2");
        // The others come and go.
        for node in ["n3", "n1"] {
            cluster.lab.stop_daemon(node).unwrap();
            cluster.start(node);
            cluster.settled(&["n1", "n2", "n3"]);
        }
        let_it_have_its_time(&kind.instance(WORSE));
        assert_eq!(yields(cluster), Vec::<String>::new(), "{kind:?}");
        unchanged(&router.states_since(began));
        stopped(&router);
        cluster.never_dual();
    }
}

#[test]
fn vips_that_belong_together_are_left_and_taken_back_together() {
    let (a, b) = (v4(50), v4(51));
    let Some(bed) = Bed::empty(&["keepalived"], 1, &[a, b]) else {
        return;
    };
    let (cluster, host) = (&bed.cluster, bed.host(1));
    let face = |vrid| format!("vrid = {vrid}\ninterval = \"200ms\"");
    put(cluster, "a", &[(a, 24)], "", &face(VRID));
    let with = ", colocate_with = [\"a\"]";
    put(cluster, "b", &[(b, 24)], with, &face(VRID + 1));
    cluster.wait_on(a, "n1");
    cluster.wait_on(b, "n1");
    let of = |vrid, priority, address| Instance {
        interval: INTERVAL,
        ..Instance::new(vrid, priority, &[(address, 24)])
    };
    let second = started(&host, &of(VRID + 1, WORSE, b).into(), State::Backup);
    let first = started(&host, &of(VRID, BETTER, a).into(), State::Master);
    for vip in ["a", "b"] {
        wait(&format!("{vip} is left"), || {
            yielded(cluster, vip).is_some()
        });
    }
    let words = yielded(cluster, "b").unwrap();
    assert!(words.starts_with("a is held by"), "{words}");
    // Nobody better has the second one: whoever is there takes it.
    cluster.wait_on(a, "r1");
    cluster.wait_on(b, "r1");
    second
        .wait_state(State::Master, crate::harness::LIMIT)
        .unwrap();
    stopped(&first);
    for address in [a, b] {
        cluster.wait_on(address, "n1");
    }
    second
        .wait_state(State::Backup, crate::harness::LIMIT)
        .unwrap();
    for vip in ["a", "b"] {
        assert_eq!(yielded(cluster, vip), None);
    }
    cluster.never_two_nodes();
}

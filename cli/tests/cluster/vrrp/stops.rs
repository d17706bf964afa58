//! All of the group is gone: a router outside takes over, and gives the VIP back.

use std::time::Duration;

use buoy_lab::legacy::keepalived::Options;
use buoy_lab::legacy::{Instance, State};
use buoy_lab::sys::clock::{duration_ns, now_ns, ns_to_ms};

use super::{
    ADDRESS, Bed, Kind, VRID, WORSE, let_it_have_its_time, put, started, unchanged, within, yields,
};
use crate::harness::{LIMIT, report, wait};

#[test]
fn everything_crashes_and_comes_back() {
    let Some(bed) = Bed::new(Kind::V3, 1) else {
        return;
    };
    let Bed { cluster, kind } = &bed;
    let address = kind.address();
    let router = started(&bed.host(1), &kind.router(WORSE), State::Backup);
    // The owner last: nobody takes over from it.
    for node in ["n3", "n2"] {
        cluster.lab.crash(node).unwrap();
    }
    let at = cluster.lab.crash("n1").unwrap();
    let event = router.wait_state(State::Master, LIMIT).unwrap();
    cluster.wait_on(address, "r1");
    within(
        &format!("{kind:?}: all crashed: keepalived is master after"),
        ns_to_ms(event.at.saturating_sub(at)),
        kind.instance(WORSE).master_down(),
    );
    cluster.dark(&format!("{kind:?}: all crashed: dark"), address, at);

    let at = now_ns();
    for node in ["n1", "n2", "n3"] {
        cluster.lab.boot(node).unwrap();
    }
    router.wait_state(State::Backup, LIMIT).unwrap();
    wait("a node alone has it", || {
        let answering = cluster.answering(address);
        answering == ["n1"] || answering == ["n2"]
    });
    cluster.dark(&format!("{kind:?}: all back: dark"), address, at);
    let backup = now_ns();
    let_it_have_its_time(&kind.instance(WORSE));
    unchanged(&router.states_since(backup));
    assert_eq!(yields(cluster), Vec::<String>::new());
    cluster.never_two_nodes();
}

/// With long intervals, so that what follows in the skew time cannot be mistaken for what follows in the down time.
#[test]
fn the_last_one_that_is_stopped_says_so() {
    let Some(bed) = Bed::empty(&["keepalived", "tshark"], 1, &[ADDRESS]) else {
        return;
    };
    let (cluster, host) = (&bed.cluster, bed.host(1));
    let face = format!("vrid = {VRID}\ninterval = \"2s\"");
    put(cluster, "lan", &[(ADDRESS, 24)], "", &face);
    cluster.wait_on(ADDRESS, "n1");
    let instance = Instance {
        interval: Duration::from_secs(2),
        ..Instance::new(VRID, 200, &[(ADDRESS, 24)])
    };
    // The better it is, the less its skew time; it waits all the same.
    let mut options = Options::from(instance);
    options.instance.preempt = false;
    let router = started(&host, &options, State::Backup);
    let began = now_ns();
    let capture = host.capture("stops.pcap").unwrap();
    cluster.lab.stop_daemon("n1").unwrap();
    cluster.wait_on(ADDRESS, "n2");
    unchanged(&router.states_since(began));
    let at = now_ns();
    cluster.lab.stop_daemon("n2").unwrap();
    report("stopping took", ns_to_ms(now_ns() - at));
    let event = router.wait_state(State::Master, LIMIT).unwrap();
    cluster.wait_on(ADDRESS, "r1");
    cluster.lab.stop_daemon("n3").unwrap();
    cluster.dark("the last holder stops: dark", ADDRESS, at);
    let packets = capture.dissect().unwrap();
    let advertised: Vec<_> = (packets.iter())
        .filter_map(|p| Some((p, p.vrrp?)))
        .filter(|(p, v)| v.vrid == VRID && p.source != "192.168.192.201")
        .collect();
    let (last, advertisement) = advertised.last().unwrap();
    assert_eq!(advertisement.priority, 0, "{last:?}");
    assert_eq!(last.source, "192.168.192.102");
    let farewells = advertised.iter().filter(|(_, v)| v.priority == 0);
    assert_eq!(farewells.count(), 1, "{advertised:#?}");
    let after = event.at.saturating_sub(last.at);
    report("priority 0 until keepalived is master", ns_to_ms(after));
    assert!(
        after < duration_ns(options.instance.interval * 2),
        "{after}"
    );
    cluster.never_two_nodes();
}

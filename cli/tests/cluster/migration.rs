//! From two keepalived machines to a group of three, as docs/migrating-from-keepalived.md says it.

use std::net::IpAddr;
use std::time::Duration;

use buoy_lab::legacy::{Instance, Keepalived, State};
use buoy_lab::sys::clock::now_ns;

use crate::harness::{Cluster, LIMIT, WEB_A, WEB_B, v4, wait};

const ADDRESS: IpAddr = v4(50);
const INTERVAL: Duration = Duration::from_millis(200);

fn keepalived(cluster: &Cluster, node: &str, priority: u8) -> Keepalived {
    let instance = Instance {
        interval: INTERVAL,
        ..Instance::new(51, priority, &[(ADDRESS, 24)])
    };
    let host = cluster.lab.host(node).unwrap();
    Keepalived::start(&host, &instance.into()).unwrap()
}

/// Declares the VIP on the witness, with a VRRP priority; it must be accepted.
fn declare(cluster: &Cluster, priority: u8) {
    let priority = priority.to_string();
    let address = format!("{ADDRESS}/24");
    let face = [
        "--vrid",
        "51",
        "--vrrp-interval",
        "200ms",
        "--vrrp-priority",
        &priority,
    ];
    let mut arguments = vec![
        "vip",
        "put",
        "lan",
        "--interface",
        "eth0",
        "--address",
        &address,
    ];
    arguments.extend(["--priority", "n1=150"]);
    arguments.extend(face);
    cluster.ok("n3", &arguments);
}

#[test]
fn two_keepalived_machines_become_a_group_one_by_one() {
    let Some(mut cluster) = Cluster::of(|_| {}) else {
        return;
    };
    cluster.observe(&[ADDRESS, WEB_A.1, WEB_B.1]);
    let first = keepalived(&cluster, "n1", 150);
    let second = keepalived(&cluster, "n2", 100);
    first.wait_state(State::Master, LIMIT).unwrap();
    second.wait_state(State::Backup, LIMIT).unwrap();
    cluster.wait_on(ADDRESS, "n1");

    // The backup and a new witness become Buoy, below the master's priority.
    let began = now_ns();
    second.stop().unwrap();
    wait("keepalived has ended on n2", || !second.is_running());
    cluster.start("n2");
    cluster.start("n3");
    wait("n3 answers", || cluster.buoy("n3", &["status"]).code != 3);
    cluster.wait_leader("n3");
    declare(&cluster, 50);
    let shown = cluster.json("n3", &["vip", "show", "lan"]);
    assert!(
        shown["yielded"]
            .as_str()
            .unwrap()
            .contains("192.168.192.101"),
        "{shown}"
    );
    cluster.dark("n2 and the witness became Buoy: dark for", ADDRESS, began);
    assert_eq!(cluster.owner(ADDRESS), "n1");
    assert_eq!(first.states_since(began), []);

    // The handover, back, and again.
    for turn in ["first", "second"] {
        let at = now_ns();
        declare(&cluster, 200);
        cluster.wait_on(ADDRESS, "n2");
        first.wait_state(State::Backup, LIMIT).unwrap();
        cluster.dark(
            &format!("handed over to Buoy ({turn} time): dark for"),
            ADDRESS,
            at,
        );
        if turn == "first" {
            let at = now_ns();
            declare(&cluster, 50);
            cluster.wait_on(ADDRESS, "n1");
            first.wait_state(State::Master, LIMIT).unwrap();
            cluster.dark("handed back to keepalived: dark for", ADDRESS, at);
        }
    }

    // The other machine follows.
    let at = now_ns();
    first.stop().unwrap();
    wait("keepalived has ended on n1", || !first.is_running());
    cluster.start("n1");
    cluster.settled(&["n1", "n2", "n3"]);
    assert_eq!(cluster.owner(ADDRESS), "n2", "sticky");
    cluster.dark("n1 became Buoy: dark for", ADDRESS, at);
    let at = now_ns();
    cluster.move_to(("lan", ADDRESS), "n1");
    cluster.dark("moved home: dark for", ADDRESS, at);
}

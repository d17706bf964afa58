//! What people do by hand to the addresses and the gate of a machine that holds VIPs.

use std::net::IpAddr;

use buoy_fence::addr::REPAIR_GAP;
use buoy_lab::sys::clock::now_ns;

use crate::harness::{BLINK_MS, Cluster, WEB_A, ms_since, report, wait};
use crate::interfaces::{SERVICE, plug_in, with_service};

/// What is promised of a repair.
const PROMISED_MS: f64 = 100.0;
/// A single one is over by then however busy the machine is.
pub const REPAIR_MS: f64 = 1_000.0;
/// Repairs of one kind that are timed.
const REPEATS: usize = 9;

/// Half of the repairs (a gap apart, or they would be a fight) keep the promise, also on a machine that does something else at times, and each its limit.
pub fn in_time(what: &str, mut all: Vec<f64>) {
    all.sort_by(f64::total_cmp);
    let (min, median, max) = (all[0], all[all.len() / 2], all[all.len() - 1]);
    println!(
        "  {what}, {} times: {min:.1} / {median:.1} / {max:.1} ms",
        all.len()
    );
    assert!(median <= PROMISED_MS && max <= REPAIR_MS, "{what}: {all:?}");
}

#[test]
fn an_address_removed_by_hand_comes_back() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let (_, a) = WEB_A;
    let repair = |_| {
        std::thread::sleep(REPAIR_GAP);
        let at = now_ns();
        cluster.exec("n1", &format!("ip addr del {a}/24 dev eth0"));
        wait("the address is back", || cluster.has_address("n1", a));
        cluster.wait_on(a, "n1");
        cluster.seen(a, at).longest_dark_ms
    };
    in_time(
        "address removed by hand: dark for",
        (0..REPEATS).map(repair).collect(),
    );
    cluster.wait_log("n1", 0, "somebody removed 192.168.192.13");
    let history = cluster.json("n1", &["vip", "show", "web-a"]);
    assert_eq!(history["owner"], "n1", "it stayed where it was");
    cluster.never_dual();
}

#[test]
fn addresses_flushed_by_hand_come_back_or_their_vip_goes_elsewhere() {
    let Some(cluster) = with_service() else {
        return;
    };
    let repair = |_| {
        std::thread::sleep(REPAIR_GAP);
        let at = now_ns();
        cluster.exec("n1", &format!("ip addr flush dev svc0 to {SERVICE}"));
        wait("the address is back", || cluster.has_address("n1", SERVICE));
        ms_since(at)
    };
    in_time(
        "addresses flushed by hand: back after",
        (0..REPEATS).map(repair).collect(),
    );
    assert_eq!(cluster.json("n3", &["vip", "show", "svc"])["owner"], "n1");

    // Without an address of the interface's own there is no subnet left to answer in: given up at once.
    let at = now_ns();
    cluster.exec("n1", "ip addr flush dev svc0");
    cluster.wait_on(SERVICE, "n2");
    let dark = cluster.dark(
        "the whole subnet flushed: its VIP was dark for",
        SERVICE,
        at,
    );
    assert!(dark < REPAIR_MS, "dark for {dark} ms");
    let (eligible, reasons) = cluster.verdict("n2", "svc", "n1");
    assert!(
        !eligible && reasons.contains("outside every prefix"),
        "{reasons}"
    );

    // The node's own address: it is cut off, and its VIPs go elsewhere when its leases have ended.
    let (_, a) = WEB_A;
    let at = now_ns();
    let own = cluster.exec("n1", "ip -o -4 addr show dev eth0 scope global permanent");
    let own = own.split_whitespace().nth(3).unwrap().to_owned();
    cluster.exec("n1", "ip addr flush dev eth0");
    cluster.wait_on(a, "n2");
    cluster.dark("the node's own address flushed: web-a was dark for", a, at);
    cluster.exec("n1", &format!("ip addr add {own} dev eth0"));
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.never_dual();
}

#[test]
fn a_vip_whose_address_the_kernel_refuses_goes_elsewhere_and_says_why() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    // An interface without a prefix that would go as well, and be the reason.
    let put =
        "vip put svc --address fd77::5/128 --interface lo --priority n1=150 --priority n2=100";
    cluster.ok("n3", &put.split(' ').collect::<Vec<_>>());
    let service: IpAddr = "fd77::5".parse().unwrap();
    let owner = || cluster.json("n3", &["vip", "show", "svc"])["owner"].clone();
    wait("svc is on n1", || {
        owner() == "n1" && cluster.has_address("n1", service)
    });

    let at = now_ns();
    let switch = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
    let off = cluster
        .command("n1", "sh")
        .arg("-c")
        .arg(format!("echo 1 > {switch}"))
        .output();
    assert!(off.as_ref().is_ok_and(|o| o.status.success()), "{off:?}");
    wait("svc is on n2", || {
        owner() == "n2" && cluster.has_address("n2", service)
    });
    report(
        "IPv6 switched off under a VIP: on the other node after",
        ms_since(at),
    );
    let reasons = cluster.verdict("n2", "svc", "n1").1;
    let history = cluster.buoy("n2", &["vip", "history", "svc"]).words();
    for said in [reasons, history] {
        assert!(said.contains("fd77::5 is gone from this node"), "{said}");
        assert!(said.contains("IPv6 is switched off there"), "{said}");
    }
    assert_eq!(cluster.owner(WEB_A.1), "n1", "its other VIPs are fine");
    cluster.never_dual();
}

#[test]
fn an_address_added_by_hand_is_never_answered_for() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let (_, a) = WEB_A;
    // On the other member, and on the witness.
    for node in ["n2", "n3"] {
        let at = now_ns();
        let removal = |_| {
            std::thread::sleep(REPAIR_GAP);
            let at = now_ns();
            cluster.exec(node, &format!("ip addr add {a}/24 dev eth0"));
            wait("the address is gone", || !cluster.has_address(node, a));
            ms_since(at)
        };
        let what = format!("address added by hand on {node}: gone after");
        in_time(&what, (0..REPEATS).map(removal).collect());
        let seen = cluster.seen(a, at);
        assert!(
            seen.owners.iter().all(|o| o.port == "n1"),
            "{:?}",
            seen.owners
        );
    }
    cluster.never_dual();
}

#[test]
fn a_gate_removed_by_hand_is_put_back() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let (_, a) = WEB_A;
    let at = now_ns();
    let repair = |_| {
        let (at, log) = (now_ns(), cluster.log("n1").len());
        cluster.exec("n1", "tc qdisc del dev eth0 clsact");
        cluster.wait_log("n1", log, "somebody removed the packet gate: put back");
        ms_since(at)
    };
    in_time(
        "gate removed by hand: back after",
        (0..REPEATS).map(repair).collect(),
    );
    let seen = cluster.seen(a, at);
    let alone = seen.owners.iter().all(|o| o.port == "n1");
    assert!(
        alone && seen.longest_dark_ms < REPEATS as f64 * BLINK_MS,
        "{:?}",
        seen.owners
    );

    // It is a gate and not just there: the daemon is killed, and the kernel falls silent.
    cluster.lab.kill_daemon("n1").unwrap();
    cluster.wait_on(a, "n2");
    assert!(cluster.has_address("n1", a));
    cluster.never_dual();
}

#[test]
fn a_gate_that_was_kept_out_comes_when_the_way_is_free() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    plug_in(&cluster, "n1");
    cluster.exec("n1", "tc qdisc add dev svc0 clsact");
    let filter = "filter add dev svc0 egress prio 1 protocol ip u32 match u32 0 0 classid 1:1";
    cluster.exec("n1", &format!("tc {filter}"));
    let put = "vip put svc --address 10.77.0.5/32 --interface svc0 --priority n1=150 --no-wait";
    cluster.ok("n3", &put.split(' ').collect::<Vec<_>>());
    // n1 gives it up, and n2 does not have the interface: which of them had it last is left to chance.
    cluster.wait_log("n1", 0, "no packet gate: ");
    wait("n1 says why it cannot hold svc", || {
        let (eligible, reasons) = cluster.verdict("n3", "svc", "n1");
        !eligible && reasons.contains("no packet gate") && reasons.contains("u32")
    });
    let at = now_ns();
    cluster.exec("n1", "tc filter del dev svc0 egress prio 1");
    cluster.wait_log("n1", 0, "packet gate attached");
    report("the way is free: gate attached after", ms_since(at));
    let service: IpAddr = "10.77.0.5".parse().unwrap();
    wait("svc is up", || cluster.has_address("n1", service));
    let log = cluster.log("n1");
    assert_eq!(
        log.matches("no packet gate: ").count(),
        1,
        "said once:\n{log}"
    );
    cluster.never_dual();
}

#[test]
fn an_nftables_gate_is_not_flushed_by_hand() {
    let Some(cluster) = Cluster::formed_of(|topology| topology.fence = Some("nft".to_owned()))
    else {
        return;
    };
    let (_, a) = WEB_A;
    let at = now_ns();
    for _ in 0..REPEATS {
        cluster.exec("n1", "nft flush ruleset");
        let shown = cluster.ok("n1", &["--json", "fence", "show"]).json();
        assert_eq!(shown["gates"][0]["kind"], "nft", "{shown}");
    }
    let seen = cluster.seen(a, at);
    assert!(
        seen.owners.iter().all(|o| o.port == "n1"),
        "{:?}",
        seen.owners
    );
    assert!(
        seen.longest_dark_ms < BLINK_MS,
        "dark for {} ms",
        seen.longest_dark_ms
    );

    // Without its daemon it can be flushed no more than with it.
    cluster.lab.pause_daemon("n1").unwrap();
    cluster.exec("n1", "nft flush ruleset");
    cluster.wait_on(a, "n2");
    assert!(cluster.has_address("n1", a));
    cluster.lab.resume_daemon("n1").unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.never_dual();
}

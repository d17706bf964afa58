//! Virtual MACs: neighbours find a VIP at one MAC wherever it is, and the fence is the same.

use std::net::IpAddr;
use std::time::Duration;

use buoy_lab::legacy::tshark::Packet;
use buoy_lab::legacy::{Capture, Host};
use buoy_lab::sys::clock::now_ns;

use crate::harness::{Cluster, Ran, WEB_A, WEB_B, ms_since, program, report, v4, wait};

/// A VIP of the tests.
const ADDRESS: IpAddr = v4(50);
const VRID: u8 = 51;
const INTERFACE: &str = "vrrp.51.eth0";
const MAC: &str = "00:00:5e:00:01:33";
/// As for VIPs without a virtual MAC.
const TAKEOVER_MS: f64 = 2_000.0;
/// Lease of the lab's timing, and what the switch needs to say so.
const LEASE_MS: f64 = 330.0;

/// The three nodes with the VIP on n1, and a neighbour.
fn with_vip(fence: Option<&str>, mac: &str) -> Option<(Cluster, Host)> {
    let mut cluster = Cluster::formed_of(|t| {
        t.hosts = vec!["r1".to_owned()];
        t.fence = fence.map(str::to_owned);
    })?;
    cluster.observe(&[ADDRESS, WEB_A.1, WEB_B.1]);
    let host = cluster.lab.host("r1").unwrap();
    declare(&cluster, mac);
    cluster.wait_on(ADDRESS, "n1");
    Some((cluster, host))
}

fn declare(cluster: &Cluster, mac: &str) {
    let file = cluster.config_path("n3").with_file_name("vmac.toml");
    let text = format!(
        "[[vip]]\nname = \"lan\"\naddresses = [\"{ADDRESS}/24\"]\ninterface = \"eth0\"\n\
         placement = {{ priority = {{ n1 = 150 }} }}\n\
         [vip.vrrp]\nvrid = {VRID}\ninterval = \"200ms\"\nmac = \"{mac}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    cluster.ok("n3", &["vip", "put", "-f", file.to_str().unwrap()]);
}

/// Interfaces of a node, with all that iproute2 says of them.
fn links(cluster: &Cluster, node: &str) -> String {
    cluster.exec(node, "ip -d link show")
}

fn has_interface(cluster: &Cluster, node: &str) -> bool {
    links(cluster, node).contains(INTERFACE)
}

/// Does the node have the VIP, on the interface of the virtual MAC and on no other?
fn carries(cluster: &Cluster, node: &str) -> bool {
    let all = cluster.exec(node, "ip -o -4 addr show");
    let mut on = all.lines().filter(|l| l.contains(&format!(" {ADDRESS}/")));
    let first = on.next();
    assert!(on.next().is_none(), "{all}");
    first.is_some_and(|line| line.contains(INTERFACE))
}

fn arp_settings(cluster: &Cluster, node: &str) -> String {
    let path = "/proc/sys/net/ipv4/conf/eth0";
    cluster.exec(node, &format!("cat {path}/arp_ignore {path}/arp_announce"))
}

/// What the neighbour believes, once it has heard an answer.
fn neighbour(cluster: &Cluster) -> String {
    let ping = format!("ping -c 1 -W 1 {ADDRESS}");
    wait("the neighbour gets an answer", || {
        let mut words = ping.split(' ');
        let mut command = cluster.command("r1", words.next().unwrap());
        command.args(words).output().unwrap().status.success()
    });
    cluster.exec("r1", &format!("ip neigh show {ADDRESS}"))
}

fn capture(cluster: &Cluster, port: &str) -> Capture {
    let place = cluster.lab.topology().place(port);
    let host = Host::new(cluster.lab.netns(port).unwrap(), "eth0", &place);
    host.capture("vmac.pcap").unwrap()
}

fn vip(packets: &[Packet]) -> Vec<&Packet> {
    let from = ADDRESS.to_string();
    packets.iter().filter(|p| p.source == from).collect()
}

fn macs<'a>(packets: impl IntoIterator<Item = &'a Packet>) -> Vec<String> {
    let mut all: Vec<String> = packets.into_iter().map(|p| p.mac.clone()).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn neighbours_find_it_at_the_same_mac_before_and_after_a_move_and_a_crash() {
    let Some((cluster, host)) = with_vip(None, "virtual") else {
        return;
    };
    for node in ["n1", "n2"] {
        let all = links(&cluster, node);
        assert!(
            all.contains(MAC) && all.contains("macvlan mode bridge"),
            "{all}"
        );
        assert_eq!(arp_settings(&cluster, node), "1\n2\n");
    }
    assert!(!has_interface(&cluster, "n3"), "a witness holds nothing");
    assert!(carries(&cluster, "n1") && !carries(&cluster, "n2"));
    let shown = cluster.ok("n3", &["vip", "show", "lan"]).words();
    assert!(shown.contains("virtual MAC"), "{shown}");
    let shown = cluster.json("n1", &["fence", "show"]);
    assert_eq!(
        shown["gates"][0]["interfaces"],
        serde_json::json!(["eth0", "lo", INTERFACE])
    );

    let capture = host.capture("neighbour.pcap").unwrap();
    assert!(neighbour(&cluster).contains(MAC));
    let at = now_ns();
    cluster.ok("n3", &["vip", "move", "lan", "--to", "n2"]);
    cluster.wait_on(ADDRESS, "n2");
    assert!(carries(&cluster, "n2") && !carries(&cluster, "n1"));
    // Not asked anew: the switch has learned where the MAC is.
    assert!(neighbour(&cluster).contains(MAC));
    let dark = cluster.dark("virtual MAC, planned move: dark for", ADDRESS, at);
    assert!(dark < 100.0, "the move took {dark} ms");

    cluster.ok("n3", &["vip", "move", "lan", "--to", "n1"]);
    cluster.wait_on(ADDRESS, "n1");
    let at = cluster.lab.crash("n1").unwrap();
    cluster.wait_on(ADDRESS, "n2");
    let dark = cluster.dark("virtual MAC, crash: dark for", ADDRESS, at);
    assert!(dark < TAKEOVER_MS, "the takeover took {dark} ms");
    assert!(neighbour(&cluster).contains(MAC));
    report("the neighbour has it again after", ms_since(at));

    let packets = capture.dissect().unwrap();
    let arp: Vec<&Packet> = vip(&packets)
        .into_iter()
        .filter(|p| p.protocols.contains("arp"))
        .collect();
    assert!(arp.len() >= 2, "announced and answered");
    assert_eq!(macs(arp), [MAC]);
    cluster.never_dual();
}

#[test]
fn advertisements_leave_with_the_mac_that_is_asked_for() {
    let Some((cluster, host)) = with_vip(None, "virtual") else {
        return;
    };
    let own = cluster
        .lab
        .topology()
        .mac("n1")
        .map(|b| format!("{b:02x}"))
        .join(":");
    let seen = |while_it: &dyn Fn()| {
        let capture = host.capture("macs.pcap").unwrap();
        while_it();
        std::thread::sleep(Duration::from_secs(1));
        let packets = capture.dissect().unwrap();
        let vrrp: Vec<Packet> = packets
            .iter()
            .filter(|p| p.vrrp.is_some())
            .cloned()
            .collect();
        assert!(vrrp.len() >= 3, "{} advertisements", vrrp.len());
        assert!(vrrp.iter().all(|p| p.warnings.is_empty()), "{vrrp:?}");
        let own_address = cluster.lab.topology().addresses("n1")[0].0.to_string();
        assert!(vrrp.iter().all(|p| p.source == own_address), "{vrrp:?}");
        let arp = vip(&packets).into_iter();
        let arp = arp.filter(|p| p.protocols.contains("arp"));
        (macs(&vrrp), macs(arp))
    };
    let ask = || {
        cluster.exec("r1", "ip neigh flush all");
        neighbour(&cluster);
    };
    assert_eq!(seen(&ask), (vec![MAC.to_owned()], vec![MAC.to_owned()]));
    let epoch = cluster.epoch("n3", "lan");
    declare(&cluster, "virtual-xmit-base");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.epoch("n3", "lan"), epoch, "it moved nowhere");
    assert_eq!(seen(&ask), (vec![own.clone()], vec![MAC.to_owned()]));

    // Without one nothing is left of it.
    declare(&cluster, "interface");
    wait("it is on the interface itself", || {
        cluster
            .exec("n1", "ip -o -4 addr show dev eth0")
            .contains(&format!(" {ADDRESS}/"))
    });
    for node in ["n1", "n2"] {
        wait("the interface is gone", || !has_interface(&cluster, node));
        assert_eq!(arp_settings(&cluster, node), "0\n0\n");
    }
    cluster.wait_on(ADDRESS, "n1");
    assert_eq!(seen(&ask), (vec![own.clone()], vec![own]));
    cluster.never_dual();
}

#[test]
fn the_ebpf_gate_silences_a_stopped_daemon_on_both_interfaces() {
    silenced("ebpf");
}

#[test]
fn the_nftables_gate_silences_a_stopped_daemon_on_both_interfaces() {
    silenced("nft");
}

fn silenced(fence: &str) {
    let Some((cluster, _)) = with_vip(Some(fence), "virtual") else {
        return;
    };
    // What leaves n1, behind its gates.
    let capture = capture(&cluster, "n1");
    let at = now_ns();
    cluster.lab.pause_daemon("n1").unwrap();
    cluster.wait_on(ADDRESS, "n2");
    let dark = cluster.dark(
        &format!("{fence}, virtual MAC, stopped: dark for"),
        ADDRESS,
        at,
    );
    assert!(dark < TAKEOVER_MS, "the takeover took {dark} ms");
    let old = cluster.seen(ADDRESS, at).owners;
    let last = old.iter().find(|o| o.port == "n1").map(|o| o.last_answer);
    let silent = last.map_or(0.0, |last| (last - at) as f64 / 1e6);
    report(&format!("{fence}: the kernel answered on for"), silent);
    assert!(silent < LEASE_MS, "it answered for {silent} ms");
    // The address is still there: somebody on the host itself tries to speak in its name, by either interface.
    for interface in [INTERFACE, "eth0"] {
        let line = format!("ping -c 3 -i 0.2 -W 1 -I {interface} {}", v4(201));
        let mut words = line.split(' ');
        let _ = cluster
            .command("n1", words.next().unwrap())
            .args(words)
            .output();
    }
    let from = format!("ping -c 3 -i 0.2 -W 1 -I {ADDRESS} {}", v4(201));
    let mut words = from.split(' ');
    let _ = cluster
        .command("n1", words.next().unwrap())
        .args(words)
        .output();
    let packets = capture.dissect().unwrap();
    let vmac = |p: &&Packet| p.mac == MAC;
    let own = cluster
        .lab
        .topology()
        .mac("n1")
        .map(|b| format!("{b:02x}"))
        .join(":");
    // With the virtual MAC the new owner's frames come in as well.
    let late = vip(&packets);
    let late: Vec<_> = late
        .into_iter()
        .filter(|p| p.at as f64 > at as f64 + LEASE_MS * 1e6 && p.mac == own)
        .collect();
    assert!(late.is_empty(), "{late:?}");
    assert!(packets.iter().any(|p| vmac(&p)));
    let awake = now_ns();
    cluster.lab.resume_daemon("n1").unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.only("n2", ADDRESS, awake);
    wait("the address is gone", || {
        !cluster.has_address("n1", ADDRESS)
    });

    // A killed one leaves everything behind, and its successor goes on with it.
    let at = now_ns();
    cluster.lab.kill_daemon("n2").unwrap();
    cluster.wait_on(ADDRESS, "n1");
    cluster.dark(
        &format!("{fence}, virtual MAC, killed: dark for"),
        ADDRESS,
        at,
    );
    assert!(has_interface(&cluster, "n2"));
    cluster.start("n2");
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.ok("n3", &["vip", "move", "lan", "--to", "n2"]);
    cluster.wait_on(ADDRESS, "n2");
    cluster.never_dual();
}

#[test]
fn an_interface_that_is_removed_comes_back_and_what_is_not_ours_is_left_alone() {
    let Some((cluster, _)) = with_vip(None, "virtual") else {
        return;
    };
    let at = now_ns();
    cluster.exec("n1", &format!("ip link del {INTERFACE}"));
    wait("it is made anew", || has_interface(&cluster, "n1"));
    report(
        "interface of a virtual MAC removed: made anew after",
        ms_since(at),
    );
    wait("somebody has the VIP under a new epoch", || {
        ["n1", "n2"].iter().any(|n| carries(&cluster, n)) && cluster.answering(ADDRESS).len() == 1
    });
    let dark = cluster.dark("interface of a virtual MAC removed: dark for", ADDRESS, at);
    assert!(dark < TAKEOVER_MS, "dark for {dark} ms");
    cluster.wait_log("n1", 0, "was removed, and is made anew");

    let at = now_ns();
    let owner = cluster.owner(ADDRESS);
    cluster.exec(&owner, &format!("ip link set {INTERFACE} down"));
    wait("it is up again", || {
        cluster
            .exec(&owner, &format!("ip link show {INTERFACE}"))
            .contains(",UP")
    });
    report("set down: up again after", ms_since(at));
    wait("the VIP is answered", || {
        cluster.answering(ADDRESS).len() == 1
    });

    // The interface below goes, and with it everything.
    for node in ["n1", "n2"] {
        wait("all is well", || cluster.buoy(node, &["status"]).code == 0);
    }
    cluster.ok("n3", &["vip", "move", "lan", "--to", "n1"]);
    cluster.wait_on(ADDRESS, "n1");
    cluster.exec("n1", "ip link set eth0 down");
    cluster.wait_on(ADDRESS, "n2");
    cluster.exec("n1", "ip link set eth0 up");
    cluster.settled(&["n1", "n2", "n3"]);

    // Somebody else's of that name: a fault, and it stays as it is.
    cluster.ok("n3", &["vip", "delete", "lan"]);
    wait("it is gone everywhere", || {
        ["n1", "n2"].iter().all(|n| !has_interface(&cluster, n))
    });
    cluster.exec(
        "n2",
        &format!("ip link add {INTERFACE} type veth peer name stray"),
    );
    declare(&cluster, "virtual");
    cluster.wait_on(ADDRESS, "n1");
    wait("n2 says why it cannot have it", || {
        let (eligible, reasons) = cluster.verdict("n3", "lan", "n2");
        !eligible && reasons.contains("not what buoy would make")
    });
    assert!(links(&cluster, "n2").contains("veth"));
    cluster.exec("n2", &format!("ip link del {INTERFACE}"));
    wait("n2 may have it", || cluster.verdict("n3", "lan", "n2").0);
    cluster.never_dual();
}

#[test]
fn nothing_is_left_after_a_stop_and_after_fence_remove() {
    let Some((cluster, _)) = with_vip(None, "virtual") else {
        return;
    };
    cluster.lab.stop_daemon("n1").unwrap();
    assert!(!has_interface(&cluster, "n1"));
    assert_eq!(arp_settings(&cluster, "n1"), "0\n0\n");
    cluster.wait_on(ADDRESS, "n2");
    cluster.lab.kill_daemon("n2").unwrap();
    assert!(has_interface(&cluster, "n2"));
    let mut command = cluster.command("n2", program());
    let removed = Ran::of(
        command
            .args(["--json", "fence", "remove"])
            .output()
            .unwrap(),
    );
    assert_eq!(removed.code, 0, "{}", removed.words());
    assert!(!has_interface(&cluster, "n2"));
    assert_eq!(arp_settings(&cluster, "n2"), "0\n0\n");
}

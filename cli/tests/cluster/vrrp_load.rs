//! What 255 virtual routers cost one node, and how late its advertisements are on a busy machine: `make bench-vrrp`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use buoy_lab::legacy::keepalived::Options;
use buoy_lab::legacy::tshark::Packet;
use buoy_lab::legacy::{Instance, Keepalived, State};
use buoy_lab::sys::clock::{duration_ns, now_ns};

use crate::harness::{Cluster, wait};

/// Virtual routers, all on one node.
const ROUTERS: usize = 255;
const INTERVAL: Duration = Duration::from_millis(100);
/// How long is measured.
const SPAN: Duration = Duration::from_secs(10);
/// The daemon's thread that speaks VRRP.
const THREAD: &str = "buoy-vrrp";

/// Time on a processor, ns, of the threads of these processes that have this name; all if it is empty.
fn busy(pids: &[i32], name: &str) -> u64 {
    let threads = |pid: &i32| std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tasks = pids.iter().flat_map(threads).flatten();
    let ran = tasks.map(|task| {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let ran = read("schedstat");
        let ran: Option<u64> = ran.split(' ').next().and_then(|n| n.parse().ok());
        match name.is_empty() || read("comm").trim() == name {
            true => ran.unwrap_or(0),
            false => 0,
        }
    });
    ran.sum()
}

/// Takes realtime scheduling from the thread of a process that speaks VRRP.
fn take_realtime(pid: i32) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut speaks = tasks.flatten().filter(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm"));
        comm.is_ok_and(|comm| comm.trim() == THREAD)
    });
    let task = speaks.next().expect("it has such a thread").file_name();
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain values.
    let done = unsafe {
        libc::sched_setscheduler(
            task.to_str().unwrap().parse().unwrap(),
            libc::SCHED_OTHER,
            &parameters,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// By how much each advertisement came later than one interval after the one before, ms, in order.
fn lateness(packets: &[Packet]) -> Vec<f64> {
    let mut last: BTreeMap<u8, u64> = BTreeMap::new();
    let mut late = Vec::new();
    for (packet, vrrp) in packets.iter().filter_map(|p| Some((p, p.vrrp?))) {
        if let Some(before) = last.insert(vrrp.vrid, packet.at) {
            let gap = packet.at.saturating_sub(before);
            late.push(gap.saturating_sub(duration_ns(INTERVAL)) as f64 / 1e6);
        }
    }
    late.sort_by(f64::total_cmp);
    late
}

/// Programs that do nothing but turn, one for each processor; they end with this.
struct Burners(Vec<std::process::Child>);

impl Burners {
    fn start() -> Burners {
        let count = std::thread::available_parallelism().map_or(2, usize::from);
        let one = || {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", "while :; do :; done"]).spawn().unwrap()
        };
        Burners((0..count).map(|_| one()).collect())
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The address of a router.
fn address(vrid: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x192, 0x168, 0, 0, 0, 1, vrid.into()).into()
}

/// What a listener sees and the sender uses, on an idle machine and on a busy one.
fn measure(what: &str, cluster: &Cluster, pids: &[i32], thread: &str) {
    for loaded in [false, true] {
        let burners = loaded.then(Burners::start);
        let host = cluster.lab.host("r2").unwrap();
        let capture = host.capture("load.pcap").unwrap();
        let used = || (busy(pids, thread), busy(pids, ""));
        let (before, began) = (used(), now_ns());
        std::thread::sleep(SPAN);
        let (after, span) = (used(), (now_ns() - began) as f64);
        let packets = capture.dissect().unwrap();
        drop(burners);
        let share = |after: u64, before: u64| (after - before) as f64 / span * 100.0;
        let late = lateness(&packets);
        assert!(late.len() > ROUTERS * 50, "{} advertisements", late.len());
        let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
        println!(
            "| {what} | {} | {:.1}% | {:.1}% | {:.1} ms | {:.1} ms | {:.1} ms |",
            if loaded { "busy" } else { "idle" },
            share(after.0, before.0),
            share(after.1, before.1),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

#[test]
#[ignore = "a measurement: make bench-vrrp"]
fn two_hundred_and_fifty_five_routers() {
    let Some(cluster) = Cluster::of(|t| t.hosts = vec!["r1".to_owned(), "r2".to_owned()]) else {
        return;
    };
    for node in ["n1", "n2", "n3"] {
        cluster.start(node);
    }
    cluster.settled(&["n1", "n2", "n3"]);
    let mut file = String::new();
    for vrid in 1..=255 {
        let _ = writeln!(
            file,
            "[[vip]]\nname = \"v{vrid}\"\naddresses = [\"{}/64\"]\ninterface = \"eth0\"\n\
             placement = {{ priority = {{ n1 = 150 }} }}\nvrrp = {{ vrid = {vrid}, interval = \"100ms\" }}",
            address(vrid)
        );
    }
    let path = cluster.config_path("n3").with_file_name("load.toml");
    std::fs::write(&path, file).unwrap();
    cluster.ok(
        "n3",
        &["vip", "put", "--no-wait", "-f", path.to_str().unwrap()],
    );
    wait("all routers are active", || {
        let status = cluster.json("n1", &["vrrp", "status"]);
        let routers = status["routers"].as_array().unwrap();
        routers.len() == ROUTERS && routers.iter().all(|r| r["state"] == "active")
    });
    println!("| program | machine | its VRRP thread | whole process | late p50 | p99 | max |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let pid = cluster.process("n1").id().pid;
    measure("Buoy", &cluster, &[pid], THREAD);
    take_realtime(pid);
    measure("Buoy, VRRP without realtime", &cluster, &[pid], THREAD);
    for node in ["n1", "n2", "n3"] {
        cluster.lab.kill_daemon(node).unwrap();
    }
    let all: Vec<Options> = (1..=255)
        .map(|vrid| {
            // It wants a link-local address first.
            let link = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, vrid.into());
            let addresses = [(link.into(), 64), (address(vrid), 64)];
            Options::from(Instance {
                interval: INTERVAL,
                ..Instance::new(vrid, 100, &addresses)
            })
        })
        .collect();
    let router = Keepalived::start_all(&cluster.lab.host("r1").unwrap(), &all).unwrap();
    wait("all instances are master", || {
        let masters = router.states_since(0);
        masters.iter().filter(|e| e.state == State::Master).count() >= ROUTERS
    });
    measure(
        "keepalived",
        &cluster,
        &router.pids().unwrap(),
        "keepalived",
    );
}

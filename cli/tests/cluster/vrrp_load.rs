//! What 255 virtual routers cost one node, and how late its advertisements are on a busy machine: `make bench-vrrp`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use buoy_lab::legacy::tshark::Packet;
use buoy_lab::sys::clock::{duration_ns, now_ns};

use crate::harness::{Cluster, wait};

/// Virtual routers, all on one node.
const ROUTERS: usize = 255;
const INTERVAL: Duration = Duration::from_millis(100);
/// How long is measured.
const SPAN: Duration = Duration::from_secs(10);
/// The daemon's thread that speaks VRRP.
const THREAD: &str = "buoy-vrrp";

/// Time on a processor of the threads of a process, ns: that one, and all together.
fn busy(pid: i32) -> (u64, u64) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let (mut one, mut all) = (0, 0);
    for task in tasks.flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let ran = read("schedstat");
        let ran: u64 = ran
            .split(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        all += ran;
        if read("comm").trim() == THREAD {
            one += ran;
        }
    }
    (one, all)
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

#[test]
#[ignore = "a measurement: make bench-vrrp"]
fn two_hundred_and_fifty_five_routers() {
    println!("| realtime | machine | VRRP thread | whole daemon | late p50 | p99 | max |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for realtime in [true, false] {
        let Some(cluster) = Cluster::of(|t| t.hosts = vec!["r1".to_owned()]) else {
            return;
        };
        let wrapper: &[&str] = match realtime {
            true => &[],
            false => &["setpriv", "--bounding-set=-sys_nice", "--"],
        };
        cluster.start_under("n1", &cluster.config("n1"), wrapper);
        cluster.start("n2");
        cluster.start("n3");
        cluster.settled(&["n1", "n2", "n3"]);
        let mut file = String::new();
        for vrid in 1..=ROUTERS {
            let _ = writeln!(
                file,
                "[[vip]]\nname = \"v{vrid}\"\naddresses = [\"fd00:192:168::1:{vrid:x}/64\"]\ninterface = \"eth0\"\n\
                 placement = {{ priority = {{ n1 = 150 }} }}\nvrrp = {{ vrid = {vrid}, interval = \"100ms\" }}"
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
            let n = routers.iter().filter(|r| r["state"] == "active").count();
            eprintln!("{} {n} {}", routers.len(), routers[0]);
            routers.len() == ROUTERS && routers.iter().all(|r| r["state"] == "active")
        });
        for loaded in [false, true] {
            let burners = loaded.then(Burners::start);
            let pid = cluster.process("n1").id().pid;
            let host = cluster.lab.host("r1").unwrap();
            let capture = host.capture("load.pcap").unwrap();
            let (one, all) = busy(pid);
            let began = now_ns();
            std::thread::sleep(SPAN);
            let (one_after, all_after) = busy(pid);
            let span = (now_ns() - began) as f64;
            let packets = capture.dissect().unwrap();
            drop(burners);
            let share = |after: u64, before: u64| (after - before) as f64 / span * 100.0;
            let late = lateness(&packets);
            let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
            println!(
                "| {} | {} | {:.1}% | {:.1}% | {:.2} ms | {:.2} ms | {:.2} ms |",
                if realtime { "yes" } else { "no" },
                if loaded { "busy" } else { "idle" },
                share(one_after, one),
                share(all_after, all),
                at(0.5),
                at(0.99),
                at(1.0)
            );
            assert!(late.len() > ROUTERS * 50, "{} advertisements", late.len());
        }
    }
}

//! Buoy beside routers of other makes: to them the group is one VRRP router.

mod beside;
mod frr;
mod mismatch;
mod noise;
mod preempt;
mod stops;
mod wire;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use buoy_lab::legacy::keepalived::{Auth, Options, Unicast};
use buoy_lab::legacy::{Event, Host, Instance, Keepalived, State};
use buoy_lab::sys::clock::{duration_ns, now_ns, ns_to_ms};

use crate::harness::{Cluster, LIMIT, WEB_A, WEB_B, report, v4, wait};

/// A VIP of the tests.
const ADDRESS: IpAddr = v4(50);
/// The same for IPv6, and the link-local address that keepalived wants before it.
const ADDRESS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x192, 0x168, 0, 0, 0, 0, 0x50));
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x50));
const VRID: u8 = 51;
/// Between two advertisements of version 3; backups take over 3.6 times later.
const INTERVAL: Duration = Duration::from_millis(200);
/// VRRP priority of the group, and of routers that are worse and better.
const GROUP: u8 = 100;
const WORSE: u8 = 50;
const BETTER: u8 = 200;
/// How late a busy machine may be.
const SLACK: Duration = Duration::from_millis(1500);

/// A way to speak the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Version 2 with a password.
    V2,
    V3,
    V6,
    /// Version 3, to each neighbour.
    Unicast,
}

impl Kind {
    /// What the VIP of this kind is.
    fn addresses(self) -> Vec<(IpAddr, u8)> {
        match self {
            Kind::V6 => vec![(LINK_LOCAL, 64), (ADDRESS_V6, 64)],
            _ => vec![(ADDRESS, 24)],
        }
    }

    /// Its address that is watched.
    fn address(self) -> IpAddr {
        match self {
            Kind::V6 => ADDRESS_V6,
            _ => ADDRESS,
        }
    }

    /// Buoy's `[vip.vrrp]`, but for the number.
    fn face(self) -> &'static str {
        match self {
            Kind::V2 => "version = 2\nauth = \"pass\"\npassword = \"1111\"",
            Kind::V3 | Kind::V6 => "interval = \"200ms\"",
            Kind::Unicast => "interval = \"200ms\"\nunicast_peers = [\"192.168.192.201\"]",
        }
    }

    fn instance(self, priority: u8) -> Instance {
        let plain = Instance::new(VRID, priority, &self.addresses());
        match self {
            Kind::V2 => Instance {
                version: 2,
                ..plain
            },
            _ => Instance {
                interval: INTERVAL,
                ..plain
            },
        }
    }

    /// A keepalived that agrees with it.
    fn router(self, priority: u8) -> Options {
        let plain = Options::from(self.instance(priority));
        match self {
            Kind::V2 => Options {
                auth: Some(Auth::Pass("1111".to_owned())),
                ..plain
            },
            Kind::Unicast => Options {
                unicast: Some(Unicast {
                    source: v4(201),
                    peers: vec![v4(101), v4(102)],
                }),
                ..plain
            },
            Kind::V3 | Kind::V6 => plain,
        }
    }
}

/// Whether these programs are here. In CI they must be.
fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| {
        let found = std::process::Command::new(program).arg("-v").output();
        found.is_err()
    });
    let Some(missing) = missing else { return true };
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "no {missing}"
    );
    println!("SKIP: no {missing}");
    false
}

/// The three nodes, and hosts r1, r2, ... for routers outside.
struct Bed {
    cluster: Cluster,
    kind: Kind,
}

impl Bed {
    /// A VIP of this kind is on n1.
    fn new(kind: Kind, hosts: usize) -> Option<Bed> {
        let bed = Bed::empty(&["keepalived"], hosts, &[kind.address()])?;
        declare(&bed.cluster, kind, "");
        bed.cluster.wait_on(kind.address(), "n1");
        Some(Bed { kind, ..bed })
    }

    /// No VIP yet. These addresses are watched.
    fn empty(programs: &[&str], hosts: usize, watched: &[IpAddr]) -> Option<Bed> {
        if !have(programs) {
            return None;
        }
        let names = (1..=hosts).map(|i| format!("r{i}")).collect();
        let mut cluster = Cluster::formed_of(|t| t.hosts = names)?;
        // Those of the lab too: that all is well is said of them.
        cluster.observe(&[watched, &[WEB_A.1, WEB_B.1]].concat());
        let kind = Kind::V3;
        Some(Bed { cluster, kind })
    }

    /// A host, which may have been off in between.
    fn host(&self, number: usize) -> Host {
        let name = format!("r{number}");
        if self.cluster.lab.is_crashed(&name) {
            self.cluster.lab.boot(&name).unwrap();
        }
        self.cluster.lab.host(&name).unwrap()
    }

    /// The VIP is on n1, or is brought there.
    fn home(&self) {
        let (cluster, address) = (&self.cluster, self.kind.address());
        wait("n1 may own it", || cluster.verdict("n1", "lan", "n1").0);
        wait("a node has it", || cluster.answering(address).len() == 1);
        if cluster.owner(address) != "n1" {
            cluster.move_to(("lan", address), "n1");
            cluster.ok("n3", &["vip", "move", "lan", "--auto"]);
        }
    }
}

/// The group has left the VIP `lan` to this host, and none of its nodes has the address. Says what is shown of it.
fn is_left_to(cluster: &Cluster, address: IpAddr, host: &str) -> String {
    let mut words = None;
    wait("the group has left it", || {
        words = yielded(cluster, "lan");
        words.is_some()
    });
    wait("no node has the address", || {
        ["n1", "n2"]
            .iter()
            .all(|n| !cluster.has_address(n, address))
    });
    cluster.wait_on(address, host);
    words.unwrap()
}

/// Declares the VIP `lan`, with more in its face.
fn declare(cluster: &Cluster, kind: Kind, more: &str) {
    let face = format!("vrid = {VRID}\n{}\n{more}", kind.face());
    put(cluster, "lan", &kind.addresses(), "", &face);
}

/// Declares a VIP by a file.
fn put(cluster: &Cluster, name: &str, addresses: &[(IpAddr, u8)], placement: &str, face: &str) {
    let file = cluster.config_path("n3").with_file_name("vrrp.toml");
    let list: Vec<String> = (addresses.iter())
        .map(|(ip, prefix)| format!("\"{ip}/{prefix}\""))
        .collect();
    let text = format!(
        "[[vip]]\nname = \"{name}\"\naddresses = [{}]\ninterface = \"eth0\"\n\
         placement = {{ priority = {{ n1 = 150 }}{placement} }}\n[vip.vrrp]\n{face}\n",
        list.join(", ")
    );
    std::fs::write(&file, &text).unwrap();
    // 1: it may be left to a router outside.
    let ran = cluster.buoy("n3", &["vip", "put", "-f", file.to_str().unwrap()]);
    assert!(ran.code < 2, "{text}: {ran:?}");
}

/// Whom a VIP is left to, as a node has it.
fn yielded(cluster: &Cluster, vip: &str) -> Option<String> {
    let shown = cluster.json("n2", &["vip", "show", vip]);
    shown["yielded"].as_str().map(str::to_owned)
}

/// Which VIPs have been left to routers outside, ever.
fn yields(cluster: &Cluster) -> Vec<String> {
    let history = cluster.json("n2", &["vip", "history"]);
    let events = history["events"].as_array().unwrap();
    let left = (events.iter()).filter(|e| e["cause"] == "yielded" && e["kind"] == "unassigned");
    left.map(ToString::to_string).collect()
}

/// It has become nothing else since.
#[track_caller]
fn unchanged(states: &[Event]) {
    assert!(states.is_empty(), "{states:?}");
}

/// Waits as long as it takes a router to notice that there is no master, and some more.
fn let_it_have_its_time(router: &Instance) {
    let end = now_ns() + duration_ns(router.master_down()) * 3 / 2;
    wait("the router had its time", || now_ns() > end);
}

/// A keepalived that has become this at its start.
fn started(host: &Host, options: &Options, state: State) -> Keepalived {
    let router = Keepalived::start(host, options).unwrap();
    router.wait_state(state, LIMIT).unwrap();
    router
}

/// Stops a keepalived and says when.
fn stopped(router: &Keepalived) -> u64 {
    let at = router.stop().unwrap();
    wait("keepalived has ended", || !router.is_running());
    at
}

/// Asserts that something took no longer than that, but for what a busy machine adds, and says what it took.
#[track_caller]
fn within(what: &str, ms: f64, limit: Duration) {
    report(&format!("{what} (at most {limit:?})"), ms);
    let most = (limit + SLACK).as_secs_f64() * 1e3;
    assert!(ms <= most, "{what}: {ms:.0} ms");
}

/// When this port answered for the last time since `from`, ms after `from`; 0 if it did not.
fn last_answer(cluster: &Cluster, address: IpAddr, port: &str, from: u64) -> f64 {
    let seen = cluster.seen(address, from);
    let mine = seen.owners.iter().filter(|owner| owner.port == port);
    let last = mine.map(|owner| owner.last_answer).max();
    ns_to_ms(last.unwrap_or(from).saturating_sub(from))
}

//! A cluster whose daemons take orders to stop or die, and what must be seen of it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use buoy_core::spec::timing::Timing;
use buoy_fence::fault::{
    self, Each, FILE_VARIABLE, Flow, Mode, PLANT_VARIABLE, POINTS, Plant, Point,
};
use buoy_fence::gate::GateKind;
use buoy_lab::cluster::DaemonState;
use buoy_lab::sys::clock::{now_ns, ns_to_ms};
use buoy_lab::topology::Profile;

use crate::harness::{Cluster, LIMIT, Ran, WEB_A, WEB_B, wait};

/// The second address of web-a: going up and down has something in the middle.
pub const WEB_A6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(
    0xfd00, 0x192, 0x168, 0, 0, 0, 0, 0x13,
));
/// The other threads of a process stand a moment after the one that stopped it.
const STANDING_MS: f64 = 5.0;
/// Ticks of nftables, which promises to such a node allow for.
const TICKS_MS: f64 = 30.0;
/// Steps that a daemon takes one by one after it was stopped: enough for the rest of what it was at, and for it to
/// find out that its lease is over.
const STEPS: usize = 24;
/// How long it stands after each, so that the observer looks several times.
const STAND: Duration = Duration::from_millis(6);
/// A daemon that comes by no place for so long has nothing more to do.
const IDLE: Duration = Duration::from_millis(200);

/// The members; the third node is a witness.
const MEMBERS: [&str; 2] = ["n1", "n2"];

/// A place at which something happens, and for which of those that it is come by.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub point: &'static Point,
    pub which: Option<u64>,
}

/// Every place of a course with a gate, at the node that the order goes to.
pub fn places(flow: Flow, gate: GateKind, node: &str) -> Vec<At> {
    let own: u64 = node[1..].parse().unwrap();
    let here = POINTS
        .iter()
        .filter(|p| p.flow == flow && p.gate.is_none_or(|g| g == gate));
    here.flat_map(|point| {
        let all: Vec<Option<u64>> = match point.each {
            Each::Time => vec![None],
            Each::Peer => (1..=3).filter(|id| *id != own).map(Some).collect(),
            Each::Family => vec![Some(4), Some(6)],
        };
        all.into_iter().map(move |which| At { point, which })
    })
    .collect()
}

/// The other member.
pub fn other(node: &str) -> &'static str {
    if node == MEMBERS[0] {
        MEMBERS[1]
    } else {
        MEMBERS[0]
    }
}

pub struct Bed {
    pub cluster: Cluster,
    gate: GateKind,
    plant: Option<Plant>,
}

impl Bed {
    /// A settled cluster behind this gate; every daemon has the bug, if any. `None` where there can be none.
    pub fn new(gate: GateKind, plant: Option<Plant>) -> Option<Bed> {
        // What is released too early is open for the rest of a lease: on a busy machine, the other node must come up within it.
        let profile = match plant {
            Some(Plant::ReleaseBeforeShut) => Profile::Wan,
            _ => Profile::Lan,
        };
        let cluster = Cluster::of(|topology| {
            topology.fence = Some(gate.to_string());
            topology.vips[0].addresses.push((WEB_A6, 64));
            topology.profile = profile;
        })?;
        let bed = Bed {
            cluster,
            gate,
            plant,
        };
        for node in ["n1", "n2", "n3"] {
            bed.start(node);
        }
        bed.settled();
        Some(bed)
    }

    pub fn start(&self, node: &str) {
        let mut environment = vec![(FILE_VARIABLE, self.file(node))];
        if let Some(plant) = self.plant {
            environment.push((PLANT_VARIABLE, plant.name().into()));
        }
        let config = self.cluster.config(node);
        self.cluster.start_in(node, &config, &environment);
    }

    pub fn settled(&self) {
        self.cluster.settled(&["n1", "n2", "n3"]);
    }

    fn file(&self, node: &str) -> PathBuf {
        self.cluster.lab.topology().place(node).join("fault")
    }

    /// The next daemon of `node` that comes by the place obeys.
    pub fn order(&self, node: &str, mode: Mode, at: At) {
        fault::order(&self.file(node), mode, at.point, at.which).unwrap();
    }

    /// Times at which a daemon of the node was stopped or killed, in order.
    fn noted(&self, node: &str) -> Vec<u64> {
        let text = std::fs::read_to_string(fault::notes(&self.file(node))).unwrap_or_default();
        let time = |line: &str| line.split(' ').nth(2).and_then(|at| at.parse().ok());
        // A last line without its end is still being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| time(line).unwrap_or_else(|| panic!("{line:?}")))
            .collect()
    }

    /// Waits for a daemon that obeys an order after `before` others; returns when it did.
    pub fn wait_noted(&self, node: &str, before: usize, at: At) -> u64 {
        let mut noted = Vec::new();
        wait(&format!("{node} comes by {at:?}"), || {
            noted = self.noted(node);
            noted.len() > before
        });
        noted[before]
    }

    pub fn count(&self, node: &str) -> usize {
        self.noted(node).len()
    }

    fn is_stopped(&self, node: &str) -> bool {
        matches!(
            self.cluster.lab.daemon_state(node).unwrap(),
            DaemonState::Paused(_)
        )
    }

    pub fn wait_stopped(&self, node: &str) {
        wait(&format!("{node} is stopped"), || self.is_stopped(node));
    }

    /// Lets a stopped daemon go from place to place for a while, then on its way. Returns how many places it came by.
    pub fn step(&self, node: &str) -> usize {
        let daemon = self.cluster.process(node);
        let mut taken = 0;
        while taken < STEPS {
            std::thread::sleep(STAND);
            let before = self.count(node);
            daemon.signal(libc::SIGCONT).unwrap();
            let end = Instant::now() + IDLE;
            while !(self.count(node) > before && self.is_stopped(node)) && Instant::now() < end {
                std::thread::sleep(Duration::from_micros(500));
            }
            if self.count(node) == before {
                break;
            }
            taken += 1;
        }
        // It may come by a last place before it finds the order gone.
        std::fs::remove_file(self.file(node)).unwrap();
        daemon.signal(libc::SIGCONT).unwrap();
        taken
    }

    /// Orders web-a to another node; the command may outlive whoever was to answer it.
    pub fn moving(&self, to: &str) -> Child {
        let arguments = ["vip", "move", WEB_A.0, "--to", to, "--timeout", "2s"];
        let mut command = self.cluster.buoy_command("n3", &arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Brings all VIPs to a node, and leaves them there by nobody's order.
    pub fn gather(&self, node: &str) {
        for (vip, address) in [WEB_A, WEB_B] {
            if self.cluster.answering(address) != [node] {
                self.obeyed(&["vip", "move", vip, "--to", node]);
                self.cluster.wait_on(address, node);
            }
            self.nobodys_order(vip);
        }
        self.cluster.wait_on(WEB_A6, node);
    }

    /// A VIP stays where it is, and does not go back to where it was ordered.
    pub fn nobodys_order(&self, vip: &str) {
        self.obeyed(&["vip", "move", vip, "--auto"]);
    }

    /// Gives a command until it is obeyed: a leader may just have been stopped or killed.
    fn obeyed(&self, arguments: &[&str]) {
        let mut last = None;
        let end = Instant::now() + LIMIT;
        while last.as_ref().is_none_or(|ran: &Ran| ran.code != 0) {
            assert!(Instant::now() < end, "{arguments:?}: {last:?}");
            last = Some(self.cluster.buoy("n3", arguments));
        }
    }

    /// What is wrong with what was seen since `from`: two nodes at once, or a word of `old` when it had no lease.
    /// `stopped`: since when its daemon did nothing; `awake`: when that ended.
    pub fn wrongs(&self, from: u64, old: &str, stopped: u64, awake: u64) -> Vec<String> {
        let mut wrongs = Vec::new();
        let ticks = if self.gate == GateKind::Nft {
            TICKS_MS
        } else {
            0.0
        };
        let timings =
            Timing::for_profile(self.cluster.lab.topology().profile.name().parse().unwrap());
        // Nobody answers longer than a lease after he was stopped.
        let silent_after = timings.lease.as_secs_f64() * 1e3 + STANDING_MS + ticks;
        for address in [WEB_A.1, WEB_A6, WEB_B.1] {
            let to = now_ns();
            let f = self.cluster.seen(address, from);
            if f.dual_probes > 0 {
                wrongs.push(format!("{address}: two nodes at once: {:?}", f.dual));
            }
            if f.stray_intervals > 0 {
                wrongs.push(format!(
                    "{address}: packets astray from {:?}",
                    f.stray_ports
                ));
            }
            #[expect(clippy::cast_precision_loss, reason = "a count of milliseconds")]
            let probes = f.probes as f64;
            assert!(
                probes > ns_to_ms(to - from) / 2.0,
                "the observer looked {probes} times in {} ms",
                ns_to_ms(to - from)
            );
            for owner in f.owners.iter().filter(|o| o.port == old) {
                let after = ns_to_ms(owner.last_answer.saturating_sub(stopped));
                if after > silent_after {
                    wrongs.push(format!(
                        "{address}: {old} answered {after:.0} ms after it was stopped, {:.0} ms of that awake",
                        ns_to_ms(owner.last_answer.saturating_sub(awake))
                    ));
                }
            }
        }
        wrongs
    }

    /// After everything: each VIP is answered by one node, and no other has its addresses.
    pub fn converged(&self) {
        self.settled();
        for address in [WEB_A.1, WEB_A6, WEB_B.1] {
            let owner = self.cluster.owner(address);
            wait(&format!("only {owner} has {address}"), || {
                MEMBERS
                    .iter()
                    .all(|node| self.cluster.has_address(node, address) == (*node == owner))
            });
        }
    }

    /// No order was left without being obeyed.
    pub fn nothing_waits(&self) {
        for node in MEMBERS {
            assert!(!self.file(node).exists(), "{node} has an order left");
        }
    }

    /// Waits until another node answers for web-a.
    pub fn taken_over(&self, node: &str) {
        wait(&format!("somebody takes over from {node}"), || {
            self.cluster.answering(WEB_A.1) == [other(node)]
        });
    }
}

//! A cluster of real daemons on a network of its own, and what can be done to it and asked of it.

mod notices;
mod seen;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use buoy_lab::backend::{BackendSpec, node_config};
use buoy_lab::cluster::{Lab, PROBE, Record};
use buoy_lab::process::Process;
use buoy_lab::sys::clock::{now_ns, ns_to_ms};
use buoy_lab::topology::Topology;
use serde_json::Value;

/// One cluster at a time: the timings of several would not hold on a small machine.
static TURN: Mutex<()> = Mutex::new(());
static COUNT: AtomicU32 = AtomicU32::new(0);

/// How long anything may take that is not itself the subject: a limit on hanging, not on speed.
pub const LIMIT: Duration = Duration::from_secs(20);
/// A few probes, as a busy machine may lose them: not dark.
pub const BLINK_MS: f64 = 5.0;
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The VIPs of the pair, and their addresses.
pub const WEB_A: (&str, IpAddr) = ("web-a", v4(13));
pub const WEB_B: (&str, IpAddr) = ("web-b", v4(14));

/// An address on the nodes' network.
pub const fn v4(last: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 192, last))
}

/// The program under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_buoy"))
}

/// True if clusters can run here. In CI they must.
fn possible() -> bool {
    let have = |name: &str| Command::new(name).arg("-V").output().is_ok();
    let missing = if !buoy_lab::sys::is_root() {
        "not root"
    } else if !Path::new("/dev/net/tun").exists() {
        "no /dev/net/tun"
    } else if !have("ip") || !have("tc") {
        "no ip and tc (iproute2)"
    } else if Command::new("nginx").arg("-v").output().is_err() {
        "no nginx (nginx-light)"
    } else {
        return true;
    };
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "cannot run in CI: {missing}"
    );
    println!("SKIP: {missing}");
    false
}

/// What a `buoy` command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Everything that it printed.
    pub fn words(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// The object that it printed.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }
}

/// A cluster; it is taken down when the value is dropped.
pub struct Cluster {
    pub lab: Lab,
    /// When the observation began.
    began: u64,
    // Dropped last: the next cluster waits until this one is gone.
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// The pair with its witness, nothing started yet; `None` where that is not possible.
    pub fn unstarted() -> Option<Cluster> {
        Self::of(|_| {})
    }

    /// As [`Cluster::unstarted`], with another topology.
    pub fn of(change: impl FnOnce(&mut Topology)) -> Option<Cluster> {
        if !possible() {
            return None;
        }
        // A test that failed before us has cleaned up all the same.
        let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{number}", std::process::id());
        let mut topology = Topology::pair(&name, 3).unwrap();
        change(&mut topology);
        let record = Record {
            topology,
            backend: BackendSpec::buoy(program()),
            program: program().to_owned(),
            ephemeral: true,
        };
        let lab = Lab::create(record).unwrap();
        let began = lab.observe().unwrap();
        Some(Cluster {
            lab,
            began,
            _turn: turn,
        })
    }

    /// All nodes up, each VIP on its owner, everybody content.
    pub fn formed() -> Option<Cluster> {
        Self::formed_of(|_| {})
    }

    /// As [`Cluster::formed`], with another topology of the same nodes.
    pub fn formed_of(change: impl FnOnce(&mut Topology)) -> Option<Cluster> {
        let cluster = Self::of(change)?;
        for node in ["n1", "n2", "n3"] {
            cluster.start(node);
        }
        Some(cluster.at_home())
    }

    /// As [`Cluster::formed`], with more in the configuration of the nodes that may own VIPs.
    pub fn formed_with(more: &str) -> Option<Cluster> {
        let cluster = Self::unstarted()?;
        for node in ["n1", "n2"] {
            cluster.start_with(node, &format!("{}\n{more}", cluster.config(node)));
        }
        cluster.start("n3");
        Some(cluster.at_home())
    }

    /// Waits until everybody is content, and each VIP is on its owner.
    fn at_home(self) -> Cluster {
        let cluster = self;
        cluster.settled(&["n1", "n2", "n3"]);
        // Whoever was up first may have been given what is at home elsewhere.
        for (vip, home) in [(WEB_A, "n1"), (WEB_B, "n2")] {
            if cluster.owner(vip.1) != home {
                cluster.move_to(vip, home);
                cluster.ok("n3", &["vip", "move", vip.0, "--auto"]);
            }
        }
        cluster
    }

    /// Observes these addresses from now on, and forgets what was seen before.
    pub fn observe(&mut self, addresses: &[IpAddr]) {
        self.began = self.lab.switch().observe(addresses, PROBE).unwrap();
    }

    // --- nodes

    /// Starts a node's daemon with the lab's configuration.
    pub fn start(&self, node: &str) {
        self.lab.start_daemon(node).unwrap();
    }

    /// The configuration that the lab would give a node.
    pub fn config(&self, node: &str) -> String {
        let topology = self.lab.topology();
        node_config(topology, topology.node(node).unwrap())
    }

    /// Where the configuration of a node is.
    pub fn config_path(&self, node: &str) -> PathBuf {
        self.lab.topology().place(node).join("config.toml")
    }

    /// Starts a node's daemon with a configuration of the test's own.
    pub fn start_with(&self, node: &str, config: &str) {
        self.start_under(node, config, &[]);
    }

    /// As [`Cluster::start_with`], with these variables in its environment.
    pub fn start_in(&self, node: &str, config: &str, variables: &[(&str, impl AsRef<Path>)]) {
        let pairs: Vec<_> = variables
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_ref().display()))
            .collect();
        let words: Vec<_> = std::iter::once("env")
            .chain(pairs.iter().map(String::as_str))
            .collect();
        self.start_under(node, config, &words);
    }

    /// As [`Cluster::start_with`], by a program that becomes the daemon after it has changed something about itself.
    #[expect(
        clippy::zombie_processes,
        reason = "the lab's handle on the process reaps it"
    )]
    pub fn start_under(&self, node: &str, config: &str, wrapper: &[&str]) {
        let path = self.config_path(node);
        std::fs::write(&path, config).unwrap();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.lab.log(node, "daemon"))
            .unwrap();
        let daemon = [program().to_str().unwrap()];
        let mut words = wrapper.iter().chain(&daemon);
        let child = self
            .command(node, words.next().unwrap())
            .args(words)
            .args(["serve", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Process::from_child(&child).unwrap();
        let pidfile = self.lab.topology().place(node).join("daemon.pid");
        process.write_pidfile(&pidfile).unwrap();
    }

    /// Runs a daemon that is expected to refuse to start, and returns what it said.
    pub fn refused(&self, node: &str, config: &str) -> Ran {
        let path = self.lab.topology().place(node).join("other.toml");
        std::fs::write(&path, config).unwrap();
        let mut child = self
            .command(node, program())
            .args(["serve", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let process = Process::from_child(&child).unwrap();
        let end = Instant::now() + LIMIT;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                process.stop(Duration::from_secs(5)).unwrap();
                panic!(
                    "a daemon on {node} started that should have refused:\n{}",
                    std::fs::read_to_string(&path).unwrap()
                );
            }
            std::thread::sleep(LOOK);
        }
        Ran::of(child.wait_with_output().unwrap())
    }

    /// A command that runs on a node.
    pub fn command(&self, node: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.lab.netns(node).unwrap().command(program).unwrap()
    }

    /// Runs a command line on a node; it must succeed. Returns what it printed.
    pub fn exec(&self, node: &str, line: &str) -> String {
        let mut words = line.split(' ');
        let output = self
            .command(node, words.next().unwrap())
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{node}: {line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Does the kernel of a node have this address?
    pub fn has_address(&self, node: &str, address: IpAddr) -> bool {
        self.exec(node, "ip -o addr show")
            .contains(&format!(" {address}/"))
    }

    /// The daemon of a node.
    pub fn process(&self, node: &str) -> Process {
        let process = self.lab.daemon(node).unwrap();
        process.unwrap_or_else(|| panic!("no daemon runs on {node}"))
    }

    /// What the daemon of a node has logged.
    pub fn log(&self, node: &str) -> String {
        std::fs::read_to_string(self.lab.log(node, "daemon")).unwrap_or_default()
    }

    /// Waits until the daemon of a node has logged something after the first `from` bytes.
    pub fn wait_log(&self, node: &str, from: usize, words: &str) {
        wait(&format!("{node} logs {words:?}"), || {
            self.log(node)
                .get(from..)
                .is_some_and(|new| new.contains(words))
        });
    }

    // --- the command line

    /// A `buoy` command on a node, that talks to its daemon.
    pub fn buoy_command(&self, node: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(node, program());
        for variable in [
            "BUOY_SOCKET",
            "BUOY_SERVER",
            "BUOY_CA",
            "BUOY_CERT",
            "BUOY_KEY",
        ] {
            command.env_remove(variable);
        }
        command
            .arg("--socket")
            .arg(self.lab.topology().socket(node))
            .args(arguments);
        command
    }

    /// Runs a `buoy` command against a node.
    pub fn buoy(&self, node: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.buoy_command(node, arguments).output().unwrap())
    }

    /// As [`Cluster::buoy`]; it must succeed.
    pub fn ok(&self, node: &str, arguments: &[&str]) -> Ran {
        let ran = self.buoy(node, arguments);
        assert_eq!(ran.code, 0, "`buoy {}`: {ran:?}", arguments.join(" "));
        ran
    }

    /// What a command prints for programs, whatever its exit code.
    pub fn json(&self, node: &str, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        self.buoy(node, &arguments).json()
    }

    /// The leader, as a node knows it.
    pub fn leader(&self, node: &str) -> Option<String> {
        let leader = self.json(node, &["status"])["leader"].clone();
        leader.as_str().map(str::to_owned)
    }

    /// The leader, once there is one.
    pub fn wait_leader(&self, node: &str) -> String {
        let mut leader = None;
        wait("there is a leader", || {
            leader = self.leader(node);
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Makes another node than `unwanted` lead, by clean restarts of the leader.
    pub fn lead_elsewhere(&self, unwanted: &str) -> String {
        for _ in 0..10 {
            let leader = self.wait_leader("n1");
            if leader != unwanted {
                return leader;
            }
            self.lab.stop_daemon(&leader).unwrap();
            self.start(&leader);
            self.settled(&["n1", "n2", "n3"]);
        }
        panic!("{unwanted} leads after ten restarts");
    }

    /// Epoch of a VIP as a node has it.
    pub fn epoch(&self, node: &str, vip: &str) -> u64 {
        self.json(node, &["vip", "show", vip])["epoch"]
            .as_u64()
            .unwrap()
    }

    /// Moves a VIP and waits until the network has noticed.
    pub fn move_to(&self, (vip, address): (&str, IpAddr), node: &str) {
        self.ok("n1", &["vip", "move", vip, "--to", node]);
        self.wait_on(address, node);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in &self.lab.topology().nodes {
            let log = self.log(&node.name);
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- log of {}\n{}", node.name, last.join("\n"));
        }
    }
}

/// Waits until something holds.
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Says a figure, for people who read the run (`--nocapture`).
pub fn report(what: &str, ms: f64) {
    println!("  {what}: {ms:.0} ms");
}

/// Milliseconds since a reading of the clock.
pub fn ms_since(from: u64) -> f64 {
    ns_to_ms(now_ns() - from)
}

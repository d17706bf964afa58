//! A small network for tests: hosts in namespaces on a switch of their own.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use buoy_lab::ns::Netns;
use buoy_lab::switch::protocol::{PortSpec, SwitchSpec};
use buoy_lab::switch::{SwitchHandle, SwitchProcess};
use buoy_lab::sys::iface;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The program that the lab starts its switch and clients with.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_buoy-lab-harness"))
}

/// True if the test can run here. In CI it must.
pub fn possible() -> bool {
    possible_with(&[])
}

/// As `possible`, for a test that needs these programs.
pub fn possible_with(programs: &[&str]) -> bool {
    let absent = |program: &&&str| Command::new(program).arg("-v").output().is_err();
    let missing = if !buoy_lab::sys::is_root() {
        "not root".to_owned()
    } else if !Path::new("/dev/net/tun").exists() {
        "no /dev/net/tun".to_owned()
    } else if let Some(program) = programs.iter().find(absent) {
        format!("no {program}")
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

/// A name for a namespace that nothing else has.
pub fn unique(what: &str) -> String {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("buoy-{}-{number}-{what}", std::process::id())
}

/// Hosts h0, h1, ... with 10.9.0.1/24, 10.9.0.2/24, ... and fd00:9::1/64, ... on one switch.
pub struct Net {
    pub hosts: Vec<Netns>,
    pub switch: SwitchProcess,
    pub directory: tempfile::TempDir,
}

impl Net {
    pub fn new(hosts: usize) -> Self {
        Self::with_seed(hosts, 1)
    }

    pub fn with_seed(hosts: usize, seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hosts: Vec<_> = (0..hosts)
            .map(|host| Netns::scoped(&unique(&format!("h{host}"))).unwrap())
            .collect();
        let ports = hosts.iter().enumerate().map(|(at, ns)| PortSpec {
            name: format!("h{at}"),
            netns: ns.name().to_owned(),
            interface: "eth0".into(),
            mac: [2, 0, 10, 9, 0, at as u8 + 1],
        });
        let spec = SwitchSpec {
            ports: ports.collect(),
            seed,
        };
        let switch = SwitchProcess::start(program(), directory.path(), &spec, true).unwrap();
        for (at, ns) in hosts.iter().enumerate() {
            ns.enter(|| {
                iface::add_address("eth0", v4(at), 24)?;
                iface::add_address("eth0", v6(at), 64)
            })
            .unwrap();
        }
        Self {
            hosts,
            switch,
            directory,
        }
    }

    pub fn handle(&self) -> &SwitchHandle {
        &self.switch.handle
    }

    /// Runs a command in a host and returns what came of it.
    pub fn run(&self, host: usize, command: &str) -> Output {
        let mut words = command.split(' ');
        let program = words.next().unwrap();
        let mut run = self.hosts[host].command(program).unwrap();
        run.args(words).output().unwrap()
    }

    /// As `run`, but it must succeed.
    pub fn must(&self, host: usize, command: &str) -> String {
        let output = self.run(host, command);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

pub fn v4(host: usize) -> IpAddr {
    IpAddr::from([10, 9, 0, host as u8 + 1])
}

pub fn v6(host: usize) -> IpAddr {
    IpAddr::from([0xfd00, 9, 0, 0, 0, 0, 0, host as u16 + 1])
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

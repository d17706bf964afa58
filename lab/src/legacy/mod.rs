//! Other routers that speak VRRP, keepalived and FRR, as neighbours of what is tested: real daemons on hosts
//! of the lab's switch, and a dissector for what passes there.

pub mod capture;
mod daemon;
pub mod frr;
pub mod keepalived;
mod states;
pub mod tshark;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::ns::Netns;

pub use capture::Capture;
pub use frr::Frr;
pub use keepalived::Keepalived;
pub use states::{Event, State, States};

/// A machine for a router: its namespace, its interface on the switch, and where its files go.
pub struct Host {
    ns: Netns,
    interface: String,
    directory: PathBuf,
}

impl Host {
    /// A machine that is there already. The files of everything that is started on it go into `directory`.
    #[must_use]
    pub fn new(ns: Netns, interface: &str, directory: &Path) -> Self {
        Self {
            ns,
            interface: interface.to_owned(),
            directory: directory.to_owned(),
        }
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.ns
    }

    /// Its interface on the switch.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Whether its kernel has the address, on whatever interface and in whatever state that is.
    ///
    /// # Errors
    /// The program `ip` cannot be run.
    pub fn has_address(&self, address: IpAddr) -> Result<bool> {
        let shown = self.ip(&["-o", "address", "show"], "")?;
        Ok(shown.contains(&format!(" {address}/")))
    }

    /// Records what its interface receives and sends from now on, into the file `name` in its directory.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn capture(&self, name: &str) -> Result<Capture> {
        Capture::start(&self.ns, &self.interface, &self.directory.join(name))
    }

    /// A directory of its own for something that is started here.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let place = self.directory.join(name);
        std::fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        Ok(place)
    }

    /// Runs iproute2, which must succeed, with this on its standard input; returns what it prints.
    fn ip(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.ns.command("ip")?;
        let piped = [Stdio::piped(), Stdio::piped(), Stdio::piped()];
        let [stdin, stdout, stderr] = piped;
        command.args(arguments);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let mut child = command.spawn().context("run ip (iproute2)")?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may end before it has read all: then its exit code says why.
            let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
        }
        let output = child.wait_with_output().context("run ip (iproute2)")?;
        ensure!(
            output.status.success(),
            "ip {} in {}: {}",
            arguments.join(" "),
            self.ns.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A virtual router as the protocol knows it, whoever runs it.
#[derive(Clone, PartialEq, Debug)]
pub struct Instance {
    /// Version of the protocol, 2 or 3; IPv6 has 3 only.
    pub version: u8,
    /// Its number, 1 to 255.
    pub vrid: u8,
    /// The larger one is master.
    pub priority: u8,
    /// Time between two advertisements: whole seconds in version 2, centiseconds in version 3.
    pub interval: Duration,
    /// Its addresses with their prefix lengths, all of one family. The first of IPv6 is link-local.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether it takes over from a master of lower priority.
    pub preempt: bool,
}

impl Instance {
    /// Version 3, once a second, preempting.
    #[must_use]
    pub fn new(vrid: u8, priority: u8, addresses: &[(IpAddr, u8)]) -> Self {
        Self {
            version: 3,
            vrid,
            priority,
            interval: Duration::from_secs(1),
            addresses: addresses.to_vec(),
            preempt: true,
        }
    }

    /// Time from the last advertisement of a master that leaves in good order until it takes over.
    #[must_use]
    pub fn skew(&self) -> Duration {
        let unit = match self.version {
            2 => Duration::from_secs(1),
            _ => self.interval,
        };
        unit * (256 - u32::from(self.priority)) / 256
    }

    /// Time from the last advertisement of a master that falls silent until it takes over.
    #[must_use]
    pub fn master_down(&self) -> Duration {
        self.interval * 3 + self.skew()
    }

    /// Whether it is one of IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.addresses.iter().any(|(address, _)| address.is_ipv6())
    }

    fn family(&self) -> &'static str {
        if self.is_v6() { "v6" } else { "v4" }
    }

    fn check(&self) -> Result<()> {
        let v6 = self.is_v6();
        ensure!(
            !self.addresses.is_empty() && self.addresses.iter().all(|(it, _)| it.is_ipv6() == v6),
            "a virtual router has addresses, all of one family, not {:?}",
            self.addresses
        );
        ensure!(
            self.version == 3 || (self.version == 2 && !v6),
            "there is no VRRPv{} for IP{}",
            self.version,
            self.family()
        );
        Ok(())
    }
}

//! FRR's vrrpd, with the zebra that it needs, as a neighbour.
//!
//! It has the addresses of a virtual router on a macvlan interface with the virtual MAC, which must be there
//! before it starts, and which it takes down (`protodown`) while it is not master.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::daemon::Daemon;
use super::{Event, Host, Instance, State, States};
use crate::backend::Invocation;

/// Where Debian has vrrpd.
pub const VRRPD: &str = "/usr/lib/frr/vrrpd";
/// And the daemon through which it hears of interfaces and takes them down.
const ZEBRA: &str = "/usr/lib/frr/zebra";
/// How long zebra may take until it can be talked to.
const START: Duration = Duration::from_secs(10);

/// vrrpd with one virtual router. It is killed when the value is dropped.
pub struct Frr {
    vrrpd: Daemon,
    zebra: Daemon,
    states: States,
    host: Host,
    place: PathBuf,
    macvlan: String,
    vrid: u8,
}

impl Frr {
    /// Makes the interface and starts it. It is a backup at first and master after its master-down time at
    /// the earliest. Its files and sockets are in the host's directory, which the user `frr` must be able to
    /// reach; nothing of the machine's own FRR is touched.
    ///
    /// # Errors
    /// The virtual router makes no sense, FRR is not there, or something cannot be made.
    pub fn start(host: &Host, instance: &Instance) -> Result<Self> {
        instance.check()?;
        let name = format!("{}-{}", instance.vrid, instance.family());
        let place = host.place(&format!("frr-{name}"))?;
        give(&place)?;
        let macvlan = format!("vr{name}");
        host.ip(
            &["-batch", "-"],
            &interface(&macvlan, host.interface(), instance),
        )?;
        let pipe = place.join("states");
        let v6 = instance.is_v6();
        let states = States::follow(&pipe, move |line| state(line, v6))?;
        give(&pipe)?;
        let zebra = start(host, &place, ZEBRA, "")?;
        let end = Instant::now() + START;
        while !place.join("zserv.api").exists() {
            if !zebra.is_running() || Instant::now() >= end {
                zebra.explain(Err(anyhow::anyhow!("zebra does not start")))?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let config = config(host.interface(), instance, &pipe);
        let vrrpd = start(host, &place, VRRPD, &config)?;
        Ok(Self {
            vrrpd,
            zebra,
            states,
            host: Host::new(
                crate::ns::Netns::open(host.netns().name())?,
                host.interface(),
                &place,
            ),
            place,
            macvlan,
            vrid: instance.vrid,
        })
    }

    /// The states that it went through.
    #[must_use]
    pub fn states(&self) -> &States {
        &self.states
    }

    /// What it became at `from` (ns of CLOCK_BOOTTIME) and later; 0 is from the beginning.
    #[must_use]
    pub fn states_since(&self, from: u64) -> Vec<Event> {
        self.states.since(from)
    }

    /// Waits until it is in this state, and says since when it is.
    ///
    /// # Errors
    /// It is not when the time is over; the words show what it was, and the end of its log.
    pub fn wait_state(&self, state: State, within: Duration) -> Result<Event> {
        self.vrrpd.explain(self.states.wait(state, within))
    }

    /// What `show vrrp json` says of the virtual router: the state under `/v4/status` or `/v6/status`, and
    /// what was received and sent under `stats` next to it.
    ///
    /// # Errors
    /// vrrpd does not answer.
    pub fn show(&self) -> Result<serde_json::Value> {
        let output = (self.host.ns.command("vtysh")?)
            .arg("--vty_socket")
            .arg(&self.place)
            .args(["-d", "vrrpd", "-c"])
            .arg(format!("show vrrp {} json", self.vrid))
            .stdin(std::process::Stdio::null())
            .output()
            .context("run vtysh")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let shown: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("vtysh says {output:?}"))?;
        match shown {
            serde_json::Value::Array(mut routers) if routers.len() == 1 => Ok(routers.remove(0)),
            other => bail!("vrrpd knows not one router {}, but {other}", self.vrid),
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.vrrpd.is_running()
    }

    /// Stops it with SIGTERM, waits until it has ended, removes its interface, and says when the signal was
    /// sent. A master says farewell.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> Result<u64> {
        let at = self.vrrpd.stop()?;
        self.zebra.stop()?;
        self.host.ip(&["link", "delete", &self.macvlan], "")?;
        Ok(at)
    }

    /// Kills vrrpd and zebra with SIGKILL and says when. The interface with the addresses stays as it is.
    ///
    /// # Errors
    /// A process survives.
    pub fn kill(&self) -> Result<u64> {
        let at = self.vrrpd.kill()?;
        self.zebra.kill()?;
        Ok(at)
    }
}

/// Starts a daemon with this configuration.
fn start(host: &Host, place: &Path, program: &str, config: &str) -> Result<Daemon> {
    ensure!(
        Path::new(program).exists(),
        "there is no {program} (apt-get install frr)"
    );
    let name = program.rsplit('/').next().unwrap_or(program);
    let path = place.join(format!("{name}.conf"));
    fs::write(&path, config).with_context(|| format!("write {}", path.display()))?;
    give(&path)?;
    let file = |name: &str| place.join(name).into_os_string();
    let arguments = [
        "--config_file".into(),
        path.into_os_string(),
        "--pid_file".into(),
        file(&format!("{name}.pid")),
        "--socket".into(),
        file("zserv.api"),
        "--vty_socket".into(),
        place.as_os_str().to_owned(),
        // No TCP port for a terminal.
        "--vty_port".into(),
        "0".into(),
        "--log".into(),
        "stdout".into(),
    ];
    let invocation = Invocation::new(program, arguments);
    Daemon::start(host, &invocation, &place.join(format!("{name}.log")))
}

/// Gives a file to the user whom the daemons become; nothing talks them out of it.
fn give(path: &Path) -> Result<()> {
    let users = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let user = users.lines().find_map(|line| line.strip_prefix("frr:"));
    let mut numbers = user.context("there is no user frr")?.split(':').skip(1);
    let mut number = || numbers.next()?.parse().ok();
    chown(path, number(), number()).with_context(|| format!("give {} away", path.display()))
}

/// The commands for iproute2 that make the interface with the virtual MAC and the addresses.
fn interface(name: &str, parent: &str, instance: &Instance) -> String {
    let family = if instance.is_v6() { 2 } else { 1 };
    let mut text = format!(
        // In this mode its parent still hears what comes from the same MAC on another machine.
        "link add {name} link {parent} address 00:00:5e:00:{family:02x}:{:02x} type macvlan mode bridge\n\
         link set {name} addrgenmode {}\n",
        instance.vrid,
        // Advertisements come from its link-local address, which must not follow from the MAC: then all
        // routers would have the same.
        if instance.is_v6() { "random" } else { "none" }
    );
    for (address, prefix) in &instance.addresses {
        text += &format!("address add {address}/{prefix} dev {name}\n");
    }
    text + &format!("link set {name} up\n")
}

fn config(interface: &str, instance: &Instance, pipe: &Path) -> String {
    let vrid = instance.vrid;
    let mut text = format!(
        "log file {}\ninterface {interface}\n vrrp {vrid} version {}\n vrrp {vrid} priority {}\n \
         vrrp {vrid} advertisement-interval {}\n",
        pipe.display(),
        instance.version,
        instance.priority,
        instance.interval.as_millis()
    );
    if !instance.preempt {
        text += &format!(" no vrrp {vrid} preempt\n");
    }
    let family = if instance.is_v6() { "ipv6" } else { "ip" };
    for (address, _) in &instance.addresses {
        text += &format!(" vrrp {vrid} {family} {address}\n");
    }
    text
}

/// The state in a line of the log: `... [VRID 51] [IPv4] Backup -> Master`.
fn state(line: &str, v6: bool) -> Option<State> {
    let family = if v6 { "[IPv6] " } else { "[IPv4] " };
    let (_, words) = line.split_once(family)?;
    match words.split_once(" -> ")?.1.trim_end() {
        "Initialize" => Some(State::Stopped),
        "Backup" => Some(State::Backup),
        "Master" => Some(State::Master),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_are_understood() {
        let line =
            "2026/01/01 00:00:00 VRRP: [W23ZH-NY264] [CORE] [VRID 51] [IPv4] Backup -> Master";
        assert_eq!(state(line, false), Some(State::Master));
        assert_eq!(state(line, true), None);
        let line = "[CORE] [VRID 51] [IPv6] Master -> Initialize";
        assert_eq!(state(line, true), Some(State::Stopped));
        assert_eq!(state("[VRID 51] [IPv4] 'Startup' event", false), None);
    }

    #[test]
    fn the_interface_has_the_mac_of_its_family() {
        let v6 = Instance::new(10, 100, &[("fd00::1".parse().unwrap(), 64)]);
        let text = interface("vr10-v6", "eth0", &v6);
        assert!(text.contains("address 00:00:5e:00:02:0a type"), "{text}");
        assert!(
            text.contains("address add fd00::1/64 dev vr10-v6\n"),
            "{text}"
        );
    }
}

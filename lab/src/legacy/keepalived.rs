//! keepalived: its configuration, how it is run, and one of it as a neighbour.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::daemon::Daemon;
use super::{Event, Host, Instance, State, States};
use crate::backend::Invocation;

const CONFIG: &str = "keepalived.conf";
const PIDFILES: [&str; 2] = ["keepalived.pid", "vrrp.pid"];

/// How advertisements of version 2 are authenticated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Auth {
    /// By a password, of which 8 bytes count.
    Pass(String),
    /// By an authentication header with this key.
    Ah(String),
}

/// Advertisements to these neighbours only, instead of to all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unicast {
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go.
    pub peers: Vec<IpAddr>,
}

/// A `vrrp_instance`.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// What every VRRP router has. If it does not preempt that is `nopreempt`.
    pub instance: Instance,
    /// `state MASTER` instead of `state BACKUP`.
    pub master: bool,
    /// `authentication`.
    pub auth: Option<Auth>,
    /// `unicast_src_ip` and `unicast_peer`.
    pub unicast: Option<Unicast>,
    /// `preempt_delay`.
    pub preempt_delay: Option<Duration>,
    /// `use_vmac`: advertisements and addresses have the virtual MAC.
    pub vmac: bool,
    /// Further lines of the instance.
    pub more: Vec<String>,
    /// Further lines of `global_defs`.
    pub global: Vec<String>,
}

impl From<Instance> for Options {
    fn from(instance: Instance) -> Self {
        Self {
            instance,
            master: false,
            auth: None,
            unicast: None,
            preempt_delay: None,
            vmac: false,
            more: Vec::new(),
            global: Vec::new(),
        }
    }
}

/// The beginning of a configuration file.
#[must_use]
pub(crate) fn global(router: &str, version: u8, more: &[String]) -> String {
    let more = indented(more, 4);
    format!("global_defs {{\n    router_id {router}\n    vrrp_version {version}\n{more}}}\n")
}

/// An instance in a configuration file.
#[must_use]
pub(crate) fn instance(name: &str, interface: &str, options: &Options) -> String {
    let router = &options.instance;
    let mut text = format!(
        "vrrp_instance {name} {{\n    state {}\n    interface {interface}\n    \
         virtual_router_id {}\n    priority {}\n    advert_int {}\n",
        if options.master { "MASTER" } else { "BACKUP" },
        router.vrid,
        router.priority,
        router.interval.as_secs_f64()
    );
    if !router.preempt {
        text += "    nopreempt\n";
    }
    if let Some(delay) = options.preempt_delay {
        let _ = writeln!(text, "    preempt_delay {}", delay.as_secs_f64());
    }
    if options.vmac {
        text += "    use_vmac\n";
    }
    if let Some(auth) = &options.auth {
        let (kind, secret) = match auth {
            Auth::Pass(secret) => ("PASS", secret),
            Auth::Ah(secret) => ("AH", secret),
        };
        let lines = [format!("auth_type {kind}"), format!("auth_pass {secret}")];
        text += &block("authentication", &lines);
    }
    if let Some(unicast) = &options.unicast {
        let _ = writeln!(text, "    unicast_src_ip {}", unicast.source);
        let peers: Vec<_> = unicast.peers.iter().map(IpAddr::to_string).collect();
        text += &block("unicast_peer", &peers);
    }
    text += &indented(&options.more, 4);
    let addresses: Vec<_> = (router.addresses.iter())
        .map(|(address, prefix)| format!("{address}/{prefix}"))
        .collect();
    text + &block("virtual_ipaddress", &addresses) + "}\n"
}

fn block(name: &str, lines: &[String]) -> String {
    format!("    {name} {{\n{}    }}\n", indented(lines, 8))
}

fn indented(lines: &[String], by: usize) -> String {
    lines
        .iter()
        .map(|line| format!("{:by$}{line}\n", ""))
        .collect()
}

/// Writes what keepalived is started with into `directory`.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn prepare(directory: &Path, config: &str) -> Result<()> {
    let path = directory.join(CONFIG);
    fs::write(&path, config).with_context(|| format!("write {}", path.display()))?;
    // What a killed predecessor left would keep this one from starting.
    for path in PIDFILES.map(|name| directory.join(name)) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// How keepalived is run, in the foreground, with what [`prepare`] has written.
#[must_use]
pub(crate) fn invocation(directory: &Path) -> Invocation {
    let file = |option: &str, name: &str| -> OsString {
        format!("{option}={}", directory.join(name).display()).into()
    };
    Invocation::new(
        "keepalived",
        [
            "--dont-fork".into(),
            "--log-console".into(),
            "--no-syslog".into(),
            "--vrrp".into(),
            file("--use-file", CONFIG),
            file("--pid", PIDFILES[0]),
            file("--vrrp_pid", PIDFILES[1]),
        ],
    )
}

/// keepalived with one instance or more. It is killed when the value is dropped.
pub struct Keepalived {
    daemon: Daemon,
    states: States,
}

impl Keepalived {
    /// Starts it. Its instance is a backup at first and master after its master-down time at the earliest.
    ///
    /// # Errors
    /// The options make no sense, keepalived is not there, or a file cannot be written.
    pub fn start(host: &Host, options: &Options) -> Result<Self> {
        Self::start_all(host, std::slice::from_ref(options))
    }

    /// As [`Keepalived::start`], with several instances. The lines for `global_defs` are those of the first; which
    /// instance became what is not told apart.
    ///
    /// # Errors
    /// As [`Keepalived::start`], or there is no instance.
    pub fn start_all(host: &Host, all: &[Options]) -> Result<Self> {
        let name = |options: &Options| {
            let router = &options.instance;
            format!("{}-{}", router.vrid, router.family())
        };
        let first = all.first().context("no instance")?;
        for options in all {
            options.instance.check()?;
        }
        let place = host.place(&format!("keepalived-{}", name(first)))?;
        let pipe = place.join("notify");
        let states = States::follow(&pipe, state)?;
        let mut global_lines = vec![format!("vrrp_notify_fifo {}", pipe.display())];
        global_lines.extend_from_slice(&first.global);
        let instances: String = all
            .iter()
            .map(|options| instance(&name(options), host.interface(), options))
            .collect();
        let version = first.instance.version;
        let config = global(host.netns().name(), version, &global_lines) + &instances;
        prepare(&place, &config)?;
        let daemon = Daemon::start(host, &invocation(&place), &place.join("log"))?;
        Ok(Self { daemon, states })
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
        self.daemon.explain(self.states.wait(state, within))
    }

    /// It and its children.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let all = self.daemon.processes()?;
        Ok(all.iter().map(|process| process.id().pid).collect())
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.daemon.is_running()
    }

    /// Stops it with SIGTERM, waits until it has ended, and says when the signal was sent. A master says
    /// farewell and gives its addresses up.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> Result<u64> {
        self.daemon.stop()
    }

    /// Kills all of its processes with SIGKILL and says when. The addresses stay where they are; who wants
    /// the whole machine gone pulls its cable first.
    ///
    /// # Errors
    /// A process survives.
    pub fn kill(&self) -> Result<u64> {
        self.daemon.kill()
    }
}

/// The state in a line of the notify pipe: `INSTANCE "name" STATE priority`.
fn state(line: &str) -> Option<State> {
    let rest = line.strip_prefix("INSTANCE ")?;
    match rest.split_ascii_whitespace().nth(1)? {
        "BACKUP" => Some(State::Backup),
        "MASTER" => Some(State::Master),
        "FAULT" => Some(State::Fault),
        "STOP" => Some(State::Stopped),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_what_it_was_given() {
        let addresses = [(IpAddr::from([10, 9, 0, 200]), 24)];
        let mut options = Options::from(Instance::new(51, 150, &addresses));
        let plain = "vrrp_instance x {\n    state BACKUP\n    interface eth0\n    \
                     virtual_router_id 51\n    priority 150\n    advert_int 1\n    \
                     virtual_ipaddress {\n        10.9.0.200/24\n    }\n}\n";
        assert_eq!(instance("x", "eth0", &options), plain);
        options.master = true;
        options.instance.preempt = false;
        options.instance.interval = Duration::from_millis(250);
        options.preempt_delay = Some(Duration::from_millis(1500));
        options.vmac = true;
        options.auth = Some(Auth::Pass("secret".into()));
        options.unicast = Some(Unicast {
            source: [10, 9, 0, 1].into(),
            peers: vec![[10, 9, 0, 2].into()],
        });
        options.more = vec!["garp_master_delay 1".into()];
        let text = instance("x", "eth0", &options);
        for words in [
            "    state MASTER\n",
            "    advert_int 0.25\n    nopreempt\n    preempt_delay 1.5\n    use_vmac\n",
            "    authentication {\n        auth_type PASS\n        auth_pass secret\n    }\n",
            "    unicast_src_ip 10.9.0.1\n    unicast_peer {\n        10.9.0.2\n    }\n",
            "    garp_master_delay 1\n",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn lines_of_the_pipe_are_understood() {
        assert_eq!(state("INSTANCE \"51-v4\" MASTER 150"), Some(State::Master));
        assert_eq!(state("INSTANCE \"51-v4\" STOP 150"), Some(State::Stopped));
        assert_eq!(state("INSTANCE \"51-v4\" MASTER_RX_LOWER_PRI 150"), None);
        assert_eq!(state("GROUP \"g\" MASTER 0"), None);
    }
}

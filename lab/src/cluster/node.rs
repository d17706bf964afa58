//! What is done to one node: its daemon started, stopped, killed, paused; the whole machine crashed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Lab, configure, tail};
use crate::backend::Invocation;
use crate::nginx;
use crate::ns::Netns;
use crate::process::{Process, ProcessId};
use crate::topology::{Node, Role};

/// How long a daemon may take to end after SIGTERM before it gets SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// How the daemon of a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DaemonState {
    /// Runs, with this process id.
    Running(i32),
    /// Stopped by SIGSTOP, with this process id.
    Paused(i32),
    /// Does not run.
    Stopped,
    /// The whole machine is off.
    Crashed,
}

impl Lab {
    /// Starts everything: the service on the members, then the daemons, as close together as can be.
    ///
    /// # Errors
    /// A program cannot be run.
    pub fn start_all(&self) -> Result<()> {
        for node in &self.topology().nodes {
            self.start_service(node)?;
        }
        for node in &self.topology().nodes {
            if self.backend().runs_on(node) {
                self.start_daemon(&node.name)?;
            }
        }
        Ok(())
    }

    /// Starts the daemon of a node.
    ///
    /// # Errors
    /// There is no such node, its machine is off, its daemon runs already, or cannot be run.
    pub fn start_daemon(&self, name: &str) -> Result<()> {
        let node = self.topology().node(name)?;
        if !self.backend().runs_on(node) {
            bail!("{} does not run on {name}", self.backend().name());
        }
        if self.is_crashed(name) {
            bail!("the machine {name} is off");
        }
        if let Some(process) = self.daemon(name)? {
            bail!("{name} runs already, as process {}", process.id().pid);
        }
        self.backend().prepare(self.topology(), node)?;
        let invocation = self.backend().daemon(self.topology(), node);
        self.spawn(node, &invocation, "daemon")
    }

    fn start_service(&self, node: &Node) -> Result<()> {
        if node.role != Role::Member {
            return Ok(());
        }
        let place = self.topology().place(&node.name).join("nginx");
        let invocation = nginx::prepare(&node.name, &place)?;
        self.spawn(node, &invocation, "service")
            .context("the lab needs nginx (apt-get install nginx-light)")
    }

    fn spawn(&self, node: &Node, invocation: &Invocation, what: &str) -> Result<()> {
        let log = self.log(&node.name, what);
        let process = invocation.spawn(&self.netns(&node.name)?, &log)?;
        process.write_pidfile(&self.pidfile(&node.name, what))
    }

    /// The log of a node's `daemon` or `service`.
    #[must_use]
    pub fn log(&self, node: &str, what: &str) -> PathBuf {
        self.topology().place(node).join(format!("{what}.log"))
    }

    fn pidfile(&self, node: &str, what: &str) -> PathBuf {
        self.topology().place(node).join(format!("{what}.pid"))
    }

    /// The last lines of a daemon's log.
    #[must_use]
    pub fn log_tail(&self, node: &str) -> String {
        tail(&self.log(node, "daemon"))
    }

    /// The daemon of a node, if it runs.
    ///
    /// # Errors
    /// There is no such node, or its pid file cannot be read.
    pub fn daemon(&self, name: &str) -> Result<Option<Process>> {
        self.topology().node(name)?;
        let id = ProcessId::read_pidfile(&self.pidfile(name, "daemon"))?;
        Ok(id.and_then(ProcessId::open))
    }

    /// Whether the daemon of a node runs (a paused one does).
    #[must_use]
    pub fn daemon_runs(&self, name: &str) -> bool {
        matches!(self.daemon(name), Ok(Some(_)))
    }

    /// How the daemon of a node stands.
    ///
    /// # Errors
    /// As [`Lab::daemon`].
    pub fn daemon_state(&self, name: &str) -> Result<DaemonState> {
        if self.is_crashed(name) {
            return Ok(DaemonState::Crashed);
        }
        let Some(process) = self.daemon(name)? else {
            return Ok(DaemonState::Stopped);
        };
        let pid = process.id().pid;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let stopped = stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'));
        Ok(if stopped {
            DaemonState::Paused(pid)
        } else {
            DaemonState::Running(pid)
        })
    }

    fn running(&self, name: &str) -> Result<Process> {
        let process = self.daemon(name)?;
        process.with_context(|| format!("the daemon of {name} does not run"))
    }

    /// Stops the daemon of a node with SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn stop_daemon(&self, name: &str) -> Result<()> {
        self.running(name)?.stop(GRACE)
    }

    /// Kills the daemon of a node with SIGKILL; the machine lives on.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_daemon(&self, name: &str) -> Result<()> {
        let process = self.running(name)?;
        process.signal(libc::SIGKILL)?;
        process.wait_exit(GONE)
    }

    /// Stops the daemon of a node in its tracks (SIGSTOP).
    ///
    /// # Errors
    /// It does not run.
    pub fn pause_daemon(&self, name: &str) -> Result<()> {
        self.running(name)?.signal(libc::SIGSTOP)
    }

    /// Lets a paused daemon go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume_daemon(&self, name: &str) -> Result<()> {
        self.running(name)?.signal(libc::SIGCONT)
    }

    /// Takes the power from a machine: cable and all processes at the same instant. Returns that instant (ns
    /// of CLOCK_BOOTTIME).
    ///
    /// # Errors
    /// There is no such node, or a process survives.
    pub fn crash(&self, name: &str) -> Result<u64> {
        let ns = self.netns(name)?;
        // Looked up before, so that nothing lies between cable and processes.
        let processes = ns.processes()?;
        let at = self.switch().cable(name, false)?;
        for process in &processes {
            process.signal(libc::SIGKILL)?;
        }
        let marker = self.crash_marker(name);
        fs::write(&marker, "").with_context(|| format!("write {}", marker.display()))?;
        ns.kill_all()?;
        Ok(at)
    }

    fn crash_marker(&self, name: &str) -> PathBuf {
        self.topology().place(name).join("crashed")
    }

    /// Whether the machine of this name is off.
    #[must_use]
    pub fn is_crashed(&self, name: &str) -> bool {
        self.crash_marker(name).exists()
    }

    /// Gives a crashed machine its power back: a new network stack, as after a boot, the same disk, and
    /// service and daemon of a node start.
    ///
    /// # Errors
    /// The machine is not off, or something cannot be made or run.
    pub fn boot(&self, name: &str) -> Result<()> {
        let topology = self.topology();
        let netns = self.netns(name)?;
        if !self.is_crashed(name) {
            bail!("the machine {name} is on");
        }
        netns.remove()?;
        Netns::create(&topology.netns(name))?;
        self.switch().renew(name)?;
        configure(topology, name)?;
        self.switch().cable(name, true)?;
        fs::remove_file(self.crash_marker(name)).context("remove the mark of the crash")?;
        let Some(node) = topology.nodes.iter().find(|node| node.name == name) else {
            return Ok(());
        };
        self.start_service(node)?;
        if self.backend().runs_on(node) {
            self.start_daemon(name)?;
        }
        Ok(())
    }
}

//! A daemon and whatever it starts: found by the session that all of them are in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Host;
use crate::backend::Invocation;
use crate::ns::Netns;
use crate::process::Process;
use crate::sys::clock::now_ns;

/// How long a daemon may take to end after SIGTERM before it gets SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// A daemon on a host. It ends with the value.
pub(super) struct Daemon {
    process: Process,
    ns: Netns,
    log: PathBuf,
}

impl Daemon {
    /// Runs it; what it prints goes into the file `log`.
    pub(super) fn start(host: &Host, invocation: &Invocation, log: &Path) -> Result<Self> {
        Ok(Self {
            process: invocation.spawn(&host.ns, log)?,
            ns: Netns::open(host.ns.name())?,
            log: log.to_owned(),
        })
    }

    /// Whether it runs.
    pub(super) fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// The last lines that it printed.
    pub(super) fn log_tail(&self) -> String {
        crate::cluster::tail(&self.log)
    }

    /// Gives a failure the last lines of its log.
    pub(super) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| {
            let runs = if self.is_running() { "" } else { " (ended)" };
            let path = self.log.display();
            format!("--- {path}{runs}\n{}\n---", self.log_tail())
        })
    }

    /// Ends it with SIGTERM, and says when that was sent.
    pub(super) fn stop(&self) -> Result<u64> {
        let at = now_ns();
        self.explain(self.process.stop(GRACE))?;
        Ok(at)
    }

    /// Kills it and all that it has started with SIGKILL, and says when. It does not see them die, and
    /// they do not see it: that would make them clean up.
    pub(super) fn kill(&self) -> Result<u64> {
        let all = self.processes()?;
        for process in &all {
            process.signal(libc::SIGSTOP)?;
        }
        let at = now_ns();
        for process in &all {
            process.signal(libc::SIGKILL)?;
        }
        for process in &all {
            process.wait_exit(GONE)?;
        }
        Ok(at)
    }

    /// It and all that it has started.
    pub(super) fn processes(&self) -> Result<Vec<Process>> {
        let leader = self.process.id();
        // A number is not given away again while a session has it: then nobody of ours is left.
        if Process::from_pid(leader.pid).is_ok_and(|now| now.id() != leader) {
            return Ok(Vec::new());
        }
        let mut all = self.ns.processes()?;
        all.retain(|it| it.session().is_ok_and(|session| session == leader.pid));
        Ok(all)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("lab: {error:#}");
        }
    }
}

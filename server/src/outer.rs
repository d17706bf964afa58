//! What stands around the daemon: the service manager, the unit's watchdog and the machine's.

use std::sync::Arc;

use buoy_fence::gate::Deadlines;
use buoy_storage::Raft;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use crate::config::Config;
use crate::lease::{LeaseIn, LeaseShared};
use crate::reporter::Reporter;
use crate::start::StartError;
use crate::systemd::{self, Systemd, Telling};
use crate::tasks::{Tasks, run_forever};
use crate::watchdog::{self, HardwareFeeder, Judge};

/// Begins before anything is held here, and ends last.
pub struct Outer {
    /// The service manager.
    pub systemd: Systemd,
    hardware: Option<HardwareFeeder>,
    shared: Arc<LeaseShared>,
    // After the hardware: what happens to that is told as well.
    _telling: Telling,
}

impl Outer {
    /// Arms the hardware watchdog, if there is to be one. To be called when the packet gate is in force, and before leases
    /// begin.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn begin(
        config: &Config,
        shared: &Arc<LeaseShared>,
        deadlines: Deadlines,
        reporter: &Reporter,
    ) -> Result<Outer, StartError> {
        let judge = Arc::new(Judge::new(shared.clone(), deadlines));
        let (systemd, telling) = systemd::start(judge.clone())
            .map_err(|e| StartError::System("talk to the service manager", e))?;
        let hardware = match &config.watchdog {
            None => None,
            Some(path) => {
                let (hardware, warnings) = watchdog::arm(path, judge)?;
                for warning in &warnings {
                    warn!("{warning}");
                }
                reporter.update(|r| r.warnings.extend(warnings));
                Some(hardware)
            }
        };
        Ok(Outer {
            systemd,
            hardware,
            shared: shared.clone(),
            _telling: telling,
        })
    }

    /// The lease thread runs: whoever feeds a watchdog looks at it from now on.
    pub fn watch(&self, tasks: &mut Tasks, lease: &UnboundedSender<LeaseIn>) {
        if self.hardware.is_some() || systemd::watchdog().is_some() {
            let look = watchdog::look(self.shared.clone(), lease.clone());
            run_forever(tasks, "the watch on the lease thread", look);
        }
    }

    /// The daemon does its work: its gate is in force, it listens, and Raft runs. Whether the cluster has formed is
    /// another matter, as that takes other machines.
    pub fn ready(&self, tasks: &mut Tasks, config: &Config, raft: &Raft) {
        if let Some(hardware) = &self.hardware {
            hardware.guard();
        }
        self.systemd.ready();
        if self.systemd.listens() {
            let who = (config.me.id, config.nodes.clone());
            let follow = self.systemd.clone();
            let follow = follow.follow(who, self.shared.clone(), raft.clone());
            run_forever(tasks, "the status for the service manager", follow);
        }
    }
}

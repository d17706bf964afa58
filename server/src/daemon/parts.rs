//! The running daemon: what it is made of, what it shows, and how it stops.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use buoy_fence::addr::Addresses;
use buoy_fence::clock::boottime;
use buoy_fence::gate::Deadlines;
use buoy_fence::link::Links;
use buoy_storage::{Raft, StateReader};
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};

use super::VERSION;
use crate::api::{self, ApiContext};
use crate::applied::{self, Managed};
use crate::carrier::Carrier;
use crate::config::Config;
use crate::health::HealthKeeper;
use crate::holds::Holds;
use crate::leader::Leader;
use crate::lease::{LeaseGuard, LeaseIn, LeaseShared};
use crate::lease_info::LeaseReader;
use crate::logging::Log;
use crate::outer::Outer;
use crate::peer::{Admission, PeerPool};
use crate::reporter::Reporter;
use crate::signals::Hangup;
use crate::start::StartError;
use crate::stop::Stopper;
use crate::tasks::{Tasks, describe, run_forever};
use crate::vrrp::Faces;
use crate::{fencing, form, inherited, listen, signals};

/// How long the daemon's tasks may take to end once all else has stopped.
const TASKS_END: Duration = Duration::from_millis(50);

/// What the running daemon is made of.
pub(super) struct Parts {
    pub(super) config: Arc<Config>,
    pub(super) reader: StateReader,
    pub(super) pool: PeerPool,
    pub(super) admission: Admission,
    pub(super) raft: Raft,
    pub(super) health: Arc<HealthKeeper>,
    pub(super) reporter: Reporter,
    pub(super) shared: Arc<LeaseShared>,
    pub(super) deadlines: Deadlines,
    pub(super) inherited: BTreeSet<IpAddr>,
    pub(super) faces: Faces,
    pub(super) holds: Holds,
}

impl Parts {
    /// The applied state goes to the lease thread, to the gate, and to the keeper of addresses.
    pub(super) fn follow(&self, tasks: &mut Tasks, carrier: &Carrier, addresses: Addresses) {
        let (managed_tx, mut managed) = watch::channel(Managed::default());
        let follow = applied::follow(
            self.config.me.id,
            self.reader.clone(),
            carrier.specs.clone(),
            carrier.lease.clone(),
            managed_tx,
            (
                carrier.external.clone(),
                self.faces.clone(),
                self.holds.clone(),
            ),
        );
        run_forever(tasks, "the follower of the applied state", follow);
        run_forever(tasks, "the list of managed addresses", async move {
            while managed.changed().await.is_ok() {
                let all = managed.borrow_and_update().clone();
                addresses.set_managed(all.as_ref().clone());
            }
        });
    }

    /// Takes part in the cluster until the signal to stop.
    pub(super) async fn serve(
        mut self,
        mut tasks: Tasks,
        (hup, log, outer): (Hangup, Log, Outer),
        lease_in: mpsc::UnboundedSender<LeaseIn>,
        lease_guard: LeaseGuard,
    ) -> Result<(), StartError> {
        let (stopping_tx, stopping) = watch::channel(false);
        let context = self.context(&lease_in, stopping);
        listen::start(&mut tasks, &self.config, &context).await?;
        let settle = inherited::settle(
            context,
            std::mem::take(&mut self.inherited),
            Links::open().map_err(|e| StartError::System("ask the kernel for interfaces", e))?,
            lease_in.clone(),
        );
        run_forever(&mut tasks, "the inheritance of an earlier run", settle);
        let stopper = Stopper {
            me: self.config.me.id,
            reader: self.reader.clone(),
            raft: self.raft.clone(),
            reporter: self.reporter.clone(),
            shared: self.shared.clone(),
            lease: lease_in,
            faces: self.faces.clone(),
            suspect_after: self.config.timing.suspect_after,
        };
        outer.ready(&mut tasks, &self.config, &self.raft);
        let signal = signals::wait(hup, self.config.clone(), log, outer.systemd.clone());
        let mut signal = std::pin::pin!(signal);
        let mut lease_ended = std::pin::pin!(lease_guard.ended());
        // A node that waits for others before it takes part is stopped like any other.
        let mut formed = false;
        let fault = loop {
            let form = form::form(&self.config, &self.pool, &self.raft, &self.admission);
            tokio::select! {
                () = &mut signal => break None,
                ended = tasks.join_next() => break Some(ended),
                () = &mut lease_ended => break Some(Some(Ok("the lease thread"))),
                result = form, if !formed => {
                    result?;
                    formed = true;
                    self.start_health(&mut tasks);
                }
            }
        };
        if let Some(ended) = &fault {
            error!("{} ended by itself: stopping", describe(ended));
        }
        outer.systemd.stopping();
        stopping_tx.send_replace(true);
        let lease = stopper.lease.clone();
        stopper.stop().await;
        // Each ends at its next pause; one that does not is cut off with the runtime.
        if tokio::time::timeout(TASKS_END, tasks.shutdown())
            .await
            .is_err()
        {
            warn!("some tasks did not end in {TASKS_END:?}");
        }
        // After the guardian, which would put it back.
        fencing::leave(&lease).await;
        match fault {
            None => Ok(()),
            Some(ended) => Err(StartError::Fault(describe(&ended))),
        }
    }

    fn context(
        &self,
        lease_in: &mpsc::UnboundedSender<LeaseIn>,
        stopping: watch::Receiver<bool>,
    ) -> ApiContext {
        let (health, reports) = (self.health.clone(), self.health.clone());
        ApiContext {
            raft: self.raft.clone(),
            reader: self.reader.clone(),
            me: self.config.me.id,
            pool: self.pool.clone(),
            admission: self.admission.clone(),
            health: Arc::new(move || {
                let now = boottime();
                (health.view(now), health.params(now))
            }),
            reports: Arc::new(move |report| reports.report(report)),
            lease: Arc::new(LeaseReader {
                shared: self.shared.clone(),
                deadlines: self.deadlines.clone(),
                input: lease_in.clone(),
                last: tokio::sync::Mutex::default(),
            }),
            vrrp: {
                let faces = self.faces.clone();
                Arc::new(move || {
                    let faces = faces.clone();
                    Box::pin(async move { faces.view().await })
                })
            },
            watchers: api::watcher_places(),
            version: VERSION.to_owned(),
            stopping,
        }
    }

    fn start_health(&self, tasks: &mut Tasks) {
        let health = &self.health;
        run_forever(
            tasks,
            "the watch on Raft",
            health.clone().follow(self.raft.clone()),
        );
        run_forever(tasks, "the record of health", health.clone().listen());
        run_forever(
            tasks,
            "this node's report",
            self.reporter.clone().keep(health.clone()),
        );
        for peer in self.pool.others() {
            let send = self
                .reporter
                .clone()
                .send_to(peer, self.pool.clone(), VERSION);
            run_forever(tasks, "a sender of reports", send);
        }
        let leader = Leader {
            raft: self.raft.clone(),
            reader: self.reader.clone(),
            health: health.clone(),
            nodes: self.config.nodes.clone(),
            vips: self.config.vips.clone(),
        };
        run_forever(
            tasks,
            "the leader's planning",
            leader.run(self.shared.changed.subscribe()),
        );
    }
}

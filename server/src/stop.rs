//! A clean stop: VIPs move away first, then what is left goes down and is released, then leadership.

use std::time::Duration;

use buoy_core::NodeId;
use buoy_core::health::STOPPING;
use buoy_storage::{Raft, StateReader};
use openraft::async_runtime::WatchReceiver;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::lease::{LeaseIn, LeaseShared};
use crate::reporter::Reporter;
use std::sync::Arc;

/// The whole stop takes at most a second; these are its parts.
const MOVE_AWAY: Duration = Duration::from_millis(450);
const GO_DOWN: Duration = Duration::from_millis(200);
const HAND_OVER: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is needed to stop.
pub struct Stopper {
    /// This node.
    pub me: NodeId,
    /// The applied state.
    pub reader: StateReader,
    /// The Raft group.
    pub raft: Raft,
    /// Tells the leader.
    pub reporter: Reporter,
    /// What is held.
    pub shared: Arc<LeaseShared>,
    /// Tells the lease thread.
    pub lease: UnboundedSender<LeaseIn>,
}

impl Stopper {
    /// Stops in order. Whatever does not happen in time is left to the leases.
    pub async fn stop(self) {
        let began = Instant::now();
        self.reporter.fault(STOPPING);
        let moved = until(MOVE_AWAY, || !self.is_assigned() && self.holds_nothing()).await;
        if !moved {
            warn!("no other node took all VIPs over in {MOVE_AWAY:?}: releasing them");
        }
        // Nobody listens only if the lease thread is gone, and then there is nothing to release.
        let _ = self.lease.send(LeaseIn::Stop);
        if !until(GO_DOWN, || self.holds_nothing()).await {
            warn!("some VIPs are not down after {GO_DOWN:?}: their leases end by themselves");
        }
        self.hand_over().await;
        if timeout(HAND_OVER, self.raft.shutdown()).await.is_err() {
            warn!("Raft did not stop in {HAND_OVER:?}");
        }
        info!("stopped after {:.0?}", began.elapsed());
    }

    fn is_assigned(&self) -> bool {
        let state = self.reader.read();
        state
            .vips
            .values()
            .any(|v| v.assignment.as_ref().is_some_and(|a| a.node == self.me))
    }

    fn holds_nothing(&self) -> bool {
        self.shared.held.load().is_empty()
    }

    /// Gives the leadership to the voter that has most of the log.
    async fn hand_over(&self) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let Some(replication) = metrics
            .replication
            .filter(|_| metrics.current_leader == Some(self.me.0))
        else {
            return;
        };
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        let heir = replication
            .iter()
            .filter(|(id, _)| **id != self.me.0 && voters.contains(id))
            .max_by_key(|(id, matching)| (**matching, self.shared.heard(NodeId(**id))))
            .map(|(id, _)| *id);
        let Some(heir) = heir else { return };
        if let Err(e) = self.raft.trigger().transfer_leader(heir).await {
            warn!("leadership was not handed over: {e}");
            return;
        }
        let handed = || self.raft.metrics().borrow_watched().current_leader != Some(self.me.0);
        if !until(HAND_OVER, handed).await {
            warn!("node {heir} did not take the leadership within {HAND_OVER:?}");
        }
    }
}

/// Waits until something holds; false when it took too long.
async fn until(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !holds() {
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

//! A clean stop: VIPs move away first, then what is left goes down and is released, then leadership.

use std::time::Duration;

use buoy_core::NodeId;
use buoy_core::health::STOPPING;
use buoy_fence::clock::boottime;
use buoy_storage::{Raft, StateReader};
use openraft::async_runtime::WatchReceiver;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::lease::{LeaseIn, LeaseShared};
use crate::reporter::Reporter;
use crate::vrrp::Faces;
use std::sync::Arc;

/// The whole stop; the rest of a second is for the process to end. The others are the points at which
/// its steps give up, counted from the beginning: time that one did not need is the next one's.
const STOP: Duration = Duration::from_millis(900);
const MOVED_BY: Duration = Duration::from_millis(450);
const DOWN_BY: Duration = Duration::from_millis(650);
const HANDED_OVER_BY: Duration = Duration::from_millis(800);
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
    /// Tells routers outside.
    pub faces: Faces,
    /// A quorum that was not heard for this long is not there.
    pub suspect_after: Duration,
}

impl Stopper {
    /// Stops in order. Whatever does not happen in time is left to the leases.
    pub async fn stop(self) {
        let began = Instant::now();
        self.reporter.fault(STOPPING);
        if self.can_be_relieved() {
            let away = || !self.is_assigned() && self.holds_nothing();
            if !until(began + MOVED_BY, away).await {
                warn!("no other node took all VIPs over in {MOVED_BY:?}: releasing them");
            }
        } else if !self.holds_nothing() {
            warn!("there is no leader with a quorum that could move the VIPs: releasing them");
        }
        // What is still assigned here was not taken over, and is given up by the group.
        self.faces.stopping();
        // Nobody listens only if the lease thread is gone, and then there is nothing to release.
        let _ = self.lease.send(LeaseIn::Stop);
        if !until(began + DOWN_BY, || self.holds_nothing()).await {
            warn!("some VIPs are not down after {DOWN_BY:?}: their leases end by themselves");
        }
        let hand_over = self.hand_over(began + HANDED_OVER_BY);
        if timeout_at(began + HANDED_OVER_BY, hand_over).await.is_err() {
            warn!("leadership was not handed over in time");
        }
        if timeout_at(began + STOP, self.raft.shutdown())
            .await
            .is_err()
        {
            warn!("Raft did not stop in {STOP:?}");
        }
        info!("stopped after {:.0?}", began.elapsed());
    }

    /// Somebody may be there who moves this node's VIPs away: a leader, and a quorum of which this node
    /// heard just now.
    fn can_be_relieved(&self) -> bool {
        let leader = self.raft.metrics().borrow_watched().current_leader;
        let quorum = self.shared.quorum_answered();
        leader.is_some() && quorum.is_some_and(|at| boottime().since(at) <= self.suspect_after)
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
    async fn hand_over(&self, end: Instant) {
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
        if !until(end, handed).await {
            warn!("node {heir} did not take the leadership in time");
        }
    }
}

/// Waits until something holds; false when it took too long.
async fn until(end: Instant, holds: impl Fn() -> bool) -> bool {
    while !holds() {
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

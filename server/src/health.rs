//! What this node knows of the health of all nodes: renewals that its voter heard, reports that arrived.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use buoy_core::health::{HealthBook, HealthView, NodeReport};
use buoy_core::placement::PlanParams;
use buoy_core::spec::timing::Timing;
use buoy_core::{Mono, NodeId};
use buoy_fence::clock::boottime;
use buoy_storage::Raft;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use crate::lease::LeaseShared;

/// Keeps the book; shared by the leader's planning, the API and the peer service.
pub struct HealthKeeper {
    me: NodeId,
    timing: Timing,
    started: Mono,
    lease: Arc<LeaseShared>,
    book: Mutex<HealthBook>,
    reports: watch::Sender<u64>,
    leads: watch::Sender<bool>,
}

impl HealthKeeper {
    /// An empty book.
    pub fn new(me: NodeId, timing: Timing, lease: Arc<LeaseShared>) -> Self {
        Self {
            me,
            timing,
            started: boottime(),
            lease,
            book: Mutex::new(HealthBook::default()),
            reports: watch::Sender::new(0),
            leads: watch::Sender::new(false),
        }
    }

    fn book(&self) -> MutexGuard<'_, HealthBook> {
        // The book is only data: a panic elsewhere does not make it wrong.
        self.book.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A report arrived (or was made here).
    pub fn report(&self, report: NodeReport) {
        self.book().report(report, boottime());
        self.reports.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Ticks with each report.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.reports.subscribe()
    }

    /// Whether this node leads the Raft group.
    pub fn leadership(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Every node's health at `now`.
    pub fn view(&self, now: Mono) -> HealthView {
        let mut book = self.book();
        for node in self.lease.peers.keys() {
            if let Some(at) = self.lease.heard(*node) {
                book.heard(*node, at);
            }
            if let Some(run) = self.lease.heard_run(*node) {
                book.heard_run(*node, run, now);
            }
        }
        book.view(now, self.timing.suspect_after)
    }

    /// From when on this node may judge the silence of others: it has heard a quorum for long enough.
    pub fn may_judge_at(&self) -> Mono {
        self.lease.steady_since() + self.timing.suspect_after
    }

    /// Parameters of planning at `now`.
    pub fn params(&self, now: Mono) -> PlanParams {
        PlanParams {
            timing: self.timing.clone(),
            now,
            me: self.me,
            started: self.started,
        }
    }

    /// Follows Raft's view of who leads, for ever.
    pub async fn follow(self: Arc<Self>, raft: Raft) {
        let mut metrics = raft.server_metrics();
        loop {
            // Marked as seen before it is looked at: a fresh receiver counts everything as new.
            let leads = metrics.borrow_and_update().current_leader == Some(self.me.0);
            self.leads
                .send_if_modified(|was| std::mem::replace(was, leads) != leads);
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps the book up to date while nobody asks, so that gaps in what was heard are noticed.
    pub async fn listen(self: Arc<Self>) {
        let every = self.timing.suspect_after / 2;
        loop {
            tokio::time::sleep(every.max(Duration::from_millis(10))).await;
            self.view(boottime());
        }
    }
}

//! This node's report about itself: gathered here, sent to every member on change and every second.

use std::sync::Arc;
use std::time::Duration;

use buoy_core::health::NodeReport;
use buoy_core::{Incarnation, NodeId};
use tokio::sync::watch;
use tracing::debug;

use crate::health::HealthKeeper;
use crate::peer::PeerPool;

/// A report is repeated this often even if nothing changed.
const REPEAT_EVERY: Duration = Duration::from_secs(1);
/// A report that was not delivered is sent again after this: a node without a report gets no VIP.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// A peer that does not take a report within this time gets the next one.
const SEND_LIMIT: Duration = Duration::from_millis(500);

/// Holds the report; cheap to clone.
#[derive(Clone)]
pub struct Reporter(Arc<watch::Sender<NodeReport>>);

impl Reporter {
    /// An empty report.
    pub fn new(node: NodeId, incarnation: Incarnation) -> Self {
        let report = NodeReport {
            node,
            incarnation,
            rev: 1,
            ..NodeReport::default()
        };
        Self(Arc::new(watch::Sender::new(report)))
    }

    /// Changes the report; it is sent only if it really changed.
    pub fn update(&self, change: impl FnOnce(&mut NodeReport)) {
        self.0.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            let changed = *report != before;
            if changed {
                report.rev += 1;
            }
            changed
        });
    }

    /// A fault of the whole node; the same text twice is one fault.
    pub fn fault(&self, text: &str) {
        self.update(|r| {
            if !r.faults.iter().any(|f| f == text) {
                r.faults.push(text.to_owned());
            }
        });
    }

    /// Sends the report once more: somebody may have forgotten it.
    pub fn again(&self) {
        self.0.send_modify(|r| r.rev += 1);
    }

    /// Sends the report once more whenever a node is heard after a silence: one that was started anew within
    /// [`REPEAT_EVERY`] knows none, and its VIPs may wait for what is in it. Runs as long as somebody tells.
    pub async fn again_when_heard(self, mut heard_again: watch::Receiver<Option<NodeId>>) {
        while heard_again.changed().await.is_ok() {
            self.again();
        }
    }

    /// Hands the report to this node's own book, for ever.
    pub async fn keep(self, health: Arc<HealthKeeper>) {
        let mut changes = self.0.subscribe();
        loop {
            let report = changes.borrow_and_update().clone();
            health.report(report);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends the report to one peer, for ever.
    pub async fn send_to(self, peer: NodeId, pool: PeerPool, version: &'static str) {
        let mut changes = self.0.subscribe();
        loop {
            let report = changes.borrow_and_update().clone();
            let next = match pool.report(peer, &report, version, SEND_LIMIT).await {
                Ok(()) => REPEAT_EVERY,
                Err(e) => {
                    debug!(%peer, "report not delivered: {}", e.message());
                    RETRY_AFTER
                }
            };
            // A timeout is the rhythm of the repeats, not an error.
            if let Ok(Err(_)) = tokio::time::timeout(next, changes.changed()).await {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_makes_a_new_revision() {
        let reporter = Reporter::new(NodeId(1), Incarnation(7));
        let rev = || reporter.0.borrow().rev;
        let first = rev();
        reporter.fault("no disk");
        assert_eq!(rev(), first + 1);
        reporter.fault("no disk");
        assert_eq!(rev(), first + 1);
        reporter.again();
        assert_eq!(rev(), first + 2);
    }

    #[tokio::test]
    async fn a_node_that_is_heard_again_is_told_at_once() {
        let reporter = Reporter::new(NodeId(1), Incarnation(7));
        let mut reports = reporter.0.subscribe();
        let heard_again = watch::Sender::new(None);
        let telling = tokio::spawn(reporter.again_when_heard(heard_again.subscribe()));
        for _ in 0..2 {
            // The same node again is news, too.
            heard_again.send_replace(Some(NodeId(2)));
            let told = tokio::time::timeout(REPEAT_EVERY, reports.changed()).await;
            told.expect("it is sent before it would be repeated")
                .expect("somebody reports");
        }
        drop(heard_again);
        telling.await.expect("it ends with who tells it");
    }
}

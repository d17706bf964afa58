//! What the gRPC services see of the lease thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::{NodeId, VipName};
use buoy_fence::clock::boottime;
use buoy_fence::gate::Deadlines;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc::UnboundedSender, watch};

use crate::api::{HeldLease, LeaseInfo, Promise, VoterView};
use crate::lease::{self, Lateness, LeaseIn, LeaseShared, Phase};

/// Reads the thread's shared page and the gate's own deadlines.
pub struct LeaseReader {
    /// The thread's page.
    pub shared: Arc<LeaseShared>,
    /// The deadlines that the kernel goes by.
    pub deadlines: Deadlines,
    /// The thread's ear.
    pub input: UnboundedSender<LeaseIn>,
    /// What it said last, and when that was asked. However many callers there are, the thread is asked by one of
    /// them at a time; those that came meanwhile share the next answer.
    pub last: tokio::sync::Mutex<Option<(Instant, VoterView)>>,
}

impl LeaseInfo for LeaseReader {
    fn held(&self, vip: &VipName) -> Option<HeldLease> {
        let held = self.shared.held.load();
        let mut claims = held.iter().filter(|((name, _), _)| name == vip);
        // While an edited VIP changes its epoch, the one that is up counts.
        let mut all = claims.clone();
        let ((_, epoch), claim) = claims
            .find(|(_, h)| h.phase == Phase::Active)
            .or_else(|| all.next_back())?;
        let now = boottime();
        let remaining = match (claim.phase, claim.slot) {
            (Phase::Active, Some(slot)) => self.deadlines.load(slot).since(now),
            _ => Duration::ZERO,
        };
        Some(HeldLease {
            epoch: *epoch,
            active: !remaining.is_zero(),
            remaining,
        })
    }

    fn promises(&self) -> BoxFuture<'_, Option<VoterView>> {
        async {
            let came = Instant::now();
            let mut last = self.last.lock().await;
            if let Some((asked, view)) = last.as_ref()
                && *asked >= came
            {
                return Some(view.clone());
            }
            let asked = Instant::now();
            let record = lease::promises(&self.input).await.ok()?;
            let promises: BTreeMap<_, _> = record
                .live
                .into_iter()
                .map(|(address, (session, epoch, remaining))| {
                    (
                        address,
                        Promise {
                            node: session.node,
                            epoch,
                            remaining,
                        },
                    )
                })
                .collect();
            let view = VoterView {
                promises,
                quarantine: record.quarantine.unwrap_or_default(),
            };
            *last = Some((asked, view.clone()));
            Some(view)
        }
        .boxed()
    }

    fn heard(&self, node: NodeId) -> Option<Duration> {
        self.shared.heard(node).map(|at| boottime().since(at))
    }

    fn lateness(&self) -> Lateness {
        self.shared.lateness.read(boottime())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }
}

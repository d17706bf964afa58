//! What stands in for the lease thread and the health keeper.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buoy_core::health::{HealthView, NodeHealth, NodeReport};
use buoy_core::placement::PlanParams;
use buoy_core::{Mono, NodeId, VipName};
use buoy_storage::StateReader;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::harness::timing;
use crate::api::{HeldLease, LeaseInfo, VoterView};
use crate::lease::Lateness;

/// In place of the lease layer: an owner is active once its state says that it is the owner.
pub(super) struct FakeLease {
    pub(super) me: NodeId,
    pub(super) reader: StateReader,
    /// Nodes that are not heard.
    pub(super) silent: Arc<Mutex<BTreeSet<NodeId>>>,
    /// This node gets no lease.
    pub(super) refused: Mutex<bool>,
}

impl LeaseInfo for FakeLease {
    fn held(&self, vip: &VipName) -> Option<HeldLease> {
        let state = self.reader.read();
        let assignment = state.vips.get(vip)?.assignment.as_ref()?;
        let active = !*self.refused.lock().unwrap();
        let remaining = if active {
            Duration::from_millis(300)
        } else {
            Duration::ZERO
        };
        (assignment.node == self.me).then_some(HeldLease {
            epoch: assignment.epoch,
            active,
            remaining,
        })
    }

    fn promises(&self) -> BoxFuture<'_, Option<VoterView>> {
        async { Some(VoterView::default()) }.boxed()
    }

    fn heard(&self, node: NodeId) -> Option<Duration> {
        (!self.silent.lock().unwrap().contains(&node)).then_some(Duration::ZERO)
    }

    fn lateness(&self) -> Lateness {
        Lateness {
            wakes: 40,
            mean: Duration::from_micros(60),
            max: Duration::from_micros(12_300),
            max_last_minute: Duration::from_micros(400),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.reader.subscribe()
    }
}

/// Every node is well, and reports what its state says.
pub(super) fn health(
    me: NodeId,
    reader: StateReader,
    reports: Arc<Mutex<BTreeMap<NodeId, NodeReport>>>,
) -> Arc<dyn Fn() -> (HealthView, PlanParams) + Send + Sync> {
    let now = Mono::from_millis(10_000);
    Arc::new(move || {
        let state = reader.read();
        let view = state.nodes.keys().map(|node| {
            let owned = state.vips.values().filter_map(|v| {
                let a = v.assignment.as_ref().filter(|a| a.node == *node)?;
                Some((v.spec.name.clone(), a.epoch))
            });
            let report = NodeReport {
                node: *node,
                active: owned.collect(),
                ..NodeReport::default()
            };
            let report = reports.lock().unwrap().get(node).cloned().unwrap_or(report);
            let health = NodeHealth {
                last_heard: Some(now),
                report: Some(report),
                well_since: Some(Mono::ZERO),
            };
            (*node, health)
        });
        let params = PlanParams {
            timing: timing(),
            now,
            me,
            started: Mono::ZERO,
        };
        (view.collect(), params)
    })
}

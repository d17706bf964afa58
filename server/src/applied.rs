//! Carries the applied state to those who act on it: what is assigned here to the lease thread, which
//! addresses exist to the gate and to the guard of the addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use buoy_core::lease::holder::{HolderView, Wanted};
use buoy_core::spec::VipSpec;
use buoy_core::state::State;
use buoy_core::{Epoch, Membership, NodeId, VipName};
use buoy_storage::StateReader;
use tokio::sync::{mpsc::UnboundedSender, watch};

use crate::lease::LeaseIn;

/// Declarations of the VIPs that this node was assigned, by epoch: what an epoch *is* never changes. Clones share them.
#[derive(Clone, Default)]
pub struct Specs {
    by_epoch: Arc<Mutex<ByEpoch>>,
    assigned: Arc<watch::Sender<Arc<Assigned>>>,
}

type ByEpoch = BTreeMap<(VipName, Epoch), Arc<VipSpec>>;

/// What the applied state assigns to this node.
pub type Assigned = BTreeMap<VipName, Epoch>;

impl Specs {
    fn map(&self) -> std::sync::MutexGuard<'_, ByEpoch> {
        self.by_epoch.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What the applied state assigns to this node. The lease thread was told before.
    pub fn assigned(&self) -> watch::Receiver<Arc<Assigned>> {
        self.assigned.subscribe()
    }

    /// The lease thread was told of these.
    fn told(&self, view: &HolderView) {
        let assigned = view.assignments.iter().map(|w| (w.vip.clone(), w.epoch));
        self.assigned.send_replace(Arc::new(assigned.collect()));
    }

    /// The declaration under which an epoch was assigned.
    pub fn get(&self, vip: &VipName, epoch: Epoch) -> Option<Arc<VipSpec>> {
        self.map().get(&(vip.clone(), epoch)).cloned()
    }

    /// Forgets an epoch that went down here.
    pub fn forget(&self, vip: &VipName, epoch: Epoch) {
        self.map().remove(&(vip.clone(), epoch));
    }

    fn keep(&self, vip: &VipName, epoch: Epoch, spec: &VipSpec) {
        let key = (vip.clone(), epoch);
        self.map()
            .entry(key)
            .or_insert_with(|| Arc::new(spec.clone()));
    }
}

/// Addresses of all VIPs of the cluster.
pub type Managed = Arc<BTreeSet<IpAddr>>;

/// Follows the applied state for ever.
pub async fn follow(
    me: NodeId,
    reader: StateReader,
    specs: Specs,
    lease: UnboundedSender<LeaseIn>,
    managed: watch::Sender<Managed>,
) {
    let mut applied = reader.subscribe();
    let mut last: Option<HolderView> = None;
    let mut told = false;
    loop {
        applied.borrow_and_update();
        let Some((view, addresses)) = look(me, &reader, &specs) else {
            // Nothing is known of the cluster yet, or not again yet.
            if applied.changed().await.is_err() {
                return;
            }
            continue;
        };
        // The gate knows an address before a lease can open it.
        if !told || **managed.borrow() != addresses {
            told = true;
            if lease
                .send(LeaseIn::Manage(addresses.iter().copied().collect()))
                .is_err()
            {
                return;
            }
            managed.send_replace(Arc::new(addresses));
        }
        if last.as_ref() != Some(&view) {
            if lease.send(LeaseIn::Applied(view.clone())).is_err() {
                return;
            }
            specs.told(&view);
            last = Some(view);
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// What the state says now; `None` before the cluster's first entry.
fn look(me: NodeId, reader: &StateReader, specs: &Specs) -> Option<(HolderView, BTreeSet<IpAddr>)> {
    let state = reader.read();
    if !state.bootstrapped {
        return None;
    }
    let addresses = state.addresses.keys().copied().collect();
    Some((view_of(me, &state, state.membership(), specs), addresses))
}

fn view_of(me: NodeId, state: &State, membership: Membership, specs: &Specs) -> HolderView {
    let mut assignments = Vec::new();
    for (name, vip) in &state.vips {
        let Some(assignment) = vip.assignment.as_ref().filter(|a| a.node == me) else {
            continue;
        };
        specs.keep(name, assignment.epoch, &vip.spec);
        assignments.push(Wanted {
            vip: name.clone(),
            epoch: assignment.epoch,
            addresses: vip.spec.addresses.iter().map(|a| a.ip).collect(),
        });
    }
    HolderView {
        membership,
        assignments,
    }
}

//! The public gRPC services, and what they need from the rest of the daemon.

mod cluster;
mod explain;
mod moves;
mod ownership;
pub mod probe;
mod read;
mod serve;
mod status;
mod view;
mod vrrp;
mod watch;
mod write;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use buoy_core::health::{HealthView, NodeReport};
use buoy_core::placement::PlanParams;
use buoy_core::{Epoch, NodeId, VipName};
use buoy_storage::{Raft, StateReader};
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, watch as channel};

use crate::lease::Lateness;
use crate::peer::{Admission, PeerPool};
use crate::vrrp::RouterView;

pub(crate) use read::barrier;
pub(crate) use read::wait_applied;
pub use serve::{Listener, RouterError, router};
pub use write::propose;

/// Everything that the services need; clones share it.
#[derive(Clone)]
pub struct ApiContext {
    /// The Raft group.
    pub raft: Raft,
    /// The applied state.
    pub reader: StateReader,
    /// This node.
    pub me: NodeId,
    /// Connections to the other nodes.
    pub pool: PeerPool,
    /// Whether this node takes part in Raft yet.
    pub admission: Admission,
    /// What this node knows of every node's health, and how placement judges it now.
    pub health: Arc<dyn Fn() -> (HealthView, PlanParams) + Send + Sync>,
    /// Takes the reports of other nodes.
    pub reports: Arc<dyn Fn(NodeReport) + Send + Sync>,
    /// What this node knows of leases.
    pub lease: Arc<dyn LeaseInfo>,
    /// What this node's VRRP routers do.
    pub vrrp: Arc<dyn Fn() -> BoxFuture<'static, Vec<RouterView>> + Send + Sync>,
    /// Places for watchers, of all listeners together.
    pub watchers: Arc<Semaphore>,
    /// Version of this daemon.
    pub version: String,
    /// Becomes true when the daemon stops: streams end, health becomes NOT_SERVING.
    pub stopping: channel::Receiver<bool>,
}

/// Places for watchers of one node.
pub fn watcher_places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(watch::MAX_WATCHERS))
}

/// What the lease thread shows to the services.
pub trait LeaseInfo: Send + Sync + 'static {
    /// This node's claim to a VIP as it is at this instant; `None`: it claims nothing.
    fn held(&self, vip: &VipName) -> Option<HeldLease>;

    /// What this node has promised as a voter. `None`: it cannot be told (the lease thread is gone).
    fn promises(&self) -> BoxFuture<'_, Option<VoterView>>;

    /// How long ago this node heard a renewal of `node`; `None`: not since its start.
    fn heard(&self, node: NodeId) -> Option<Duration>;

    /// How late the lease thread woke up.
    fn lateness(&self) -> Lateness;

    /// Moves whenever what [`LeaseInfo::held`] says of any VIP has changed.
    fn changes(&self) -> channel::Receiver<u64>;
}

/// A node's own claim to a VIP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldLease {
    /// Epoch of the assignment that it rests on.
    pub epoch: Epoch,
    /// The gate is open and its deadline has not passed.
    pub active: bool,
    /// Until the deadline; zero when not active.
    pub remaining: Duration,
}

/// A voter's promises.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VoterView {
    /// Live promises by address.
    pub promises: BTreeMap<IpAddr, Promise>,
    /// Until the voter may promise anything after its start; zero: it may.
    pub quarantine: Duration,
}

/// A voter's promise to support nobody else for an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promise {
    /// To which node.
    pub node: NodeId,
    /// For which epoch.
    pub epoch: Epoch,
    /// Until it ends.
    pub remaining: Duration,
}

/// Whole microseconds, saturating.
pub(crate) fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

/// Whole milliseconds, saturating.
pub(crate) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Does `vip` become active on this node with `epoch` or a later one, within `limit`?
pub(crate) async fn becomes_active(
    lease: &dyn LeaseInfo,
    vip: &VipName,
    epoch: Epoch,
    limit: Duration,
) -> bool {
    let mut changes = lease.changes();
    let active = async {
        loop {
            changes.borrow_and_update();
            if lease
                .held(vip)
                .is_some_and(|h| h.active && h.epoch >= epoch)
            {
                return true;
            }
            if changes.changed().await.is_err() {
                return false;
            }
        }
    };
    tokio::time::timeout(limit, active).await.unwrap_or(false)
}

#[cfg(test)]
mod tests;

//! What nodes say about themselves, as input to placement.

mod book;
mod flap;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Incarnation, NodeId, VipName};
use crate::time::Mono;

pub use book::HealthBook;
pub use flap::{FLAP_CALM, FLAP_DOWNS, FLAP_WINDOW, FlapEvent, Flaps};

/// A node-wide fault that begins with this word means that the node's daemon is stopping in good order;
/// its VIPs then move with [`crate::state::Cause::OwnerStopping`].
pub const STOPPING: &str = "stopping";

/// What one node reports about itself. Volatile: sent to every member on change and every second.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeReport {
    /// Who reports.
    pub node: NodeId,
    /// Which run of its daemon.
    pub incarnation: Incarnation,
    /// Grows with each report of the run; an older one is ignored.
    pub rev: u64,
    /// Reasons why this node can hold no VIP at all (stopping, fence broken, ...). Empty: none.
    pub faults: Vec<String>,
    /// VIPs that this node cannot hold, and why (interface missing or down, ...).
    pub vip_faults: BTreeMap<VipName, String>,
    /// Assignments that this node has given up (lease lost, denied, address refused by the kernel):
    /// it will not claim that epoch again, so the VIP needs a new assignment.
    pub given_up: BTreeMap<VipName, (Epoch, String)>,
    /// VIPs that are active on this node, and their epochs.
    pub active: BTreeMap<VipName, Epoch>,
    /// Things that an operator should know but that do not keep VIPs away (e.g. no realtime scheduling).
    pub warnings: Vec<String>,
}

/// What the leader knows of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeHealth {
    /// When this voter last heard a renewal of the node; `None`: not since this voter started.
    pub last_heard: Option<Mono>,
    /// The node's newest report; `None`: none yet.
    pub report: Option<NodeReport>,
    /// Since when the node has been heard without a gap and without a node-wide fault (for preempt delays).
    pub well_since: Option<Mono>,
}

/// What the leader knows of every node, as placement sees it.
pub type HealthView = BTreeMap<NodeId, NodeHealth>;

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

/// A fault of a VIP, or the reason for which one was given up, that begins with these words: its owner took it over from
/// a silent node, and was to have that fenced from outside first, but did not. It then moves with
/// [`crate::state::Cause::Unfenced`], so that the next owner knows that this is still to be done.
pub const UNFENCED: &str = "external fencing";

/// What a node hears of routers outside the group that share a VIP's virtual router id. Stored by position: new ones come last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Hearing {
    /// It has not listened for long enough to tell.
    Unsure,
    /// None of them has a better claim to the VIP, by VRRP's rules.
    Clear,
    /// One has; which, in words.
    Outranked(String),
}

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
    /// What this node hears of the routers of VIPs that have a VRRP face; one that is missing: it does not hear.
    /// Last: reports of older versions end before it.
    pub vrrp: BTreeMap<VipName, Hearing>,
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

//! The replicated state: VIPs, nodes, who is assigned what, and the history of it.

mod apply;
pub mod command;
mod query;
mod takeover;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, NodeId, NodeName, VipName};
use crate::spec::{NodeSpec, VipSpec};

pub use apply::{MAX_REMOVED, MAX_TEXT};
pub use command::{Command, Entry, Move, Outcome, Rejection, RejectionKind, Settings, Skipped};
pub use takeover::Takeover;

/// Who is assigned a VIP.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The node.
    pub node: NodeId,
    /// Log index of the entry that made the assignment.
    pub epoch: Epoch,
    /// Wall clock of the proposer, milliseconds since 1970 (for people; nothing is decided by it).
    pub since_unix_ms: u64,
}

/// A VIP in the replicated state.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Vip {
    /// What the user declared.
    pub spec: VipSpec,
    /// Who is assigned; `None`: nobody.
    pub assignment: Option<Assignment>,
    /// An operator's choice (`vip move --to`): this node ranks first while it is eligible.
    pub pinned: Option<NodeId>,
    /// Set by [`Command::Yield`]: the VIP is left to somebody outside the group, and why.
    pub yielded: Option<String>,
    /// Log index of the last change of the spec or the assignment.
    pub changed_at: u64,
}

/// A node in the replicated state.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Node {
    /// What the configuration says of it.
    pub spec: NodeSpec,
    /// Set while an operator has drained it: the reason given.
    pub drained: Option<String>,
    /// It has taken part: from then on it must never come with an empty disk.
    pub joined: bool,
}

/// What kind of change an event of the history records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A VIP was declared.
    VipPut,
    /// A VIP's declaration was changed.
    VipEdited,
    /// A VIP was deleted.
    VipDeleted,
    /// A VIP got an owner, or another one, or a new epoch with the same one.
    Assigned,
    /// A VIP lost its owner and has none.
    Unassigned,
    /// A node was drained.
    NodeDrained,
    /// A node takes part again.
    NodeUndrained,
    /// A node was declared or its declaration changed.
    NodePut,
    /// Settings of the cluster changed.
    SettingsChanged,
}

/// Why a VIP moved. The text beside it in [`Event::evidence`] says what was seen. Stored by position: new ones come last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// First placement of a VIP without an owner.
    Placement,
    /// The owner fell silent.
    OwnerSilent,
    /// The owner reported that it cannot hold the VIP.
    OwnerUnfit,
    /// The owner gave up its epoch (lease lost or denied).
    LeaseLost,
    /// The owner is stopping.
    OwnerStopping,
    /// The owner was drained.
    Drained,
    /// A better node preempted.
    Preempted,
    /// An operator moved it.
    Operator,
    /// A VIP that it is colocated with, or avoids, moved.
    Group,
    /// Its declaration was edited.
    Edited,
    /// Yielded to a router outside the group.
    Yielded,
    /// The owner took it over from a silent node, and did not have that fenced from outside as it should.
    Unfenced,
}

/// One line of the ownership history.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event; the revision of the Watch API.
    pub revision: u64,
    /// Log index of the entry.
    pub index: u64,
    /// Wall clock of the proposer, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What happened.
    pub kind: EventKind,
    /// To which VIP.
    pub vip: Option<VipName>,
    /// To which node, for node events.
    pub node: Option<NodeName>,
    /// Epoch after the event, for VIP events with an owner; of a deleted VIP the epoch that ended.
    pub epoch: Option<Epoch>,
    /// Owner before.
    pub from: Option<NodeName>,
    /// Owner after.
    pub to: Option<NodeName>,
    /// Why.
    pub cause: Option<Cause>,
    /// What was seen, in words ("n1 silent for 182 ms, last heard by n3").
    pub evidence: String,
}

/// The replicated state. `apply` (in `apply.rs`) is its only writer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Index of the last log entry applied (also entries that carry no command).
    pub applied: u64,
    /// Set once the first leader has written the nodes and VIPs of its configuration.
    pub bootstrapped: bool,
    /// Settings of the cluster.
    pub settings: Settings,
    /// Nodes by id.
    pub nodes: BTreeMap<NodeId, Node>,
    /// VIPs by name.
    pub vips: BTreeMap<VipName, Vip>,
    /// Which VIP an address belongs to. Derived from `vips`, kept for uniqueness and look-up.
    pub addresses: BTreeMap<IpAddr, VipName>,
    /// Addresses without an assignment that had one, and since which log index; at most
    /// [`MAX_REMOVED`] (see [`crate::lease::LogView`]).
    pub removed: BTreeMap<IpAddr, Epoch>,
    /// Removals up to here may have been forgotten.
    pub removed_forgotten: Epoch,
    /// The newest events, oldest first; at most [`crate::spec::MAX_HISTORY`].
    pub history: VecDeque<Event>,
    /// Revision of the newest event ever; 0: none.
    pub revision: u64,
    /// Drawn when the cluster was formed: revisions of different histories cannot be compared. 0: it was
    /// formed by a version that drew none, or is not formed yet. Last, and not in snapshots where it is 0.
    pub history_id: u64,
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

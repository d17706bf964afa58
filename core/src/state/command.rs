//! Commands: what can be written to the log.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, NodeId, VipName};
use crate::spec::vrrp::StoredFace;
use crate::spec::{NodeSpec, VipSpec};
use crate::state::Cause;

/// Settings of the whole cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Automatic placement is off: VIPs move only by command (maintenance).
    pub frozen: bool,
}

/// One assignment to make.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Which VIP.
    pub vip: VipName,
    /// Epoch of the assignment that the proposer saw (zero: none). The move is skipped when the VIP has
    /// another one by now.
    pub expected: Epoch,
    /// New owner; `None`: nobody.
    pub to: Option<NodeId>,
    /// Why.
    pub cause: Cause,
    /// What was seen.
    pub evidence: String,
    /// `Some(true)`: pin to `to` (an operator's move); `Some(false)`: remove the pin; `None`: leave it.
    pub pin: Option<bool>,
}

/// A command. Logs hold the position of a variant, and its fields in order: what is there stays, and new
/// variants come last.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Command {
    /// As [`Command::Bootstrap`], for a history without an id. Only read, from logs that hold it.
    BootstrapWithoutId {
        /// All nodes.
        nodes: Vec<NodeSpec>,
        /// Initial VIPs.
        vips: Vec<VipSpec>,
    },
    /// Declare a VIP without a VRRP face, or change its declaration. See [`Command::put_vip`].
    PutVip(VipSpec),
    /// Delete a VIP.
    DeleteVip(VipName),
    /// Declare a node, or change its declaration.
    PutNode(NodeSpec),
    /// Assign VIPs; moves whose expectation fails are skipped, the others are made. Rejected when none
    /// could be made.
    Assign(Vec<Move>),
    /// Keep VIPs away from a node (`Some(reason)`), or let it take part again.
    Drain {
        /// Which node.
        node: NodeId,
        /// Why; `None` ends the drain.
        reason: Option<String>,
    },
    /// Nodes have been heard for the first time. Kept so that one that lost its disk is told apart.
    Joined(Vec<NodeId>),
    /// Change the settings.
    Settings(Settings),
    /// Leave a VIP to a router outside the group (`Some(evidence)`), or take it back.
    Yield {
        /// Which VIP.
        vip: VipName,
        /// What was seen.
        evidence: Option<String>,
    },
    /// Nodes and VIPs of the first configuration; ignored when the state has been bootstrapped. VIPs have no
    /// VRRP face here. See [`Command::bootstrap`].
    Bootstrap {
        /// Random and not 0: tells the history that begins here from those of other clusters.
        history_id: u64,
        /// All nodes.
        nodes: Vec<NodeSpec>,
        /// Initial VIPs.
        vips: Vec<VipSpec>,
    },
    /// As [`Command::PutVip`], with a VRRP face.
    PutVipWithVrrp {
        /// The VIP.
        spec: VipSpec,
        /// Its face.
        face: Box<StoredFace>,
    },
    /// As [`Command::Bootstrap`], with VRRP faces.
    BootstrapWithVrrp {
        /// As there.
        history_id: u64,
        /// All nodes.
        nodes: Vec<NodeSpec>,
        /// Initial VIPs.
        vips: Vec<VipSpec>,
        /// Faces of VIPs of the list; names that are not in it are ignored.
        faces: BTreeMap<VipName, StoredFace>,
    },
    /// As [`Command::Yield`], for many VIPs. One that does not exist, or is so already, is passed over.
    Yields(Vec<(VipName, Option<String>)>),
}

impl Command {
    /// Declares a VIP, or changes its declaration. Without a face it is a command that older versions read.
    pub fn put_vip(spec: VipSpec) -> Command {
        match spec.vrrp.clone() {
            None => Command::PutVip(spec),
            Some(face) => Command::PutVipWithVrrp {
                spec,
                face: Box::new(StoredFace(*face)),
            },
        }
    }

    /// The first entry of a cluster; `history_id` is random and not 0.
    pub fn bootstrap(history_id: u64, nodes: Vec<NodeSpec>, vips: Vec<VipSpec>) -> Command {
        let face = |v: &VipSpec| Some((v.name.clone(), StoredFace(*v.vrrp.clone()?)));
        let faces: BTreeMap<VipName, StoredFace> = vips.iter().filter_map(face).collect();
        if faces.is_empty() {
            return Command::Bootstrap {
                history_id,
                nodes,
                vips,
            };
        }
        Command::BootstrapWithVrrp {
            history_id,
            nodes,
            vips,
            faces,
        }
    }
}

/// What stands in a log entry: the command, and who proposed it when.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Wall clock of the proposer, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The command.
    pub command: Command,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.command {
            Command::Bootstrap { nodes, vips, .. }
            | Command::BootstrapWithVrrp { nodes, vips, .. }
            | Command::BootstrapWithoutId { nodes, vips } => {
                return write!(f, "bootstrap({} nodes, {} vips)", nodes.len(), vips.len());
            }
            Command::PutVip(v) | Command::PutVipWithVrrp { spec: v, .. } => {
                return write!(f, "put-vip({})", v.name);
            }
            Command::DeleteVip(v) => return write!(f, "delete-vip({v})"),
            Command::PutNode(n) => return write!(f, "put-node({})", n.name),
            Command::Assign(m) => return write!(f, "assign({} moves)", m.len()),
            Command::Drain { node, .. } => return write!(f, "drain({node})"),
            Command::Joined(nodes) => return write!(f, "joined({} nodes)", nodes.len()),
            Command::Settings(_) => "settings",
            Command::Yield { vip, .. } => return write!(f, "yield({vip})"),
            Command::Yields(all) => return write!(f, "yields({} vips)", all.len()),
        };
        f.write_str(what)
    }
}

/// Why `apply` refused a command; the state is as before.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// What was wrong, with which VIP or node, what was expected, and what to do.
    pub message: String,
    /// Kind, for programs.
    pub kind: RejectionKind,
}

impl Rejection {
    pub(crate) fn not_found(message: impl Into<String>) -> Rejection {
        Rejection {
            message: message.into(),
            kind: RejectionKind::NotFound,
        }
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Rejection {
        Rejection {
            message: message.into(),
            kind: RejectionKind::Conflict,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Rejection {
        Rejection {
            message: message.into(),
            kind: RejectionKind::Invalid,
        }
    }
}

/// Kind of a rejection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RejectionKind {
    /// The thing named does not exist.
    NotFound,
    /// It conflicts with something that exists (an address in use, a VIP that moved meanwhile).
    Conflict,
    /// The command is wrong in itself.
    Invalid,
}

/// A move that was not made, while others of the same command may have been.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// Which VIP was to move.
    pub vip: VipName,
    /// Why it did not.
    pub reason: Rejection,
}

/// What `apply` answers to the proposer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The refusal, if there was one.
    pub rejected: Option<Rejection>,
    /// VIPs whose assignment changed, and their epoch now (zero: none), in the order of the changes.
    pub assigned: Vec<(VipName, Epoch)>,
    /// Moves of [`Command::Assign`] that were not made, in the order of the command.
    pub skipped: Vec<Skipped>,
    /// Revision of the history after the entry.
    pub revision: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rejected {
            Some(r) => write!(f, "rejected: {}", r.message),
            None if self.skipped.is_empty() => {
                write!(f, "applied, {} assignments", self.assigned.len())
            }
            None => {
                let (made, skipped) = (self.assigned.len(), self.skipped.len());
                write!(f, "applied, {made} assignments, {skipped} moves skipped")
            }
        }
    }
}

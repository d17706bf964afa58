//! Why a VIP goes down, or is not claimed any more.

use std::fmt;

use crate::ids::NodeId;

/// Why a VIP goes down at this node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DownReason {
    /// The applied state no longer assigns this epoch of it to this node.
    Unassigned,
    /// A voter knows of a later assignment.
    Denied {
        /// Which voter.
        by: NodeId,
    },
    /// No majority of the voters renewed the lease in time.
    Expired,
    /// The rest of the daemon gave it up, and said why.
    GivenUp(String),
    /// The daemon stops.
    Stopping,
    /// The voters' answers differ so much between VIPs that the gate has no slot left for this one.
    NoSlot,
    /// This node would claim more addresses than a voter accepts of one session, or the VIP has none.
    AddressCount {
        /// Most that a voter accepts.
        limit: usize,
    },
}

impl DownReason {
    /// Is the VIP still assigned here, so that the cluster must be told that it needs a new epoch?
    pub fn is_given_up(&self) -> bool {
        !matches!(self, DownReason::Unassigned | DownReason::Stopping)
    }
}

impl DownReason {
    /// Would a new epoch at this node end the same way? Then the node should say that it cannot hold the
    /// VIP, for a while at least, or it would be given it again and again. A lease that ended or was
    /// denied says nothing about the next one; whoever gave a VIP up knows by himself.
    pub fn is_lasting(&self) -> bool {
        match self {
            DownReason::NoSlot | DownReason::AddressCount { .. } => true,
            DownReason::GivenUp(_)
            | DownReason::Unassigned
            | DownReason::Denied { .. }
            | DownReason::Expired
            | DownReason::Stopping => false,
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Unassigned => f.write_str("it is no longer assigned to this node"),
            DownReason::Denied { by } => {
                write!(
                    f,
                    "voter {by} denied the lease: its log holds a later assignment"
                )
            }
            DownReason::Expired => {
                f.write_str("the lease ended: no majority of the voters renewed it in time")
            }
            DownReason::GivenUp(why) => f.write_str(why),
            DownReason::Stopping => f.write_str("the daemon is stopping"),
            DownReason::NoSlot => f.write_str("the packet gate has no lease slot left"),
            DownReason::AddressCount { limit } => write!(
                f,
                "it has no address, or this node would claim more than {limit} addresses"
            ),
        }
    }
}

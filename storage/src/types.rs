//! openraft's types filled in for Buoy, and their translation into core's vocabulary.

use std::fmt;

use buoy_core::{ConfigId, Membership, NodeId};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

openraft::declare_raft_types!(
    /// What openraft is instantiated with. One leader per term (the standard Raft vote): a log id is then
    /// (term, index), which is what core's `ConfigId` holds.
    pub TypeConfig:
        D = buoy_core::state::Entry,
        R = buoy_core::state::Outcome,
        NodeId = u64,
        Node = PeerNode,
        LeaderId = openraft::vote::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

/// A member of the Raft group as the membership entries carry it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PeerNode {
    /// The node's name, for people and for its certificate.
    pub name: String,
    /// `ip:port` of its peer service.
    pub address: String,
}

impl fmt::Display for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

/// A running Raft node.
pub type Raft = openraft::Raft<TypeConfig, Machine>;
/// An entry of the Raft log: blank, a membership, or a command of core.
pub type LogEntry = openraft::alias::EntryOf<TypeConfig>;
/// Term and index of an entry.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote: term, candidate, and whether a quorum granted it.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// A membership with the nodes' addresses.
pub type RaftMembership = openraft::Membership<u64, PeerNode>;
/// A membership and the log id of its entry.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot as it travels between nodes: the bytes of the snapshot file, header and checksum
/// included. Cut it into chunks with [`bytes::Bytes::slice`], which copies nothing; the receiver puts
/// the chunks together again and hands the whole to openraft.
pub type SnapshotData = bytes::Bytes;
/// What a snapshot covers, with its bytes.
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Largest snapshot that is written, read or accepted from a peer, in bytes. A cluster with 200 VIPs and
/// a full history needs about 3 MB.
pub const MAX_SNAPSHOT_BYTES: usize = 128 << 20;

/// Largest log entry that is accepted, in bytes of its encoding.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;

/// The entry's identity in core's words.
pub fn config_id(id: &LogId) -> ConfigId {
    ConfigId {
        term: id.leader_id.term,
        index: id.index,
    }
}

/// Who votes, in core's words; a joint configuration gives two halves. Without any membership entry:
/// no halves, so that no quorum is possible.
pub fn core_membership(stored: &StoredMembership) -> Membership {
    membership_of(stored.log_id().as_ref(), stored.membership())
}

/// As [`core_membership`], from the two parts.
pub fn membership_of(id: Option<&LogId>, membership: &RaftMembership) -> Membership {
    Membership {
        id: id.map(config_id).unwrap_or_default(),
        halves: membership
            .get_joint_config()
            .iter()
            .map(|half| half.iter().map(|id| NodeId(*id)).collect())
            .collect(),
    }
}

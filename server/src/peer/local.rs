//! This node's own Raft: who leads, writing, and the read index, in core's words.

use std::collections::BTreeSet;
use std::time::Duration;

use buoy_core::state::{Command, Entry};
use buoy_core::{Membership, NodeId};
use buoy_storage::{Raft, core_membership};
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use tonic::Status;

use super::control::Proposed;

/// Longest time that a command may be on its way through the log.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Longest time that a leader may take to confirm that it still leads.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// Largest declaration or order, in bytes of its encoding: a VIP with all that it may have takes far less.
pub const MAX_COMMAND: usize = 64 << 10;
/// Largest command about many VIPs at once: [`buoy_core::spec::MAX_VIPS`] of them, and below what the log
/// takes for one entry.
const MAX_BULK: usize = 8 << 20;

/// Refuses a command that is too large before it is in the log: there it would stop every node.
///
/// # Errors
/// INVALID_ARGUMENT, with the sizes.
pub fn check_size(entry: &Entry) -> Result<(), Status> {
    let limit = match entry.command {
        Command::Bootstrap { .. }
        | Command::BootstrapWithVrrp { .. }
        | Command::BootstrapWithoutId { .. }
        | Command::Assign(_)
        | Command::Yields(_) => MAX_BULK,
        _ => MAX_COMMAND,
    };
    let size = postcard::experimental::serialized_size(entry)
        .map_err(|e| Status::internal(format!("cannot encode the command: {e}")))?;
    if size > limit {
        return Err(Status::invalid_argument(format!(
            "the command takes {size} bytes, more than the {limit} that are accepted"
        )));
    }
    Ok(())
}

/// What became of a command that was proposed here.
#[derive(Debug)]
pub enum LocalWrite {
    /// It was applied.
    Applied(Proposed),
    /// It was not proposed: this node does not lead. Whom it follows, if anybody.
    NotLeader(Option<NodeId>),
    /// It was not proposed: Raft does not run here any more, and why.
    Stopped(String),
}

/// Raft as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RaftView {
    /// The leader that it follows, or is.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The effective membership, which may not be committed yet.
    pub membership: Membership,
    /// Voters and learners.
    pub members: BTreeSet<NodeId>,
}

/// Raft as this node sees it now.
pub fn raft_view(raft: &Raft) -> RaftView {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let stored = &metrics.membership_config;
    RaftView {
        leader: metrics.current_leader.map(NodeId),
        term: metrics.current_term,
        membership: core_membership(stored),
        members: stored.nodes().map(|(id, _)| NodeId(*id)).collect(),
    }
}

/// Whom this node follows, or itself.
pub fn leader(raft: &Raft) -> Option<NodeId> {
    raft.metrics().borrow_watched().current_leader.map(NodeId)
}

/// Returns when what this node knows of Raft has changed, or after `limit`.
pub async fn raft_changed(raft: &Raft, limit: Duration) {
    let mut metrics = raft.server_metrics();
    // A fresh receiver counts everything since the start of Raft as new.
    metrics.borrow_and_update();
    // Both ends of the wait mean the same: look again.
    let _ = tokio::time::timeout(limit, metrics.changed()).await;
}

/// Raft itself failed, or was shut down: this node takes no part until it is restarted.
pub fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!(
        "Raft has stopped on this node: {error}; restart it"
    ))
}

/// A write whose fate cannot be told.
pub fn outcome_unknown(problem: impl std::fmt::Display) -> Status {
    Status::unavailable(format!(
        "the outcome is not known ({problem}): it may have been applied or not; look, and repeat it if it was not"
    ))
}

/// Proposes `entry` if this node leads.
///
/// # Errors
/// UNAVAILABLE: the outcome is not known. INVALID_ARGUMENT: it is too large, and was not proposed.
pub async fn write_here(raft: &Raft, entry: Entry) -> Result<LocalWrite, Status> {
    check_size(&entry)?;
    if let Err(fatal) = &raft.metrics().borrow_watched().running_state {
        return Ok(LocalWrite::Stopped(fatal.to_string()));
    }
    let result = match tokio::time::timeout(WRITE_LIMIT, raft.client_write(entry)).await {
        Ok(result) => result,
        Err(_) => {
            return Err(outcome_unknown(format_args!(
                "no quorum within {WRITE_LIMIT:?}"
            )));
        }
    };
    match result {
        Ok(done) => Ok(LocalWrite::Applied(Proposed {
            index: done.log_id.index,
            outcome: done.data,
        })),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
            Ok(LocalWrite::NotLeader(to.leader_id.map(NodeId)))
        }
        Err(RaftError::APIError(e)) => Err(outcome_unknown(e)),
        Err(RaftError::Fatal(e)) => Err(outcome_unknown(e)),
    }
}

/// If this node leads: the index that a linearizable read must have applied, after a quorum has
/// confirmed that it still leads. `None`: it does not lead.
///
/// # Errors
/// UNAVAILABLE: no quorum confirmed, or Raft has stopped.
pub async fn read_index_here(raft: &Raft) -> Result<Option<u64>, Status> {
    let asked = raft.get_read_linearizer(ReadPolicy::ReadIndex);
    match tokio::time::timeout(READ_LIMIT, asked).await {
        Ok(Ok(linearizer)) => Ok(Some(linearizer.read_log_id().index())),
        Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => Ok(None),
        Ok(Err(RaftError::APIError(e))) => Err(Status::unavailable(format!(
            "no quorum confirms this leader: {e}"
        ))),
        Ok(Err(RaftError::Fatal(e))) => Err(stopped(e)),
        Err(_) => Err(Status::unavailable(format!(
            "no quorum confirmed this leader in {READ_LIMIT:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use buoy_core::state::Command;

    use super::*;

    fn drain(length: usize) -> Entry {
        Entry {
            at_unix_ms: 0,
            command: Command::Drain {
                node: NodeId(1),
                reason: Some("x".repeat(length)),
            },
        }
    }

    #[test]
    fn what_is_too_large_is_refused_with_the_sizes() {
        check_size(&drain(MAX_COMMAND / 2)).unwrap();
        let error = check_size(&drain(MAX_COMMAND)).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert!(error.message().contains("65536"), "{error}");
    }

    #[test]
    fn the_largest_commands_fit_into_the_log_and_into_a_message() {
        const { assert!(MAX_COMMAND < MAX_BULK && MAX_BULK < buoy_storage::MAX_ENTRY_BYTES) }
        const { assert!(2 * buoy_storage::MAX_ENTRY_BYTES < crate::peer::MAX_PEER_MESSAGE) }
    }
}

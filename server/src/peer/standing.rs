//! What this node can tell of another's past, for one that comes with an empty disk.

use std::time::Duration;

use buoy_core::NodeId;
use buoy_proto::peer::Standing;
use openraft::async_runtime::WatchReceiver;
use tonic::Status;

use super::local::{read_index_here, stopped};
use crate::api::{ApiContext, wait_applied};

/// How long this node may take to apply what it has to know.
const APPLY_LIMIT: Duration = Duration::from_millis(500);

/// Index of the entry that every node writes for itself when it forms the cluster from its file.
const FORMING_ENTRY: u64 = 0;

/// What this node knows of `node`. That it has *not* taken part is for a confirmed leader alone to
/// say: a log that is behind, or whose end is not committed, does not show it.
///
/// # Errors
/// Raft has stopped here.
pub(super) async fn of(context: &ApiContext, node: NodeId) -> Result<Standing, Status> {
    let raft = &context.raft;
    let last = raft.with_raft_state(|state| state.log_ids.last().map(|id| id.index));
    let last = last.await.map_err(stopped)?;
    if last.is_none_or(|index| index == FORMING_ENTRY) {
        return Ok(Standing::Fresh);
    }
    if has_joined(context, node) {
        return Ok(Standing::Joined);
    }
    let Ok(Some(index)) = read_index_here(raft).await else {
        return Ok(Standing::Unknown);
    };
    if wait_applied(context, index, APPLY_LIMIT).await.is_err() {
        return Ok(Standing::Unknown);
    }
    Ok(if has_joined(context, node) {
        Standing::Joined
    } else {
        Standing::New
    })
}

/// The state says so, or it has confirmed entries to this leader, which may be a moment earlier.
fn has_joined(context: &ApiContext, node: NodeId) -> bool {
    if context
        .reader
        .read()
        .nodes
        .get(&node)
        .is_some_and(|n| n.joined)
    {
        return true;
    }
    let metrics = context.raft.metrics();
    let metrics = metrics.borrow_watched();
    let confirmed = metrics.replication.as_ref().and_then(|r| r.get(&node.0));
    confirmed.is_some_and(Option::is_some)
}

//! Reading what is certain: waits until this node has applied everything that was committed before.

use std::time::Duration;

use buoy_core::NodeId;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::{ApiContext, write};
use crate::peer::{leader, raft_changed, read_index_here};

/// How long a linearizable read waits for a leader and its quorum.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Longest pause between two attempts.
const RETRY: Duration = Duration::from_millis(25);
/// Longest time for one question to the leader.
const ASK_LIMIT: Duration = Duration::from_millis(1_000);

/// Returns when this node's state holds everything that was committed before the call.
///
/// # Errors
/// UNAVAILABLE: no leader, or no quorum behind it, within `patience`.
pub(crate) async fn barrier(context: &ApiContext, patience: Duration) -> Result<(), Status> {
    let deadline = Instant::now() + patience;
    loop {
        let problem = match leader(&context.raft) {
            Some(node) if node == context.me => match read_index_here(&context.raft).await {
                Ok(Some(index)) => return wait_until(context, index, deadline).await,
                Ok(None) => "the leader has just changed".to_owned(),
                Err(status) => status.message().to_owned(),
            },
            Some(node) => match context.pool.read_index(node, ASK_LIMIT).await {
                Ok(index) => return wait_until(context, index, deadline).await,
                Err(e) => e.to_string(),
            },
            None => "no leader is known".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(write::no_leader(context, &problem));
        }
        raft_changed(&context.raft, RETRY).await;
    }
}

/// Returns when this node has applied `index`.
///
/// # Errors
/// UNAVAILABLE: it has not within `limit`.
pub(crate) async fn wait_applied(
    context: &ApiContext,
    index: u64,
    limit: Duration,
) -> Result<(), Status> {
    wait_until(context, index, Instant::now() + limit).await
}

async fn wait_until(context: &ApiContext, index: u64, deadline: Instant) -> Result<(), Status> {
    let mut applied = context.reader.subscribe();
    match timeout_at(deadline, applied.wait_for(|a| *a >= index)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Status::unavailable("this node is stopping")),
        Err(_) => Err(Status::unavailable(format!(
            "this node has applied the log up to {} and the read needs {index}; it is behind: ask another node, or repeat the call",
            *context.reader.subscribe().borrow()
        ))),
    }
}

/// Was `node` heard recently enough to be trusted with VIPs?
pub(super) fn alive(context: &ApiContext, node: NodeId) -> bool {
    let limit = context.pool.suspect_after();
    node == context.me || context.lease.heard(node).is_some_and(|ago| ago < limit)
}

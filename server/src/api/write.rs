//! Writing: here if this node leads, else passed on to the leader once it is known.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buoy_core::NodeId;
use buoy_core::state::command::RejectionKind;
use buoy_core::state::{Command, Entry, Rejection};
use tokio::time::Instant;
use tonic::Status;

use super::{ApiContext, millis, read};
use crate::peer::{
    LocalWrite, ProposeError, Proposed, check_size, outcome_unknown, raft_changed, stopped,
    write_here,
};

/// How long a write waits for a leader.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest pause between two attempts while no leader is known.
const RETRY: Duration = Duration::from_millis(25);
/// Longest time for a write that was passed on.
const FORWARD_LIMIT: Duration = Duration::from_secs(6);
/// How long an acknowledged write waits to be seen by this node's own readers.
const CATCH_UP: Duration = Duration::from_millis(500);

/// Writes a command and waits until it is applied (here too, if that does not take long).
///
/// A command whose outcome is not known is not repeated: that could apply it twice.
///
/// # Errors
/// The rejection, as a status; UNAVAILABLE when there is no leader, or the outcome is not known.
pub async fn propose(context: &ApiContext, command: Command) -> Result<Proposed, Status> {
    check(&command)?;
    let entry = entry(command)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let problem = match write_here(&context.raft, entry.clone()).await? {
            LocalWrite::Applied(done) => return accepted(done),
            LocalWrite::NotLeader(Some(leader)) if leader != context.me => {
                match context.pool.propose(leader, &entry, FORWARD_LIMIT).await {
                    Ok(done) => {
                        // The write stands whether or not this node has caught up by then.
                        let _ = read::wait_applied(context, done.index, CATCH_UP).await;
                        return accepted(done);
                    }
                    Err(e @ ProposeError::Unknown { .. }) => return Err(outcome_unknown(e)),
                    Err(e) => e.to_string(),
                }
            }
            LocalWrite::NotLeader(_) => "no leader is known".to_owned(),
            LocalWrite::Stopped(why) => return Err(stopped(why)),
        };
        if Instant::now() >= deadline {
            return Err(no_leader(context, &problem));
        }
        raft_changed(&context.raft, RETRY).await;
    }
}

/// A declaration that no state could accept does not enter the log.
fn check(command: &Command) -> Result<(), Status> {
    let (Command::PutVip(spec) | Command::PutVipWithVrrp { spec, .. }) = command else {
        return Ok(());
    };
    spec.validate().map_err(|found| {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Status::invalid_argument(format!("vip {}: {}", spec.name, found.join("; ")))
    })
}

fn entry(command: Command) -> Result<Entry, Status> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let entry = Entry {
        at_unix_ms: millis(now),
        command,
    };
    check_size(&entry)?;
    Ok(entry)
}

fn accepted(done: Proposed) -> Result<Proposed, Status> {
    match &done.outcome.rejected {
        None => Ok(done),
        Some(rejection) => Err(rejected(rejection)),
    }
}

/// A rejection by the replicated state as a gRPC status.
pub(super) fn rejected(rejection: &Rejection) -> Status {
    let message = rejection.message.clone();
    match rejection.kind {
        RejectionKind::NotFound => Status::not_found(message),
        RejectionKind::Conflict => Status::failed_precondition(message),
        RejectionKind::Invalid => Status::invalid_argument(message),
    }
}

/// Nobody leads, as far as this node can see.
pub(super) fn no_leader(context: &ApiContext, problem: &str) -> Status {
    let view = crate::peer::raft_view(&context.raft);
    let silent: Vec<String> = view
        .membership
        .voters()
        .into_iter()
        .filter(|n| *n != context.me && !read::alive(context, *n))
        .map(|n: NodeId| context.pool.name(n).unwrap_or_else(|| n.to_string()))
        .collect();
    let heard = if silent.is_empty() {
        "all voters are heard, so an election should end soon: repeat the call".to_owned()
    } else {
        format!(
            "not heard by this node: {}; check those nodes and the network",
            silent.join(", ")
        )
    };
    Status::unavailable(format!(
        "no leader within {PATIENCE:?} ({problem}); {heard}"
    ))
}

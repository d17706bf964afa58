//! Moving a VIP by command: checks the target, proposes the assignment, and waits for the new owner.

use std::time::{Duration, Instant};

use buoy_core::spec::Role;
use buoy_core::state::{Cause, Command, Move, State, Vip};
use buoy_core::{Epoch, NodeId, VipName};
use buoy_proto::v1::move_vip_request::Target;
use buoy_proto::v1::{MoveVipRequest, MoveVipResponse};
use tokio::time::sleep;
use tonic::{Code, Status};
use tracing::{debug, info};

use super::view::{Look, find_node, find_vip, node_ref};
use super::{ApiContext, read, write};

/// How long a move waits for the new owner to say that the VIP is active.
const ACTIVE_LIMIT: Duration = Duration::from_secs(2);
/// Longest time for the question itself, on top.
const ASK_LIMIT: Duration = Duration::from_millis(500);
/// Time between two questions to a node that cannot be reached.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How often a move is tried again because the VIP moved meanwhile.
const ATTEMPTS: usize = 4;

/// What a move wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    Pin(NodeId),
    Unpin,
}

/// What a move wants of one VIP.
fn reached(vip: &Vip, goal: Goal) -> bool {
    match goal {
        Goal::Pin(node) => vip.owner() == Some(node) && vip.pinned == Some(node),
        Goal::Unpin => vip.pinned.is_none(),
    }
}

/// Moves a VIP, together with the VIPs that must be on the same node.
pub(super) async fn move_vip(
    context: &ApiContext,
    request: MoveVipRequest,
) -> Result<MoveVipResponse, Status> {
    let begun = Instant::now();
    // The checks below must not rest on a state that is out of date.
    read::barrier(context, read::PATIENCE).await?;
    let look = Look::take(context).await;
    let (name, goal, from) = {
        let state = context.reader.read();
        let vip = find_vip(&state, &request.vip)?;
        let name = vip.spec.name.clone();
        let goal = goal(&state, request.target)?;
        if let (Goal::Pin(node), false) = (goal, request.force) {
            check_target(&look, &state, &name, node)?;
        }
        (name, goal, vip.owner())
    };
    assign(context, &name, goal).await?;
    let decided = begun.elapsed();
    let (to, epoch, revision) = {
        let state = context.reader.read();
        let vip = find_vip(&state, name.as_str())?;
        (vip.owner(), vip.epoch(), state.revision)
    };
    let active = match to {
        Some(owner) => active(context, owner, &name, epoch).await,
        None => false,
    };
    let state = context.reader.read();
    Ok(MoveVipResponse {
        from: from.map(|id| node_ref(context, &state, id)),
        to: to.map(|id| node_ref(context, &state, id)),
        epoch: epoch.0,
        active,
        decided_us: micros(decided),
        total_us: micros(begun.elapsed()),
        revision,
    })
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

fn goal(state: &State, target: Option<Target>) -> Result<Goal, Status> {
    match target {
        Some(Target::Node(node)) => find_node(state, &node).map(Goal::Pin),
        Some(Target::Auto(true)) => Ok(Goal::Unpin),
        Some(Target::Auto(false)) => Err(Status::invalid_argument(
            "field `auto` must be true, or absent with `node` set",
        )),
        None => Err(Status::invalid_argument(
            "field `target` is missing: set `node` to move the VIP there, or `auto` to give it back to automatic placement",
        )),
    }
}

/// Refuses a target that the planner would not choose for any reason; with `force` the caller has this
/// left out, and only what the replicated state forbids is refused (a witness, a drained node).
fn check_target(look: &Look<'_>, state: &State, vip: &VipName, node: NodeId) -> Result<(), Status> {
    let unfit = look.obstacles(state, vip);
    match unfit.iter().find(|(c, _)| c.node == node) {
        Some((c, reasons)) => {
            let known = state.nodes.get(&node);
            let forbidden =
                known.is_none_or(|n| n.spec.role == Role::Witness || n.drained.is_some());
            let advice = match forbidden {
                true => "choose another node",
                false => "mend that, or move it all the same with --force",
            };
            Err(Status::failed_precondition(format!(
                "{} cannot hold VIP {vip}: {reasons}; {advice}",
                c.name
            )))
        }
        None => Ok(()),
    }
}

/// The moves that are still to be made.
fn moves(state: &State, name: &VipName, goal: Goal, through: &str) -> Result<Vec<Move>, Status> {
    find_vip(state, name.as_str())?;
    let group = state.group_of(name);
    let moves = group
        .into_iter()
        .filter(|vip| !reached(vip, goal))
        .map(|vip| {
            let (to, pin) = match goal {
                Goal::Pin(node) => (Some(node), true),
                Goal::Unpin => (vip.owner(), false),
            };
            Move {
                vip: vip.spec.name.clone(),
                expected: vip.epoch(),
                to,
                cause: Cause::Operator,
                evidence: format!("by an operator, through {through}"),
                pin: Some(pin),
            }
        });
    Ok(moves.collect())
}

/// Proposes until the state says what was wanted.
async fn assign(context: &ApiContext, name: &VipName, goal: Goal) -> Result<(), Status> {
    let through = context
        .pool
        .name(context.me)
        .unwrap_or_else(|| context.me.to_string());
    let mut problem = Status::aborted("it was not tried");
    for _ in 0..ATTEMPTS {
        let wanted = moves(&context.reader.read(), name, goal, &through)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let expected: Vec<_> = wanted.iter().map(|m| (m.vip.clone(), m.expected)).collect();
        match write::propose(context, Command::Assign(wanted)).await {
            Ok(done) => read::wait_applied(context, done.index, read::PATIENCE).await?,
            Err(status) if status.code() == Code::FailedPrecondition => {
                // A conflict with another move is worth another look; anything else is not.
                read::barrier(context, read::PATIENCE).await?;
                let state = context.reader.read();
                let same = |(vip, epoch): &(VipName, Epoch)| {
                    state.vips.get(vip).is_some_and(|v| v.epoch() == *epoch)
                };
                if expected.iter().all(same) {
                    return Err(status);
                }
                problem = status;
            }
            Err(status) => return Err(status),
        }
    }
    if moves(&context.reader.read(), name, goal, &through)?.is_empty() {
        return Ok(());
    }
    Err(Status::aborted(format!(
        "the move was tried {ATTEMPTS} times and something else moved the VIP each time; look at the history of {name} and repeat it ({})",
        problem.message()
    )))
}

/// Does the owner say, within [`ACTIVE_LIMIT`], that the VIP is active?
async fn active(context: &ApiContext, owner: NodeId, vip: &VipName, epoch: Epoch) -> bool {
    if owner == context.me {
        return super::becomes_active(&*context.lease, vip, epoch, ACTIVE_LIMIT).await;
    }
    let ask = |left| context.pool.lease(owner, vip, epoch, left, ASK_LIMIT);
    match answered(ACTIVE_LIMIT, ask).await {
        Ok(answer) => answer.active && answer.epoch >= epoch,
        Err(status) => {
            info!(%vip, %owner, "the new owner cannot be asked: {}", status.message());
            false
        }
    }
}

/// Asks, with the time that is left, until there is an answer: the connection to a node that was restarted is found
/// broken by the first who uses it, and is made anew for the next.
async fn answered<T, F>(limit: Duration, ask: impl Fn(Duration) -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match ask(left).await {
            Err(status) if status.code() != Code::DeadlineExceeded && left > ASK_AGAIN => {
                debug!("asked again: {}", status.message());
                sleep(ASK_AGAIN).await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_broken_connection_is_no_answer() {
        let asked = AtomicU32::new(0);
        let third = answered(ACTIVE_LIMIT, |left| {
            assert!(left <= ACTIVE_LIMIT);
            std::future::ready(match asked.fetch_add(1, Ordering::Relaxed) {
                2 => Ok("active"),
                _ => Err(Status::unavailable("transport error")),
            })
        });
        assert_eq!(third.await.unwrap(), "active");
        // Not for ever.
        let limit = ASK_AGAIN * 2;
        let never = answered(limit, |_| {
            std::future::ready(Err::<(), _>(Status::unavailable("gone")))
        });
        assert_eq!(never.await.unwrap_err().message(), "gone");
        let late = answered(limit, |_| {
            std::future::ready(Err::<(), _>(Status::deadline_exceeded("late")))
        });
        assert_eq!(late.await.unwrap_err().message(), "late");
    }
}

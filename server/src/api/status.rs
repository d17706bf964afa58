//! The status of the cluster as this node sees it.

use buoy_core::NodeId;
use buoy_core::state::{Node, State};
use buoy_proto::v1::{self, NodeStatus, Quorum, StatusResponse};

use super::view::{Look, node_ref};
use super::{ApiContext, micros, millis};
use crate::lease::Lateness;
use crate::peer::{RaftView, raft_view};

/// Everything at a glance, without asking anybody.
pub(super) async fn status(context: &ApiContext) -> StatusResponse {
    let look = Look::take(context).await;
    let raft = raft_view(&context.raft);
    let state = context.reader.read();
    let quorum = quorum(&look, &raft);
    let nodes = nodes(&look, &state, &raft);
    let vips: Vec<v1::Vip> = state.vips.values().map(|v| look.vip(&state, v)).collect();
    let problems = problems(&state, &raft, &quorum, &nodes, &vips);
    StatusResponse {
        cluster: context.pool.cluster().to_owned(),
        answered_by: Some(node_ref(context, &state, context.me)),
        version: context.version.clone(),
        quorum: Some(quorum),
        leader: raft.leader.map(|id| node_ref(context, &state, id)),
        term: raft.term,
        applied: state.applied,
        revision: state.revision,
        bootstrapped: state.bootstrapped,
        settings: Some((&state.settings).into()),
        nodes,
        vips,
        problems,
        quarantine_ms: millis(look.voter.quarantine),
        insecure: context.pool.tls().is_insecure(),
        history_id: state.history_id,
        lateness: Some(lateness(context.lease.lateness())),
    }
}

fn lateness(l: Lateness) -> v1::Lateness {
    v1::Lateness {
        wakes: l.wakes,
        mean_us: micros(l.mean),
        max_us: micros(l.max),
        max_last_minute_us: micros(l.max_last_minute),
    }
}

/// Voters, and how many of them are heard.
fn quorum(look: &Look<'_>, raft: &RaftView) -> Quorum {
    let voters = raft.membership.voters();
    let heard = |id: NodeId| look.alive(id);
    let ok = raft
        .membership
        .quorum_value(|id| heard(id).then_some(()))
        .is_some();
    let needed = raft
        .membership
        .halves
        .iter()
        .map(|h| h.len() / 2 + 1)
        .max()
        .unwrap_or(0);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Quorum {
        heard: count(voters.iter().filter(|id| heard(**id)).count()),
        voters: count(voters.len()),
        needed: count(needed),
        ok,
    }
}

/// All nodes: the declared ones, and members of the Raft group that are not declared (yet).
pub(super) fn nodes(look: &Look<'_>, state: &State, raft: &RaftView) -> Vec<NodeStatus> {
    let mut ids = raft.members.clone();
    ids.extend(state.nodes.keys());
    ids.into_iter()
        .map(|id| node(look, state, raft, id, state.nodes.get(&id)))
        .collect()
}

fn node(
    look: &Look<'_>,
    state: &State,
    raft: &RaftView,
    id: NodeId,
    declared: Option<&Node>,
) -> NodeStatus {
    let context = look.context;
    let own = id == context.me;
    let report = look.report(id);
    let texts = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let version = if own {
        context.version.clone()
    } else {
        context.pool.version(id)
    };
    NodeStatus {
        node: Some(node_ref(context, state, id)),
        address: declared
            .map(|n| n.spec.address.to_string())
            .unwrap_or_default(),
        role: declared
            .map_or(v1::Role::Member, |n| n.spec.role.into())
            .into(),
        voter: raft.membership.is_voter(id),
        leader: raft.leader == Some(id),
        heard_ms_ago: if own {
            Some(0)
        } else {
            look.heard(id).map(millis)
        },
        alive: look.alive(id),
        faults: texts(report.map(|r| &r.faults)),
        vip_faults: report
            .map(|r| {
                r.vip_faults
                    .iter()
                    .map(|(v, why)| (v.to_string(), why.clone()))
                    .collect()
            })
            .unwrap_or_default(),
        warnings: texts(report.map(|r| &r.warnings)),
        drained: declared.and_then(|n| n.drained.clone()),
        version,
        active: report
            .map(|r| r.active.keys().map(ToString::to_string).collect())
            .unwrap_or_default(),
    }
}

/// What is wrong, the worst first.
fn problems(
    state: &State,
    raft: &RaftView,
    quorum: &Quorum,
    nodes: &[NodeStatus],
    vips: &[v1::Vip],
) -> Vec<String> {
    let mut problems = Vec::new();
    if quorum.voters == 0 {
        problems.push("the cluster has not formed: this node knows no voters; start a majority of the nodes that the configuration lists".to_owned());
    } else if !quorum.ok {
        problems.push(format!(
            "no quorum: {} of {} voters are heard and {} are needed; VIPs on this side go down, nothing can be changed",
            quorum.heard, quorum.voters, quorum.needed
        ));
    } else if raft.leader.is_none() {
        problems.push(
            "no leader at the moment: leases go on, changes wait for the election".to_owned(),
        );
    }
    for node in nodes {
        let name = node.node.as_ref().map_or("", |n| n.name.as_str());
        if !node.alive {
            problems.push(match node.heard_ms_ago {
                Some(ms) => format!("node {name} was last heard {ms} ms ago"),
                None => format!("node {name} has not been heard since this node started"),
            });
        }
        problems.extend(
            node.faults
                .iter()
                .map(|f| format!("node {name} can hold no VIP: {f}")),
        );
    }
    let troubled = vips.iter().filter(|v| !v.problem.is_empty());
    problems.extend(troubled.map(|v| {
        let name = v.spec.as_ref().map_or("", |s| s.name.as_str());
        format!("VIP {name}: {}", v.problem)
    }));
    if quorum.voters > 0 && quorum.ok && !state.bootstrapped {
        problems.push(
            "the first leader has not written the configuration's nodes and VIPs yet".to_owned(),
        );
    }
    problems
}

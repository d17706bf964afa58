//! `buoy status`: quorum, leader, nodes, and whether each VIP is owned exactly once.

use std::time::Duration;

use buoy_proto::v1::{
    Consistency, LeaseState, NodeStatus, StatusRequest, StatusResponse, Vip, WatchRequest,
};
use serde_json::Value;
use tokio_stream::StreamExt;
use tonic::Streaming;

use crate::args::Global;
use crate::connect::{Node, connect};
use crate::error::{Failure, Verdict, from_status};
use crate::json;
use crate::output::Output;
use crate::text::{age, dash, lease, node_name, role, shown, table, time};

/// With `--watch`, the status is asked for at least this often.
const REFRESH: Duration = Duration::from_secs(1);

/// Shows the status, once or whenever it changes.
pub async fn run(options: &Global, watched: bool, out: &mut Output) -> Result<Verdict, Failure> {
    let node = connect(options).await?;
    if watched {
        watch(&node, out, |s| Ok(whole(s))).await
    } else {
        show(&node, out).await
    }
}

async fn show(node: &Node, out: &mut Output) -> Result<Verdict, Failure> {
    let status = get(node).await?;
    let healthy = is_healthy(&status);
    out.either(|| json::status(&status, healthy), || render(&status))?;
    Ok(Verdict::fine_if(healthy))
}

async fn get(node: &Node) -> Result<StatusResponse, Failure> {
    node.answer(node.cluster().status(StatusRequest {})).await
}

/// A part of the status, for programs and for people.
pub struct View {
    /// As JSON.
    pub value: Value,
    /// As text.
    pub text: String,
}

/// All of it.
fn whole(s: &StatusResponse) -> View {
    View {
        value: json::status(s, is_healthy(s)),
        text: render(s),
    }
}

/// Shows a part of the status whenever it changes; on a terminal it is kept up to date in place. Ends only
/// with an error.
pub async fn watch(
    node: &Node,
    out: &mut Output,
    view: impl Fn(&StatusResponse) -> Result<View, Failure>,
) -> Result<Verdict, Failure> {
    let mut last: Option<Value> = None;
    let mut after = (None, None);
    loop {
        // Events make it fast, the clock notices what is no event (a silent node).
        let request = WatchRequest {
            after_revision: after.0,
            history_id: after.1,
            consistency: Consistency::Local.into(),
            ..WatchRequest::default()
        };
        let mut events = node.answer(node.ownership().watch(request)).await?;
        loop {
            let status = get(node).await?;
            let now = view(&status)?;
            let steady = Some(view(&steady(&status))?.value);
            if out.json {
                if steady != last {
                    out.line(&now.value)?;
                }
            } else if out.is_terminal() || steady != last {
                out.clear()?;
                out.text(&format!("{}\n", now.text))?;
            }
            last = steady;
            after = (Some(status.revision), Some(status.history_id));
            if !wait(&mut events, node).await? {
                break;
            }
        }
    }
}

/// Waits for an event or a moment; false when the stream has ended.
async fn wait<T>(events: &mut Streaming<T>, node: &Node) -> Result<bool, Failure> {
    tokio::select! {
        event = events.next() => match event {
            Some(Ok(_)) => Ok(true),
            Some(Err(status)) => Err(from_status(&status, &node.target)),
            None => Ok(false),
        },
        () = tokio::time::sleep(REFRESH) => Ok(true),
    }
}

/// The status without what moves all the time.
fn steady(s: &StatusResponse) -> StatusResponse {
    let mut s = s.clone();
    s.applied = 0;
    s.quarantine_ms = 0;
    s.lateness = None;
    s.problems.clear();
    for n in &mut s.nodes {
        n.heard_ms_ago = None;
    }
    for v in &mut s.vips {
        // Problems name milliseconds; whether there is one is what counts.
        if !v.problem.is_empty() {
            v.problem = "some".to_owned();
        }
        if let Some(o) = &mut v.ownership {
            o.lease_remaining_ms = 0;
        }
    }
    s
}

/// Nodes that are heard and say that the VIP is active on them.
fn active_on<'s>(s: &'s StatusResponse, vip: &str) -> Vec<&'s NodeStatus> {
    s.nodes
        .iter()
        .filter(|n| n.alive && n.active.iter().any(|a| a == vip))
        .collect()
}

fn name(v: &Vip) -> &str {
    v.spec.as_ref().map_or("", |s| &s.name)
}

/// Is the VIP in use by its owner, and by nobody else?
pub fn vip_is_healthy(v: &Vip) -> bool {
    let held = v
        .ownership
        .as_ref()
        .is_some_and(|o| o.lease_state() == LeaseState::Held);
    held && v.problem.is_empty()
}

/// A quorum, a leader, every node up and well, and each VIP owned exactly once.
fn is_healthy(s: &StatusResponse) -> bool {
    s.quorum.is_some_and(|q| q.ok)
        && s.leader.is_some()
        && s.bootstrapped
        && s.nodes.iter().all(|n| n.alive && n.faults.is_empty())
        && s.vips
            .iter()
            .all(|v| vip_is_healthy(v) && active_on(s, name(v)).len() <= 1)
}

/// The status as people read it.
fn render(s: &StatusResponse) -> String {
    let health = if is_healthy(s) {
        "healthy"
    } else {
        "NOT HEALTHY"
    };
    let quorum = s.quorum.unwrap_or_default();
    let kept = if quorum.ok { "" } else { ": NO QUORUM" };
    let leader = match &s.leader {
        Some(l) => format!("{}, term {}", node_name(Some(l)), s.term),
        None => "NONE known".to_owned(),
    };
    let owned = s
        .vips
        .iter()
        .filter(|v| vip_is_healthy(v) && active_on(s, name(v)).len() <= 1);
    let mut text = format!(
        "Cluster {}: {health} (as {} sees it)\n\
         Quorum  {} of {} voters heard, {} needed{kept}\n\
         Leader  {leader}\n\
         VIPs    {} of {} owned exactly once\n",
        shown(&s.cluster),
        node_name(s.answered_by.as_ref()),
        quorum.heard,
        quorum.voters,
        quorum.needed,
        owned.count(),
        s.vips.len(),
    );
    if let Some(l) = &s.lateness {
        text.push_str(&format!(
            "Late    {}'s lease thread woke up at most {} late in the last minute, {} since its start\n",
            node_name(s.answered_by.as_ref()),
            late(l.max_last_minute_us),
            late(l.max_us),
        ));
    }
    if s.settings.is_some_and(|x| x.frozen) {
        text.push_str("Placement is frozen: VIPs move only by command\n");
    }
    if !s.vips.is_empty() {
        let rows = s.vips.iter().map(|v| vip_row(s, v)).collect();
        text.push('\n');
        text.push_str(&table(
            &["VIP", "OWNER", "LEASE", "EPOCH", "SINCE (UTC)", "ADDRESSES"],
            rows,
        ));
    }
    if !s.nodes.is_empty() {
        text.push('\n');
        text.push_str(&nodes_table(&s.nodes));
    }
    let mut problems = s.problems.clone();
    problems.extend(s.vips.iter().filter_map(|v| owned_twice(s, v)));
    section(&mut text, "Problems", &problems);
    section(&mut text, "Warnings", &warnings(s));
    text
}

/// Microseconds for people.
fn late(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1_000.0)
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    text.push_str(&format!("\n{title}\n"));
    for line in lines {
        text.push_str(&format!("  - {}\n", shown(line)));
    }
}

fn vip_row(s: &StatusResponse, v: &Vip) -> Vec<String> {
    let o = v.ownership.clone().unwrap_or_default();
    let mut state = lease(o.lease_state()).to_owned();
    if !vip_is_healthy(v) || active_on(s, name(v)).len() > 1 {
        state.push_str(" (!)");
    }
    vec![
        name(v).to_owned(),
        node_name(o.owner.as_ref()),
        state,
        o.epoch.to_string(),
        time(o.since_unix_ms),
        o.addresses.join(" "),
    ]
}

/// The nodes as a table.
pub fn nodes_table(nodes: &[NodeStatus]) -> String {
    let rows = nodes.iter().map(|n| {
        vec![
            node_name(n.node.as_ref()),
            n.node
                .as_ref()
                .map_or_else(String::new, |r| r.id.to_string()),
            role(n.role()).to_owned(),
            state(n),
            n.heard_ms_ago
                .map_or_else(|| "never".to_owned(), |ms| format!("{} ago", age(ms))),
            dash(&n.active.join(" ")),
            n.address.clone(),
            dash(&n.version),
        ]
    });
    let header = [
        "NODE",
        "ID",
        "ROLE",
        "STATE",
        "HEARD",
        "ACTIVE VIPS",
        "ADDRESS",
        "VERSION",
    ];
    table(&header, rows.collect())
}

fn state(n: &NodeStatus) -> String {
    let mut words = vec![if n.alive { "up" } else { "SILENT" }];
    if n.leader {
        words.push("leader");
    }
    if !n.voter {
        words.push("no voter");
    }
    if n.drained.is_some() {
        words.push("drained");
    }
    if !n.faults.is_empty() {
        words.push("UNFIT");
    }
    words.join(", ")
}

fn owned_twice(s: &StatusResponse, v: &Vip) -> Option<String> {
    let on = active_on(s, name(v));
    let names: Vec<String> = on.iter().map(|n| node_name(n.node.as_ref())).collect();
    (names.len() > 1).then(|| {
        format!(
            "VIP {}: {} say that it is active (the report of one may be older than a move: look again)",
            name(v),
            names.join(" and ")
        )
    })
}

/// What no VIP suffers from, but somebody should know.
fn warnings(s: &StatusResponse) -> Vec<String> {
    let mut list = Vec::new();
    if s.quarantine_ms > 0 {
        list.push(format!(
            "{} has just started and promises no leases for another {} ms",
            node_name(s.answered_by.as_ref()),
            s.quarantine_ms
        ));
    }
    // What several nodes say is said once.
    let mut said: Vec<(&str, Vec<String>)> = Vec::new();
    for n in &s.nodes {
        let name = node_name(n.node.as_ref());
        if let Some(reason) = &n.drained {
            list.push(format!("node {name} is drained: {reason}"));
        }
        let faults = n.vip_faults.iter();
        list.extend(faults.map(|(v, why)| format!("node {name} cannot hold VIP {v}: {why}")));
        for warning in &n.warnings {
            match said.iter_mut().find(|(text, _)| text == warning) {
                Some((_, names)) => names.push(name.clone()),
                None => said.push((warning, vec![name.clone()])),
            }
        }
    }
    list.extend(
        said.into_iter()
            .map(|(text, names)| format!("{}: {text}", names.join(", "))),
    );
    let pinned = s.vips.iter().filter(|v| v.pinned.is_some());
    list.extend(pinned.map(|v| {
        format!(
            "VIP {} is pinned to {} (`buoy vip move {} --auto` ends that)",
            name(v),
            node_name(v.pinned.as_ref()),
            name(v)
        )
    }));
    list
}

#[cfg(test)]
mod tests;

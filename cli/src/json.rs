//! What `--json` prints: the API's messages with words for enumerations and no field left out.

use std::collections::BTreeMap;

use buoy_proto::v1::{
    Candidate, Change, ExplainResponse, HistoryResponse, MoveVipResponse, NodeRef, NodeStatus,
    StatusResponse, Vip, VipOwnership, VipSpec, Vrrp, VrrpGarp,
};
use serde_json::{Value, json};

use crate::text;

/// A node's name, or null.
pub fn node(node: Option<&NodeRef>) -> Value {
    node.map_or(Value::Null, |n| Value::from(text::node_name(Some(n))))
}

fn or_null(text: &str) -> Value {
    if text.is_empty() {
        Value::Null
    } else {
        text.into()
    }
}

/// A VIP's declaration.
pub fn spec(s: &VipSpec) -> Value {
    let placement = s.placement.clone().unwrap_or_default();
    json!({
        "name": s.name,
        "addresses": s.addresses,
        "interface": s.interface,
        "label": s.label,
        "scope": text::scope(s.scope()),
        "placement": {
            "priority": placement.priority,
            "preempt": text::preempt(placement.preempt()),
            "preempt_delay_ms": placement.preempt_delay_ms,
            "colocate_with": placement.colocate_with,
            "avoid": placement.avoid,
        },
        "vrrp": s.vrrp.as_ref().map(vrrp),
    })
}

/// A VIP's VRRP face.
fn vrrp(face: &Vrrp) -> Value {
    let sources: BTreeMap<_, _> = face
        .sources
        .iter()
        .map(|(node, all)| (node, &all.addresses))
        .collect();
    json!({
        "vrid": face.vrid,
        "version": text::vrrp_version(face.version()),
        "priority": face.priority(),
        "interval_ms": face.interval_ms(),
        "authentication": text::vrrp_authentication(face.authentication()),
        "preempt": !face.nopreempt,
        "preempt_delay_ms": face.preempt_delay_ms,
        "unicast_peers": face.unicast_peers,
        "sources": sources,
        "excluded": face.excluded,
        "mac": text::vrrp_mac(face.mac()),
        "garp": garp(&face.garp.unwrap_or_default()),
    })
}

/// How often its addresses are announced; null where Buoy does as it does by itself.
fn garp(g: &VrrpGarp) -> Value {
    json!({
        "master_repeat": g.master_repeat,
        "master_delay_ms": g.master_delay_ms,
        "master_refresh_ms": g.master_refresh_ms,
        "master_refresh_repeat": g.master_refresh_repeat,
        "lower_prio_repeat": g.lower_prio_repeat,
        "lower_prio_delay_ms": g.lower_prio_delay_ms,
        "interval_us": g.interval_us,
        "gna_interval_us": g.gna_interval_us,
    })
}

/// Who owns a VIP.
pub fn ownership(o: &VipOwnership) -> Value {
    json!({
        "vip": o.vip,
        "addresses": o.addresses,
        "owner": node(o.owner.as_ref()),
        "epoch": o.epoch,
        "since_unix_ms": o.since_unix_ms,
        "lease": text::lease(o.lease_state()),
        "lease_remaining_ms": o.lease_remaining_ms,
    })
}

/// A VIP with everything that is known of it.
pub fn vip(v: &Vip) -> Value {
    let o = v.ownership.clone().unwrap_or_default();
    let s = v.spec.clone().unwrap_or_default();
    json!({
        "name": s.name,
        "spec": spec(&s),
        "owner": node(o.owner.as_ref()),
        "epoch": o.epoch,
        "since_unix_ms": o.since_unix_ms,
        "lease": text::lease(o.lease_state()),
        "lease_remaining_ms": o.lease_remaining_ms,
        "pinned": node(v.pinned.as_ref()),
        "yielded": v.yielded,
        "problem": or_null(&v.problem),
    })
}

/// A node.
pub fn node_status(n: &NodeStatus) -> Value {
    json!({
        "name": node(n.node.as_ref()),
        "id": n.node.as_ref().map(|n| n.id),
        "address": n.address,
        "role": text::role(n.role()),
        "voter": n.voter,
        "leader": n.leader,
        "alive": n.alive,
        "heard_ms_ago": n.heard_ms_ago,
        "drained": n.drained,
        "faults": n.faults,
        "vip_faults": n.vip_faults,
        "warnings": n.warnings,
        "active": n.active,
        "version": or_null(&n.version),
    })
}

/// The status, with the verdict that the exit code shows.
pub fn status(s: &StatusResponse, healthy: bool) -> Value {
    let quorum = s.quorum.unwrap_or_default();
    json!({
        "cluster": s.cluster,
        "healthy": healthy,
        "answered_by": node(s.answered_by.as_ref()),
        "version": s.version,
        "quorum": {
            "heard": quorum.heard,
            "voters": quorum.voters,
            "needed": quorum.needed,
            "ok": quorum.ok,
        },
        "leader": node(s.leader.as_ref()),
        "term": s.term,
        "applied": s.applied,
        "revision": s.revision,
        "bootstrapped": s.bootstrapped,
        "frozen": s.settings.is_some_and(|x| x.frozen),
        "insecure": s.insecure,
        "quarantine_ms": s.quarantine_ms,
        "lateness": s.lateness.map(|l| json!({
            "wakes": l.wakes,
            "mean_us": l.mean_us,
            "max_us": l.max_us,
            "max_last_minute_us": l.max_last_minute_us,
        })),
        "nodes": s.nodes.iter().map(node_status).collect::<Vec<_>>(),
        "vips": s.vips.iter().map(vip).collect::<Vec<_>>(),
        "problems": s.problems,
    })
}

/// A line of the history.
pub fn change(c: &Change) -> Value {
    json!({
        "revision": c.revision,
        "index": c.index,
        "at_unix_ms": c.at_unix_ms,
        "kind": text::kind(c.kind()),
        "vip": or_null(&c.vip),
        "node": or_null(&c.node),
        "epoch": c.epoch,
        "from": or_null(&c.from),
        "to": or_null(&c.to),
        "cause": or_null(text::cause(c.cause())),
        "evidence": c.evidence,
    })
}

/// The history.
pub fn history(h: &HistoryResponse) -> Value {
    json!({
        "events": h.events.iter().map(change).collect::<Vec<_>>(),
        "oldest": h.oldest,
        "newest": h.newest,
    })
}

/// A move.
pub fn moved(m: &MoveVipResponse) -> Value {
    json!({
        "from": node(m.from.as_ref()),
        "to": node(m.to.as_ref()),
        "epoch": m.epoch,
        "active": m.active,
        "decided_us": m.decided_us,
        "total_us": m.total_us,
        "revision": m.revision,
    })
}

fn candidate(c: &Candidate) -> Value {
    json!({
        "node": node(c.node.as_ref()),
        "owner": c.owner,
        "eligible": c.eligible,
        "rank": (c.rank > 0).then_some(c.rank),
        "priority": c.priority,
        "pinned": c.pinned,
        "reasons": c.reasons,
    })
}

/// Reasons.
pub fn explanation(e: &ExplainResponse) -> Value {
    json!({
        "vip": vip(&e.vip.clone().unwrap_or_default()),
        "why": e.why,
        "summary": e.summary,
        "group": e.group,
        "candidates": e.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "answered_by": node(e.answered_by.as_ref()),
        "by_leader": e.by_leader,
    })
}

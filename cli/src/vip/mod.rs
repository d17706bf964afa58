//! `buoy vip ...`: shows, declares, deletes, moves and explains VIPs.

mod explain;
mod history;
mod put;
mod settle;
mod watch;

use std::net::IpAddr;

use buoy_proto::v1::move_vip_request::Target;
use buoy_proto::v1::{
    Consistency, DeleteVipRequest, ListVipsRequest, ListVipsResponse, MoveVipRequest,
    MoveVipResponse, Preempt, Vip, Vrrp, VrrpGarp,
};
use serde_json::json;
use tonic::Code;

use crate::args::{Global, MoveTarget, VipCommand};
use crate::connect::{Node, connect};
use crate::error::{Failure, Verdict};
use crate::json;
use crate::output::Output;
use crate::status::{self, View, vip_is_healthy};
use crate::text::{
    dash, lease, node_name, preempt, scope, shown, table, time, vrrp_authentication, vrrp_mac,
    vrrp_version,
};

/// Runs a subcommand.
pub async fn run(
    options: &Global,
    command: VipCommand,
    out: &mut Output,
) -> Result<Verdict, Failure> {
    // What is wrong with a declaration itself is said without a cluster.
    let declared = match &command {
        VipCommand::Put(args) => put::declared(args)?,
        _ => Vec::new(),
    };
    let node = &connect(options).await?;
    match command {
        VipCommand::List { watch: false } => list(node, out).await,
        VipCommand::List { watch: true } => watch::vips(node, out).await,
        VipCommand::Show { name, watch: false } => show(node, &name, out).await,
        VipCommand::Show { name, watch: true } => {
            status::watch(node, out, |s| one(&s.vips, &name)).await
        }
        VipCommand::Put(args) => put::run(node, declared, !args.no_wait, out).await,
        VipCommand::Delete { name } => delete(node, name, out).await,
        VipCommand::Move {
            name,
            target,
            force,
        } => go(node, name, target, force, out).await,
        VipCommand::History { name, limit, watch } => {
            history::run(node, name, limit, watch, out).await
        }
        VipCommand::Explain { name } => explain::run(node, name, out).await,
    }
}

/// All VIPs: confirmed by a quorum if there is one, else what the node knows, with a word about that.
async fn all(node: &Node) -> Result<ListVipsResponse, Failure> {
    let ask = |consistency: Consistency| ListVipsRequest {
        consistency: consistency.into(),
    };
    let call = async {
        let request = ask(Consistency::Linearizable);
        match node.ownership().list_vips(request).await {
            Err(e) if e.code() == Code::Unavailable && std::error::Error::source(&e).is_none() => {
                eprintln!(
                    "buoy: not confirmed by a quorum, may be out of date: {}",
                    shown(e.message())
                );
                node.ownership().list_vips(ask(Consistency::Local)).await
            }
            other => other,
        }
    };
    node.answer(call).await
}

async fn list(node: &Node, out: &mut Output) -> Result<Verdict, Failure> {
    let vips = all(node).await?.vips;
    out.either(
        || vips.iter().map(json::vip).collect(),
        || render_list(&vips),
    )?;
    Ok(Verdict::fine_if(vips.iter().all(vip_is_healthy)))
}

fn render_list(vips: &[Vip]) -> String {
    if vips.is_empty() {
        return "there are no VIPs; `buoy vip put` declares one\n".to_owned();
    }
    let rows = vips.iter().map(|v| {
        let o = v.ownership.clone().unwrap_or_default();
        let s = v.spec.clone().unwrap_or_default();
        vec![
            s.name,
            node_name(o.owner.as_ref()),
            lease(o.lease_state()).to_owned(),
            o.epoch.to_string(),
            s.interface,
            s.addresses.join(" "),
            dash(&v.problem),
        ]
    });
    let header = [
        "VIP",
        "OWNER",
        "LEASE",
        "EPOCH",
        "INTERFACE",
        "ADDRESSES",
        "PROBLEM",
    ];
    table(&header, rows.collect())
}

/// The VIP of this name, or with this address.
fn find<'v>(vips: &'v [Vip], text: &str) -> Option<&'v Vip> {
    let spec = |v: &'v Vip| v.spec.as_ref();
    let by_name = vips
        .iter()
        .find(|v| spec(v).is_some_and(|s| s.name == text));
    let ip: Option<IpAddr> = text.split('/').next().and_then(|t| t.parse().ok());
    let has = |a: &String| a.split('/').next().and_then(|t| t.parse().ok()) == ip;
    by_name.or_else(|| {
        ip?;
        vips.iter()
            .find(|v| spec(v).is_some_and(|s| s.addresses.iter().any(has)))
    })
}

fn find_or_say<'v>(vips: &'v [Vip], name: &str) -> Result<&'v Vip, Failure> {
    find(vips, name).ok_or_else(|| {
        Failure::Refused(format!(
            "no VIP has the name or address {name:?}; `buoy vip list` shows all"
        ))
    })
}

fn one(vips: &[Vip], name: &str) -> Result<View, Failure> {
    let vip = find_or_say(vips, name)?;
    Ok(View {
        value: json::vip(vip),
        text: render_vip(vip),
    })
}

async fn show(node: &Node, name: &str, out: &mut Output) -> Result<Verdict, Failure> {
    let vips = all(node).await?.vips;
    let vip = find_or_say(&vips, name)?;
    out.either(|| json::vip(vip), || render_vip(vip))?;
    Ok(Verdict::fine_if(vip_is_healthy(vip)))
}

fn render_vip(v: &Vip) -> String {
    let s = v.spec.clone().unwrap_or_default();
    let o = v.ownership.clone().unwrap_or_default();
    let p = s.placement.clone().unwrap_or_default();
    let mut lines: Vec<(&str, String)> = vec![("addresses", s.addresses.join(" "))];
    let label = s
        .label
        .as_ref()
        .map_or_else(String::new, |l| format!(", label {l}"));
    lines.push((
        "interface",
        format!("{}{label}, scope {}", s.interface, scope(s.scope())),
    ));
    let owner = match &o.owner {
        Some(n) => format!(
            "{}, epoch {}, since {} UTC",
            node_name(Some(n)),
            o.epoch,
            time(o.since_unix_ms)
        ),
        None => "nobody".to_owned(),
    };
    lines.push(("owner", owner));
    let left = match o.lease_remaining_ms {
        0 => String::new(),
        ms => format!(", {ms} ms left if it is not renewed"),
    };
    lines.push(("lease", format!("{}{left}", lease(o.lease_state()))));
    let delay = match (p.preempt(), p.preempt_delay_ms) {
        (Preempt::Preempt, ms) if ms > 0 => format!(" after {ms} ms"),
        _ => String::new(),
    };
    lines.push(("placement", format!("{}{delay}", preempt(p.preempt()))));
    let priorities: Vec<String> = p.priority.iter().map(|(n, p)| format!("{n}={p}")).collect();
    lines.push(("priority", dash(&priorities.join(" "))));
    for (title, names) in [("with", &p.colocate_with), ("avoids", &p.avoid)] {
        if !names.is_empty() {
            lines.push((title, names.join(" ")));
        }
    }
    if let Some(face) = &s.vrrp {
        lines.push(("VRRP", vrrp_face(face)));
        if let Some(garp) = &face.garp {
            lines.push(("announced", announced(garp)));
        }
    }
    if v.pinned.is_some() {
        lines.push((
            "pinned",
            format!("to {} by a move", node_name(v.pinned.as_ref())),
        ));
    }
    if let Some(yielded) = &v.yielded {
        lines.push(("yielded", yielded.clone()));
    }
    if !v.problem.is_empty() {
        lines.push(("problem", v.problem.clone()));
    }
    let mut text = format!("VIP {}\n", shown(&s.name));
    for (title, value) in lines {
        text.push_str(&format!("  {title:<11}{}\n", shown(&value)));
    }
    text
}

/// A VIP's VRRP face: "router 51, version 3, priority 100, every 1000 ms, multicast".
fn vrrp_face(face: &Vrrp) -> String {
    let auth = match vrrp_authentication(face.authentication()) {
        "none" => String::new(),
        name => format!(", authentication {name}"),
    };
    let mac = match vrrp_mac(face.mac()) {
        "interface" => String::new(),
        word => format!(", {word} MAC"),
    };
    let peers = match face.unicast_peers.is_empty() {
        true => "multicast".to_owned(),
        false => format!("unicast to {}", face.unicast_peers.join(" ")),
    };
    format!(
        "router {}, version {}, priority {}, every {} ms{auth}, {peers}{mac}",
        face.vrid,
        vrrp_version(face.version()),
        face.priority(),
        face.interval_ms(),
    )
}

/// How often its addresses are announced: "garp_master_repeat 3, garp_master_delay 5000 ms".
fn announced(g: &VrrpGarp) -> String {
    let count = |n: Option<u32>| n.map(|n| n.to_string());
    let millis = |n: Option<u64>| n.map(|n| format!("{n} ms"));
    let micros = |n: Option<u64>| n.map(|n| format!("{n} us"));
    let all = [
        ("garp_master_repeat", count(g.master_repeat)),
        ("garp_master_delay", millis(g.master_delay_ms)),
        ("garp_master_refresh", millis(g.master_refresh_ms)),
        ("garp_master_refresh_repeat", count(g.master_refresh_repeat)),
        ("garp_lower_prio_repeat", count(g.lower_prio_repeat)),
        ("garp_lower_prio_delay", millis(g.lower_prio_delay_ms)),
        ("garp_interval", micros(g.interval_us)),
        ("gna_interval", micros(g.gna_interval_us)),
    ];
    let set = all
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", value?)));
    set.collect::<Vec<_>>().join(", ")
}

async fn delete(node: &Node, name: String, out: &mut Output) -> Result<Verdict, Failure> {
    let request = DeleteVipRequest { vip: name.clone() };
    let done = node.answer(node.cluster().delete_vip(request)).await?;
    out.either(
        || json!({ "vip": name, "revision": done.revision }),
        || format!("VIP {name} is deleted; its owner takes it down"),
    )?;
    Ok(Verdict::Fine)
}

async fn go(
    node: &Node,
    name: String,
    target: MoveTarget,
    force: bool,
    out: &mut Output,
) -> Result<Verdict, Failure> {
    let target = match target.to {
        Some(to) => Target::Node(to),
        None => Target::Auto(target.auto),
    };
    let request = MoveVipRequest {
        vip: name.clone(),
        target: Some(target),
        force,
    };
    let done = node.answer(node.cluster().move_vip(request)).await?;
    out.either(|| json::moved(&done), || render_move(&name, &done))?;
    Ok(Verdict::fine_if(done.active))
}

fn render_move(name: &str, m: &MoveVipResponse) -> String {
    let (from, to) = (node_name(m.from.as_ref()), node_name(m.to.as_ref()));
    let ms = |us: u64| us as f64 / 1000.0;
    let times = format!("decided in {:.1} ms", ms(m.decided_us));
    let way = if from == to {
        format!("stays on {to}")
    } else {
        format!("{from} -> {to}")
    };
    if m.active {
        format!(
            "VIP {name}: {way}, epoch {}; {times}, active after {:.1} ms",
            m.epoch,
            ms(m.total_us)
        )
    } else if m.to.is_none() {
        format!("VIP {name}: nobody owns it; {times}; `buoy vip explain {name}` says why")
    } else {
        format!(
            "VIP {name}: {way}, epoch {}; {times}, but {to} has not said within {:.1} ms that it is active; `buoy vip explain {name}` says why",
            m.epoch,
            ms(m.total_us)
        )
    }
}

#[cfg(test)]
mod tests;

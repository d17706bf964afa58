//! `buoy vip explain`: why each node is, or is not, the owner.

use buoy_proto::v1::{ExplainRequest, ExplainResponse};

use crate::connect::Node;
use crate::error::{Failure, Verdict};
use crate::json;
use crate::output::Output;
use crate::status::vip_is_healthy;
use crate::text::{lease, node_name, shown, table};

/// Explains a VIP.
pub async fn run(node: &Node, name: String, out: &mut Output) -> Result<Verdict, Failure> {
    let answer = node
        .answer(node.cluster().explain(ExplainRequest { vip: name }))
        .await?;
    out.either(|| json::explanation(&answer), || render(&answer))?;
    Ok(Verdict::fine_if(
        answer.vip.as_ref().is_some_and(vip_is_healthy),
    ))
}

pub(super) fn render(e: &ExplainResponse) -> String {
    let vip = e.vip.clone().unwrap_or_default();
    let name = vip.spec.map(|s| s.name).unwrap_or_default();
    let o = vip.ownership.unwrap_or_default();
    let owner = match &o.owner {
        Some(n) => format!(
            "{} owns it, epoch {}, lease {}",
            node_name(Some(n)),
            o.epoch,
            lease(o.lease_state())
        ),
        None => "nobody owns it".to_owned(),
    };
    let mut text = format!("VIP {}: {owner}\n", shown(&name));
    for line in [&vip.problem, &e.why, &e.summary] {
        if !line.is_empty() {
            text.push_str(&format!("  {}\n", shown(line)));
        }
    }
    if e.group.len() > 1 {
        text.push_str(&format!(
            "  always on one node: {}\n",
            shown(&e.group.join(", "))
        ));
    }
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let rows = e.candidates.iter().map(|c| {
        let pinned = if c.pinned { " (pinned)" } else { "" };
        vec![
            if c.rank == 0 {
                "-".to_owned()
            } else {
                c.rank.to_string()
            },
            node_name(c.node.as_ref()),
            yes(c.owner),
            yes(c.eligible),
            format!("{}{pinned}", c.priority),
            c.reasons.join("\n"),
        ]
    });
    text.push('\n');
    text.push_str(&table(
        &["RANK", "NODE", "OWNER", "ELIGIBLE", "PRIORITY", "WHY"],
        rows.collect(),
    ));
    if !e.by_leader {
        text.push_str(&format!(
            "\nBy the records of {}, which is not the leader: the leader's decide.\n",
            node_name(e.answered_by.as_ref())
        ));
    }
    text
}

//! `buoy node ...`: shows, drains and undrains nodes.

use buoy_proto::v1::{DrainRequest, ListNodesRequest, UndrainRequest};
use serde_json::json;

use crate::args::{Global, NodeCommand};
use crate::connect::connect;
use crate::error::{Failure, Verdict};
use crate::json;
use crate::output::Output;
use crate::status::{View, nodes_table, watch};

/// Runs a subcommand.
pub async fn run(
    options: &Global,
    command: NodeCommand,
    out: &mut Output,
) -> Result<Verdict, Failure> {
    let node = connect(options).await?;
    match command {
        NodeCommand::List { watch: true } => {
            watch(&node, out, |s| {
                Ok(View {
                    value: s.nodes.iter().map(json::node_status).collect(),
                    text: nodes_table(&s.nodes),
                })
            })
            .await
        }
        NodeCommand::List { watch: false } => {
            let nodes = node
                .answer(node.cluster().list_nodes(ListNodesRequest {}))
                .await?
                .nodes;
            let value = || nodes.iter().map(json::node_status).collect();
            out.either(value, || nodes_table(&nodes))?;
            let well = nodes.iter().all(|n| n.alive && n.faults.is_empty());
            Ok(Verdict::fine_if(well))
        }
        NodeCommand::Drain { node: name, reason } => {
            let request = DrainRequest {
                node: name.clone(),
                reason,
            };
            let done = node.answer(node.cluster().drain(request)).await?;
            let vips = match done.vips.as_slice() {
                [] => "it owned no VIP".to_owned(),
                vips => format!("these VIPs leave it: {}", vips.join(", ")),
            };
            out.either(
                || json!({ "node": name, "revision": done.revision, "vips": done.vips }),
                || format!("node {name} is drained; {vips}"),
            )?;
            Ok(Verdict::Fine)
        }
        NodeCommand::Undrain { node: name } => {
            let request = UndrainRequest { node: name.clone() };
            let done = node.answer(node.cluster().undrain(request)).await?;
            out.either(
                || json!({ "node": name, "revision": done.revision }),
                || format!("node {name} takes part again"),
            )?;
            Ok(Verdict::Fine)
        }
    }
}

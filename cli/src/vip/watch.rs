//! Streams of ownership: the present state and every change after it, without a gap.

use buoy_proto::v1::watch_response::Event;
use buoy_proto::v1::{Consistency, HistoryResponse, VipOwnership, WatchRequest};
use serde_json::json;
use tokio_stream::StreamExt;

use super::history::line;
use crate::connect::Node;
use crate::error::{Failure, Verdict, from_status};
use crate::json;
use crate::output::Output;
use crate::text::{lease, node_name, shown, table};

/// Where a stream begins: after a revision of a history, or with the present state.
#[derive(Clone, Copy, Default)]
pub struct Position {
    pub revision: Option<u64>,
    pub history_id: Option<u64>,
}

impl Position {
    /// After the newest event of an answer.
    pub fn after(history: &HistoryResponse) -> Self {
        Self {
            revision: Some(history.newest),
            history_id: Some(history.history_id),
        }
    }

    fn request(self, vips: &[String]) -> WatchRequest {
        WatchRequest {
            after_revision: self.revision,
            vips: vips.to_vec(),
            consistency: Consistency::Local.into(),
            history_id: self.history_id,
        }
    }
}

/// All VIPs, then every change. Ends only with an error.
pub async fn vips(node: &Node, out: &mut Output) -> Result<Verdict, Failure> {
    follow(node, Vec::new(), Position::default(), true, out).await
}

/// Every change after a revision. Ends only with an error.
pub async fn changes(
    node: &Node,
    vips: Vec<String>,
    after: Position,
    out: &mut Output,
) -> Result<Verdict, Failure> {
    follow(node, vips, after, false, out).await
}

async fn follow(
    node: &Node,
    vips: Vec<String>,
    mut after: Position,
    vip_events_only: bool,
    out: &mut Output,
) -> Result<Verdict, Failure> {
    loop {
        let request = after.request(&vips);
        let mut stream = node.answer(node.ownership().watch(request)).await?;
        let mut snapshot: Vec<VipOwnership> = Vec::new();
        let restart = loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(status)) => return Err(from_status(&status, &node.target)),
                None => {
                    return Err(Failure::Unreachable(format!(
                        "{} ended the stream (the daemon stops?)",
                        node.target
                    )));
                }
            };
            match message.event {
                Some(Event::Snapshot(part)) => {
                    snapshot.extend(part.vips);
                    if part.complete {
                        show_snapshot(&snapshot, part.revision, out)?;
                        snapshot.clear();
                    }
                }
                Some(Event::Change(c)) => {
                    if !(vip_events_only && c.vip.is_empty()) {
                        if out.json {
                            out.line(&json::change(&c))?
                        } else {
                            out.text(&line(&c))?
                        }
                    }
                }
                Some(Event::Restart(restart)) => break restart,
                Some(Event::Progress(_)) | None => {}
            }
        };
        eprintln!(
            "buoy: events were missed, beginning again: {}",
            shown(&restart.reason)
        );
        after = Position::default();
    }
}

fn show_snapshot(vips: &[VipOwnership], revision: u64, out: &mut Output) -> Result<(), Failure> {
    if out.json {
        let vips: Vec<_> = vips.iter().map(json::ownership).collect();
        return out.line(&json!({ "snapshot": vips, "revision": revision }));
    }
    let rows = vips.iter().map(|o| {
        vec![
            o.vip.clone(),
            node_name(o.owner.as_ref()),
            lease(o.lease_state()).to_owned(),
            o.epoch.to_string(),
            o.addresses.join(" "),
        ]
    });
    out.text(&table(
        &["VIP", "OWNER", "LEASE", "EPOCH", "ADDRESSES"],
        rows.collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_gone_on_with_from_where_it_ended() {
        let history = HistoryResponse {
            newest: 12,
            history_id: 77,
            ..HistoryResponse::default()
        };
        let request = Position::after(&history).request(&["web".to_owned()]);
        assert_eq!(request.after_revision, Some(12));
        assert_eq!(
            request.history_id,
            Some(77),
            "or another history is not noticed"
        );
        assert_eq!(request.vips, ["web"]);
        let anew = Position::default().request(&[]);
        assert_eq!((anew.after_revision, anew.history_id), (None, None));
    }
}

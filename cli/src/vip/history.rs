//! `buoy vip history`: who owned what, since when, and why it moved.

use buoy_proto::v1::{Change, HistoryRequest};

use super::watch;
use crate::connect::Node;
use crate::error::{Failure, Verdict};
use crate::json;
use crate::output::Output;
use crate::text::{cause, dash, kind, table, time};

/// Shows the history, and with `watch` goes on with every new event.
pub async fn run(
    node: &Node,
    name: Option<String>,
    limit: u32,
    watch: bool,
    out: &mut Output,
) -> Result<Verdict, Failure> {
    let request = HistoryRequest {
        vip: name.clone().unwrap_or_default(),
        limit,
    };
    let history = node.answer(node.cluster().history(request)).await?;
    if !watch {
        out.either(|| json::history(&history), || render(&history.events))?;
        return Ok(Verdict::Fine);
    }
    if out.json {
        for event in &history.events {
            out.line(&json::change(event))?;
        }
    } else {
        for event in &history.events {
            out.text(&line(event))?;
        }
    }
    let after = watch::Position::after(&history);
    watch::changes(node, name.into_iter().collect(), after, out).await
}

pub(super) fn render(events: &[Change]) -> String {
    if events.is_empty() {
        return "no events\n".to_owned();
    }
    let rows = events.iter().map(|c| {
        vec![
            c.revision.to_string(),
            time(c.at_unix_ms),
            kind(c.kind()).to_owned(),
            dash(if c.vip.is_empty() { &c.node } else { &c.vip }),
            if c.epoch == 0 {
                "-".to_owned()
            } else {
                c.epoch.to_string()
            },
            way(c),
            dash(cause(c.cause())),
            c.evidence.clone(),
        ]
    });
    let header = [
        "REV",
        "TIME (UTC)",
        "EVENT",
        "VIP/NODE",
        "EPOCH",
        "OWNER",
        "CAUSE",
        "EVIDENCE",
    ];
    table(&header, rows.collect())
}

/// The owners before and after.
fn way(c: &Change) -> String {
    match (c.from.as_str(), c.to.as_str()) {
        ("", "") => "-".to_owned(),
        (from, to) => format!("{} -> {}", dash(from), dash(to)),
    }
}

/// An event in one line, for streams.
pub(super) fn line(c: &Change) -> String {
    let what = if c.vip.is_empty() { &c.node } else { &c.vip };
    let mut text = format!(
        "{}  {}  {} {what}",
        c.revision,
        time(c.at_unix_ms),
        kind(c.kind())
    );
    if !(c.from.is_empty() && c.to.is_empty()) {
        text.push_str(&format!(": {}", way(c)));
    }
    if c.epoch > 0 {
        text.push_str(&format!(" (epoch {})", c.epoch));
    }
    for part in [cause(c.cause()), c.evidence.as_str()] {
        if !part.is_empty() {
            text.push_str(&format!("; {part}"));
        }
    }
    crate::text::shown(&text)
}

//! Words, times and tables as people read them.

use buoy_proto::v1::{
    Cause, EventKind, LeaseState, NodeRef, Preempt, Role, Scope, VrrpAuthentication, VrrpMac,
    VrrpVersion,
};
use comfy_table::{Cell, Row, Table, presets};

/// A table without lines: columns by spaces, no space at the end of a line.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(row(header.iter().map(|h| (*h).to_owned())));
    for cells in rows {
        table.add_row(row(cells));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(cells: impl IntoIterator<Item = String>) -> Row {
    Row::from(
        cells
            .into_iter()
            .map(|c| Cell::new(shown(&c)))
            .collect::<Vec<Cell>>(),
    )
}

/// What came from the network, without characters that would drive the terminal.
pub fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect()
}

/// `-` for nothing.
pub fn dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

/// Name of a node, or `-`.
pub fn node_name(node: Option<&NodeRef>) -> String {
    match node {
        None => "-".to_owned(),
        Some(n) if n.name.is_empty() => format!("node {}", n.id),
        Some(n) => n.name.clone(),
    }
}

/// Milliseconds since 1970 as `2026-11-21 07:41:09.250` in UTC.
pub fn time(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let nanos = i128::from(unix_ms) * 1_000_000;
    let Ok(t) = time::OffsetDateTime::from_unix_timestamp_nanos(nanos) else {
        return format!("{unix_ms} ms");
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.millisecond()
    )
}

/// A length of time in milliseconds, short: `250 ms`, `12 s`, `3 h`.
pub fn age(ms: u64) -> String {
    match ms {
        0..=9_999 => format!("{ms} ms"),
        10_000..=119_999 => format!("{} s", ms / 1_000),
        120_000..=7_199_999 => format!("{} min", ms / 60_000),
        7_200_000..=172_799_999 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// The state of a lease in one word.
pub fn lease(state: LeaseState) -> &'static str {
    match state {
        LeaseState::Unknown => "unknown",
        LeaseState::None => "none",
        LeaseState::Pending => "pending",
        LeaseState::Held => "held",
        LeaseState::Lost => "lost",
    }
}

/// A cause in the words of the configuration and the documentation.
pub fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Unspecified => "",
        Cause::Placement => "placement",
        Cause::OwnerSilent => "owner-silent",
        Cause::OwnerUnfit => "owner-unfit",
        Cause::LeaseLost => "lease-lost",
        Cause::OwnerStopping => "owner-stopping",
        Cause::Drained => "drained",
        Cause::Preempted => "preempted",
        Cause::Operator => "operator",
        Cause::Group => "group",
        Cause::Edited => "edited",
        Cause::Yielded => "yielded",
        Cause::Unfenced => "unfenced",
    }
}

/// The kind of an event.
pub fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Unspecified => "unknown",
        EventKind::VipPut => "vip-put",
        EventKind::VipEdited => "vip-edited",
        EventKind::VipDeleted => "vip-deleted",
        EventKind::Assigned => "assigned",
        EventKind::Unassigned => "unassigned",
        EventKind::NodeDrained => "node-drained",
        EventKind::NodeUndrained => "node-undrained",
        EventKind::NodePut => "node-put",
        EventKind::SettingsChanged => "settings-changed",
    }
}

/// A node's role.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Witness => "witness",
    }
}

/// An address's scope.
pub fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "global",
        Scope::Link => "link",
        Scope::Host => "host",
    }
}

/// 2 or 3.
pub fn vrrp_version(version: VrrpVersion) -> u8 {
    match version {
        VrrpVersion::V2 => 2,
        VrrpVersion::V3 => 3,
    }
}

/// keepalived's word for it.
pub fn vrrp_authentication(authentication: VrrpAuthentication) -> &'static str {
    match authentication {
        VrrpAuthentication::None => "none",
        VrrpAuthentication::Pass => "PASS",
        VrrpAuthentication::Ah => "AH",
    }
}

/// As in the configuration.
pub fn vrrp_mac(mac: VrrpMac) -> &'static str {
    match mac {
        VrrpMac::Interface => "interface",
        VrrpMac::Virtual => "virtual",
        VrrpMac::VirtualXmitBase => "virtual-xmit-base",
    }
}

/// Sticky or not.
pub fn preempt(preempt: Preempt) -> &'static str {
    match preempt {
        Preempt::Sticky => "sticky",
        Preempt::Preempt => "preempt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain() {
        let rows = vec![
            vec!["a".into(), "1\n2".into()],
            vec!["long".into(), "x\u{1b}[1m".into()],
        ];
        assert_eq!(
            table(&["NAME", "N"], rows),
            "NAME  N\na     1\n      2\nlong  x?[1m\n"
        );
    }

    #[test]
    fn times_and_ages() {
        assert_eq!(time(0), "-");
        assert_eq!(time(1_700_000_000_123), "2023-11-14 22:13:20.123");
        assert_eq!(time(u64::MAX), format!("{} ms", u64::MAX));
        for (ms, text) in [
            (9_999, "9999 ms"),
            (10_000, "10 s"),
            (119_999, "119 s"),
            (7_200_000, "2 h"),
            (u64::MAX, "213503982334 d"),
        ] {
            assert_eq!(age(ms), text);
        }
    }
}

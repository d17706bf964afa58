//! Each command: what it changes, what it records, and what it refuses.

use super::testing::{cluster, name, to};
use super::*;
use crate::lease::Claim;
use crate::membership::Membership;
use crate::spec::testing::{address, node, vip};
use crate::spec::{DEFAULT_PRIORITY, MAX_HISTORY, Role};

mod assign;
mod takeover;
mod totals;
mod vips;
mod vrrp;

fn web() -> VipSpec {
    vip("web", &["192.0.2.1/24", "2001:db8::1/64"])
}

fn db() -> VipSpec {
    vip("db", &["192.0.2.2/24"])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Kinds of the events after revision `since`.
fn kinds(state: &State, since: u64) -> Vec<EventKind> {
    state
        .history
        .iter()
        .filter(|e| e.revision > since)
        .map(|e| e.kind)
        .collect()
}

#[test]
fn bootstrap_happens_once() {
    let mut s = cluster(2, &[web()]);
    assert!(s.bootstrapped);
    assert_eq!((s.nodes.len(), s.vips.len(), s.addresses.len()), (3, 1, 2));
    assert_eq!(
        kinds(&s, 0),
        [
            EventKind::NodePut,
            EventKind::NodePut,
            EventKind::NodePut,
            EventKind::VipPut
        ]
    );
    let before = s.clone();
    s.ok(Command::Bootstrap {
        history_id: 8,
        nodes: vec![node(9, Role::Member)],
        vips: vec![db()],
    });
    assert_eq!(
        s,
        State {
            applied: 2,
            ..before
        },
        "another leader's first configuration does nothing"
    );
}

#[test]
fn bootstrap_that_is_wrong_names_each_field() {
    let mut s = State::default();
    let vips = vec![web(), vip("db", &["192.0.2.1/24"]), vip("c", &[])];
    let text = s.refuses(
        Command::Bootstrap {
            history_id: 7,
            nodes: vec![node(1, Role::Member)],
            vips,
        },
        RejectionKind::Invalid,
    );
    assert!(
        text.contains("vips[1].addresses[0].ip: address 192.0.2.1 of VIP db belongs to VIP web"),
        "{text}"
    );
    assert!(
        text.contains("vips[2].addresses: VIP c has 0 addresses"),
        "{text}"
    );
}

#[test]
fn an_index_is_applied_once() {
    let mut s = cluster(2, &[web()]);
    s.note_index(7);
    s.note_index(5);
    assert_eq!(s.applied, 7);
    let before = s.clone();
    let outcome = s.apply(
        7,
        &Entry {
            at_unix_ms: 0,
            command: Command::DeleteVip(name("web")),
        },
    );
    assert!(
        outcome
            .rejected
            .unwrap()
            .message
            .contains("7 was applied already")
    );
    assert_eq!(s, before);
    assert!(
        State::default()
            .apply(
                0,
                &Entry {
                    at_unix_ms: 0,
                    command: Command::PutVip(web())
                }
            )
            .rejected
            .is_some()
    );
}

#[test]
fn draining_only_marks() {
    let mut s = cluster(2, &[web()]);
    let epoch = s.give("web", 1);
    let before = s.revision;
    for _ in 0..2 {
        s.ok(Command::Drain {
            node: NodeId(1),
            reason: Some("kernel update".into()),
        });
    }
    assert_eq!(
        s.nodes[&NodeId(1)].drained.as_deref(),
        Some("kernel update")
    );
    assert_eq!(s.vips[&name("web")].epoch(), epoch);
    s.ok(Command::Drain {
        node: NodeId(1),
        reason: None,
    });
    s.ok(Command::Drain {
        node: NodeId(1),
        reason: None,
    });
    assert_eq!(
        kinds(&s, before),
        [EventKind::NodeDrained, EventKind::NodeUndrained]
    );
    s.refuses(
        Command::Drain {
            node: NodeId(7),
            reason: None,
        },
        RejectionKind::NotFound,
    );
    s.refuses(
        Command::Drain {
            node: NodeId(3),
            reason: Some("x".into()),
        },
        RejectionKind::Invalid,
    );
}

#[test]
fn nodes_keep_their_names_and_share_nothing() {
    let mut s = cluster(2, &[web()]);
    let with = |id: u64, change: fn(&mut NodeSpec)| {
        let mut spec = node(id, Role::Member);
        change(&mut spec);
        Command::PutNode(spec)
    };
    for (command, kind, words) in [
        (with(0, |_| {}), RejectionKind::Invalid, "id 0"),
        (
            with(1, |n| n.name = "other".parse().unwrap()),
            RejectionKind::Conflict,
            "node 1 is named n1, not other",
        ),
        (
            with(5, |n| n.name = "n2".parse().unwrap()),
            RejectionKind::Conflict,
            "same name n2",
        ),
        (
            with(5, |n| n.address = "10.0.0.2:7400".parse().unwrap()),
            RejectionKind::Conflict,
            "same address",
        ),
        (
            with(5, |n| n.address = "192.0.2.1:7400".parse().unwrap()),
            RejectionKind::Conflict,
            "belongs to VIP web",
        ),
    ] {
        let text = s.refuses(command, kind);
        assert!(text.contains(words), "{words:?} in {text}");
    }
    s.ok(with(1, |n| n.role = Role::Witness));
    let text = s.refuses(with(2, |n| n.role = Role::Witness), RejectionKind::Conflict);
    assert!(text.contains("no other node may hold"), "{text}");
    s.ok(Command::Drain {
        node: NodeId(2),
        reason: Some("x".into()),
    });
    s.ok(with(2, |n| n.address.set_port(7401)));
    assert!(
        s.nodes[&NodeId(2)].drained.is_some(),
        "an edit does not end the drain"
    );
    assert_eq!(
        s.find_node("n2").map(|n| n.spec.id),
        s.find_node("2").map(|n| n.spec.id)
    );
    assert!(s.find_node("n9").is_none() && s.node_name(NodeId(9)).is_none());
}

#[test]
fn the_history_is_bounded_and_revisions_go_on() {
    let mut s = cluster(2, &[web()]);
    for i in 0..MAX_HISTORY as u64 + 10 {
        s.give("web", 1 + i % 2);
    }
    assert_eq!(s.history.len(), MAX_HISTORY);
    assert_eq!(s.history.back().unwrap().revision, s.revision);
    assert_eq!(s.history[0].revision + MAX_HISTORY as u64 - 1, s.revision);
    let mut copy = s.without_history();
    assert!(copy.history.is_empty());
    let m = to(&s, "web", None);
    assert_eq!(
        s.ok(Command::Assign(vec![m.clone()])),
        copy.ok(Command::Assign(vec![m]))
    );
    assert_eq!(s.without_history(), copy.without_history());
}

#[test]
fn long_texts_are_cut_between_characters() {
    let mut s = cluster(2, &[web()]);
    s.ok(Command::Drain {
        node: NodeId(1),
        reason: Some("é".repeat(2000)),
    });
    let kept = s.nodes[&NodeId(1)].drained.clone().unwrap();
    assert!(
        kept.len() <= MAX_TEXT && kept.len() > MAX_TEXT - 4 && kept.ends_with("é…"),
        "{}",
        kept.len()
    );
    s.ok(Command::Drain {
        node: NodeId(1),
        reason: Some("x".repeat(MAX_TEXT)),
    });
    assert_eq!(
        s.nodes[&NodeId(1)].drained.as_ref().unwrap().len(),
        MAX_TEXT
    );
}

#[test]
fn vips_are_found_by_name_and_by_address() {
    let s = cluster(2, &[web(), vip("192.0.2.1", &["192.0.2.7/24"])]);
    for (query, found) in [
        ("web", Some("web")),
        ("2001:db8::1", Some("web")),
        ("192.0.2.1", Some("192.0.2.1")),
        ("192.0.2.9", None),
        ("", None),
    ] {
        assert_eq!(
            s.find(query).map(|v| v.spec.name.as_str()),
            found,
            "{query}"
        );
    }
    assert_eq!(
        s.vips[&name("web")]
            .spec
            .placement
            .priority_of(&"n1".parse().unwrap()),
        DEFAULT_PRIORITY
    );
}

#[test]
fn a_node_that_took_part_is_remembered() {
    let mut s = cluster(2, &[web()]);
    let before = s.revision;
    s.ok(Command::Joined(vec![NodeId(1), NodeId(77)]));
    assert!(s.nodes[&NodeId(1)].joined && !s.nodes[&NodeId(2)].joined);
    assert_eq!(s.revision, before, "this is no event of the history");
    let mut moved = node(1, Role::Member);
    moved.address = "192.0.2.77:7400".parse().unwrap();
    s.ok(Command::PutNode(moved));
    assert!(s.nodes[&NodeId(1)].joined, "a new address is no new disk");
}

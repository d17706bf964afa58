//! Moves: made, skipped, refused.

use super::*;

#[test]
fn an_assignment_has_the_index_as_epoch() {
    let mut s = cluster(2, &[web()]);
    let m = Move {
        cause: Cause::Placement,
        evidence: "n1 ranks first".into(),
        ..to(&s, "web", Some(1))
    };
    let outcome = s.ok(Command::Assign(vec![m]));
    assert_eq!(outcome.assigned, [(name("web"), Epoch(2))]);
    assert_eq!(outcome.revision, s.revision);
    assert_eq!(
        s.assignments_of(NodeId(1)),
        [(
            name("web"),
            Epoch(2),
            vec![ip("192.0.2.1"), ip("2001:db8::1")]
        )]
    );
    let e = s.history.back().unwrap();
    assert_eq!(
        (e.kind, e.epoch, e.cause),
        (EventKind::Assigned, Some(Epoch(2)), Some(Cause::Placement))
    );
    assert_eq!(
        (e.from.as_ref(), e.to.as_ref().unwrap().as_str(), e.index),
        (None, "n1", 2)
    );
    assert_eq!(e.evidence, "n1 ranks first");
    s.give("web", 2);
    let e = s.history.back().unwrap();
    assert_eq!(
        (
            e.from.as_ref().unwrap().as_str(),
            e.to.as_ref().unwrap().as_str()
        ),
        ("n1", "n2")
    );
}

#[test]
fn a_new_epoch_for_the_same_owner_needs_a_cause() {
    let mut s = cluster(2, &[web()]);
    let first = s.give("web", 1);
    let text = s.refuses(
        Command::Assign(vec![to(&s, "web", Some(1))]),
        RejectionKind::Conflict,
    );
    assert!(text.contains("assigned to n1 already"), "{text}");
    let again = Move {
        cause: Cause::LeaseLost,
        ..to(&s, "web", Some(1))
    };
    s.ok(Command::Assign(vec![again]));
    assert!(s.vips[&name("web")].epoch() > first);
}

#[test]
fn moves_that_cannot_be_made_say_why() {
    let mut third = vip("third", &["192.0.2.3/24"]);
    third.placement.priority.insert("n2".parse().unwrap(), 0);
    let mut s = cluster(2, &[web(), db(), third]);
    s.give("web", 1);
    s.ok(Command::Drain {
        node: NodeId(2),
        reason: Some("disk".into()),
    });
    let mv = |vip: &str, target: Option<u64>| to(&s, vip, target);
    for (m, kind, words) in [
        (mv("gone", Some(1)), RejectionKind::NotFound, "no VIP gone"),
        (
            Move {
                expected: Epoch(99),
                ..mv("web", Some(1))
            },
            RejectionKind::Conflict,
            "now it is assigned to n1 with epoch 2",
        ),
        (
            Move {
                expected: Epoch(1),
                ..mv("db", Some(1))
            },
            RejectionKind::Conflict,
            "assigned to nobody",
        ),
        (
            mv("db", Some(3)),
            RejectionKind::Invalid,
            "n3: it is a witness",
        ),
        (
            mv("db", Some(9)),
            RejectionKind::NotFound,
            "node 9: there is no such node",
        ),
        (
            mv("db", Some(2)),
            RejectionKind::Conflict,
            "n2: it is drained (disk)",
        ),
        (
            Move {
                pin: Some(true),
                ..mv("db", None)
            },
            RejectionKind::Invalid,
            "pinned to nobody",
        ),
        (
            mv("db", None),
            RejectionKind::Conflict,
            "assigned to nobody already",
        ),
    ] {
        let text = s.refuses(Command::Assign(vec![m]), kind);
        assert!(text.contains(words), "{words:?} in {text}");
    }
    s.ok(Command::Drain {
        node: NodeId(2),
        reason: None,
    });
    let text = s.refuses(
        Command::Assign(vec![to(&s, "third", Some(2))]),
        RejectionKind::Invalid,
    );
    assert!(text.contains("n2 priority 0"), "{text}");
    assert!(s.run(Command::Assign(vec![])).rejected.is_some());
}

#[test]
fn stale_moves_are_skipped_and_the_others_made() {
    let mut s = cluster(2, &[web(), db()]);
    let stale = Move {
        expected: Epoch(9),
        ..to(&s, "web", Some(1))
    };
    let good = to(&s, "db", Some(2));
    let twice = to(&s, "db", Some(1));
    let outcome = s.run(Command::Assign(vec![stale.clone(), good, twice]));
    assert_eq!(outcome.rejected, None);
    assert_eq!(outcome.assigned, [(name("db"), Epoch(2))]);
    let skipped: Vec<_> = outcome.skipped.iter().map(|s| s.vip.as_str()).collect();
    assert_eq!(skipped, ["web", "db"]);
    assert!(outcome.skipped[1].reason.message.contains("twice"));
    let outcome = s.run(Command::Assign(vec![
        stale.clone(),
        Move {
            vip: name("x"),
            ..stale
        },
    ]));
    assert!(
        outcome
            .rejected
            .unwrap()
            .message
            .contains("none of 2 moves")
    );
    assert_eq!(outcome.skipped.len(), 2);
}

#[test]
fn pins_follow_the_operator_without_interrupting() {
    let mut s = cluster(2, &[web()]);
    s.ok(Command::Assign(vec![Move {
        pin: Some(true),
        ..to(&s, "web", Some(1))
    }]));
    let epoch = s.vips[&name("web")].epoch();
    assert_eq!(s.vips[&name("web")].pinned, Some(NodeId(1)));
    let auto = Move {
        pin: Some(false),
        ..to(&s, "web", Some(1))
    };
    let outcome = s.ok(Command::Assign(vec![auto]));
    assert!(outcome.assigned.is_empty());
    let v = &s.vips[&name("web")];
    assert_eq!((v.pinned, v.epoch()), (None, epoch));
    let e = s.history.back().unwrap();
    assert_eq!(
        (e.kind, e.cause, e.epoch),
        (EventKind::VipEdited, Some(Cause::Operator), Some(epoch))
    );
    assert!(
        e.evidence.starts_with("pinned to nobody, before to n1"),
        "{}",
        e.evidence
    );
}

#[test]
fn frozen_placement_leaves_only_operators() {
    let mut s = cluster(2, &[web()]);
    s.ok(Command::Settings(Settings { frozen: true }));
    let auto = Move {
        cause: Cause::Placement,
        ..to(&s, "web", Some(1))
    };
    assert!(
        s.refuses(Command::Assign(vec![auto]), RejectionKind::Conflict)
            .contains("frozen")
    );
    let given = s.give("web", 1);
    // A lost lease is renewed in place, and only there.
    let lost = |s: &State, node| Move {
        cause: Cause::LeaseLost,
        ..to(s, "web", Some(node))
    };
    let elsewhere = Command::Assign(vec![lost(&s, 2)]);
    assert!(
        s.refuses(elsewhere, RejectionKind::Conflict)
            .contains("frozen")
    );
    let nowhere = Move {
        to: None,
        ..lost(&s, 1)
    };
    s.refuses(Command::Assign(vec![nowhere]), RejectionKind::Conflict);
    let revived = lost(&s, 1);
    s.ok(Command::Assign(vec![revived]));
    let vip = &s.vips[&name("web")];
    assert_eq!(vip.owner(), Some(NodeId(1)));
    assert!(vip.epoch() > given, "under a new epoch");
    let before = s.revision;
    s.ok(Command::Settings(Settings { frozen: true }));
    assert_eq!(s.revision, before, "no change, no event");
    s.ok(Command::Settings(Settings { frozen: false }));
    assert_eq!(kinds(&s, before), [EventKind::SettingsChanged]);
}

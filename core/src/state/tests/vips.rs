//! Declaring, editing, deleting and yielding VIPs, and what is remembered of lost assignments.

use super::*;

#[test]
fn an_edit_of_what_a_vip_is_makes_a_new_epoch() {
    type Edit = (fn(&mut VipSpec), bool);
    let edits: &[Edit] = &[
        (|v| v.addresses.push(address("192.0.2.9/24")), true),
        (|v| v.addresses[0].prefix = 25, true),
        (|v| v.interface = "eth1".into(), true),
        (|v| v.label = Some("eth0:w".into()), true),
        (|v| v.scope = crate::spec::Scope::Link, true),
        (|v| v.addresses.reverse(), false),
        (
            |v| {
                v.placement.priority.insert("n1".parse().unwrap(), 0);
            },
            false,
        ),
        (
            |v| {
                v.placement.avoid.insert(name("db"));
            },
            false,
        ),
    ];
    for (i, (edit, renews)) in edits.iter().enumerate() {
        let mut s = cluster(2, &[web(), db()]);
        let old = s.give("web", 1);
        let mut spec = web();
        edit(&mut spec);
        let before = s.revision;
        let outcome = s.ok(Command::PutVip(spec.clone()));
        let v = &s.vips[&name("web")];
        assert_eq!(
            (v.owner(), &v.spec, v.changed_at),
            (Some(NodeId(1)), &spec, s.applied),
            "edit {i}"
        );
        if *renews {
            assert_eq!(v.epoch(), Epoch(s.applied), "edit {i}");
            assert_eq!(outcome.assigned, [(name("web"), Epoch(s.applied))]);
            assert_eq!(
                kinds(&s, before),
                [EventKind::VipEdited, EventKind::Assigned]
            );
            assert_eq!(s.history.back().unwrap().cause, Some(Cause::Edited));
        } else {
            assert_eq!((v.epoch(), outcome.assigned), (old, vec![]), "edit {i}");
            assert_eq!(kinds(&s, before), [EventKind::VipEdited]);
        }
        let before = s.clone();
        s.ok(Command::PutVip(spec));
        assert_eq!(
            s,
            State {
                applied: before.applied + 1,
                ..before
            },
            "the same again changes nothing"
        );
    }
}

#[test]
fn declarations_that_are_refused() {
    let mut s = cluster(2, &[web(), db()]);
    let with = |change: fn(&mut VipSpec)| {
        let mut spec = vip("new", &["192.0.2.8/24"]);
        change(&mut spec);
        Command::PutVip(spec)
    };
    for (command, kind, words) in [
        (
            with(|v| v.addresses.clear()),
            RejectionKind::Invalid,
            "addresses: VIP new has 0 addresses",
        ),
        (
            with(|v| v.addresses.push(address("2001:db8::1/128"))),
            RejectionKind::Conflict,
            "2001:db8::1 belongs to VIP web",
        ),
        (
            with(|v| v.addresses.push(address("10.0.0.1/24"))),
            RejectionKind::Conflict,
            "node n1 itself",
        ),
        (
            with(|v| {
                v.placement.colocate_with.insert(name("x"));
            }),
            RejectionKind::NotFound,
            "VIP x, which does not exist",
        ),
        (
            with(|v| {
                v.placement.priority.insert("n8".parse().unwrap(), 1);
            }),
            RejectionKind::NotFound,
            "node n8",
        ),
        (
            with(|v| {
                for n in ["n1", "n2"] {
                    v.placement.priority.insert(n.parse().unwrap(), 0);
                }
            }),
            RejectionKind::Invalid,
            "nobody may hold it",
        ),
    ] {
        let text = s.refuses(command, kind);
        assert!(
            text.contains("VIP new is refused") && text.contains(words),
            "{words:?} in {text}"
        );
    }
    let mut together = db();
    together.placement.colocate_with.insert(name("web"));
    s.ok(Command::PutVip(together));
    let mut apart = web();
    apart.placement.avoid.insert(name("db"));
    let text = s.refuses(Command::PutVip(apart), RejectionKind::Invalid);
    assert!(
        text.contains("web avoids db, but colocate_with keeps the two together"),
        "{text}"
    );
    let group: Vec<_> = s
        .group_of(&name("web"))
        .iter()
        .map(|v| v.spec.name.as_str())
        .collect();
    assert_eq!(group, ["db", "web"]);
}

#[test]
fn a_vip_that_others_name_is_not_deleted() {
    for avoid in [false, true] {
        let mut other = db();
        let p = &mut other.placement;
        (if avoid {
            &mut p.avoid
        } else {
            &mut p.colocate_with
        })
        .insert(name("web"));
        let mut s = cluster(2, &[web(), other]);
        let text = s.refuses(Command::DeleteVip(name("web")), RejectionKind::Conflict);
        assert!(
            text.contains("VIP db names it in") && text.contains("edit db first"),
            "{text}"
        );
    }
    let mut s = cluster(2, &[web()]);
    s.refuses(Command::DeleteVip(name("db")), RejectionKind::NotFound);
}

#[test]
fn the_history_says_which_assignment_a_deletion_ended() {
    let mut s = cluster(2, &[web(), db()]);
    let epoch = s.give("web", 2);
    s.ok(Command::DeleteVip(name("web")));
    let e = s.history.back().unwrap();
    assert_eq!(
        (e.kind, e.epoch, e.cause),
        (EventKind::VipDeleted, Some(epoch), Some(Cause::Operator))
    );
    assert_eq!(e.from.as_ref().map(|n| n.as_str()), Some("n2"));
    assert_eq!((&e.to, e.evidence.as_str()), (&None, "deleted"));
    s.ok(Command::DeleteVip(name("db")));
    let e = s.history.back().unwrap();
    assert_eq!(
        (e.epoch, e.cause, &e.from),
        (None, None, &None),
        "it had no owner"
    );
}

#[test]
fn every_way_to_lose_an_assignment_is_remembered() {
    let all = [ip("192.0.2.1"), ip("2001:db8::1")];
    let mut fewer = web();
    fewer.addresses.pop();
    let ways: [(Command, &[IpAddr]); 4] = [
        (Command::DeleteVip(name("web")), &all),
        (Command::PutVip(fewer), &all[1..]),
        (
            Command::Yield {
                vip: name("web"),
                evidence: Some("a router".into()),
            },
            &all,
        ),
        (
            Command::Assign(vec![Move {
                expected: Epoch(2),
                ..to(&cluster(2, &[web()]), "web", None)
            }]),
            &all,
        ),
    ];
    for (command, lost) in ways {
        let mut s = cluster(2, &[web()]);
        let old = s.give("web", 1);
        let what = format!("{command:?}");
        let outcome = s.ok(command);
        let expected: BTreeMap<_, _> = lost.iter().map(|ip| (*ip, Epoch(s.applied))).collect();
        assert_eq!(s.removed, expected, "{what}");
        assert_eq!(outcome.assigned.len(), 1, "{what}");
        let view = s.log_view(&Membership::default());
        assert!(
            all.iter().all(|a| view.supersedes(&Claim {
                address: *a,
                epoch: old
            })),
            "{what}"
        );
        // The address comes back, maybe with another VIP.
        let _ = s.run(Command::Yield {
            vip: name("web"),
            evidence: None,
        });
        let _ = s.run(Command::DeleteVip(name("web")));
        s.ok(Command::PutVip(vip(
            "again",
            &["192.0.2.1/32", "2001:db8::1/128"],
        )));
        let epoch = s.give("again", 2);
        assert_eq!(s.removed, BTreeMap::new(), "{what}");
        let view = s.log_view(&Membership::default());
        assert!(
            view.assigns(
                &Claim {
                    address: all[0],
                    epoch
                },
                NodeId(2)
            ),
            "{what}"
        );
    }
}

#[test]
fn what_was_not_assigned_is_not_remembered() {
    let mut s = cluster(2, &[web()]);
    s.ok(Command::DeleteVip(name("web")));
    assert_eq!(s.removed, BTreeMap::new());
}

#[test]
fn old_removals_are_forgotten_and_stay_superseded() {
    let mut s = cluster(2, &[]);
    let mut first = None;
    let octets = |n: usize| format!("172.16.{}.{}/32", n / 200, n % 200 + 1);
    let per_vip = 64;
    for round in 0..=MAX_REMOVED / per_vip {
        let addresses: Vec<String> = (0..per_vip).map(|k| octets(round * per_vip + k)).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        s.ok(Command::PutVip(vip("v", &addresses)));
        let epoch = s.give("v", 1);
        first.get_or_insert(epoch);
        s.ok(Command::DeleteVip(name("v")));
    }
    assert_eq!(s.removed.len(), MAX_REMOVED);
    assert_eq!(
        s.removed_forgotten,
        Epoch(first.unwrap().0 + 1),
        "the oldest removal, and no more"
    );
    let forgotten = Claim {
        address: ip("172.16.0.1"),
        epoch: first.unwrap(),
    };
    assert!(!s.removed.contains_key(&forgotten.address));
    assert!(s.log_view(&Membership::default()).supersedes(&forgotten));
}

#[test]
fn no_more_is_forgotten_than_must_be() {
    let mut s = cluster(
        2,
        &[vip("v", &["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"])],
    );
    let remembered = |n: usize| {
        (
            IpAddr::from([172, 16, (n / 256) as u8, (n % 256) as u8]),
            Epoch(n as u64),
        )
    };
    s.removed = (1..=MAX_REMOVED).map(remembered).collect();
    s.note_index(MAX_REMOVED as u64);
    s.give("v", 1);
    s.ok(Command::DeleteVip(name("v")));
    assert_eq!(
        (s.removed.len(), s.removed_forgotten),
        (MAX_REMOVED, Epoch(3))
    );
    assert_eq!(s.removed.values().min(), Some(&Epoch(4)));
}

#[test]
fn yielding_and_taking_back() {
    let mut s = cluster(2, &[web()]);
    s.give("web", 1);
    let before = s.revision;
    s.ok(Command::Yield {
        vip: name("web"),
        evidence: Some("10.0.0.9 advertises".into()),
    });
    let v = &s.vips[&name("web")];
    assert_eq!(
        (v.owner(), v.yielded.as_deref()),
        (None, Some("10.0.0.9 advertises"))
    );
    s.ok(Command::Yield {
        vip: name("web"),
        evidence: Some("and again".into()),
    });
    assert_eq!(kinds(&s, before), [EventKind::Unassigned]);
    assert_eq!(s.history.back().unwrap().cause, Some(Cause::Yielded));
    let text = s.refuses(
        Command::Assign(vec![to(&s, "web", Some(1))]),
        RejectionKind::Conflict,
    );
    assert!(text.contains("yielded"), "{text}");
    s.ok(Command::Yield {
        vip: name("web"),
        evidence: None,
    });
    s.give("web", 1);
    s.refuses(
        Command::Yield {
            vip: name("x"),
            evidence: None,
        },
        RejectionKind::NotFound,
    );
}

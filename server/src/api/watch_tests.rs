use buoy_core::state::{Event, EventKind};

use super::*;

fn event(revision: u64, vip: Option<&str>) -> Event {
    Event {
        revision,
        index: revision * 10,
        at_unix_ms: 0,
        kind: EventKind::Assigned,
        vip: vip.map(|v| v.parse().unwrap()),
        node: None,
        epoch: None,
        from: None,
        to: None,
        cause: None,
        evidence: String::new(),
    }
}

/// A state whose history begins at revision 5.
fn state() -> State {
    let history = [event(5, Some("a")), event(6, Some("b")), event(7, None)];
    State {
        history: history.into(),
        revision: 7,
        ..State::default()
    }
}

/// A position of a history that is not known.
fn at(revision: u64) -> Position {
    Position {
        revision,
        history_id: 0,
    }
}

fn filter(names: &[&str]) -> Filter {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    Filter::new(&names).unwrap()
}

fn changes(filter: &Filter, last: u64) -> (Vec<u64>, u64) {
    match look(&state(), filter, at(last)) {
        Found::Changes(changes, reached) => (changes.iter().map(|c| c.revision).collect(), reached),
        Found::Nothing => (vec![], last),
        Found::Behind => panic!("behind {last}"),
        Found::Missed(restart) => panic!("{restart:?}"),
    }
}

#[test]
fn changes_come_in_order_and_none_twice() {
    let all = filter(&[]);
    assert_eq!(changes(&all, 4), (vec![5, 6, 7], 7));
    assert_eq!(changes(&all, 6), (vec![7], 7));
    assert_eq!(changes(&all, 7), (vec![], 7));
    assert!(matches!(look(&state(), &all, at(9)), Found::Behind));
    assert_eq!(
        changes(&filter(&["a"]), 4),
        (vec![5], 7),
        "the rest was looked at"
    );
    assert_eq!(changes(&filter(&["c"]), 4), (vec![], 7));
}

#[test]
fn a_long_history_comes_in_batches() {
    let count = BATCH as u64 + 10;
    let history = (1..=count).map(|r| event(r, Some("a"))).collect();
    let state = State {
        history,
        revision: count,
        ..State::default()
    };
    let Found::Changes(changes, reached) = look(&state, &filter(&[]), at(0)) else {
        panic!("expected changes");
    };
    assert_eq!((changes.len(), reached), (BATCH, BATCH as u64));
}

#[test]
fn pruned_and_foreign_revisions_mean_restart() {
    for last in [0, 3] {
        let Found::Missed(restart) = look(&state(), &filter(&[]), at(last)) else {
            panic!("expected a restart after {last}");
        };
        assert_eq!((restart.oldest, restart.newest), (5, 7));
        assert!(
            restart.reason.contains("no longer kept"),
            "{}",
            restart.reason
        );
    }
    assert_eq!(beyond(&state(), 7), None);
    let (_, restart) = beyond(&state(), 8).unwrap();
    assert!(
        restart.reason.contains("another cluster"),
        "{}",
        restart.reason
    );
    let pruned_away = State {
        revision: 3,
        ..State::default()
    };
    assert!(matches!(
        look(&pruned_away, &filter(&[]), at(1)),
        Found::Missed(_)
    ));
}

#[test]
fn another_history_means_restart_whatever_its_revision() {
    let formed = State {
        bootstrapped: true,
        history_id: 0xabcd,
        ..state()
    };
    let found = |state: &State, revision, history_id| {
        let position = Position {
            revision,
            history_id,
        };
        match look(state, &filter(&[]), position) {
            Found::Missed(restart) => restart.reason,
            Found::Changes(..) => "changes".to_owned(),
            Found::Nothing => "nothing".to_owned(),
            Found::Behind => "behind".to_owned(),
        }
    };
    for revision in [4, 5, 7, 8] {
        let reason = found(&formed, revision, 0x1234);
        assert!(reason.contains("another cluster"), "{revision}: {reason}");
        assert!(reason.contains("000000000000abcd"), "{revision}: {reason}");
    }
    for (revision, what) in [(4, "changes"), (7, "nothing"), (8, "behind")] {
        assert_eq!(found(&formed, revision, 0xabcd), what);
        assert_eq!(found(&formed, revision, 0), what, "not compared");
    }
    // A node that has no state yet cannot tell.
    assert_eq!(found(&State::default(), 3, 0x1234), "behind");
}

#[test]
fn bad_filters_are_refused() {
    let error = Filter::new(&["ok".into(), "not ok".into()]).err().unwrap();
    assert!(error.message().contains("vips[1]"), "{error}");
}

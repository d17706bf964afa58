//! Short ways to write commands in tests.

use super::{Cause, Command, Entry, Move, Outcome, RejectionKind, State};
use crate::ids::{Epoch, NodeId, VipName};
use crate::spec::testing::node;
use crate::spec::{Role, VipSpec};

/// A VIP's name.
pub(crate) fn name(text: &str) -> VipName {
    text.parse().unwrap()
}

/// A cluster of members `n1..` and, last, one witness, bootstrapped at index 1 with these VIPs.
pub(crate) fn cluster(members: u64, vips: &[VipSpec]) -> State {
    let mut state = State::default();
    let mut nodes: Vec<_> = (1..=members).map(|i| node(i, Role::Member)).collect();
    nodes.push(node(members + 1, Role::Witness));
    let outcome = state.run(Command::Bootstrap {
        history_id: 7,
        nodes,
        vips: vips.to_vec(),
    });
    assert_eq!(outcome.rejected, None);
    state
}

/// A move that nothing is wrong with.
pub(crate) fn to(state: &State, vip: &str, target: Option<u64>) -> Move {
    Move {
        vip: name(vip),
        expected: state
            .vips
            .get(&name(vip))
            .map(|v| v.epoch())
            .unwrap_or_default(),
        to: target.map(NodeId),
        cause: Cause::Operator,
        evidence: "test".to_owned(),
        pin: None,
    }
}

impl State {
    /// Applies a command at the next index.
    pub(crate) fn run(&mut self, command: Command) -> Outcome {
        let index = self.applied + 1;
        self.apply(
            index,
            &Entry {
                at_unix_ms: 1000 + index,
                command,
            },
        )
    }

    /// Applies a command that must be accepted.
    pub(crate) fn ok(&mut self, command: Command) -> Outcome {
        let what = format!("{command:?}");
        let outcome = self.run(command);
        assert_eq!(
            (&outcome.rejected, outcome.skipped.len()),
            (&None, 0),
            "{what}: {outcome:?}"
        );
        outcome
    }

    /// Assigns a VIP and returns the epoch.
    pub(crate) fn give(&mut self, vip: &str, target: u64) -> Epoch {
        let m = to(self, vip, Some(target));
        self.ok(Command::Assign(vec![m]));
        Epoch(self.applied)
    }

    /// Applies a command that must be refused, and changes nothing.
    pub(crate) fn refuses(&mut self, command: Command, kind: RejectionKind) -> String {
        let before = self.clone();
        let what = format!("{command:?}");
        let rejection = self
            .run(command)
            .rejected
            .unwrap_or_else(|| panic!("accepted: {what}"));
        assert_eq!(rejection.kind, kind, "{what}: {rejection}");
        assert_eq!(
            *self,
            State {
                applied: before.applied + 1,
                ..before
            },
            "{what}"
        );
        rejection.message
    }
}

//! Assignments: moves that the planner or an operator asked for, each judged by itself.

use std::collections::BTreeSet;

use super::super::{Cause, Event, EventKind, Move, Rejection, Skipped, Vip};
use super::Change;
use crate::ids::{NodeId, VipName};
use crate::spec::{MAX_VIPS, Role};

/// What a move that may be made does.
enum Step {
    /// A new owner, or nobody, under a new epoch; and the pin afterwards.
    Move { pinned: Option<NodeId> },
    /// The owner stays, and keeps its epoch.
    Pin { pinned: Option<NodeId> },
}

impl Change<'_> {
    /// Moves whose expectation fails, or whose target may not hold the VIP, are skipped. The
    /// command is refused when nothing is left of it.
    pub(super) fn assign(&mut self, moves: &[Move]) -> Result<(), Rejection> {
        if moves.is_empty() || moves.len() > MAX_VIPS {
            let n = moves.len();
            return Err(Rejection::invalid(format!(
                "{n} moves in one command, expected 1 to {MAX_VIPS}"
            )));
        }
        let mut seen: BTreeSet<&VipName> = BTreeSet::new();
        for m in moves {
            let judged = if seen.insert(&m.vip) {
                self.judge(m)
            } else {
                Err(Rejection::invalid(format!(
                    "VIP {} is moved twice by one command",
                    m.vip
                )))
            };
            match judged {
                Ok(Step::Move { pinned }) => {
                    self.set_owner(&m.vip, m.to, m.cause, &m.evidence);
                    if let Some(vip) = self.state.vips.get_mut(&m.vip) {
                        vip.pinned = pinned;
                    }
                }
                Ok(Step::Pin { pinned }) => self.pin(&m.vip, pinned, &m.evidence),
                Err(reason) => self.outcome.skipped.push(Skipped {
                    vip: m.vip.clone(),
                    reason,
                }),
            }
        }
        let skipped = &self.outcome.skipped;
        match skipped.first() {
            Some(first) if skipped.len() == moves.len() => Err(match skipped.len() {
                1 => first.reason.clone(),
                n => Rejection {
                    message: format!("none of {n} moves was made; the first: {}", first.reason),
                    ..first.reason.clone()
                },
            }),
            _ => Ok(()),
        }
    }

    /// May this move be made, and what does it do?
    fn judge(&self, m: &Move) -> Result<Step, Rejection> {
        let Some(vip) = self.state.vips.get(&m.vip) else {
            return Err(Rejection::not_found(format!("there is no VIP {}", m.vip)));
        };
        self.check_expectation(m, vip)?;
        let pinned = match (m.pin, m.to) {
            (Some(true), None) => {
                return Err(Rejection::invalid(format!(
                    "VIP {} cannot be pinned to nobody",
                    m.vip
                )));
            }
            (Some(true), to) => to,
            (Some(false), _) => None,
            (None, _) => vip.pinned,
        };
        if let Some(to) = m.to {
            self.check_target(m, vip, to)?;
        }
        // An operator who names the present owner wants it to stay there, not to be interrupted.
        if m.to == vip.owner() && (m.to.is_none() || m.cause == Cause::Operator) {
            if pinned != vip.pinned {
                return Ok(Step::Pin { pinned });
            }
            return Err(Rejection::conflict(match m.to {
                Some(to) => format!(
                    "VIP {} is assigned to {} already",
                    m.vip,
                    self.state.call(to)
                ),
                None => format!("VIP {} is assigned to nobody already", m.vip),
            }));
        }
        Ok(Step::Move { pinned })
    }

    fn check_expectation(&self, m: &Move, vip: &Vip) -> Result<(), Rejection> {
        if m.expected != vip.epoch() {
            let now = match &vip.assignment {
                Some(a) => format!(
                    "it is assigned to {} with epoch {}",
                    self.state.call(a.node),
                    a.epoch
                ),
                None => "it is assigned to nobody".to_owned(),
            };
            return Err(Rejection::conflict(format!(
                "VIP {} changed meanwhile: the move was decided at epoch {}, now {now}; look again and repeat it if it is still wanted",
                m.vip, m.expected
            )));
        }
        // A new epoch in place is no move: without it a VIP that lost its lease would stay dark.
        let given_up = matches!(m.cause, Cause::LeaseLost | Cause::Unfenced);
        let in_place = given_up && m.to.is_some() && m.to == vip.owner();
        if m.cause != Cause::Operator && !in_place && self.state.settings.frozen {
            return Err(Rejection::conflict(format!(
                "automatic placement is frozen, so VIP {} stays as it is",
                m.vip
            )));
        }
        Ok(())
    }

    fn check_target(&self, m: &Move, vip: &Vip, to: NodeId) -> Result<(), Rejection> {
        if vip.yielded.is_some() {
            return Err(Rejection::conflict(format!(
                "VIP {} is yielded to a router outside the group: take it back first",
                m.vip
            )));
        }
        let Some(node) = self.state.nodes.get(&to) else {
            return Err(Rejection::not_found(format!(
                "VIP {} cannot move to node {to}: there is no such node",
                m.vip
            )));
        };
        let name = &node.spec.name;
        if node.spec.role == Role::Witness {
            return Err(Rejection::invalid(format!(
                "VIP {} cannot move to {name}: it is a witness and never holds",
                m.vip
            )));
        }
        if let Some(reason) = &node.drained {
            return Err(Rejection::conflict(format!(
                "VIP {} cannot move to {name}: it is drained ({reason}); undrain it first",
                m.vip
            )));
        }
        if vip.spec.placement.priority_of(name) == 0 {
            return Err(Rejection::invalid(format!(
                "VIP {} cannot move to {name}: its placement gives {name} priority 0",
                m.vip
            )));
        }
        Ok(())
    }

    fn pin(&mut self, name: &VipName, pinned: Option<NodeId>, evidence: &str) {
        let call =
            |id: Option<NodeId>| id.map_or_else(|| "nobody".to_owned(), |id| self.state.call(id));
        let Some(vip) = self.state.vips.get(name) else {
            return;
        };
        let what = format!(
            "pinned to {}, before to {}: {evidence}",
            call(pinned),
            call(vip.pinned)
        );
        let owner = vip.owner().and_then(|id| self.state.node_name(id)).cloned();
        let event = Event {
            vip: Some(name.clone()),
            epoch: vip.assignment.as_ref().map(|a| a.epoch),
            from: owner.clone(),
            to: owner,
            cause: Some(Cause::Operator),
            ..self.event(EventKind::VipEdited, &what)
        };
        if let Some(vip) = self.state.vips.get_mut(name) {
            vip.pinned = pinned;
        }
        self.record(event);
    }
}

//! Log entries become state: the only writer of [`State`].
//!
//! Deterministic and total: the same state and entry give the same result on every node, and no entry
//! makes it panic. A command that is refused changes nothing but `applied`.

use std::net::IpAddr;

use super::command::{Command, Entry, Outcome, Rejection};
use super::{Assignment, Cause, Event, EventKind, State};
use crate::ids::{Epoch, NodeId, VipName};
use crate::spec::{MAX_HISTORY, SpecError, VipSpec, VrrpSpec};

mod assign;
mod nodes;
mod vips;

/// Most addresses that are remembered as having lost their assignment.
pub const MAX_REMOVED: usize = 4096;
/// Longest evidence or reason that is kept, in bytes; more is cut off.
pub const MAX_TEXT: usize = 1024;

impl State {
    /// Applies the entry at `index`. The time that it takes does not grow with the history, and for
    /// assignments it grows with the number of VIPs only as look-ups do.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Outcome {
        let mut change = Change {
            state: self,
            index,
            at: entry.at_unix_ms,
            outcome: Outcome::default(),
        };
        let result = change.enter().and_then(|()| change.command(&entry.command));
        let mut outcome = change.outcome;
        outcome.rejected = result.err();
        outcome.revision = self.revision;
        outcome
    }

    /// Notes an entry that carries no command: blank, or a membership.
    pub fn note_index(&mut self, index: u64) {
        self.applied = self.applied.max(index);
    }
}

/// One entry on its way into the state. Each command checks everything before it changes anything.
struct Change<'a> {
    state: &'a mut State,
    index: u64,
    at: u64,
    outcome: Outcome,
}

impl Change<'_> {
    /// An index that was used before would make an epoch that was used before.
    fn enter(&mut self) -> Result<(), Rejection> {
        let (index, applied) = (self.index, self.state.applied);
        if index <= applied {
            return Err(Rejection::invalid(format!(
                "the entry has log index {index}, but {applied} was applied already: log and state do not belong together"
            )));
        }
        self.state.applied = index;
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), Rejection> {
        match command {
            Command::Bootstrap {
                history_id,
                nodes,
                vips,
            } => self.bootstrap(*history_id, nodes, &with_faces(vips, |_| None)),
            Command::BootstrapWithVrrp {
                history_id,
                nodes,
                vips,
                faces,
            } => self.bootstrap(
                *history_id,
                nodes,
                &with_faces(vips, |name| Some(&faces.get(name)?.0)),
            ),
            Command::BootstrapWithoutId { nodes, vips } => {
                self.bootstrap(0, nodes, &with_faces(vips, |_| None))
            }
            Command::PutVip(spec) => self.put_vip(&with_face(spec, None)),
            Command::PutVipWithVrrp { spec, face } => self.put_vip(&with_face(spec, Some(&face.0))),
            Command::DeleteVip(name) => self.delete_vip(name),
            Command::PutNode(spec) => self.put_node(spec),
            Command::Assign(moves) => self.assign(moves),
            Command::Drain { node, reason } => self.drain(*node, reason.as_deref()),
            Command::Joined(nodes) => self.joined(nodes),
            Command::Settings(settings) => {
                self.change_settings(settings);
                Ok(())
            }
            Command::Yield { vip, evidence } => self.yield_vip(vip, evidence.as_deref()),
            Command::Yields(all) => {
                self.yield_vips(all);
                Ok(())
            }
        }
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.index)
    }

    /// An event of this entry with nothing in it yet.
    fn event(&self, kind: EventKind, evidence: &str) -> Event {
        Event {
            revision: 0,
            index: self.index,
            at_unix_ms: self.at,
            kind,
            vip: None,
            node: None,
            epoch: None,
            from: None,
            to: None,
            cause: None,
            evidence: clip(evidence),
        }
    }

    /// Adds an event to the history, and forgets the oldest when there are too many.
    fn record(&mut self, event: Event) {
        self.state.revision = self.state.revision.saturating_add(1);
        let event = Event {
            revision: self.state.revision,
            ..event
        };
        self.state.history.push_back(event);
        while self.state.history.len() > MAX_HISTORY {
            self.state.history.pop_front();
        }
    }

    /// Gives an existing VIP to `to` under a new epoch, or to nobody; keeps the books of addresses and
    /// history. The event says what was before.
    fn set_owner(&mut self, name: &VipName, to: Option<NodeId>, cause: Cause, evidence: &str) {
        let (index, at, epoch) = (self.index, self.at, self.epoch());
        let Some(vip) = self.state.vips.get_mut(name) else {
            return;
        };
        let from = vip.owner();
        vip.assignment = to.map(|node| Assignment {
            node,
            epoch,
            since_unix_ms: at,
        });
        vip.changed_at = index;
        let addresses: Vec<IpAddr> = vip.spec.addresses.iter().map(|a| a.ip).collect();
        if to.is_some() {
            addresses.iter().for_each(|ip| {
                self.state.removed.remove(ip);
            });
        } else if from.is_some() {
            self.remember_removed(&addresses);
        }
        let kind = if to.is_some() {
            EventKind::Assigned
        } else {
            EventKind::Unassigned
        };
        let name_of = |id: Option<NodeId>| self.state.node_name(id?).cloned();
        self.record(Event {
            vip: Some(name.clone()),
            epoch: to.map(|_| epoch),
            from: name_of(from),
            to: name_of(to),
            cause: Some(cause),
            ..self.event(kind, evidence)
        });
        self.outcome
            .assigned
            .push((name.clone(), to.map(|_| epoch).unwrap_or_default()));
    }

    /// Addresses lost their assignment with this entry. When there are too many to remember, the oldest
    /// removals are forgotten; voters then treat every old epoch of an unknown address as overtaken.
    fn remember_removed(&mut self, addresses: &[IpAddr]) {
        let epoch = self.epoch();
        let removed = &mut self.state.removed;
        removed.extend(addresses.iter().map(|ip| (*ip, epoch)));
        let Some(excess) = removed.len().checked_sub(MAX_REMOVED).filter(|n| *n > 0) else {
            return;
        };
        let mut epochs: Vec<Epoch> = removed.values().copied().collect();
        let (_, cut, _) = epochs.select_nth_unstable(excess - 1);
        let cut = *cut;
        removed.retain(|_, e| *e > cut);
        self.state.removed_forgotten = self.state.removed_forgotten.max(cut);
    }
}

/// The declaration as the command means it: a spec itself is read back from the log without a face, so what
/// one holds in memory must not count.
fn with_face(spec: &VipSpec, face: Option<&VrrpSpec>) -> VipSpec {
    VipSpec {
        vrrp: face.cloned().map(Box::new),
        ..spec.clone()
    }
}

fn with_faces<'a>(
    vips: &[VipSpec],
    face: impl Fn(&VipName) -> Option<&'a VrrpSpec>,
) -> Vec<VipSpec> {
    vips.iter().map(|v| with_face(v, face(&v.name))).collect()
}

/// Cuts a text from outside to [`MAX_TEXT`] bytes.
fn clip(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    const MARK: &str = "…";
    let end = (0..=MAX_TEXT - MARK.len())
        .rev()
        .find(|i| text.is_char_boundary(*i));
    format!("{}{MARK}", &text[..end.unwrap_or_default()])
}

/// What is wrong with a declaration, as one message.
fn join(errors: &[SpecError]) -> String {
    let words: Vec<String> = errors.iter().map(SpecError::to_string).collect();
    words.join("; ")
}

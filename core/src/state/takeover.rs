//! Which assignments are takeovers from a node that fell silent, by the history.

use std::collections::BTreeMap;

use super::{Cause, Event, EventKind, State};
use crate::ids::{Epoch, NodeId, NodeName, VipName};

/// A VIP that was taken from a node without that node having released it, as far as anybody knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Takeover {
    /// Which VIP.
    pub vip: VipName,
    /// Of the assignment to the node that took it.
    pub epoch: Epoch,
    /// The node that fell silent.
    pub victim: NodeName,
    /// Of the assignment that the victim had; zero if the history does not reach back that far.
    pub victim_epoch: Epoch,
}

/// What the history says of one VIP, up to some event.
#[derive(Default)]
struct Trace<'a> {
    epoch: Epoch,
    /// From whom, and under which epoch that one had it.
    taken: Option<(&'a NodeName, Epoch)>,
}

impl<'a> Trace<'a> {
    fn follow(&mut self, event: &'a Event) {
        self.taken = match (event.kind, event.cause) {
            (EventKind::Assigned, Some(Cause::OwnerSilent)) => {
                event.from.as_ref().map(|from| (from, self.epoch))
            }
            // The one before has not done what was to be done about the victim.
            (EventKind::Assigned, Some(Cause::Unfenced)) => self.taken,
            (EventKind::Assigned | EventKind::Unassigned | EventKind::VipDeleted, _) => None,
            // Told of an edit, whose new epoch, if it makes one, is told with an event of its own.
            _ => return,
        };
        self.epoch = event.epoch.unwrap_or_default();
    }
}

impl State {
    /// The present assignments of `node` that are takeovers from another node that fell silent, those after epoch
    /// `after` only. Takes a look at the whole history.
    pub fn takeovers(&self, node: NodeId, after: Epoch) -> Vec<Takeover> {
        let Some(name) = self.node_name(node) else {
            return Vec::new();
        };
        let newer = self.history.partition_point(|event| event.index <= after.0);
        let taken = |event: &Event| {
            let cause = matches!(event.cause, Some(Cause::OwnerSilent | Cause::Unfenced));
            cause && event.kind == EventKind::Assigned && event.to.as_ref() == Some(name)
        };
        // Most changes are none: the rest is for those that are.
        if !self.history.range(newer..).any(taken) {
            return Vec::new();
        }
        let mut traces: BTreeMap<&VipName, Trace<'_>> = BTreeMap::new();
        for event in &self.history {
            if let Some(vip) = &event.vip {
                traces.entry(vip).or_default().follow(event);
            }
        }
        let of = |(vip, trace): (&VipName, Trace<'_>)| {
            let assignment = self.vips.get(vip)?.assignment.as_ref()?;
            let (victim, victim_epoch) = trace.taken?;
            let here = assignment.node == node && assignment.epoch == trace.epoch;
            (here && trace.epoch > after && victim != name).then(|| Takeover {
                vip: vip.clone(),
                epoch: trace.epoch,
                victim: victim.clone(),
                victim_epoch,
            })
        };
        traces.into_iter().filter_map(of).collect()
    }
}

//! The longest promise that may be made, and the value on disk that stands behind it.
//!
//! A restarted voter stays silent for as long as the disk says, so what is on disk must never be less
//! than what any promise that is alive still lasts, nor less than [`Longest::allowed`], by which new ones
//! are made. The orders to the disk are carried out and confirmed one after another, in the order in which
//! they were given. That is why:
//!
//! - A longer promise is made only once the disk has confirmed it.
//! - That is lowered before the disk is told, and to no less than any live promise still lasts. Whether a
//!   crash finds the old length on disk or the new one, the silence after the restart is long enough.
//! - A confirmation that comes between the order to lower and its own confirmation is of an earlier order to
//!   raise, which the disk forgets next: it permits nothing. A raise that was ordered after the lower is
//!   confirmed after it, and written after it.
//! - Nothing is lowered before the silence after the start is over: until then the promises of the run
//!   before, as long as the disk said, may be alive.

use std::time::Duration;

use super::{RAISE_AGAIN, Voter, VoterEffect};
use crate::time::Mono;

/// The maximum is looked at again after so many times its length: a node that counts a longer lease than
/// this one does, and is silent for a moment, should not cost two writes.
const LOWER_AFTER: u32 = 4;

/// Longest promise that the disk allows, and what it was asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Longest {
    /// What this node's own lease needs; never lowered below.
    usual: Duration,
    /// Longest promise that may be made.
    allowed: Duration,
    /// A longer one that the disk was asked for, and when.
    raising: Option<(Duration, Mono)>,
    /// The disk was told of a shorter one and has not confirmed.
    lowering: bool,
    /// Not lowered before.
    lower_at: Mono,
}

impl Longest {
    pub fn new(usual: Duration, durable: Duration, quarantine_until: Mono) -> Self {
        Self {
            usual,
            allowed: durable,
            raising: None,
            lowering: false,
            lower_at: quarantine_until,
        }
    }

    pub fn allowed(&self) -> Duration {
        self.allowed
    }

    /// When it may be time to lower it; never, where nothing is longer than usual.
    pub fn look_at(&self) -> Option<Mono> {
        (self.allowed > self.usual && !self.lowering).then_some(self.lower_at)
    }

    /// The disk holds this length. True when longer promises may be made than before.
    pub fn raised(&mut self, now: Mono, length: Duration) -> bool {
        if self.lowering {
            return false;
        }
        self.raising = self.raising.filter(|(asked, _)| *asked > length);
        if length <= self.allowed {
            return false;
        }
        self.allowed = length;
        self.put_off(now);
        true
    }

    /// The disk is done with the order to lower, whatever came of it.
    pub fn lowered(&mut self) {
        self.lowering = false;
    }

    /// The length that the disk must be asked for now so that promises of `length` can be made.
    pub fn raise(&mut self, now: Mono, length: Duration) -> Option<Duration> {
        let under_way = |(asked, at): (Duration, Mono)| asked >= length && at + RAISE_AGAIN > now;
        if self.raising.is_some_and(under_way) {
            return None;
        }
        let length = self.raising.map_or(length, |(asked, _)| asked.max(length));
        self.raising = Some((length, now));
        Some(length)
    }

    /// Lowers the maximum to what is needed; that is to be told to the disk.
    fn lower(&mut self, now: Mono, needed: Duration) -> Option<Duration> {
        let needed = needed.max(self.usual);
        self.put_off(now);
        if needed >= self.allowed {
            return None;
        }
        self.allowed = needed;
        // What was ordered before is undone by this order.
        self.raising = None;
        self.lowering = true;
        Some(needed)
    }

    /// How long a session is remembered to need its length.
    fn memory(&self) -> Duration {
        self.allowed.saturating_mul(LOWER_AFTER)
    }

    fn put_off(&mut self, now: Mono) {
        self.lower_at = self.lower_at.max(now + self.memory());
    }
}

impl Voter {
    /// Lowers the maximum once the quarantine is over, to what this node's own lease, the live promises
    /// and the sessions that were heard lately need.
    pub(super) fn lower_max(&mut self, now: Mono, effects: &mut Vec<VoterEffect>) {
        if self.longest.look_at().is_none_or(|at| at > now) {
            return;
        }
        let memory = self.longest.memory();
        let lately = self.sessions.iter().filter(|(_, r)| r.at + memory > now);
        let asked = lately.map(|(_, record)| self.length(record)).max();
        let live = self.book.last_end().map(|end| end.since(now));
        let needed = asked.max(live).unwrap_or_default();
        if let Some(length) = self.longest.lower(now, needed) {
            effects.push(VoterEffect::LowerMax(length));
        }
    }

    pub(super) fn raise(&mut self, now: Mono, length: Duration, effects: &mut Vec<VoterEffect>) {
        if let Some(length) = self.longest.raise(now, length) {
            effects.push(VoterEffect::RaiseMax(length));
        }
    }
}

//! The voter: promises an address to one session at a time, and to nobody else until that ends.
//!
//! This is `docs/leases.md`, "Voter rules"; the rule numbers below are those of that page.
//!
//! # Which clock reading, which view of the log
//!
//! `now` must be read *after* the renewal was received, and the [`LogView`] that comes with
//! [`VoterEvent::Renew`] must be loaded after the renewal was received (for a renewal that the node
//! sends to itself: after it was produced). Their order does not matter, and the thread may be stopped
//! anywhere in between. Why that is enough:
//!
//! - Let `t` be the reading that the holder counts from. It was taken before the renewal was sent, so
//!   `now` was read at or after it, and the promise of `now + L_voter` ends after `t + L` in true time
//!   whatever the (bounded) rates of the clocks are. That is S3. A thread that is stopped between the
//!   reading and the decision makes the promise shorter than one counted from the decision, never
//!   shorter than what the holder counts.
//! - A promise counts as ended when `until <= now`. `now` lies in the past, so it has really ended.
//! - A membership entry that this voter acknowledged was published before the acknowledgement. If the
//!   decision was made on an older view, that view was in force at some time after `t`: the holder's
//!   lease ends before (that commit) + `L_voter`, which is how long the leader waits before it proposes
//!   the next membership. A view loaded *before* the renewal was sent would break this, and with it S1;
//!   that is why every renewal brings its own.
//!
//! A pushed answer counts from the send time of the renewal that asked, and so does the promise behind
//! it: it lasts `L_voter` from the reading that came with that renewal, not from the push. So S3 holds
//! as above, with the view that came with that renewal or a newer one. Only a renewal prolongs a
//! promise; neither an append to the log nor an address that became free prolongs those of a session
//! that has fallen silent, which would delay the takeover of its addresses.
//!
//! # Order of rules 3 and 4
//!
//! A claim that is missing from the list is released (rule 4) *before* the claims are judged (rule 3),
//! also where the list claims the same address under a larger epoch. The outcome is that of two
//! renewals in a row, one without the address and one with it: the holder shut its gate before it sent a
//! list without the old claim, and `handle` cannot be interleaved with anything. So an edited VIP comes
//! up again at once where it was. A list that claims a *smaller* epoch than the one promised is judged
//! first (denied) and loses the promise afterwards.
//!
//! # What is forgotten
//!
//! The record of a session (its last `seq` among it) may go once no promise to it is live. Rule 1 keeps
//! a stale renewal, whose list lacks an address that a newer one claims, from releasing the newer
//! claim's promise; without a live promise there is nothing to release. A stale renewal that comes after
//! its record went can at most make promises (to the same session, by all rules): these support nobody
//! else, so they cost time but not safety. If the holder still counts the answer, it counts from that
//! renewal's own send time; and every renewal that would release the promise again has a larger `seq`,
//! hence was sent with the gate shut.

mod book;
mod judge;
mod longest;
mod sessions;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{Epoch, Incarnation, NodeId, Session};
use crate::lease::messages::{Answer, LogView, Renew};
use crate::spec::MAX_TOTAL_ADDRESSES;
pub use crate::spec::timing::MAX_LEASE;
use crate::time::{Allowance, Mono};

use book::Book;
use longest::Longest;
use sessions::Sessions;

/// Most sessions that a voter remembers.
pub const MAX_SESSIONS: usize = 256;
/// Most sessions of one node that a voter remembers.
pub const MAX_SESSIONS_PER_NODE: usize = 8;
/// Most claims of one session. A longer list is refused.
pub const MAX_CLAIMS: usize = 16_384;
const _: () = assert!(MAX_TOTAL_ADDRESSES <= MAX_CLAIMS);
/// Most claims of all sessions together. A list that would exceed it is refused.
pub const MAX_CLAIMS_TOTAL: usize = 131_072;
/// A session without live promises is forgotten after this silence.
pub const SESSION_MEMORY: Duration = Duration::from_secs(60);
/// A length that the disk has not confirmed is asked for again after this.
pub const RAISE_AGAIN: Duration = Duration::from_secs(1);

/// What happens to a voter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum VoterEvent {
    /// A renewal was received.
    Renew {
        /// The renewal.
        renew: Renew,
        /// This node's log, loaded after the renewal was received (see the module page).
        log: Arc<LogView>,
    },
    /// This node's log changed. Waiting sessions are looked at again, so that nobody polls.
    Log(Arc<LogView>),
    /// The disk holds this length now: promises up to it may be made.
    MaxRaised(Duration),
    /// The disk is done with the last [`VoterEffect::LowerMax`], and with all that was ordered before. Also
    /// said when it failed: a longer value on disk only means a longer silence after the next start.
    MaxLowered,
    /// Time has passed.
    Tick,
}

/// What a voter wants done.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum VoterEffect {
    /// Send to the session named in it; also used for pushed answers.
    Answer(Answer),
    /// Write this length down durably, then say [`VoterEvent::MaxRaised`]. Until then claims that
    /// need it are pending.
    RaiseMax(Duration),
    /// No promise is longer than this any more: write it down, then say [`VoterEvent::MaxLowered`]. This and
    /// [`VoterEffect::RaiseMax`] must be carried out and confirmed in the order in which they were given.
    LowerMax(Duration),
}

/// A voter's volatile state. Nothing of it survives a restart; the quarantine stands in for it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Voter {
    me: NodeId,
    allowance: Allowance,
    quarantine_until: Mono,
    quarantine_over: bool,
    longest: Longest,
    log: Arc<LogView>,
    book: Book,
    sessions: Sessions,
}

impl Voter {
    /// A voter that began at `started`. `durable_max`: the longest `L_voter` that this voter may
    /// have promised, from disk; zero for a voter that never promised anything. No promise is made
    /// before `started + durable_max`. After that it is lowered, but not below what `lease`, the length
    /// that this node itself counts with, needs.
    pub fn new(
        me: NodeId,
        allowance: Allowance,
        started: Mono,
        durable_max: Duration,
        lease: Duration,
    ) -> Self {
        let quarantine_until = started + durable_max;
        let usual = allowance.voter_length(lease);
        Self {
            me,
            allowance,
            quarantine_until,
            quarantine_over: durable_max.is_zero(),
            longest: Longest::new(usual, durable_max, quarantine_until),
            log: Arc::default(),
            book: Book::default(),
            sessions: Sessions::default(),
        }
    }

    /// Advances the machine. `now`: a reading of the node's clock, taken after the event happened.
    /// Effects are appended, to be carried out in order.
    pub fn handle(&mut self, now: Mono, event: VoterEvent, effects: &mut Vec<VoterEffect>) {
        let mut freed = self.expire(now);
        self.lower_max(now, effects);
        match event {
            VoterEvent::Renew { renew, log } => {
                freed |= self.take_log(now, log, effects);
                freed |= self.renew(now, renew, effects);
            }
            VoterEvent::Log(log) => freed |= self.take_log(now, log, effects),
            VoterEvent::MaxRaised(length) => freed |= self.longest.raised(now, length),
            VoterEvent::MaxLowered => self.longest.lowered(),
            VoterEvent::Tick => {}
        }
        if !self.quarantine_over && self.quarantine_until <= now {
            self.quarantine_over = true;
            freed = true;
        }
        while freed {
            freed = self.look_again(now, effects);
        }
    }

    /// When `handle` wants to be called at the latest.
    pub fn next_deadline(&self) -> Option<Mono> {
        let quarantine = (!self.quarantine_over).then_some(self.quarantine_until);
        let ends = [quarantine, self.longest.look_at(), self.book.next_end()];
        ends.into_iter().flatten().min()
    }

    /// When a renewal of any session of `node` was last accepted as new (also one that was refused).
    pub fn heard(&self, node: NodeId) -> Option<Mono> {
        self.sessions.heard(node).map(|h| h.at)
    }

    /// The session of `node` that was heard last.
    pub fn heard_incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.sessions.heard(node).map(|h| h.incarnation)
    }

    /// Live promises: address, session, epoch, and when they end unless extended.
    pub fn promises(&self, now: Mono) -> impl Iterator<Item = (IpAddr, Session, Epoch, Mono)> + '_ {
        self.book
            .iter()
            .filter(move |(_, _, _, until)| *until > now)
    }

    /// Until when no promise is made after the start.
    pub fn quarantine_until(&self) -> Mono {
        self.quarantine_until
    }

    /// Longest promise that may be made without asking the disk.
    pub fn max_promise(&self) -> Duration {
        self.longest.allowed()
    }
}

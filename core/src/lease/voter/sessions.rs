//! What the voter remembers of each session, and how that stays bounded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{
    MAX_CLAIMS, MAX_CLAIMS_TOTAL, MAX_LEASE, MAX_SESSIONS, MAX_SESSIONS_PER_NODE, SESSION_MEMORY,
};
use crate::ids::{Incarnation, NodeId, Session};
use crate::lease::messages::{Claim, Claims, Renew};
use crate::membership::ConfigId;
use crate::time::Mono;

/// The newest renewal of a session, and how it was judged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Record {
    /// Largest seq seen (rule 1).
    pub seq: u64,
    /// Clock reading at the receipt of that renewal.
    pub at: Mono,
    /// Membership that it named.
    pub config: ConfigId,
    /// Length that its sender counts.
    pub lease: Duration,
    /// Revision that it named.
    pub asked: u64,
    /// Revision of `claims`; `None` before the first list.
    pub rev: Option<u64>,
    /// The list of that revision, in order of address.
    pub claims: Vec<Claim>,
    /// `claims` were judged under the present log and nothing granted has lapsed since. Then every
    /// claim is granted except those below.
    pub judged: bool,
    /// Superseded claims.
    pub denied: Vec<Claim>,
    /// Claims that wait.
    pub pending: Vec<Claim>,
}

impl Record {
    /// Is the list that the newest renewal named at hand?
    pub fn listed(&self) -> bool {
        self.rev == Some(self.asked)
    }

    /// Number of claims that are granted; only meaningful when judged.
    pub fn granted(&self) -> usize {
        self.claims.len() - self.denied.len() - self.pending.len()
    }

    /// Stores the list of a renewal; another list than before must be judged.
    fn take_list(&mut self, claims: Claims) {
        let Claims::Full { rev, claims } = claims else {
            return;
        };
        if self.rev == Some(rev) && self.claims == claims {
            return;
        }
        self.rev = Some(rev);
        self.claims = claims;
        self.judged = false;
        self.denied.clear();
        self.pending.clear();
    }
}

/// When a node was last heard, and which run of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Heard {
    /// When any run of it was last heard.
    pub at: Mono,
    /// The newest run.
    pub incarnation: Incarnation,
    /// When that one was last heard.
    since: Mono,
    /// Runs that it has replaced, oldest first.
    replaced: VecDeque<Incarnation>,
}

impl Heard {
    fn new(at: Mono, incarnation: Incarnation) -> Self {
        Self {
            at,
            incarnation,
            since: at,
            replaced: VecDeque::new(),
        }
    }

    /// A run was heard. One that was replaced by another is not the newest again because a renewal of
    /// its comes late. It is when the other has said nothing for a whole lease: then the late one was
    /// the other's, which this voter had never heard before.
    fn note(&mut self, now: Mono, incarnation: Incarnation, lease: Duration) {
        self.at = now;
        if incarnation != self.incarnation {
            let late = self.replaced.contains(&incarnation);
            if late && now.since(self.since) < lease {
                return;
            }
            self.replaced.retain(|i| *i != incarnation);
            self.replaced.push_back(self.incarnation);
            if self.replaced.len() > MAX_SESSIONS_PER_NODE {
                self.replaced.pop_front();
            }
            self.incarnation = incarnation;
        }
        self.since = now;
    }
}

/// What became of a renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intake {
    /// Stale or repeated: say nothing (rule 1).
    Stale,
    /// Malformed, or beyond a bound: refuse.
    Unacceptable,
    /// Recorded.
    Recorded,
}

/// All sessions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Sessions {
    records: BTreeMap<Session, Record>,
    heard: BTreeMap<NodeId, Heard>,
}

impl Sessions {
    pub fn get(&self, session: Session) -> Option<&Record> {
        self.records.get(&session)
    }

    pub fn get_mut(&mut self, session: Session) -> Option<&mut Record> {
        self.records.get_mut(&session)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Session, &Record)> {
        self.records.iter().map(|(s, r)| (*s, r))
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.values_mut()
    }

    pub fn heard(&self, node: NodeId) -> Option<&Heard> {
        self.heard.get(&node)
    }

    /// Is this the run of its node that was heard last?
    pub fn is_newest_run(&self, session: Session) -> bool {
        self.heard(session.node)
            .is_some_and(|h| h.incarnation == session.incarnation)
    }

    /// Records a renewal received at `now`. `holds` says whether a session has live promises: its
    /// record is never dropped.
    pub fn take(&mut self, now: Mono, renew: Renew, holds: impl Fn(Session) -> bool) -> Intake {
        let session = renew.session;
        if self
            .records
            .get(&session)
            .is_some_and(|r| renew.seq <= r.seq)
        {
            return Intake::Stale;
        }
        self.note_heard(now, session, renew.lease);
        if !self.records.contains_key(&session) && !self.make_room(now, session.node, holds) {
            return Intake::Unacceptable;
        }
        let acceptable = self.acceptable(&renew);
        let record = self.records.entry(session).or_default();
        record.seq = renew.seq;
        record.at = now;
        record.config = renew.config;
        if !acceptable {
            // Nothing of it is judged, now or later: the list at hand is of no known revision.
            record.rev = None;
            record.judged = false;
            return Intake::Unacceptable;
        }
        record.lease = renew.lease;
        record.asked = renew.claims.rev();
        record.take_list(renew.claims);
        Intake::Recorded
    }

    fn acceptable(&self, renew: &Renew) -> bool {
        if renew.lease.is_zero() || renew.lease > MAX_LEASE {
            return false;
        }
        let Claims::Full { claims, .. } = &renew.claims else {
            return true;
        };
        let others = || -> usize {
            let others = self.records.iter().filter(|(s, _)| **s != renew.session);
            others.map(|(_, r)| r.claims.len()).sum()
        };
        claims.len() <= MAX_CLAIMS
            && claims.is_sorted_by(|a, b| a.address < b.address)
            && others() + claims.len() <= MAX_CLAIMS_TOTAL
    }

    fn note_heard(&mut self, now: Mono, session: Session, lease: Duration) {
        if self.heard.len() >= MAX_SESSIONS && !self.heard.contains_key(&session.node) {
            let oldest = self.heard.iter().min_by_key(|(_, h)| h.at).map(|(n, _)| *n);
            if let Some(oldest) = oldest {
                self.heard.remove(&oldest);
            }
        }
        self.heard
            .entry(session.node)
            .or_insert_with(|| Heard::new(now, session.incarnation))
            .note(now, session.incarnation, lease);
    }

    /// Makes room for one more session of `node`; false when every record in the way has live promises.
    fn make_room(&mut self, now: Mono, node: NodeId, holds: impl Fn(Session) -> bool) -> bool {
        self.records
            .retain(|s, r| r.at + SESSION_MEMORY > now || holds(*s));
        let of_node = self.records.keys().filter(|s| s.node == node).count();
        let in_the_way = |s: &Session| of_node < MAX_SESSIONS_PER_NODE || s.node == node;
        if of_node < MAX_SESSIONS_PER_NODE && self.records.len() < MAX_SESSIONS {
            return true;
        }
        let spare = self
            .records
            .iter()
            .filter(|(s, _)| in_the_way(s) && !holds(**s));
        let Some(oldest) = spare.min_by_key(|(_, r)| r.at).map(|(s, _)| *s) else {
            return false;
        };
        self.records.remove(&oldest);
        true
    }
}

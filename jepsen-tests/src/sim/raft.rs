//! A small Raft: elections, replication of whole logs, commit by joint majorities.
//!
//! It exists to give the leases what real Raft gives them: tails that are rolled back, leaders that do
//! not know yet that they are not, nodes that lag. Votes are taken in one step; everything else is
//! messages.

use std::collections::BTreeMap;
use std::rc::Rc;

use buoy_core::{Membership, NodeId};

use super::clock::{MS, True};
use super::log::{Command, Entry};

/// A follower that has heard of a leader within this time grants no vote.
pub const LEADER_LEASE: u64 = 90 * MS;

/// One node's part.
#[derive(Clone, Debug)]
pub struct Raft {
    /// Durable.
    pub term: u64,
    /// Durable.
    pub log: Rc<Vec<Entry>>,
    /// Entries known to be committed.
    pub commit: usize,
    /// Thinks that it leads `term`.
    pub leader: bool,
    /// When a leader was last heard.
    pub heard_leader: True,
    /// As leader: how much of the log each node has.
    matched: BTreeMap<NodeId, usize>,
    /// As leader: when each node last answered.
    answered: BTreeMap<NodeId, True>,
}

/// What a leader sends.
#[derive(Clone, Debug)]
pub struct Append {
    /// Who leads.
    pub leader: NodeId,
    /// Which term.
    pub term: u64,
    /// Its log.
    pub log: Rc<Vec<Entry>>,
    /// How much of it is committed.
    pub commit: usize,
}

/// What a follower answers.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// Who.
    pub from: NodeId,
    /// Its term.
    pub term: u64,
    /// How much of the leader's log it has; `None`: refused.
    pub matched: Option<usize>,
}

impl Raft {
    /// A member of a fresh cluster: its log holds the first membership, committed.
    pub fn new(first: Entry) -> Self {
        Self {
            term: first.term,
            log: Rc::new(vec![first]),
            commit: 1,
            leader: false,
            heard_leader: 0,
            matched: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    /// Forgets what is not on disk.
    pub fn restart(&mut self) {
        self.commit = 1;
        self.leader = false;
        self.heard_leader = 0;
        self.matched.clear();
    }

    /// Is `other`'s log at least as new as this one?
    pub fn may_vote_for(&self, other: &Raft) -> bool {
        let last = |r: &Raft| (r.log.last().map_or(0, |e| e.term), r.log.len());
        last(other) >= last(self)
    }

    /// Becomes the leader of a new term.
    pub fn lead(&mut self, term: u64, now: True) {
        self.term = term;
        self.leader = true;
        self.heard_leader = now;
        self.matched.clear();
        self.answered.clear();
        self.propose(Command::Blank);
    }

    /// A later term exists.
    pub fn step_down(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.leader = false;
        }
    }

    /// Appends to the own log, as leader.
    pub fn propose(&mut self, command: Command) {
        let term = self.term;
        Rc::make_mut(&mut self.log).push(Entry { term, command });
    }

    /// The message for followers.
    pub fn append(&self, me: NodeId) -> Append {
        Append {
            leader: me,
            term: self.term,
            log: self.log.clone(),
            commit: self.commit,
        }
    }

    /// Takes a leader's message in; says what to answer, and whether the log changed.
    pub fn accept(&mut self, me: NodeId, now: True, a: &Append) -> (Ack, bool) {
        if a.term < self.term || (a.term == self.term && self.leader) {
            return (
                Ack {
                    from: me,
                    term: self.term,
                    matched: None,
                },
                false,
            );
        }
        self.step_down(a.term);
        self.heard_leader = now;
        let same = self
            .log
            .iter()
            .zip(a.log.iter())
            .take_while(|(x, y)| x.term == y.term)
            .count();
        let changed = same < a.log.len();
        if changed {
            assert!(
                same >= self.commit,
                "a committed entry would be truncated at node {me}"
            );
            self.log = a.log.clone();
        }
        self.commit = self.commit.max(a.commit.min(a.log.len()));
        (
            Ack {
                from: me,
                term: self.term,
                matched: Some(a.log.len()),
            },
            changed,
        )
    }

    /// Counts an answer, as leader. `membership` is that of the own log.
    pub fn count(&mut self, me: NodeId, now: True, membership: &Membership, ack: Ack) {
        if ack.term > self.term {
            self.step_down(ack.term);
        }
        if !self.leader || ack.term != self.term {
            return;
        }
        self.answered.insert(ack.from, now);
        if let Some(matched) = ack.matched {
            let m = self.matched.entry(ack.from).or_default();
            *m = (*m).max(matched);
        }
        self.advance(me, membership);
    }

    /// As leader: has no majority answered for so long that it should give up?
    pub fn lost_quorum(&self, me: NodeId, now: True, membership: &Membership) -> bool {
        let at = |n: NodeId| {
            if n == me {
                Some(now)
            } else {
                Some(*self.answered.get(&n).unwrap_or(&self.heard_leader))
            }
        };
        membership
            .quorum_value(at)
            .is_none_or(|t| t + 2 * LEADER_LEASE < now)
    }

    /// Commits what a majority of each half has, as leader, if an entry of its own term is among it.
    pub fn advance(&mut self, me: NodeId, membership: &Membership) {
        let own = self.log.len();
        let has = |n: NodeId| {
            if n == me {
                Some(own)
            } else {
                self.matched.get(&n).copied()
            }
        };
        if let Some(reached) = membership.quorum_value(has)
            && reached > self.commit
            && self
                .log
                .get(reached - 1)
                .is_some_and(|e| e.term == self.term)
        {
            self.commit = reached;
        }
    }
}

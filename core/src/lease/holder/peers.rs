//! What the holder knows of one voter: what was sent to it, and what its newest answer grants.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::MAX_AWAITED;
use crate::ids::NodeId;
use crate::time::Mono;

/// A renewal that was sent under the present membership and may still be answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Sent {
    pub seq: u64,
    /// Clock reading before it was sent.
    pub at: Mono,
    /// Revision of the claims that it named.
    pub rev: u64,
}

/// What a voter grants: all claims of a revision but those missing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Grants {
    pub rev: u64,
    /// Pending and denied addresses, and how long the voter said to wait.
    pub missing: BTreeMap<IpAddr, Duration>,
}

/// The newest renewal that the voter answered under the present membership.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Newest {
    pub sent: Sent,
    /// `None`: it refused, or does not know the revision.
    pub grants: Option<Grants>,
}

/// A voter, as the holder knows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Peer {
    pub node: NodeId,
    /// In order of seq, at most [`MAX_AWAITED`]; begins with the newest one answered.
    awaited: VecDeque<Sent>,
    pub newest: Option<Newest>,
    /// Newest revision of the claims that it has judged; zero: none, or it forgot.
    pub acknowledged: u64,
    /// The last renewal sent.
    pub last_sent: Option<Sent>,
    /// When an answer last came.
    pub answered: Option<Mono>,
    pub round_trip: Option<Duration>,
}

impl Peer {
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            awaited: VecDeque::new(),
            newest: None,
            acknowledged: 0,
            last_sent: None,
            answered: None,
            round_trip: None,
        }
    }

    /// A new membership begins: the count starts afresh, answers to earlier renewals do not count.
    pub fn start_afresh(&mut self) {
        self.awaited.clear();
        self.newest = None;
        self.last_sent = None;
    }

    /// Remembers a renewal.
    pub fn note_sent(&mut self, sent: Sent) {
        if self.awaited.len() == MAX_AWAITED {
            self.awaited.pop_front();
        }
        self.awaited.push_back(sent);
        self.last_sent = Some(sent);
    }

    /// The renewal that an answer is for, unless a newer one was answered before, or it is not known.
    pub fn match_answer(&mut self, seq: u64) -> Option<Sent> {
        let at = self.awaited.binary_search_by_key(&seq, |s| s.seq).ok()?;
        self.awaited.drain(..at);
        self.awaited.front().copied()
    }

    /// What its newest answer grants.
    pub fn grants(&self) -> Option<&Grants> {
        self.newest.as_ref()?.grants.as_ref()
    }

    /// Send time of its newest answer, if that grants anything.
    pub fn granted_since(&self) -> Option<Mono> {
        let newest = self.newest.as_ref()?;
        newest.grants.as_ref().map(|_| newest.sent.at)
    }

    /// Send time of its newest answer, whatever it says.
    pub fn answered_since(&self) -> Option<Mono> {
        self.newest.as_ref().map(|n| n.sent.at)
    }

    /// Has the last renewal sent been answered?
    pub fn is_up_to_date(&self) -> bool {
        let newest = self.newest.as_ref().map(|n| n.sent.seq);
        newest == self.last_sent.map(|s| s.seq)
    }
}

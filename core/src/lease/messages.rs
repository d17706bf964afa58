//! What holders and voters say to each other, and what a voter knows of its own Raft log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, NodeId, Session};
use crate::membership::{ConfigId, Membership};

/// One address that a session holds or wants, with the epoch of the assignment it rests on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// Epoch of the VIP's assignment.
    pub epoch: Epoch,
}

/// The claims of a renewal. A holder sends the whole list when it changed, until the voter has
/// answered that revision; after that a renewal names the revision alone, so that its size and the
/// voter's work do not grow with the number of addresses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Claims {
    /// Everything that the session claims at revision `rev`; what is missing is released.
    Full {
        /// Grows by one with each change of the list.
        rev: u64,
        /// The list, in order of address.
        claims: Vec<Claim>,
    },
    /// The same list as revision `rev`.
    Same {
        /// Revision that the voter has answered before.
        rev: u64,
    },
}

impl Claims {
    /// The revision named.
    pub fn rev(&self) -> u64 {
        match self {
            Claims::Full { rev, .. } | Claims::Same { rev } => *rev,
        }
    }
}

/// A holder asks a voter to promise, or to go on promising.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Renew {
    /// Who asks.
    pub session: Session,
    /// Grows with each renewal of the session, to whichever voter.
    pub seq: u64,
    /// Membership entry of the sender's applied state.
    pub config: ConfigId,
    /// Length that the sender counts from before it sent this.
    pub lease: Duration,
    /// What it claims.
    pub claims: Claims,
}

/// A claim that the voter cannot grant yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Pending {
    /// The address.
    pub address: IpAddr,
    /// Time until the obstacle ends by itself; zero where the voter cannot know.
    pub wait: Duration,
}

/// What the voter says of a renewal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Verdict {
    /// Another membership is in force at the voter (named in the answer), or it does not vote.
    Refused,
    /// `Same` named a revision that the voter does not have: send the whole list.
    UnknownRev,
    /// Every claim of revision `rev` is granted except the ones listed.
    Claims {
        /// Revision that was judged.
        rev: u64,
        /// Never to be granted: superseded. The holder must go down.
        denied: Vec<Claim>,
        /// Not granted yet; the voter sends another answer with the same seq when that changes.
        pending: Vec<Pending>,
    },
}

/// A voter's answer to a renewal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Who answers.
    pub voter: NodeId,
    /// Whose renewal.
    pub session: Session,
    /// Which renewal; a pushed answer repeats it, and counts from that renewal's send time.
    pub seq: u64,
    /// The membership in force at the voter.
    pub config: ConfigId,
    /// The decision.
    pub verdict: Verdict,
}

/// What a voter's own log says, appended entries included (not only applied ones).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct LogView {
    /// Last appended membership.
    pub membership: Membership,
    /// Last assignment of each address: the node and the epoch.
    pub assigned: BTreeMap<IpAddr, (NodeId, Epoch)>,
    /// Addresses that lost their assignment (VIP deleted, edited, or left without an owner), and the
    /// log index at which they did.
    pub removed: BTreeMap<IpAddr, Epoch>,
    /// Removals up to this index may have been forgotten: a claim with an epoch at or below it, for an
    /// address that is neither assigned nor remembered as removed, is superseded.
    pub forgotten: Epoch,
}

impl LogView {
    /// Does the log hold a later decision about the address than the claim's epoch?
    pub fn supersedes(&self, claim: &Claim) -> bool {
        match (
            self.assigned.get(&claim.address),
            self.removed.get(&claim.address),
        ) {
            (Some((_, epoch)), _) => *epoch > claim.epoch,
            (None, Some(removed)) => *removed > claim.epoch,
            (None, None) => claim.epoch <= self.forgotten,
        }
    }

    /// Is `(node, epoch)` the last assignment of the address?
    pub fn assigns(&self, claim: &Claim, node: NodeId) -> bool {
        self.assigned.get(&claim.address) == Some(&(node, claim.epoch))
    }
}

//! The holder takes in an answer: which renewal it is for, and what it grants.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::peers::{Grants, Newest, Sent};
use super::{DownReason, Holder, HolderEffect};
use crate::ids::NodeId;
use crate::lease::messages::{Answer, Claim, Pending, Verdict};
use crate::time::Mono;

impl Holder {
    /// Handles an answer. In the steady state (the voter grants what it granted before) the work is
    /// O(voters + slots), and nothing is allocated.
    pub(super) fn answered(&mut self, now: Mono, answer: Answer, effects: &mut Vec<HolderEffect>) {
        if answer.session != self.me {
            return;
        }
        let Some(i) = self.quorum.number(answer.voter) else {
            return;
        };
        let Some(sent) = self.peers[i].match_answer(answer.seq) else {
            return;
        };
        self.peers[i].answered = Some(now);
        let repeated = self.peers[i]
            .newest
            .as_ref()
            .is_some_and(|n| n.sent.seq == sent.seq);
        if !repeated {
            self.peers[i].round_trip = Some(now.since(sent.at));
        }
        // A voter judges claims only under the membership that the renewal names.
        let verdict = if answer.config == self.config {
            answer.verdict
        } else {
            Verdict::Refused
        };
        let grants = match verdict {
            Verdict::Refused => None,
            Verdict::UnknownRev => {
                self.peers[i].acknowledged = 0;
                if !repeated {
                    self.send(now, i, effects);
                }
                None
            }
            Verdict::Claims { rev, .. } if rev != sent.rev => return,
            Verdict::Claims {
                rev,
                denied,
                pending,
            } => {
                let peer = &mut self.peers[i];
                peer.acknowledged = peer.acknowledged.max(rev);
                self.deny(&denied, answer.voter, effects);
                Some(Grants {
                    rev,
                    missing: missing(&denied, &pending),
                })
            }
        };
        if self.take_grants(i, sent, repeated, grants) {
            self.recount(i, now, effects);
        }
        self.advance_slots(effects);
        self.open_granted(now, effects);
        self.merge_slots(effects);
    }

    fn deny(&mut self, denied: &[Claim], by: NodeId, effects: &mut Vec<HolderEffect>) {
        for claim in denied {
            let key = self
                .claims
                .get(&claim.address)
                .filter(|(_, epoch)| *epoch == claim.epoch);
            if let Some(key) = key.cloned() {
                self.go_down(&key, DownReason::Denied { by }, effects);
            }
        }
    }

    /// Stores what a voter grants. True when the set of granted claims may have changed.
    fn take_grants(
        &mut self,
        i: usize,
        sent: Sent,
        repeated: bool,
        grants: Option<Grants>,
    ) -> bool {
        let peer = &mut self.peers[i];
        let before = peer.newest.as_mut().and_then(|n| n.grants.take());
        let (grants, changed) = match (repeated, before, grants) {
            (false, None, None) => (None, false),
            (false, Some(b), Some(n)) => {
                let same = b.rev == n.rev && b.missing.keys().eq(n.missing.keys());
                (Some(n), !same)
            }
            (false, _, now) => (now, true),
            // What is missing can only become less, so an answer that came twice changes nothing.
            (true, Some(b), Some(n)) => {
                let had = b.missing.len();
                let both = add_up(b, n);
                let less = both.missing.len() != had;
                (Some(both), less)
            }
            (true, before, None) => (before, false),
            (true, None, now) => (now, true),
        };
        peer.newest = Some(Newest { sent, grants });
        changed
    }
}

fn missing(denied: &[Claim], pending: &[Pending]) -> BTreeMap<IpAddr, Duration> {
    let denied = denied.iter().map(|c| (c.address, Duration::ZERO));
    denied
        .chain(pending.iter().map(|p| (p.address, p.wait)))
        .collect()
}

/// Both answers are for the same renewal: what either grants is granted.
fn add_up(before: Grants, mut now: Grants) -> Grants {
    now.missing
        .retain(|address, _| before.missing.contains_key(address));
    now
}

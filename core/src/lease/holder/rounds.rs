//! When the holder sends, and to whom.

use super::peers::{Peer, Sent};
use super::{CHANGE_PACE, CLAIMS_PER_PACE, Holder, HolderEffect};
use crate::lease::messages::{Claim, Claims, Renew};
use crate::time::Mono;

impl Holder {
    /// Sends a renewal to voter `i`. `now`, read before this call, is its send time.
    pub(super) fn send(&mut self, now: Mono, i: usize, effects: &mut Vec<HolderEffect>) {
        self.seq += 1;
        let (seq, rev) = (self.seq, self.rev);
        let peer = &mut self.peers[i];
        peer.note_sent(Sent { seq, at: now, rev });
        let claims = if peer.acknowledged == rev {
            Claims::Same { rev }
        } else {
            let claim = |(address, (_, epoch)): (&_, &(_, _))| Claim {
                address: *address,
                epoch: *epoch,
            };
            Claims::Full {
                rev,
                claims: self.claims.iter().map(claim).collect(),
            }
        };
        let renew = Renew {
            session: self.me,
            seq,
            config: self.config,
            lease: self.params.lease.saturating_add(self.params.gate_margin),
            claims,
        };
        effects.push(HolderEffect::Send {
            to: peer.node,
            renew,
            until: now + self.params.lease,
        });
    }

    /// Sends what is due: a change of the claims, a round, or single renewals once more.
    pub(super) fn send_what_is_due(&mut self, now: Mono, effects: &mut Vec<HolderEffect>) {
        let Some(round_due) = self.round_due else {
            return;
        };
        let change = self.change_due().is_some_and(|at| at <= now);
        if change || round_due <= now {
            self.begin_round(now, round_due, effects);
            return;
        }
        for i in 0..self.peers.len() {
            if self.again_at(&self.peers[i]).is_some_and(|at| at <= now) {
                self.send(now, i, effects);
            }
        }
    }

    /// Another node's round has begun: ours begins with it if it is due soon.
    pub(super) fn join_round(&mut self, now: Mono) {
        let soon = now + self.params.renew_every / 2;
        self.round_due = self
            .round_due
            .map(|due| if due <= soon { due.min(now) } else { due });
    }

    fn begin_round(&mut self, now: Mono, was_due: Mono, effects: &mut Vec<HolderEffect>) {
        if self.change_waits {
            self.change_waits = false;
            self.change_sent = now;
        }
        let every = self.params.renew_every;
        // Late by less than a round: keep the beat.
        let next = if was_due <= now {
            was_due + every
        } else {
            now + every
        };
        self.round_due = Some(if next > now { next } else { now + every });
        self.round_began = now;
        for i in 0..self.peers.len() {
            self.send(now, i, effects);
        }
    }

    fn change_due(&self) -> Option<Mono> {
        // A list is sent whole: the longer it is, the more changes should travel with it.
        let lists = 1 + u32::try_from(self.claims.len() / CLAIMS_PER_PACE).unwrap_or(u32::MAX);
        let least = CHANGE_PACE.min(self.params.retry_after / 4);
        let pace = least.saturating_mul(lists).min(self.params.retry_after);
        self.change_waits.then(|| self.change_sent + pace)
    }

    /// When to send once more to a voter that has not answered this round, or not the newest claims, and
    /// was alive within the last lease. Others get the regular rounds only. Also where a majority has
    /// answered: any voter may lead, and would take a node for silent whose renewals happen to be lost.
    fn again_at(&self, peer: &Peer) -> Option<Mono> {
        if peer.is_up_to_date() {
            return None;
        }
        let behind = peer.answered_since() < Some(self.round_began);
        let matters = behind || peer.acknowledged < self.rev;
        let at = peer.last_sent?.at + self.params.retry_after;
        let alive = peer
            .answered
            .is_some_and(|answered| at < answered + self.params.lease);
        (matters && alive).then_some(at)
    }

    /// When the next renewal is due.
    pub(super) fn next_send(&self) -> Option<Mono> {
        let round = self.round_due?;
        let again = self.peers.iter().filter_map(|p| self.again_at(p));
        again.chain([round]).chain(self.change_due()).min()
    }
}

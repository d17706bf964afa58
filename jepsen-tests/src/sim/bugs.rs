//! Planted bugs: what they change in messages, views and effects on their way to and from the machines.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_core::lease::{Answer, Claims, HolderView, LogView, Renew, Verdict, Voter};
use buoy_core::{Epoch, Membership, Mono, NodeId, Session, VipName};

use super::config::Bug;

/// Distance of two aliases of an epoch ([`Bug::EpochAgain`]).
const ALIAS: u64 = 1 << 32;

/// What planted bugs remember in a process.
#[derive(Clone, Debug, Default)]
pub struct BugState {
    /// How often a VIP's epoch was claimed anew.
    aliases: BTreeMap<VipName, u64>,
    /// Seqs that the voter was given, and what they stand for.
    seqs: BTreeMap<Session, Vec<u64>>,
}

/// The view that a voter with the bug judges by.
pub fn voter_view(
    bug: Option<Bug>,
    log: Arc<LogView>,
    voter: &Voter,
    now: Mono,
    everybody: &[NodeId],
) -> Arc<LogView> {
    match bug {
        Some(Bug::GrantBeforeSuperseded) => {
            let mut view = (*log).clone();
            for (address, session, epoch, _) in voter.promises(now) {
                view.assigned.insert(address, (session.node, epoch));
            }
            Arc::new(view)
        }
        Some(Bug::LearnersCount) => {
            let mut view = (*log).clone();
            view.membership = with_learners(view.membership, everybody);
            Arc::new(view)
        }
        _ => log,
    }
}

/// The view, with the renewal's claims taken for assignments ([`Bug::UnheardGranted`]).
pub fn as_claimed(log: Arc<LogView>, renew: &Renew) -> Arc<LogView> {
    let mut view = (*log).clone();
    if let Claims::Full { claims, .. } = &renew.claims {
        let unheard = claims.iter().filter(|c| !log.supersedes(c));
        let assigned = unheard.map(|c| (c.address, (renew.session.node, c.epoch)));
        view.assigned.extend(assigned);
    }
    Arc::new(view)
}

/// The view that a holder with the bug is given.
pub fn holder_view(
    bug: Option<Bug>,
    state: &BugState,
    mut view: HolderView,
    everybody: &[NodeId],
) -> HolderView {
    if bug == Some(Bug::LearnersCount) {
        view.membership = with_learners(view.membership, everybody);
    }
    if bug == Some(Bug::EpochAgain) {
        for wanted in &mut view.assignments {
            let alias = state.aliases.get(&wanted.vip).copied().unwrap_or(0);
            wanted.epoch = Epoch(wanted.epoch.0 + alias * ALIAS);
        }
    }
    view
}

fn with_learners(mut membership: Membership, everybody: &[NodeId]) -> Membership {
    for half in &mut membership.halves {
        half.extend(everybody.iter().copied());
    }
    membership
}

/// The true epoch behind an alias.
pub fn true_epoch(epoch: Epoch) -> Epoch {
    Epoch(epoch.0 % ALIAS)
}

impl BugState {
    /// The VIP's epoch will look new to the holder.
    pub fn forget_epoch(&mut self, vip: &VipName) {
        *self.aliases.entry(vip.clone()).or_default() += 1;
    }

    /// A renewal as the voter is to see it.
    pub fn renew_in(&mut self, bug: Option<Bug>, mut renew: Renew) -> Renew {
        if bug == Some(Bug::StaleSeq) {
            let seqs = self.seqs.entry(renew.session).or_default();
            seqs.push(renew.seq);
            renew.seq = seqs.len() as u64;
        }
        renew
    }

    /// An answer of the voter as it is to be sent.
    pub fn answer_out(&self, bug: Option<Bug>, mut answer: Answer) -> Answer {
        if bug == Some(Bug::StaleSeq) {
            let known = self.seqs.get(&answer.session);
            let place = usize::try_from(answer.seq)
                .ok()
                .and_then(|s| s.checked_sub(1));
            if let Some(seq) = known.zip(place).and_then(|(k, p)| k.get(p)) {
                answer.seq = *seq;
            }
        }
        answer
    }

    /// A renewal of the holder as it is to be sent.
    pub fn renew_out(&self, mut renew: Renew) -> Renew {
        if let Claims::Full { claims, .. } = &mut renew.claims {
            for claim in claims {
                claim.epoch = true_epoch(claim.epoch);
            }
        }
        renew
    }

    /// An answer as the holder is to see it: `claimed` says under which alias it claims an address.
    pub fn answer_in(&self, mut answer: Answer, claimed: &BTreeMap<IpAddr, Epoch>) -> Answer {
        if let Verdict::Claims { denied, .. } = &mut answer.verdict {
            for claim in denied {
                if let Some(alias) = claimed.get(&claim.address)
                    && true_epoch(*alias) == claim.epoch
                {
                    claim.epoch = *alias;
                }
            }
        }
        answer
    }
}

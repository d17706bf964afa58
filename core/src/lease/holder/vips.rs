//! The VIPs of a holder: what the applied state assigns, what is claimed, what goes down.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Included};

use super::{DownReason, Holder, HolderEffect, HolderView, Key, Phase, SlotId};
use crate::ids::Epoch;
use crate::lease::quorum::{Quorum, VoterSet};
use crate::lease::voter::MAX_CLAIMS;
use crate::membership::Membership;
use crate::time::Mono;

use super::peers::Peer;

/// How far a VIP is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Stage {
    /// Not in the claims: the VIP under an older epoch, or another VIP with one of its addresses, is.
    Waiting,
    /// In the claims, not up.
    Claiming,
    /// Up, by this slot.
    Active(SlotId),
    /// Shut, in the claims until it is lowered. The slot that it was up by is not used again before.
    Lowering(Option<SlotId>),
}

/// A VIP under one epoch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Vip {
    /// In order, each once.
    pub addresses: Vec<IpAddr>,
    stage: Stage,
    /// Addresses of it are on the interface already, behind the shut gate: the epoch before left them. So its claim
    /// does not go before they do, even if it never comes up.
    pub inherits: bool,
    /// Voters whose newest answer grants all addresses; kept while claiming or active.
    pub granted: VoterSet,
    /// Revision of the claims that named it first.
    since_rev: u64,
}

impl Vip {
    pub fn phase(&self) -> Phase {
        match self.stage {
            Stage::Waiting | Stage::Claiming => Phase::Claiming,
            Stage::Active(_) => Phase::Active,
            Stage::Lowering(_) => Phase::Lowering,
        }
    }

    pub fn slot(&self) -> Option<SlotId> {
        match self.stage {
            Stage::Active(slot) => Some(slot),
            Stage::Lowering(slot) => slot,
            Stage::Waiting | Stage::Claiming => None,
        }
    }

    pub fn active_slot(&self) -> Option<SlotId> {
        match self.stage {
            Stage::Active(slot) => Some(slot),
            _ => None,
        }
    }

    pub fn go_active(&mut self, slot: SlotId) {
        self.stage = Stage::Active(slot);
    }

    fn shut(&self, (vip, epoch): &Key, reason: DownReason) -> HolderEffect {
        HolderEffect::Shut {
            vip: vip.clone(),
            epoch: *epoch,
            addresses: self.addresses.clone(),
            reason,
        }
    }

    fn counts_grants(&self) -> bool {
        matches!(self.stage, Stage::Claiming | Stage::Active(_))
    }

    /// Does the newest answer of the voter grant all addresses?
    fn is_granted_by(&self, peer: &Peer) -> bool {
        peer.grants().is_some_and(|g| {
            g.rev >= self.since_rev && !self.addresses.iter().any(|a| g.missing.contains_key(a))
        })
    }
}

impl Holder {
    /// Takes over an applied state.
    pub(super) fn applied(&mut self, now: Mono, view: HolderView, effects: &mut Vec<HolderEffect>) {
        // An id alone is not enough: the first membership of a cluster may have that of "none yet".
        let same =
            view.membership.id == self.config && Quorum::new(&view.membership) == self.quorum;
        if !same || self.round_due.is_none() {
            self.new_membership(now, &view.membership);
        }
        let wanted: BTreeMap<Key, Vec<IpAddr>> = view
            .assignments
            .into_iter()
            .map(|w| ((w.vip, w.epoch), w.addresses))
            .collect();
        let gone: Vec<Key> = self
            .vips
            .keys()
            .filter(|k| !wanted.contains_key(k))
            .cloned()
            .collect();
        for key in gone {
            self.go_down(&key, DownReason::Unassigned, effects);
        }
        let newest = wanted
            .keys()
            .map(|(_, epoch)| *epoch)
            .max()
            .unwrap_or(Epoch(0));
        for (key, mut addresses) in wanted {
            if self.stopping || key.1 <= self.seen {
                continue;
            }
            addresses.sort_unstable();
            addresses.dedup();
            let vip = Vip {
                addresses,
                stage: Stage::Waiting,
                inherits: false,
                granted: 0,
                since_rev: 0,
            };
            self.vips.insert(key.clone(), vip);
            self.waiting.insert(key);
        }
        self.seen = self.seen.max(newest);
    }

    /// The count starts afresh; deadlines that stand are kept until they end.
    fn new_membership(&mut self, now: Mono, membership: &Membership) {
        self.config = membership.id;
        self.quorum = Quorum::new(membership);
        let mut known: BTreeMap<_, _> = self.peers.drain(..).map(|p| (p.node, p)).collect();
        for node in self.quorum.voters() {
            let mut peer = known.remove(node).unwrap_or_else(|| Peer::new(*node));
            peer.start_afresh();
            self.peers.push(peer);
        }
        for vip in self.vips.values_mut() {
            vip.granted = 0;
        }
        self.slots.start_afresh();
        self.round_due = Some(now);
    }

    /// Claims what waits and is in nobody's way any more.
    pub(super) fn start_claims(&mut self, effects: &mut Vec<HolderEffect>) {
        if self.waiting.is_empty() {
            return;
        }
        for key in self.waiting.clone() {
            let Some(vip) = self.vips.get(&key) else {
                continue;
            };
            let count = vip.addresses.len();
            let one_name = (key.0.clone(), Epoch(0))..=(key.0.clone(), Epoch(u64::MAX));
            let older = |(k, v): (&Key, &Vip)| *k != key && v.stage != Stage::Waiting;
            if self.vips.range(one_name).any(older)
                || vip.addresses.iter().any(|a| self.claims.contains_key(a))
            {
                continue;
            }
            if count == 0 || self.claims.len() + count > MAX_CLAIMS {
                self.go_down(
                    &key,
                    DownReason::AddressCount { limit: MAX_CLAIMS },
                    effects,
                );
                continue;
            }
            self.claim(key);
        }
    }

    /// What waited is in nobody's way: its addresses go into the claims.
    fn claim(&mut self, key: Key) {
        self.waiting.remove(&key);
        self.claims_change();
        if let Some(vip) = self.vips.get_mut(&key) {
            vip.stage = Stage::Claiming;
            vip.since_rev = self.rev;
            self.claims
                .extend(vip.addresses.iter().map(|a| (*a, key.clone())));
        }
        self.claiming.insert(key);
    }

    /// A VIP goes down, or is claimed no longer; its epoch is spent.
    pub(super) fn go_down(
        &mut self,
        key: &Key,
        reason: DownReason,
        effects: &mut Vec<HolderEffect>,
    ) {
        let Some(vip) = self.vips.get_mut(key) else {
            return;
        };
        match vip.stage {
            Stage::Lowering(_) => return,
            Stage::Waiting => {
                self.waiting.remove(key);
                self.vips.remove(key);
            }
            Stage::Claiming if vip.inherits => {
                vip.stage = Stage::Lowering(None);
                self.claiming.remove(key);
                effects.push(vip.shut(key, reason.clone()));
            }
            Stage::Claiming => {
                // Its gate was never open, and nothing of it is here: the claim can go at once.
                self.claiming.remove(key);
                self.unclaim(key);
            }
            Stage::Active(slot) => {
                vip.stage = Stage::Lowering(Some(slot));
                effects.push(vip.shut(key, reason.clone()));
                self.slots.lower(slot, key);
            }
        }
        if reason.is_given_up() {
            effects.push(HolderEffect::GaveUp {
                vip: key.0.clone(),
                epoch: key.1,
                reason,
            });
        }
    }

    /// The gate is shut and the addresses are gone, but for those that are `kept` for the next epoch: only now may
    /// the claim go. The claims on what was kept pass to the next epoch in the same step, so that there is no list of
    /// claims without them; where no next epoch can take them over, they have to go first.
    pub(super) fn lowered(&mut self, key: &Key, kept: &[IpAddr], effects: &mut Vec<HolderEffect>) {
        let Some((vip, Stage::Lowering(slot))) = self.vips.get(key).map(|v| (v, v.stage)) else {
            return;
        };
        let heir = self.heir(key, kept);
        if heir.is_none() && !kept.is_empty() {
            effects.push(vip.shut(key, DownReason::Unassigned));
            return;
        }
        if let Some(slot) = slot {
            self.slots.lowered(slot);
        }
        self.unclaim(key);
        if let Some(heir) = heir {
            if let Some(vip) = self.vips.get_mut(&heir) {
                vip.inherits = true;
            }
            self.claim(heir);
        }
    }

    /// The next epoch of a VIP, if it has all the addresses that were kept (at least one), and nobody but the present
    /// epoch is in its way.
    fn heir(&self, key: &Key, kept: &[IpAddr]) -> Option<Key> {
        kept.first()?;
        let next = (
            Excluded(key.clone()),
            Included((key.0.clone(), Epoch(u64::MAX))),
        );
        let (heir, vip) = self.vips.range(next).next()?;
        let before = self.vips.get(key)?.addresses.len();
        let fits = self.claims.len() - before + vip.addresses.len() <= MAX_CLAIMS;
        let free = |a: &IpAddr| self.claims.get(a).is_none_or(|by| by == key);
        let has = |a: &IpAddr| vip.addresses.contains(a);
        let can = vip.stage == Stage::Waiting && fits && vip.addresses.iter().all(free);
        (can && kept.iter().all(has)).then(|| heir.clone())
    }

    fn unclaim(&mut self, key: &Key) {
        if let Some(vip) = self.vips.remove(key) {
            for address in &vip.addresses {
                self.claims.remove(address);
            }
            self.claims_change();
        }
    }

    /// Each change of the list is a revision of its own: a revision never names two lists.
    fn claims_change(&mut self) {
        self.rev += 1;
        self.change_waits = true;
    }

    /// Goes down on everything.
    pub(super) fn stop(&mut self, effects: &mut Vec<HolderEffect>) {
        self.stopping = true;
        let all: Vec<Key> = self.vips.keys().cloned().collect();
        for key in all {
            self.go_down(&key, DownReason::Stopping, effects);
        }
    }

    /// Shuts what no majority renewed in time.
    pub(super) fn end_leases(&mut self, now: Mono, effects: &mut Vec<HolderEffect>) {
        if self.slots.next_deadline().is_some_and(|at| at <= now) {
            for key in self.slots.over(now) {
                self.go_down(&key, DownReason::Expired, effects);
            }
        }
    }

    /// The newest answer of voter `i` grants other claims than before. O(VIPs).
    pub(super) fn recount(&mut self, i: usize, now: Mono, effects: &mut Vec<HolderEffect>) {
        let bit: VoterSet = 1 << i;
        let peer = &self.peers[i];
        for vip in self.vips.values_mut().filter(|v| v.counts_grants()) {
            if vip.is_granted_by(peer) {
                vip.granted |= bit;
            } else {
                vip.granted &= !bit;
            }
        }
        self.regroup(now, effects);
    }
}

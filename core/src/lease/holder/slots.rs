//! Deadline slots: which VIPs share one, when it moves, and how VIPs change between them.

use std::collections::{BTreeMap, BTreeSet};

use super::{FIRST_SLOT, Holder, HolderEffect, Key, LAST_SLOT, SlotId};
use crate::lease::holder::DownReason;
use crate::lease::quorum::VoterSet;
use crate::time::Mono;

/// A slot in use.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Slot {
    /// Voters that each grant every VIP in it: whose answers may advance it.
    voters: VoterSet,
    deadline: Mono,
    active: BTreeSet<Key>,
    /// VIPs that were in it, are shut and not lowered yet.
    lowering: usize,
}

/// All slots in use.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Slots {
    slots: BTreeMap<SlotId, Slot>,
    /// Two slots may have the same voters.
    may_merge: bool,
}

impl Slots {
    pub fn deadline(&self, slot: SlotId) -> Option<Mono> {
        self.slots.get(&slot).map(|s| s.deadline)
    }

    /// When the first lease ends that anything rests on.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.live().map(|(_, s)| s.deadline).min()
    }

    /// VIPs whose lease is over.
    pub fn over(&self, now: Mono) -> Vec<Key> {
        let over = self.live().filter(|(_, s)| s.deadline <= now);
        over.flat_map(|(_, s)| s.active.iter().cloned()).collect()
    }

    /// A VIP is shut: it no longer shares the slot, but keeps it from being used anew.
    pub fn lower(&mut self, slot: SlotId, key: &Key) {
        if let Some(s) = self.slots.get_mut(&slot)
            && s.active.remove(key)
        {
            s.lowering += 1;
        }
    }

    /// A VIP that was shut is lowered.
    pub fn lowered(&mut self, slot: SlotId) {
        if let Some(s) = self.slots.get_mut(&slot) {
            s.lowering = s.lowering.saturating_sub(1);
        }
        self.drop_if_empty(slot);
    }

    /// No voter has answered under the new membership; deadlines stand.
    pub fn start_afresh(&mut self) {
        for slot in self.slots.values_mut() {
            slot.voters = 0;
        }
        self.may_merge = true;
    }

    fn live(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.slots
            .iter()
            .filter(|(_, s)| !s.active.is_empty())
            .map(|(id, s)| (*id, s))
    }

    fn drop_if_empty(&mut self, slot: SlotId) {
        if self
            .slots
            .get(&slot)
            .is_some_and(|s| s.active.is_empty() && s.lowering == 0)
        {
            self.slots.remove(&slot);
        }
    }

    fn free(&self) -> Option<SlotId> {
        (FIRST_SLOT..=LAST_SLOT)
            .map(SlotId)
            .find(|id| !self.slots.contains_key(id))
    }

    /// A place for VIPs granted by `voters`, whose lease ends at `want` by right, and at `floor` so far:
    /// a slot that they can share, else a new one, else one that is earlier than it could be but
    /// not over. Says whether it is new.
    fn place(
        &mut self,
        voters: VoterSet,
        floor: Mono,
        want: Mono,
        now: Mono,
    ) -> Option<(SlotId, bool)> {
        let same = |s: &Slot| s.voters == voters && (floor..=want).contains(&s.deadline);
        if let Some((id, _)) = self.live().find(|(_, s)| same(s)) {
            return Some((id, false));
        }
        if let Some(id) = self.free() {
            let slot = Slot {
                voters,
                deadline: want,
                active: BTreeSet::new(),
                lowering: 0,
            };
            self.slots.insert(id, slot);
            self.may_merge = true;
            return Some((id, true));
        }
        let poorer = |s: &Slot| s.voters & !voters == 0 && s.deadline <= want && s.deadline > now;
        let best = self
            .live()
            .filter(|(_, s)| poorer(s))
            .max_by_key(|(_, s)| s.deadline);
        best.map(|(id, _)| (id, false))
    }
}

impl Holder {
    /// Until when the answers of these voters permit.
    fn permitted(&self, voters: VoterSet) -> Option<Mono> {
        let since = self
            .quorum
            .reached(voters, |i| self.peers[i].granted_since());
        since.map(|t| t + self.params.lease)
    }

    /// Moves the deadlines of all slots to what the newest answers permit; never back.
    pub(super) fn advance_slots(&mut self, effects: &mut Vec<HolderEffect>) {
        let mut slots = std::mem::take(&mut self.slots.slots);
        for (id, slot) in slots.iter_mut().filter(|(_, s)| !s.active.is_empty()) {
            if let Some(at) = self.permitted(slot.voters).filter(|at| *at > slot.deadline) {
                slot.deadline = at;
                effects.push(HolderEffect::Deadline { slot: *id, at });
            }
        }
        self.slots.slots = slots;
    }

    /// Opens what a quorum grants.
    pub(super) fn open_granted(&mut self, now: Mono, effects: &mut Vec<HolderEffect>) {
        if self.claiming.is_empty() {
            return;
        }
        let granted = |key: &&Key| {
            let voters = self.vips.get(*key).map_or(0, |v| v.granted);
            self.permitted(voters).is_some_and(|at| at > now)
        };
        // Most answers open nothing: only what they open is copied.
        let ready: Vec<Key> = self.claiming.iter().filter(granted).cloned().collect();
        for key in ready {
            let Some(voters) = self.vips.get(&key).map(|v| v.granted) else {
                continue;
            };
            let Some(want) = self.permitted(voters).filter(|at| *at > now) else {
                continue;
            };
            // Without a slot it goes on claiming, and is looked at again with the next answer.
            let Some(slot) = self.enter(&key, voters, now + NANOSECOND, want, now, effects) else {
                continue;
            };
            self.claiming.remove(&key);
            let addresses = self
                .vips
                .get(&key)
                .map(|v| v.addresses.clone())
                .unwrap_or_default();
            effects.push(HolderEffect::Open {
                vip: key.0,
                epoch: key.1,
                addresses,
                slot,
            });
        }
    }

    /// Puts a VIP into a slot; the slot's deadline is stored before anything refers to it.
    fn enter(
        &mut self,
        key: &Key,
        voters: VoterSet,
        floor: Mono,
        want: Mono,
        now: Mono,
        effects: &mut Vec<HolderEffect>,
    ) -> Option<SlotId> {
        let (id, new) = self.slots.place(voters, floor, want, now)?;
        if new {
            effects.push(HolderEffect::Deadline { slot: id, at: want });
        }
        self.slots.slots.get_mut(&id)?.active.insert(key.clone());
        self.vips.get_mut(key)?.go_active(id);
        Some(id)
    }

    /// Lets every slot hold only VIPs that its voters grant, before it is advanced again.
    pub(super) fn regroup(&mut self, now: Mono, effects: &mut Vec<HolderEffect>) {
        let live: Vec<SlotId> = self.slots.live().map(|(id, _)| id).collect();
        for id in live {
            let mut groups: BTreeMap<VoterSet, Vec<Key>> = BTreeMap::new();
            let Some(slot) = self.slots.slots.get_mut(&id) else {
                continue;
            };
            for key in &slot.active {
                let granted = self.vips.get(key).map_or(0, |v| v.granted);
                groups.entry(granted).or_default().push(key.clone());
            }
            // Of equally large groups the one that stays as it was: the fewest changes in the gate.
            let stays = |voters: &VoterSet, group: &Vec<Key>| (group.len(), *voters == slot.voters);
            let largest = groups
                .iter()
                .max_by_key(|(v, g)| stays(v, g))
                .map(|(v, _)| *v);
            let Some(largest) = largest else { continue };
            groups.remove(&largest);
            if slot.voters != largest {
                slot.voters = largest;
                self.slots.may_merge = true;
            }
            for (voters, keys) in groups {
                for key in keys {
                    self.change_slot(id, key, voters, now, effects);
                }
            }
        }
    }

    fn change_slot(
        &mut self,
        from: SlotId,
        key: Key,
        voters: VoterSet,
        now: Mono,
        effects: &mut Vec<HolderEffect>,
    ) {
        let Some(floor) = self.slots.deadline(from) else {
            return;
        };
        let want = self.permitted(voters).map_or(floor, |at| at.max(floor));
        if let Some(s) = self.slots.slots.get_mut(&from) {
            s.active.remove(&key);
        }
        match self.enter(&key, voters, floor, want, now, effects) {
            Some(slot) => self.remap(key, slot, effects),
            None => {
                if let Some(s) = self.slots.slots.get_mut(&from) {
                    s.active.insert(key.clone());
                }
                self.go_down(&key, DownReason::NoSlot, effects);
            }
        }
    }

    fn remap(&self, key: Key, slot: SlotId, effects: &mut Vec<HolderEffect>) {
        let addresses = self
            .vips
            .get(&key)
            .map(|v| v.addresses.clone())
            .unwrap_or_default();
        effects.push(HolderEffect::Remap {
            vip: key.0,
            epoch: key.1,
            addresses,
            slot,
        });
    }

    /// Merges slots of the same voters once their deadlines have met.
    pub(super) fn merge_slots(&mut self, effects: &mut Vec<HolderEffect>) {
        if !self.slots.may_merge {
            return;
        }
        let mut first: BTreeMap<VoterSet, SlotId> = BTreeMap::new();
        let mut twins = Vec::new();
        for (id, slot) in self.slots.live() {
            match first.get(&slot.voters) {
                Some(other) => twins.push((*other, id)),
                None => {
                    first.insert(slot.voters, id);
                }
            }
        }
        self.slots.may_merge = !twins.is_empty();
        for (a, b) in twins {
            let size = |id| {
                self.slots
                    .slots
                    .get(&id)
                    .map_or(0, |s: &Slot| s.active.len())
            };
            let (into, from) = if size(a) >= size(b) { (a, b) } else { (b, a) };
            if self.slots.deadline(into) == self.slots.deadline(from) {
                self.merge(into, from, effects);
            }
        }
    }

    fn merge(&mut self, into: SlotId, from: SlotId, effects: &mut Vec<HolderEffect>) {
        let Some(slot) = self.slots.slots.get_mut(&from) else {
            return;
        };
        for key in std::mem::take(&mut slot.active) {
            if let Some(vip) = self.vips.get_mut(&key) {
                vip.go_active(into);
            }
            if let Some(s) = self.slots.slots.get_mut(&into) {
                s.active.insert(key.clone());
            }
            self.remap(key, into, effects);
        }
        self.slots.drop_if_empty(from);
    }
}

const NANOSECOND: std::time::Duration = std::time::Duration::from_nanos(1);

//! Which addresses are fenced, and on which lease slots they rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tracing::info;

use super::failed;
use super::features::Features;
use super::message::{CREATE, DEL_ELEMENT, EXCL, NEW_ELEMENT};
use super::read;
use super::rounds::NO_ROUND;
use super::ruleset::{Writer, sets};
use super::tables::{Entry, Tables, key, sets_of};
use crate::fault_point;
use crate::gate::{Drops, GateError, MAX_ADDRESSES, SLOT_SHUT, SLOTS, SlotId};

/// Families whose table knows an address.
fn families_of(features: Features, address: IpAddr) -> impl Iterator<Item = u8> {
    features
        .families()
        .filter(move |family| sets(*family).contains(&sets_of(address)))
}

impl Tables {
    /// Manages addresses that a predecessor fenced; one that is managed stays as it is.
    pub(super) fn inherit(&mut self, addresses: &[IpAddr]) -> Result<(), GateError> {
        for address in addresses {
            if !self.entries.contains_key(address) {
                info!(%address, "a predecessor fenced this address: it stays shut");
                self.manage(*address)?;
                if let Some(entry) = self.entries.get_mut(address) {
                    entry.inherited = true;
                }
            }
        }
        Ok(())
    }

    /// Fences an address, shut.
    pub(super) fn manage(&mut self, address: IpAddr) -> Result<(), GateError> {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.inherited = false;
            return Ok(());
        }
        if self.entries.len() >= MAX_ADDRESSES as usize {
            let capacity = MAX_ADDRESSES;
            return Err(GateError::Full { address, capacity });
        }
        if self.is_made() {
            let (features, sets) = (self.features, sets_of(address));
            self.transact(&format!("fence {address}"), |b| {
                for family in families_of(features, address) {
                    for set in [sets.managed, sets.over, sets.shut] {
                        let keys = std::iter::once(key(address));
                        Writer::new(b, family).elements(NEW_ELEMENT, CREATE, set, keys, |_, _| {});
                    }
                }
            })?;
        }
        let (slot, inherited) = (SLOT_SHUT, false);
        self.entries.insert(address, Entry { slot, inherited });
        Ok(())
    }

    /// Rests a managed address on a slot, or shuts it.
    pub(super) fn rest(&mut self, address: IpAddr, slot: SlotId) -> Result<(), GateError> {
        let Some(before) = self.entries.get(&address).map(|entry| entry.slot) else {
            return Err(GateError::NotManaged { address });
        };
        if before == slot {
            return Ok(());
        }
        let builds = slot != SLOT_SHUT && !self.standing.contains(&slot);
        if self.is_made() {
            let standing = builds.then(|| self.standing_with(address, slot));
            let unused = |of: &BTreeSet<_>| self.standing.difference(of).copied().collect();
            let unused: Vec<SlotId> = standing.as_ref().map(unused).unwrap_or_default();
            let (features, sets, mark) = (self.features, sets_of(address), self.mark);
            let round = self.rests[slot as usize];
            let posted = self.nl.post(|b| {
                mark.demand(b);
                for family in features.families() {
                    let mut w = Writer::new(b, family);
                    let keys = || std::iter::once(key(address));
                    let knows = families_of(features, address).any(|f| f == family);
                    if knows && before != SLOT_SHUT {
                        w.elements(DEL_ELEMENT, 0, sets.slot(before), keys(), |_, _| {});
                    }
                    if builds {
                        w.make_slot(slot, round);
                    }
                    if knows && slot != SLOT_SHUT {
                        w.elements(
                            NEW_ELEMENT,
                            CREATE | EXCL,
                            sets.slot(slot),
                            keys(),
                            |_, _| {},
                        );
                    }
                    if let Some(standing) = &standing {
                        w.replace_judges(standing);
                        unused.iter().for_each(|slot| w.remove_slot(*slot));
                    }
                }
            });
            fault_point!("nft.shut.posted" if slot == SLOT_SHUT);
            fault_point!("nft.open.posted" if slot != SLOT_SHUT);
            let done = posted.and_then(|posted| self.nl.confirm(posted));
            done.map_err(|e| failed(&format!("open or shut {address}"), e))?;
            if let Some(standing) = standing {
                self.standing = standing;
                self.note_expected_or_repair_later();
            }
        }
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.slot = slot;
        }
        Ok(())
    }

    /// The slots that stand once `address` rests on `slot`, which has not stood: those without an address go now, so
    /// that no more stand than were ever in use at a time.
    fn standing_with(&self, address: IpAddr, slot: SlotId) -> BTreeSet<SlotId> {
        let others = self.entries.iter().filter(|(a, _)| **a != address);
        let used = others.map(|(_, entry)| entry.slot).chain([slot]);
        used.filter(|slot| *slot != SLOT_SHUT).collect()
    }

    /// Lets an address pass for good.
    pub(super) fn forget(&mut self, address: IpAddr) -> Result<(), GateError> {
        if !self.entries.contains_key(&address) {
            return Ok(());
        }
        self.rest(address, SLOT_SHUT)?;
        if self.is_made() {
            let drops = self.drops()?;
            let (features, sets) = (self.features, sets_of(address));
            self.transact(&format!("stop fencing {address}"), |b| {
                for family in families_of(features, address) {
                    for set in [sets.managed, sets.over, sets.shut] {
                        let keys = std::iter::once(key(address));
                        Writer::new(b, family).elements(DEL_ELEMENT, 0, set, keys, |_, _| {});
                    }
                }
            })?;
            self.earlier = self
                .earlier
                .plus(drops.get(&address).copied().unwrap_or_default());
        }
        self.entries.remove(&address);
        Ok(())
    }

    /// Shuts every address and every slot, in one step.
    pub(super) fn shut_all(&mut self) -> Result<(), GateError> {
        if self.is_made() {
            let (features, mark, standing) = (self.features, self.mark, &self.standing);
            let shut = self.nl.transact(|b| {
                mark.demand(b);
                for family in features.families() {
                    let mut w = Writer::new(b, family);
                    for slot in standing {
                        for sets in sets(family) {
                            w.empty(sets.slot(*slot));
                        }
                        w.move_slot(*slot, NO_ROUND);
                    }
                }
            });
            shut.map_err(|e| failed("shut every address", e))?;
        }
        self.rests = [NO_ROUND; SLOTS as usize];
        for entry in self.entries.values_mut() {
            entry.slot = SLOT_SHUT;
        }
        self.deadlines.shut_all()
    }

    /// Everything is shut; forgets every address, in one step.
    pub(super) fn forget_all(&mut self) -> Result<(), GateError> {
        if self.is_made() {
            let drops = self.drops()?;
            let features = self.features;
            self.transact("stop fencing", |b| {
                for family in features.families() {
                    for sets in sets(family) {
                        for set in [sets.managed, sets.over, sets.shut] {
                            Writer::new(b, family).empty(set);
                        }
                    }
                }
            })?;
            self.earlier = drops.values().fold(self.earlier, |sum, d| sum.plus(*d));
        }
        self.entries.clear();
        Ok(())
    }

    /// Drops by address, since the tables were last made.
    pub(super) fn drops(&mut self) -> Result<BTreeMap<IpAddr, Drops>, GateError> {
        if !self.is_made() {
            return Ok(BTreeMap::new());
        }
        let drops = read::drops(&mut self.nl, self.features.families());
        drops.map_err(|e| failed("read its counters", e))
    }
}

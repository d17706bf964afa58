//! Which interfaces carry the packet gate: no address goes up on any other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use buoy_fence::addr::GateCheck;
use buoy_fence::link::Link;

/// Indexes of the interfaces that carry the gate; clones share them. Written by whoever puts the gate there, asked by
/// the keeper of addresses.
#[derive(Clone, Default)]
pub struct Gated(Arc<RwLock<Gates>>);

#[derive(Default)]
struct Gates {
    /// Interfaces with the gate.
    on: BTreeSet<u32>,
    /// Interfaces of virtual MACs, and what each stands on. Packets of a VIP pass both, and leave by the lower one alone.
    below: BTreeMap<u32, u32>,
}

impl Gated {
    /// Does the interface carry the gate?
    pub fn contains(&self, index: u32) -> bool {
        // Sets are only data: a panic elsewhere does not make them wrong.
        let gates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        gates.on.contains(&index)
    }

    /// Is everything that a packet to or from an address on this interface passes gated: it, and what it stands on?
    pub fn guards(&self, index: u32) -> bool {
        let gates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let below = gates.below.get(&index);
        gates.on.contains(&index) && below.is_none_or(|below| gates.on.contains(below))
    }

    /// Interfaces of virtual MACs stand on these.
    pub fn stand_on(&self, pairs: BTreeMap<u32, u32>) {
        self.change(|gates| gates.below.extend(pairs));
    }

    /// The gate is in force there.
    pub fn insert(&self, index: u32) {
        self.change(|gates| {
            gates.on.insert(index);
        });
    }

    /// It is not, or the interface is gone.
    pub fn remove(&self, index: u32) {
        self.change(|gates| {
            gates.on.remove(&index);
        });
    }

    /// Forgets interfaces that are gone.
    pub fn keep(&self, links: &BTreeMap<u32, Link>) {
        self.change(|gates| {
            gates.on.retain(|index| links.contains_key(index));
            gates.below.retain(|index, _| links.contains_key(index));
        });
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        let gates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        gates.on.len()
    }

    /// What the keeper of addresses asks.
    pub fn check(&self) -> GateCheck {
        let gated = self.clone();
        Arc::new(move |index| gated.guards(index))
    }

    fn change(&self, change: impl FnOnce(&mut Gates)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_on_another_one_needs_the_gate_on_both() {
        let gated = Gated::default();
        let check = gated.check();
        gated.insert(9);
        assert!(check(9), "as far as is known it stands on nothing");
        gated.stand_on(BTreeMap::from([(9, 2)]));
        assert!(!check(9) && gated.contains(9));
        gated.insert(2);
        assert!(check(9));
        gated.remove(2);
        assert!(!check(9));
    }

    #[test]
    fn clones_share_and_interfaces_that_are_gone_are_forgotten() {
        let gated = Gated::default();
        let check = gated.check();
        gated.insert(2);
        gated.insert(3);
        assert!(check(2) && check(3) && !check(4));
        gated.remove(3);
        assert!(!check(3));
        gated.keep(&BTreeMap::new());
        assert_eq!((check(2), gated.count()), (false, 0));
    }
}

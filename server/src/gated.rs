//! Which interfaces carry the packet gate: no address goes up on any other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use buoy_fence::addr::GateCheck;
use buoy_fence::link::Link;

/// Indexes of the interfaces that carry the gate; clones share them. Written by whoever puts the gate there, asked by
/// the keeper of addresses.
#[derive(Clone, Default)]
pub struct Gated(Arc<RwLock<BTreeSet<u32>>>);

impl Gated {
    /// Does the interface carry the gate?
    pub fn contains(&self, index: u32) -> bool {
        // A set is only data: a panic elsewhere does not make it wrong.
        let set = self.0.read().unwrap_or_else(PoisonError::into_inner);
        set.contains(&index)
    }

    /// The gate is in force there.
    pub fn insert(&self, index: u32) {
        self.change(|set| {
            set.insert(index);
        });
    }

    /// It is not, or the interface is gone.
    pub fn remove(&self, index: u32) {
        self.change(|set| {
            set.remove(&index);
        });
    }

    /// Forgets interfaces that are gone.
    pub fn keep(&self, links: &BTreeMap<u32, Link>) {
        self.change(|set| set.retain(|index| links.contains_key(index)));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What the keeper of addresses asks.
    pub fn check(&self) -> GateCheck {
        let gated = self.clone();
        Arc::new(move |index| gated.contains(index))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<u32>)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

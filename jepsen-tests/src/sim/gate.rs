//! The kernel's packet gate of one node, as the leases rely on it: absolute deadlines in slots.

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_core::{Epoch, Mono};

/// Slots of the gate; slot 0 is never open.
const SLOTS: usize = 64;

/// The gate. It outlives the process, and goes by the clock alone.
#[derive(Clone, Debug)]
pub struct Gate {
    deadlines: [Mono; SLOTS],
    /// Address to slot; with the epoch that it was opened for, which the real gate does not know.
    mapped: BTreeMap<IpAddr, (u32, Epoch)>,
}

impl Gate {
    /// Everything shut.
    pub fn new() -> Self {
        Self {
            deadlines: [Mono::ZERO; SLOTS],
            mapped: BTreeMap::new(),
        }
    }

    /// Stores a slot's deadline.
    pub fn store(&mut self, slot: u32, at: Mono) {
        self.deadlines[slot as usize] = at;
    }

    /// Lets an address follow a slot.
    pub fn open(&mut self, address: IpAddr, slot: u32, epoch: Epoch) {
        self.mapped.insert(address, (slot, epoch));
    }

    /// Shuts an address.
    pub fn shut(&mut self, address: IpAddr) {
        self.mapped.remove(&address);
    }

    /// Addresses that follow a slot: address, slot, deadline, epoch.
    pub fn mapped(&self) -> impl Iterator<Item = (IpAddr, u32, Mono, Epoch)> + '_ {
        self.mapped
            .iter()
            .map(|(a, (s, e))| (*a, *s, self.deadlines[*s as usize], *e))
    }

    /// Does a packet of the address pass?
    pub fn passes(&self, address: IpAddr, now: Mono) -> bool {
        self.mapped
            .get(&address)
            .is_some_and(|(s, _)| *s != 0 && now < self.deadlines[*s as usize])
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

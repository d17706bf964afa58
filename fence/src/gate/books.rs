//! Which addresses a gate manages, which index each has, and on which slot it rests.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use super::{GateError, SlotId};

/// A managed address.
pub(super) struct Entry {
    pub(super) index: u32,
    pub(super) slot: SlotId,
    pub(super) inherited: bool,
}

/// The books of a gate; what they say is written to the kernel by [`super::EbpfGate`].
pub(super) struct Books {
    capacity: u32,
    pub(super) entries: BTreeMap<IpAddr, Entry>,
    /// Lowest index that was never used.
    fresh: u32,
    /// Indexes of forgotten addresses. The one that rested longest is used first: a packet that was
    /// being judged when its address was forgotten must not see the next address's slot.
    recycled: VecDeque<u32>,
}

impl Books {
    pub(super) fn new(capacity: u32) -> Books {
        Books {
            capacity,
            entries: BTreeMap::new(),
            fresh: 0,
            recycled: VecDeque::new(),
        }
    }

    /// An index for one more address.
    pub(super) fn take_index(&mut self, address: IpAddr) -> Result<u32, GateError> {
        if self.fresh < self.capacity {
            self.fresh += 1;
            return Ok(self.fresh - 1);
        }
        let capacity = self.capacity;
        self.recycled
            .pop_front()
            .ok_or(GateError::Full { address, capacity })
    }

    /// The index is free again.
    pub(super) fn return_index(&mut self, index: u32) {
        self.recycled.push_back(index);
    }

    /// Every managed address.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.entries.keys().copied().collect()
    }
}

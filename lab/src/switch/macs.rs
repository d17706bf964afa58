//! The forwarding table: which port a MAC address was last seen on, as each port may know it.

use super::protocol::MAX_PORTS;
use crate::sys::clock::MS;

/// Entries of the table; a full neighbourhood forgets its oldest entry.
const SLOTS: usize = 1024;
/// Slots looked at for one address.
const PROBES: usize = 8;
/// An entry that was not refreshed for so long is forgotten (the 300 s of IEEE 802.1D).
const AGE_NS: u64 = 300_000 * MS;
const NOWHERE: u8 = u8::MAX;

/// A MAC address as a number; 0 is no address.
pub type Mac = u64;

/// Reads the MAC address at the start of `bytes`, which has at least 6.
#[must_use]
pub fn mac_at(bytes: &[u8]) -> Mac {
    let mut wide = [0; 8];
    wide[2..].copy_from_slice(&bytes[..6]);
    u64::from_be_bytes(wide)
}

/// Whether a MAC address is a group (multicast or broadcast) address.
#[must_use]
pub fn is_group(mac: Mac) -> bool {
    mac >> 40 & 1 == 1
}

#[derive(Clone, Copy)]
struct Entry {
    mac: Mac,
    seen: u64,
    /// For each port that asks: where the address is. A partitioned network is two switches, and each
    /// learns for itself: with a virtual MAC on both sides one common answer would be wrong.
    port: [u8; MAX_PORTS],
}

const EMPTY: Entry = Entry {
    mac: 0,
    seen: 0,
    port: [NOWHERE; MAX_PORTS],
};

/// The table. All of its memory is taken at the start.
pub struct MacTable(Vec<Entry>);

impl Default for MacTable {
    fn default() -> Self {
        Self(vec![EMPTY; SLOTS])
    }
}

impl MacTable {
    /// Notes that `mac` is behind `port`, for each viewer in the bit set `viewers`.
    pub fn learn(&mut self, mac: Mac, port: usize, viewers: u16, now: u64) {
        if mac == 0 || is_group(mac) {
            return;
        }
        let start = slot(mac);
        let mut chosen = start;
        for offset in 0..PROBES {
            let at = (start + offset) % SLOTS;
            if self.0[at].mac == mac {
                chosen = at;
                break;
            }
            if self.0[at].seen < self.0[chosen].seen {
                chosen = at;
            }
        }
        let entry = &mut self.0[chosen];
        if entry.mac != mac || now.saturating_sub(entry.seen) > AGE_NS {
            *entry = Entry { mac, ..EMPTY };
        }
        entry.seen = now;
        let port = u8::try_from(port).unwrap_or(NOWHERE);
        for (viewer, known) in entry.port.iter_mut().enumerate() {
            if viewers >> viewer & 1 == 1 {
                *known = port;
            }
        }
    }

    /// Where `viewer` believes `mac` to be.
    #[must_use]
    pub fn find(&self, mac: Mac, viewer: usize, now: u64) -> Option<usize> {
        let start = slot(mac);
        (0..PROBES)
            .map(|offset| &self.0[(start + offset) % SLOTS])
            .find(|entry| entry.mac == mac)
            .filter(|entry| now.saturating_sub(entry.seen) <= AGE_NS)
            .map(|entry| entry.port[viewer])
            .filter(|&port| port != NOWHERE)
            .map(usize::from)
    }

    /// Forgets all that was learned of a port, as a switch does when a cable is pulled.
    pub fn forget(&mut self, port: usize) {
        for known in self.0.iter_mut().flat_map(|entry| &mut entry.port) {
            if usize::from(*known) == port {
                *known = NOWHERE;
            }
        }
    }
}

fn slot(mac: Mac) -> usize {
    // Fibonacci hashing: the multiplier spreads MACs that differ in the last byte only.
    usize::try_from(mac.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54).unwrap_or(0) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = 0x0200_c0a8_c065;
    const ALL: u16 = u16::MAX;

    #[test]
    fn learns_moves_and_forgets() {
        let mut table = MacTable::default();
        assert_eq!(table.find(A, 0, 1), None);
        table.learn(A, 2, ALL, 1);
        assert_eq!(table.find(A, 0, 2), Some(2));
        table.learn(A, 3, ALL, 3);
        assert_eq!(table.find(A, 0, 4), Some(3));
        table.forget(3);
        assert_eq!(table.find(A, 0, 5), None);
    }

    #[test]
    fn each_side_of_a_partition_learns_for_itself() {
        let mut table = MacTable::default();
        table.learn(A, 1, 0b0011, 1);
        table.learn(A, 2, 0b1100, 2);
        assert_eq!(table.find(A, 0, 3), Some(1));
        assert_eq!(table.find(A, 3, 3), Some(2));
    }

    #[test]
    fn entries_age() {
        let mut table = MacTable::default();
        table.learn(A, 1, ALL, 1);
        assert_eq!(table.find(A, 0, 2 + AGE_NS), None);
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_keeps_the_newest() {
        let mut table = MacTable::default();
        for number in 1..100_000_u64 {
            table.learn(number << 1, 1, ALL, number);
            assert_eq!(table.find(number << 1, 0, number), Some(1));
        }
        assert_eq!(table.0.len(), SLOTS);
    }

    #[test]
    fn group_addresses_are_never_learned() {
        let mut table = MacTable::default();
        table.learn(0xffff_ffff_ffff, 1, ALL, 1);
        assert_eq!(table.find(0xffff_ffff_ffff, 0, 1), None);
    }
}

//! The gate's tables and programs in the kernel, and how addresses and counters lie in them.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use buoy_core::Mono;

use super::asm::AsmError;
use super::bpf::{Map, MapKind, Program};
use super::program::{
    self, Clock, DROP_LEASE_OVER, DROP_NOT_OURS, DROP_REASONS, Direction, Tables,
};
use super::table::Table;
use super::{Deadlines, Drops, GateError, SLOTS};

/// Names of the tables; `buoy fence` finds those of a dead daemon by them. At most 15 bytes.
pub(super) const ADDRESSES: &str = "buoy_addresses";
pub(super) const SLOT_OF: &str = "buoy_slots";
pub(super) const DEADLINES: &str = "buoy_deadlines";
pub(super) const DROPS: &str = "buoy_drops";

/// Sizes of a key and a value in the table of addresses.
pub(super) const KEY: usize = 16;
pub(super) const INDEX: usize = 4;

/// Key of an address.
pub(super) fn key(address: IpAddr) -> [u8; KEY] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address of a key.
pub(super) fn address(key: [u8; KEY]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(key)).to_canonical()
}

/// Cell of a counter.
pub(super) fn drop_cell(index: u32, reason: u32) -> u32 {
    index * DROP_REASONS + reason
}

/// What the kernel holds for one gate.
pub(super) struct Loaded {
    /// Address to index. An address's index never changes while it is managed: replacing an element of
    /// a hash would, for a moment, hide it from a lookup that is underway, and a packet would pass.
    pub(super) addresses: Map,
    /// Index to slot, slot to deadline, and counters, as the programs know them.
    arrays: [Arc<Map>; 3],
    /// Index to slot.
    pub(super) slots: Table,
    pub(super) deadlines: Deadlines,
    drops: Table,
    ingress: Program,
    egress: Program,
    map_ids: Vec<u32>,
}

impl Loaded {
    /// Makes empty tables for `capacity` addresses and loads the programs on them.
    pub(super) fn new(capacity: u32, mapped: bool) -> Result<Loaded, GateError> {
        let word = size_of::<u64>() as u32;
        let array = |name, len| {
            let kind = if mapped {
                MapKind::MappableArray
            } else {
                MapKind::Array
            };
            Map::create(name, kind, 4, word, len).map(Arc::new)
        };
        let addresses = Map::create(ADDRESSES, MapKind::Hash, KEY as u32, INDEX as u32, capacity)?;
        let arrays = [
            array(SLOT_OF, capacity)?,
            array(DEADLINES, SLOTS)?,
            array(DROPS, capacity.saturating_mul(DROP_REASONS))?,
        ];
        let load = |direction| {
            let name = program::name(direction);
            load(name, direction, &addresses, &arrays, Clock::Boot)
        };
        let (ingress, egress) = (load(Direction::Ingress)?, load(Direction::Egress)?);
        let mut map_ids: Vec<u32> = arrays.iter().map(|map| map.id()).collect();
        map_ids.push(addresses.id());
        map_ids.sort_unstable();
        let [slots, deadlines, drops] = arrays.clone();
        let table = |map: Arc<Map>| {
            let action = format!("map its table {} into memory", map.name());
            Table::of_map(map, mapped).map_err(|e| GateError::kernel(action, e))
        };
        Ok(Loaded {
            slots: table(slots)?,
            deadlines: Deadlines::new(Arc::new(table(deadlines)?)),
            drops: table(drops)?,
            addresses,
            arrays,
            ingress,
            egress,
            map_ids,
        })
    }

    pub(super) fn program(&self, direction: Direction) -> &Program {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// The program for one direction on these very tables, for which it is always `now`.
    pub(super) fn still(&self, direction: Direction, now: Mono) -> Result<Program, GateError> {
        let clock = Clock::Still(now);
        load(
            "buoy_still",
            direction,
            &self.addresses,
            &self.arrays,
            clock,
        )
    }

    /// Whether the programs stand on the tables that we write.
    pub(super) fn on_our_tables(&self) -> Result<bool, GateError> {
        for direction in Direction::BOTH {
            let mut ids = self.program(direction).map_ids().map_err(|e| {
                GateError::kernel(format!("read back its {} program", direction.name()), e)
            })?;
            ids.sort_unstable();
            if ids != self.map_ids {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Counters of an address.
    pub(super) fn drops(&self, index: u32) -> Result<Drops, GateError> {
        let read = |reason| {
            let cell = self.drops.load(drop_cell(index, reason));
            cell.map_err(|e| GateError::kernel("read its counters", e))
        };
        Ok(Drops {
            lease_over: read(DROP_LEASE_OVER)?,
            not_ours: read(DROP_NOT_OURS)?,
        })
    }

    /// Sets the counters of an address to zero, before it is managed.
    pub(super) fn clear_drops(&self, index: u32) -> Result<(), GateError> {
        (0..DROP_REASONS)
            .try_for_each(|reason| self.drops.store(drop_cell(index, reason), 0))
            .map_err(|e| GateError::kernel("clear its counters", e))
    }
}

fn load(
    name: &str,
    direction: Direction,
    addresses: &Map,
    [slots, deadlines, drops]: &[Arc<Map>; 3],
    clock: Clock,
) -> Result<Program, GateError> {
    let tables = Tables {
        addresses,
        slots,
        deadlines,
        drops,
    };
    let code = program::assemble(direction, &tables, clock).map_err(misassembled)?;
    Program::load(name, &code)
}

/// A fault in the program as written, which the tests would show.
pub(super) fn misassembled(e: AsmError) -> GateError {
    GateError::kernel("put its program together", std::io::Error::other(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_mapped_addresses() {
        let v4: IpAddr = "192.0.2.13".parse().expect("v4");
        assert_eq!(
            key(v4),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 13]
        );
        let v6: IpAddr = "2001:db8::d".parse().expect("v6");
        for a in [v4, v6] {
            assert_eq!(address(key(a)), a);
        }
        let mapped: IpAddr = "::ffff:192.0.2.13".parse().expect("mapped");
        assert_eq!(key(mapped), key(v4));
    }
}

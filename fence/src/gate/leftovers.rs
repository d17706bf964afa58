//! What a daemon left in the kernel: reading a gate by its filter alone, and removing it.

use std::io;

use buoy_core::Mono;

use super::bpf::{Map, Program};
use super::loaded::{ADDRESSES, DEADLINES, DROPS, INDEX, KEY, SLOT_OF, address, drop_cell};
use super::program::{DROP_LEASE_OVER, DROP_NOT_OURS, Direction};
use super::tc::Tc;
use super::{Drops, Fenced, GateError, SLOT_SHUT};

/// A filter of ours on an interface, whichever process put it there and whether or not that lives.
#[derive(Debug)]
pub struct Leftover {
    /// Which way it filters.
    pub direction: Direction,
    /// Id of its program in the kernel.
    pub program: Option<u32>,
    /// Id of its table of addresses: filters that share it are one gate. `None` where it cannot be read.
    pub gate: Option<u32>,
    /// The addresses that it fences, or why they cannot be read (that takes CAP_SYS_ADMIN).
    pub fenced: Result<Vec<Fenced>, String>,
}

/// The gate on an interface, read from the kernel.
///
/// # Errors
/// When the filters cannot be listed; an interface that is gone has none.
pub fn leftovers(ifindex: u32) -> Result<Vec<Leftover>, GateError> {
    leftovers_by(&mut Tc::new()?, ifindex)
}

/// [`leftovers`] in the network namespace of `tc`.
pub(super) fn leftovers_by(tc: &mut Tc, ifindex: u32) -> Result<Vec<Leftover>, GateError> {
    let mut found = Vec::new();
    for direction in Direction::BOTH {
        for filter in tc
            .filters(ifindex, direction)?
            .into_iter()
            .filter(|f| f.is_ours())
        {
            let read = match filter.program {
                Some(program) => read(program).map_err(|e| e.to_string()),
                None => Err("the kernel does not say which program the filter runs".to_string()),
            };
            found.push(Leftover {
                direction,
                program: filter.program,
                gate: read.as_ref().ok().map(|(gate, _)| *gate),
                fenced: read.map(|(_, fenced)| fenced),
            });
        }
    }
    Ok(found)
}

/// Takes our filters off an interface, whoever put them there; false if there were none. From then on
/// nothing fences the addresses that they fenced: those must be gone from the machine. An empty clsact
/// stays, since nobody knows who made it; it does nothing.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(ifindex: u32) -> Result<bool, GateError> {
    remove_by(&mut Tc::new()?, ifindex)
}

/// [`remove`] in the network namespace of `tc`.
pub(super) fn remove_by(tc: &mut Tc, ifindex: u32) -> Result<bool, GateError> {
    let mut any = false;
    for direction in Direction::BOTH {
        any |= tc.delete(ifindex, direction)?;
    }
    Ok(any)
}

/// Reads the addresses that a program fences, in order.
pub(super) fn fenced_by(program: u32) -> io::Result<Vec<Fenced>> {
    read(program).map(|(_, fenced)| fenced)
}

/// Which gate a program belongs to, and the addresses that it fences.
fn read(program: u32) -> io::Result<(u32, Vec<Fenced>)> {
    let program = Program::by_id(program)?;
    let maps: Vec<Map> = program
        .map_ids()?
        .into_iter()
        .map(Map::by_id)
        .collect::<io::Result<_>>()?;
    let table = |name: &str, key: usize, value: usize| {
        let sizes = |m: &&Map| m.key_size() as usize == key && m.value_size() as usize == value;
        maps.iter()
            .find(|m| m.name() == name)
            .filter(sizes)
            .ok_or_else(|| {
                io::Error::other(format!(
                    "its table {name} is missing or has another layout (another version of buoy?)"
                ))
            })
    };
    let (slots, deadlines, drops) = (
        table(SLOT_OF, 4, 8)?,
        table(DEADLINES, 4, 8)?,
        table(DROPS, 4, 8)?,
    );
    let addresses = table(ADDRESSES, KEY, INDEX)?;
    let mut rows = Vec::new();
    for (key, index) in addresses.dump::<KEY, INDEX>()? {
        let index = u32::from_ne_bytes(index);
        let slot = u32::try_from(cell(slots, index)?).map_err(io::Error::other)?;
        let open = slot != SLOT_SHUT;
        let count = |reason| cell(drops, drop_cell(index, reason));
        rows.push(Fenced {
            address: address(key),
            slot: open.then_some(slot),
            deadline: if open {
                Some(Mono(cell(deadlines, slot)?))
            } else {
                None
            },
            drops: Drops {
                lease_over: count(DROP_LEASE_OVER)?,
                not_ours: count(DROP_NOT_OURS)?,
            },
            inherited: false,
        });
    }
    rows.sort_by_key(|row| row.address);
    Ok((addresses.id(), rows))
}

fn cell(table: &Map, at: u32) -> io::Result<u64> {
    let mut value = [0; 8];
    match table.lookup(&at.to_ne_bytes(), &mut value)? {
        true => Ok(u64::from_ne_bytes(value)),
        false => Err(io::Error::other(format!(
            "table {} has no cell {at}",
            table.name()
        ))),
    }
}

//! What a daemon left in nf_tables: reading a gate by its tables alone, and removing it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;

use super::message::{DEL_TABLE, INET};
use super::read::{self, FAMILIES};
use super::ruleset::TABLE;
use super::stand_in::{STAND_IN, StandIn};
use super::{failed, open, owned};
use crate::clock::boottime;
use crate::gate::{Fenced, GateError};

/// The tables under our name in a network namespace, whichever process made them and whether or not that lives.
#[derive(Debug)]
pub struct NftLeftover {
    /// Netlink port of the live process that owns the tables, usually its process id; `None` when nobody
    /// does or the kernel has no owners.
    pub owner: Option<u32>,
    /// Interfaces that carry the gate.
    pub devices: Vec<u32>,
    /// The addresses that it fences, in order; deadlines to the millisecond, [`Mono::ZERO`] if they are over.
    pub fenced: Vec<Fenced>,
}

/// The nftables gate of the calling thread's network namespace, read from the kernel; `None` if there is none.
///
/// # Errors
/// When the tables cannot be read.
pub fn nft_leftover() -> Result<Option<NftLeftover>, GateError> {
    let mut nl = open(TABLE)?;
    let read = |e| failed("read a gate's tables", e);
    let mut families = Vec::new();
    let mut owner = None;
    for family in FAMILIES {
        if let Some(table) = read::table(&mut nl, family).map_err(read)? {
            owner = owner.or(table.owner);
            families.push(family);
        }
    }
    if !families.contains(&INET) {
        return Ok(None);
    }
    let slots = read::slots(&mut nl, INET).map_err(read)?;
    // The first slot judges.
    let slots = slots
        .into_iter()
        .rev()
        .map(|(slot, address)| (address, slot));
    let slots: BTreeMap<_, _> = slots.collect();
    let left = read::countdowns(&mut nl, INET).map_err(read)?;
    let now = boottime();
    let drops = read::drops(&mut nl, families.into_iter()).map_err(read)?;
    let mut managed = read::managed(&mut nl, INET).map_err(read)?;
    managed.sort_unstable();
    let row = |address: IpAddr| {
        let slot = slots.get(&address).copied();
        let deadline = |slot| match left.get(&slot).copied().unwrap_or(0) {
            0 => Mono::ZERO,
            millis => now + Duration::from_millis(millis),
        };
        Fenced {
            address,
            slot,
            deadline: slot.map(deadline),
            drops: drops.get(&address).copied().unwrap_or_default(),
            inherited: false,
        }
    };
    Ok(Some(NftLeftover {
        owner,
        devices: read::devices(&mut nl, INET).map_err(read)?,
        fenced: managed.into_iter().map(row).collect(),
    }))
}

/// Removes the nftables gate of the calling thread's network namespace, whoever made it, in one step; false if
/// there was none. From then on nothing fences the addresses that it fenced: those must be gone from the machine.
///
/// # Errors
/// [`GateError::Unavailable`] while a live process owns it; the kernel's refusal.
pub fn remove_nft() -> Result<bool, GateError> {
    let mut nl = open(TABLE)?;
    let mut there = Vec::new();
    for family in FAMILIES {
        let table = read::table(&mut nl, family);
        if let Some(table) = table.map_err(|e| failed("look for a gate's tables", e))? {
            if let Some(port) = table.owner {
                return Err(owned(port));
            }
            there.push(family);
        }
    }
    StandIn::new(open(STAND_IN)?).go()?;
    if there.is_empty() {
        return Ok(false);
    }
    let removed = nl.transact(|b| {
        for family in there {
            b.message(DEL_TABLE, 0, family, |b| b.table());
        }
    });
    removed.map_err(|e| failed("remove a gate's tables", e))?;
    Ok(true)
}

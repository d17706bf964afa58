//! Reads tables back: what is in force, and what it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::judges::round_of;
use super::message::{
    ARP, Attributes, Batch, GET_CHAIN, GET_ELEMENT, GET_RULE, GET_SET, GET_TABLE, INET, NETDEV,
    attribute, long_number, number, text,
};
use super::rounds::RoundId;
use super::ruleset::{ARMED, INTERFACES, Numbered, SLOT, Sets};
use super::socket::{Netfilter, Refusal};
use crate::gate::{Drops, SlotId};

/// Every family that may have a table.
pub(super) const FAMILIES: [u8; 3] = [INET, ARP, NETDEV];

/// A table's flags and the port of the socket that owns it, if one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Table {
    pub(super) flags: u32,
    pub(super) owner: Option<u32>,
}

/// Tables, chains and sets by family and name: how each hooks in, and its rules in order, as the kernel writes them. Two
/// pictures are equal if and only if the same rules are in force.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Picture {
    pub(super) tables: BTreeMap<u8, Table>,
    pub(super) chains: BTreeMap<(u8, String), Chain>,
    /// Chains of lease slots, and the round in each; `None` for one whose rules are not ours.
    pub(super) slots: BTreeMap<(u8, SlotId), Option<RoundId>>,
    pub(super) sets: BTreeMap<(u8, String), Vec<Vec<u8>>>,
}

/// One chain of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Chain {
    pub(super) hook: Vec<Vec<u8>>,
    pub(super) rules: Vec<Vec<u8>>,
}

/// An element of a set, as far as anybody asks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// Packets of its counter.
    pub(super) packets: u64,
    /// Milliseconds until the kernel takes it out.
    pub(super) expires: Option<u64>,
}

/// Flags and owner of our table in a family.
pub(super) fn table(nl: &mut Netfilter, family: u8) -> Result<Option<Table>, Refusal> {
    let name = nl.table;
    let found = nl.dump(
        GET_TABLE,
        family,
        |_| {},
        |row, found| {
            if text(row, 1) == Some(name) {
                found.push(Table {
                    flags: number(row, 2).unwrap_or(0),
                    owner: number(row, 7),
                });
            }
        },
    );
    match found {
        Ok(found) => Ok(found.first().copied()),
        // The kernel does not have the family.
        Err(e) if e.errno == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The rules in force.
pub(super) fn picture(nl: &mut Netfilter) -> Result<Picture, Refusal> {
    let mut picture = Picture::default();
    let table_name = nl.table;
    for family in FAMILIES {
        let Some(table) = table(nl, family)? else {
            continue;
        };
        picture.tables.insert(family, table);
        let part = |row: &[u8], kind| attribute(row, kind).unwrap_or(&[]).to_vec();
        let chains = nl.dump(
            GET_CHAIN,
            family,
            |_| {},
            |row, found| {
                if let (true, Some(name)) = (text(row, 1) == Some(table_name), text(row, 3)) {
                    // Hook, policy, type, flags.
                    let hook = [4, 5, 7, 10].map(|kind| part(row, kind)).to_vec();
                    found.push((name.to_owned(), hook));
                }
            },
        )?;
        for (name, hook) in chains {
            let rules = Vec::new();
            picture.chains.insert((family, name), Chain { hook, rules });
        }
        let rules = nl.dump(
            GET_RULE,
            family,
            |b| b.table(),
            |row, found| {
                if let (true, Some(chain)) = (text(row, 1) == Some(table_name), text(row, 2)) {
                    found.push((chain.to_owned(), part(row, 4)));
                }
            },
        )?;
        for (chain, rule) in rules {
            let chain = picture.chains.entry((family, chain)).or_default();
            chain.rules.push(rule);
        }
        let sets = nl.dump(
            GET_SET,
            family,
            |b| b.table(),
            |row, found| {
                if let (true, Some(name)) = (text(row, 1) == Some(table_name), text(row, 2)) {
                    // Flags, key and data lengths.
                    found.push((
                        name.to_owned(),
                        [3, 5, 7].map(|kind| part(row, kind)).to_vec(),
                    ));
                }
            },
        )?;
        picture.sets.extend(
            sets.into_iter()
                .map(|(name, shape)| ((family, name), shape)),
        );
    }
    picture.chains.retain(|(family, name), chain| {
        let Some(slot) = Numbered::of(SLOT, name) else {
            return true;
        };
        // One that hooks in is none of ours.
        let plain = chain.hook.iter().all(Vec::is_empty);
        let round = round_of(&chain.rules).filter(|_| plain);
        picture.slots.insert((*family, slot), round);
        false
    });
    Ok(picture)
}

/// Lease slots and the rounds that they rest on, in one family's table; `None` for a slot whose rules are not ours.
pub(super) fn rounds(
    nl: &mut Netfilter,
    family: u8,
) -> Result<BTreeMap<SlotId, Option<RoundId>>, Refusal> {
    let table = nl.table;
    let rules = nl.dump(
        GET_RULE,
        family,
        |b| b.table(),
        |row, found| {
            if text(row, 1) == Some(table)
                && let Some(slot) = text(row, 2).and_then(|chain| Numbered::of(SLOT, chain))
            {
                found.push((slot, attribute(row, 4).unwrap_or(&[]).to_vec()));
            }
        },
    )?;
    let mut chains: BTreeMap<SlotId, Vec<Vec<u8>>> = BTreeMap::new();
    for (slot, rule) in rules {
        chains.entry(slot).or_default().push(rule);
    }
    let round = |(slot, rules): (SlotId, Vec<Vec<u8>>)| (slot, round_of(&rules));
    Ok(chains.into_iter().map(round).collect())
}

/// The elements of a set.
pub(super) fn elements(nl: &mut Netfilter, family: u8, set: &str) -> Result<Vec<Element>, Refusal> {
    let filter = |b: &mut Batch| {
        b.table();
        b.text(2, set);
    };
    nl.dump(GET_ELEMENT, family, filter, |row, found| {
        let list = attribute(row, 3).unwrap_or(&[]);
        found.extend(Attributes(list).filter_map(|(_, element)| parse(element)));
    })
}

/// As [`elements`]; none where there is no such set, as in the tables of another version.
fn elements_if_any(nl: &mut Netfilter, family: u8, set: &str) -> Result<Vec<Element>, Refusal> {
    match elements(nl, family, set) {
        Err(e) if e.errno == Some(libc::ENOENT) => Ok(Vec::new()),
        found => found,
    }
}

fn parse(row: &[u8]) -> Option<Element> {
    let counter = attribute(row, 7)
        .filter(|counter| text(counter, 1) == Some("counter"))
        .and_then(|counter| long_number(attribute(counter, 2)?, 2));
    Some(Element {
        key: attribute(attribute(row, 1)?, 1)?.to_vec(),
        packets: counter.unwrap_or(0),
        expires: long_number(row, 5),
    })
}

/// Address of a key.
pub(super) fn address(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => Some(IpAddr::from(*key.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*key.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Managed addresses, in one family's table.
pub(super) fn managed(nl: &mut Netfilter, family: u8) -> Result<Vec<IpAddr>, Refusal> {
    let mut found = Vec::new();
    for sets in super::ruleset::sets(family) {
        let rows = elements(nl, family, sets.managed)?;
        found.extend(rows.iter().filter_map(|row| address(&row.key)));
    }
    Ok(found)
}

/// Slots and the addresses that rest on them, in one family's table.
pub(super) fn slots(nl: &mut Netfilter, family: u8) -> Result<BTreeSet<(SlotId, IpAddr)>, Refusal> {
    let mut found = BTreeSet::new();
    for name in set_names(nl, family)? {
        let slot = |sets: &Sets| sets.slot_of(&name);
        let Some(slot) = super::ruleset::sets(family).iter().find_map(slot) else {
            continue;
        };
        let rows = elements(nl, family, &name)?;
        found.extend(
            rows.iter()
                .filter_map(|row| Some((slot, address(&row.key)?))),
        );
    }
    Ok(found)
}

fn set_names(nl: &mut Netfilter, family: u8) -> Result<Vec<String>, Refusal> {
    let table = nl.table;
    let filter = |b: &mut Batch| b.table();
    nl.dump(GET_SET, family, filter, |row, found| {
        if let (true, Some(name)) = (text(row, 1) == Some(table), text(row, 2)) {
            found.push(name.to_owned());
        }
    })
}

/// Drops of every managed address, over the tables of these families.
pub(super) fn drops(
    nl: &mut Netfilter,
    families: impl Iterator<Item = u8>,
) -> Result<BTreeMap<IpAddr, Drops>, Refusal> {
    let mut drops: BTreeMap<IpAddr, Drops> = BTreeMap::new();
    for family in families {
        for Sets { over, shut, .. } in super::ruleset::sets(family) {
            for row in elements_if_any(nl, family, over)? {
                if let Some(address) = address(&row.key) {
                    let entry = drops.entry(address).or_default();
                    entry.lease_over = entry.lease_over.saturating_add(row.packets);
                }
            }
            for row in elements_if_any(nl, family, shut)? {
                if let Some(address) = address(&row.key) {
                    let entry = drops.entry(address).or_default();
                    entry.not_ours = entry.not_ours.saturating_add(row.packets);
                }
            }
        }
    }
    Ok(drops)
}

/// Elements of a set of numbers.
fn by_number(rows: Vec<Element>) -> BTreeMap<u32, Element> {
    let pair = |row: Element| Some((u32::from_ne_bytes(*row.key.first_chunk()?), row));
    rows.into_iter().filter_map(pair).collect()
}

/// Interfaces that carry the gate, by the tables of whole packets; the chains of the others bind to interfaces.
pub(super) fn devices(nl: &mut Netfilter, family: u8) -> Result<Vec<u32>, Refusal> {
    if family == NETDEV {
        return Ok(Vec::new());
    }
    let rows = elements_if_any(nl, family, INTERFACES)?;
    Ok(by_number(rows).into_keys().collect())
}

/// Whether a set has a number; false where there is no such set.
pub(super) fn has_number(
    nl: &mut Netfilter,
    family: u8,
    set: &str,
    number: u32,
) -> Result<bool, Refusal> {
    let rows = elements_if_any(nl, family, set)?;
    Ok(by_number(rows).contains_key(&number))
}

/// Milliseconds that are left to the round that each slot rests on; none where it is over.
pub(super) fn countdowns(nl: &mut Netfilter, family: u8) -> Result<BTreeMap<SlotId, u64>, Refusal> {
    let rounds = rounds(nl, family)?.into_iter();
    // Last: what is left is as of now.
    let armed = by_number(elements_if_any(nl, family, ARMED)?);
    let left = |round: Option<RoundId>| armed.get(&round?)?.expires;
    Ok(rounds
        .filter_map(|(slot, round)| Some((slot, left(round)?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_elements_are_none() {
        assert_eq!(parse(&[]), None);
        assert_eq!(address(&[1, 2]), None);
        assert_eq!(address(&[192, 0, 2, 1]), "192.0.2.1".parse().ok());
    }
}

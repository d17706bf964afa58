//! The tables in the kernel and the books that they are made from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tracing::warn;

use super::features::Features;
use super::mark::Mark;
use super::message::{
    ARP, Batch, CREATE, DEL_CHAIN, DEL_ELEMENT, DEL_TABLE, EXCL, INET, NETDEV, NEW_ELEMENT,
    NEW_TABLE,
};
use super::read::{self, FAMILIES, Picture};
use super::rounds::{NO_ROUND, Round, RoundId, Rounds};
use super::ruleset::{INTERFACES, SETS4, SETS6, Sets, Writer, egress_chain, sets};
use super::socket::{Netfilter, Refusal};
use super::stand_in::StandIn;
use super::{failed, owned};
use crate::gate::table::Table;
use crate::gate::tc::Tc;
use crate::gate::{Deadlines, Drops, GateError, SLOT_SHUT, SLOTS, SlotId};

/// Longest name of an interface.
type Name = String;

/// A managed address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) slot: SlotId,
    pub(super) inherited: bool,
}

/// No slot rests on a round.
pub(super) const NOTHING_RESTS: [RoundId; SLOTS as usize] = [NO_ROUND; SLOTS as usize];

/// The gate's state. Whoever changes the tables holds the lock on this.
pub(super) struct Tables {
    pub(super) nl: Netfilter,
    pub(super) stand_in: StandIn,
    pub(super) mark: Mark,
    pub(super) features: Features,
    /// What the kernel had right after the tables were last made or changed by us; `None` before that.
    pub(super) expected: Option<Arc<Picture>>,
    pub(super) devices: BTreeMap<u32, Name>,
    pub(super) entries: BTreeMap<IpAddr, Entry>,
    pub(super) deadlines: Deadlines,
    pub(super) rounds: Rounds,
    pub(super) rests: [RoundId; SLOTS as usize],
    /// Slots that have a chain in the tables: those that an address rests on, and some that one has rested on.
    pub(super) standing: BTreeSet<SlotId>,
    /// Moves of one transaction; kept, so that a renewal allocates nothing.
    pub(super) moves: Vec<(SlotId, Round)>,
    /// Drops of addresses that were forgotten, and of tables that were made anew.
    pub(super) earlier: Drops,
}

/// The sets of an address.
pub(super) fn sets_of(address: IpAddr) -> Sets {
    match address {
        IpAddr::V4(_) => SETS4,
        IpAddr::V6(_) => SETS6,
    }
}

/// Key of an address.
#[derive(Clone, Copy)]
pub(super) struct Key([u8; 16], usize);

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

pub(super) fn key(address: IpAddr) -> Key {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            Key(bytes, 4)
        }
        IpAddr::V6(v6) => Key(v6.octets(), 16),
    }
}

impl Tables {
    pub(super) fn new(nl: Netfilter, stand_in: Netfilter, features: Features) -> Tables {
        Tables {
            nl,
            stand_in: StandIn::new(stand_in),
            features,
            mark: Mark::new(features),
            expected: None,
            devices: BTreeMap::new(),
            entries: BTreeMap::new(),
            deadlines: Deadlines::new(Arc::new(Table::in_memory(SLOTS))),
            rounds: Rounds::new(),
            rests: NOTHING_RESTS,
            standing: BTreeSet::new(),
            moves: Vec::with_capacity(SLOTS as usize),
            earlier: Drops::default(),
        }
    }

    pub(super) fn features(&self) -> Features {
        self.features
    }

    pub(super) fn is_made(&self) -> bool {
        self.expected.is_some()
    }

    /// Changes tables that are made.
    pub(super) fn transact(
        &mut self,
        action: &str,
        fill: impl FnOnce(&mut Batch),
    ) -> Result<(), GateError> {
        let mark = self.mark;
        let done = self.nl.transact(|b| {
            mark.demand(b);
            fill(b);
        });
        done.map_err(|e| failed(action, e))
    }

    /// Manages what the tables of a predecessor fence, on the interfaces where they do.
    fn inherit_tables(&mut self) -> Result<(), GateError> {
        for family in FAMILIES {
            let table = read::table(&mut self.nl, family);
            let Some(table) = table.map_err(|e| failed("look for earlier tables", e))? else {
                continue;
            };
            if let Some(port) = table.owner {
                return Err(owned(port));
            }
            let there = read::managed(&mut self.nl, family)
                .and_then(|addresses| Ok((addresses, read::devices(&mut self.nl, family)?)));
            match there {
                Ok((addresses, devices)) => {
                    self.inherit(&addresses)?;
                    let devices = devices.into_iter().map(|ifindex| (ifindex, Name::new()));
                    self.devices.extend(devices);
                }
                // Another version's tables: what they fence goes with them.
                Err(e) => warn!(
                    "cannot read which addresses the predecessor's nftables gate fenced ({}): addresses that it \
                     left on this machine and that are not in the configuration are no longer fenced",
                    e.into_io()
                ),
            }
        }
        Ok(())
    }

    /// Makes all tables anew, in one atomic step in the place of whatever stands under their name, while a stand-in drops
    /// what belongs to managed addresses. Every slot is shut until its next renewal: the kernel must not begin to count
    /// for one that has been answered. Where this fails, the stand-in stays, until a later attempt succeeds.
    fn rebuild(&mut self, tc: &mut Tc) -> Result<(), GateError> {
        self.look_up_devices(tc)?;
        let mut there = Vec::new();
        for family in FAMILIES {
            let table = read::table(&mut self.nl, family);
            if table
                .map_err(|e| failed("look for its tables", e))?
                .is_some()
            {
                there.push(family);
            }
        }
        if self.is_made()
            && let Ok(drops) = read::drops(&mut self.nl, there.iter().copied())
        {
            self.earlier = drops.values().fold(self.earlier, |sum, d| sum.plus(*d));
        }
        if !there.is_empty() {
            self.put_up_stand_in()?;
        }
        let slots = self.entries.values().map(|entry| entry.slot);
        let standing: BTreeSet<_> = slots.filter(|slot| *slot != SLOT_SHUT).collect();
        let plan = Plan {
            features: self.features,
            mark: self.mark,
            devices: &self.devices,
            entries: &self.entries,
            standing: &standing,
        };
        let made = self.nl.transact(|b| {
            for family in there {
                b.message(DEL_TABLE, 0, family, |b| b.table());
            }
            plan.write(b);
        });
        made.map_err(|e| failed("make its tables", e))?;
        self.rounds.forget();
        self.rests = NOTHING_RESTS;
        self.standing = standing;
        self.deadlines.shut_all()?;
        self.note_expected()?;
        self.stand_in.go()
    }

    /// From now on managed addresses are shut, whatever becomes of the tables.
    pub(super) fn put_up_stand_in(&mut self) -> Result<(), GateError> {
        let plan = Plan {
            features: self.features,
            mark: self.mark,
            devices: &self.devices,
            entries: &self.entries,
            standing: &BTreeSet::new(),
        };
        self.stand_in.stand(|b| plan.write(b))
    }

    /// Interfaces that are gone carry nothing, and the others go by their names of today.
    fn look_up_devices(&mut self, tc: &mut Tc) -> Result<(), GateError> {
        let mut there = BTreeMap::new();
        for ifindex in self.devices.keys() {
            if let Some(device) = tc.device(*ifindex)? {
                there.insert(*ifindex, device.name);
            }
        }
        self.devices = there;
        Ok(())
    }

    fn note_expected(&mut self) -> Result<(), GateError> {
        let picture = read::picture(&mut self.nl).map_err(|e| failed("read back its tables", e))?;
        self.expected = Some(Arc::new(picture));
        Ok(())
    }

    /// After a change that is in force whether or not it can be read back.
    pub(super) fn note_expected_or_repair_later(&mut self) {
        if let Err(e) = self.note_expected() {
            warn!(
                "{e}: the next look at the nftables gate will take it for changed, and make it anew"
            );
        }
    }

    /// An interface carries the gate from now on.
    pub(super) fn attach(&mut self, tc: &mut Tc, ifindex: u32) -> Result<(), GateError> {
        let name = &tc.ethernet(ifindex)?.name;
        let known = self.devices.insert(ifindex, name.clone());
        let done = if !self.is_made() {
            self.inherit_tables().and_then(|()| self.rebuild(tc))
        } else if known.is_some() {
            self.rebuild(tc)
        } else {
            let features = self.features;
            let added = self.transact("take in an interface", |b| {
                for family in features.families() {
                    Writer::new(b, family).device(ifindex, name);
                }
            });
            added.and_then(|()| self.note_expected())
        };
        if done.is_err() && known.is_none() {
            self.devices.remove(&ifindex);
        }
        done
    }

    /// An interface carries the gate no longer; with the last one the tables go.
    pub(super) fn detach(&mut self, ifindex: u32) -> Result<(), GateError> {
        let Some(name) = self.devices.remove(&ifindex) else {
            return Ok(());
        };
        let done = if self.devices.is_empty() {
            self.delete()
        } else {
            self.take_out(ifindex).and_then(|()| self.note_expected())
        };
        if done.is_err() {
            self.devices.insert(ifindex, name);
        }
        done
    }

    fn delete(&mut self) -> Result<(), GateError> {
        let features = self.features;
        self.transact("remove its tables", |b| {
            for family in features.families() {
                b.message(DEL_TABLE, 0, family, |b| b.table());
            }
        })?;
        self.expected = None;
        self.stand_in.go()
    }

    /// Fences nothing any more, anywhere.
    pub(super) fn remove(&mut self) -> Result<(), GateError> {
        if self.is_made() {
            self.delete()?;
        }
        self.devices.clear();
        self.entries.clear();
        self.rests = NOTHING_RESTS;
        self.deadlines.shut_all()
    }

    fn take_out(&mut self, ifindex: u32) -> Result<(), GateError> {
        // With an interface the kernel removes its chain.
        let picture = read::picture(&mut self.nl).map_err(|e| failed("read back its tables", e))?;
        let chain = egress_chain(ifindex);
        let has_chain = picture.chains.contains_key(&(NETDEV, chain.to_string()));
        self.transact("let go of an interface", |b| {
            for family in [INET, ARP] {
                let keys = std::iter::once(ifindex.to_ne_bytes());
                Writer::new(b, family).elements(DEL_ELEMENT, 0, INTERFACES, keys, |_, _| {});
            }
            if has_chain {
                b.message(DEL_CHAIN, 0, NETDEV, |b| {
                    b.table();
                    b.text(3, chain);
                });
            }
        })
    }

    /// What differs between our books and the kernel's sets, if anything.
    pub(super) fn tampered(&mut self) -> Result<Option<String>, Refusal> {
        for family in self.features.families() {
            let ours = |a: &&IpAddr| sets(family).contains(&sets_of(**a));
            let fenced = read::managed(&mut self.nl, family)?.into_iter().collect();
            let ours: BTreeSet<IpAddr> = self.entries.keys().filter(ours).copied().collect();
            if let Some(address) = ours.symmetric_difference(&fenced).next() {
                let how = match fenced.contains(address) {
                    true => "fenced without our doing",
                    false => "not fenced any more",
                };
                return Ok(Some(format!("{address} is {how}")));
            }
            let there = read::slots(&mut self.nl, family)?;
            let slot = |a: &IpAddr| Some((self.entries.get(a)?.slot, *a));
            let open = ours.iter().filter_map(slot);
            let open: BTreeSet<_> = open.filter(|(slot, _)| *slot != SLOT_SHUT).collect();
            if let Some((slot, address)) = open.symmetric_difference(&there).next() {
                let how = match there.contains(&(*slot, *address)) {
                    true => "without our doing",
                    false => "no more",
                };
                return Ok(Some(format!("{address} rests on lease slot {slot} {how}")));
            }
            if family == INET && !self.mark.is_there(&mut self.nl)? {
                return Ok(Some("another gate has made the tables anew".to_owned()));
            }
            let rounds = read::rounds(&mut self.nl, family)?;
            for slot in &self.standing {
                let round = rounds.get(slot).copied().flatten();
                if round != Some(self.rests[*slot as usize]) {
                    return Ok(Some(format!("lease slot {slot} rests on another renewal")));
                }
            }
        }
        Ok(None)
    }
}

/// Tables in which no slot rests on a round yet.
struct Plan<'a> {
    features: Features,
    mark: Mark,
    devices: &'a BTreeMap<u32, Name>,
    entries: &'a BTreeMap<IpAddr, Entry>,
    /// Slots with a chain; addresses on any other are shut.
    standing: &'a BTreeSet<SlotId>,
}

impl Plan<'_> {
    fn write(&self, b: &mut Batch) {
        for family in self.features.families() {
            b.message(NEW_TABLE, CREATE | EXCL, family, |b| {
                b.table();
                b.number(2, self.features.table_flags());
            });
            let mut w = Writer::new(b, family);
            w.fixed(self.standing, &NOTHING_RESTS);
            self.mark.make(&mut w);
            for (ifindex, name) in self.devices {
                w.device(*ifindex, name);
            }
            for sets in sets(family) {
                let of = |a: &&IpAddr| sets_of(**a) == *sets;
                for set in [sets.managed, sets.over, sets.shut] {
                    let keys = self.entries.keys().filter(of).map(|a| key(*a));
                    w.elements(NEW_ELEMENT, CREATE, set, keys, |_, _| {});
                }
                for slot in self.standing {
                    let on = |(a, entry): &(&IpAddr, &Entry)| of(a) && entry.slot == *slot;
                    let keys = self.entries.iter().filter(on).map(|(a, _)| key(*a));
                    w.elements(NEW_ELEMENT, CREATE, sets.slot(*slot), keys, |_, _| {});
                }
            }
        }
    }
}

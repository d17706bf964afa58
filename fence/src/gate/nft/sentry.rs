//! Watches and repairs the tables beside the thread that renews.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tracing::warn;

use super::message::{ARP, INET, NETDEV};
use super::notices::TableNotices;
use super::read::{self, Picture};
use super::rounds::RoundId;
use super::ruleset::{EGRESS, TABLE, egress_chain};
use super::socket::Netfilter;
use super::tables::Tables;
use super::{failed, lock, open};
use crate::gate::supersede::fenced_by_ebpf;
use crate::gate::tc::Tc;
use crate::gate::{GateError, SLOTS, Sentry};
use crate::plant;

/// How often the rules are read, changed by the gate underway, before it has to stand still for a look.
const LOOKS: u32 = 3;

/// Reads through a socket of its own, so that a look does not hold up a renewal.
pub(super) struct NftSentry {
    nl: Netfilter,
    tc: Tc,
    tables: Arc<Mutex<Tables>>,
}

impl NftSentry {
    pub(super) fn new(tables: Arc<Mutex<Tables>>) -> Result<NftSentry, GateError> {
        Ok(NftSentry {
            nl: open(TABLE)?,
            tc: Tc::new()?,
            tables,
        })
    }
}

impl Sentry for NftSentry {
    fn verify(&mut self, ifindex: u32) -> Result<bool, GateError> {
        let rests = || lock(&self.tables).rests;
        for _ in 0..LOOKS {
            let should = Should::of(&lock(&self.tables));
            let judged = judge(&mut self.nl, &should, rests, ifindex);
            let unmoved = should.transactions == lock(&self.tables).nl.transactions;
            match judged {
                Ok(judged) if judged.is_ok() || unmoved => return Ok(told(judged, ifindex)),
                Err(e) if unmoved => return Err(e),
                // The gate changed its rules meanwhile: many addresses at a time, for example.
                _ => {}
            }
        }
        // The renewing thread waits for the lock during this look, as during a repair.
        in_force(&mut lock(&self.tables), ifindex)
    }

    /// What an nftables gate of a predecessor fenced is taken over when the tables are made; an eBPF gate may stand on
    /// any interface.
    fn inheritance(&mut self, ifindex: u32) -> Result<Vec<IpAddr>, GateError> {
        let mut addresses = fenced_by_ebpf(&mut self.tc, ifindex)?;
        if lock(&self.tables).expected.is_none() {
            let there = read::table(&mut self.nl, INET).and_then(|table| match table {
                Some(_) => read::managed(&mut self.nl, INET),
                None => Ok(Vec::new()),
            });
            addresses.extend(there.map_err(|e| failed("read a gate's tables", e))?);
        }
        Ok(addresses)
    }

    fn attach(&mut self, ifindex: u32) -> Result<(), GateError> {
        super::attach(&mut self.tc, &self.tables, ifindex)
    }

    /// All tables are made anew: one atomic step whatever is missing. Only the socket that owns them
    /// may do it, so the renewing thread waits for the lock meanwhile, as it would for the kernel's.
    fn repair(&mut self, ifindex: u32) -> Result<(), GateError> {
        let mut tables = lock(&self.tables);
        if !tables.devices.contains_key(&ifindex) {
            return Err(GateError::NotAttached { ifindex });
        }
        tables.attach(&mut self.tc, ifindex)
    }

    fn notices(&self) -> Result<Option<TableNotices>, GateError> {
        let (ours, owned) = {
            let tables = lock(&self.tables);
            (tables.nl.port, tables.features().owner)
        };
        // For a listener the kernel describes each renewal, which costs more than it brings where nobody else can
        // change anything.
        if owned {
            return Ok(None);
        }
        let opened = TableNotices::open(ours);
        opened
            .map(Some)
            .map_err(|e| GateError::kernel("subscribe to nftables' notices", e))
    }
}

/// Whether the rules that this process made are in force for an interface, through the gate's own socket.
pub(super) fn in_force(tables: &mut Tables, ifindex: u32) -> Result<bool, GateError> {
    let should = Should::of(tables);
    let judged = judge(&mut tables.nl, &should, || should.rests, ifindex)?;
    Ok(told(judged, ifindex))
}

/// Rounds by slot.
type Rests = [RoundId; SLOTS as usize];

/// What should be in force.
struct Should {
    picture: Option<Arc<Picture>>,
    rests: Rests,
    egress: bool,
    /// When that was.
    transactions: u64,
}

impl Should {
    fn of(tables: &Tables) -> Should {
        Should {
            picture: tables.expected.clone(),
            rests: tables.rests,
            egress: tables.features().egress,
            transactions: tables.nl.transactions,
        }
    }
}

fn told(judged: Result<(), String>, ifindex: u32) -> bool {
    if let Err(difference) = &judged {
        warn!(ifindex, "the nftables gate is not in force: {difference}");
    }
    judged.is_ok()
}

/// What is not in force for an interface, if anything. `rests` tells on which rounds the slots rest once they were read.
fn judge(
    nl: &mut Netfilter,
    should: &Should,
    rests: impl FnOnce() -> Rests,
    ifindex: u32,
) -> Result<Result<(), String>, GateError> {
    let Some(expected) = should.picture.as_deref() else {
        return Ok(Err("it was not made".to_owned()));
    };
    plant!(NeverArmed => return Ok(Ok(())));
    let there = read::picture(nl).map_err(|e| failed("read back its rules", e))?;
    let rests = [should.rests, rests()];
    if let Some(difference) = difference(expected, rests, &there) {
        return Ok(Err(difference));
    }
    for family in [INET, ARP] {
        let devices = read::devices(nl, family).map_err(|e| failed("read back its devices", e))?;
        if !devices.contains(&ifindex) {
            return Ok(Err("it does not look at the interface".to_owned()));
        }
    }
    // The kernel takes an interface's chain away with it; without egress chains only the table of devices is left
    // to tell, and an index is never used twice.
    let chain = (NETDEV, egress_chain(ifindex).to_string());
    let there = there.chains.get(&chain);
    if should.egress && (there.is_none() || there != expected.chains.get(&chain)) {
        return Ok(Err("its egress chain was changed or removed".to_owned()));
    }
    Ok(Ok(()))
}

/// What is not as we made it; `rests` before and after it was read. Egress chains come and go with their interfaces, and
/// renewals move the slots: one that was moved meanwhile may have been read with any round.
fn difference(expected: &Picture, rests: [Rests; 2], there: &Picture) -> Option<String> {
    let fixed = |picture: &Picture| {
        let mut picture = picture.clone();
        let of_device = format!("{EGRESS}-");
        picture
            .chains
            .retain(|(_, name), _| !name.starts_with(&of_device));
        picture
    };
    let (mut expected, there) = (fixed(expected), fixed(there));
    for ((family, slot), should) in &mut expected.slots {
        let [before, after] = rests.map(|rests| rests.get(*slot as usize).copied());
        let round = there.slots.get(&(*family, *slot)).copied().flatten();
        *should = if before == after { before } else { round };
        if round.is_none() || *should != round {
            return Some(format!(
                "the chain of lease slot {slot} was changed or removed"
            ));
        }
    }
    if expected.tables != there.tables {
        return Some(format!(
            "its tables are {:?} instead of {:?}",
            there.tables, expected.tables
        ));
    }
    for (chain, should) in &expected.chains {
        if there.chains.get(chain) != Some(should) {
            return Some(format!("chain {} was changed or removed", chain.1));
        }
    }
    for (set, should) in &expected.sets {
        if there.sets.get(set) != Some(should) {
            return Some(format!("set {} was changed or removed", set.1));
        }
    }
    if expected != there {
        return Some("there are chains or sets without our doing".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_moved_while_it_is_read_may_have_any_round() {
        let picture = |round| Picture {
            slots: [((INET, 1), round)].into(),
            ..Picture::default()
        };
        let rests = |round| {
            let mut rests = [0; SLOTS as usize];
            rests[1] = round;
            rests
        };
        // As it was made is not as it is: the slot has moved since.
        let made = picture(Some(0));
        let told = |before, after, there| {
            difference(&made, [rests(before), rests(after)], &picture(there)).is_some()
        };
        assert!(!told(7, 7, Some(7)));
        assert!(told(7, 7, Some(6)));
        assert!(told(7, 7, Some(0)));
        for underway in [7, 8, 9] {
            assert!(!told(7, 9, Some(underway)));
        }
        assert!(told(7, 9, None), "its rules are not ours");
        let none = Picture::default();
        assert!(difference(&made, [rests(7), rests(9)], &none).is_some());
        assert!(difference(&none, [rests(7); 2], &picture(Some(7))).is_some());
    }
}

//! The nftables gate, for machines where no BPF program can be loaded.
//!
//! nf_tables cannot compare a deadline with a clock, but it can let an element of a set live for a length of
//! time. A length that is written after the answer would be counted from too late; so it is written *before the
//! renewal is sent*: each renewal has a round of its own, an element that the kernel begins to count
//! down and has acknowledged before the renewal leaves. The answer then only says, without any time in it, which round
//! a lease slot rests on. A process that is frozen anywhere in between extends nothing.
//!
//! Time is counted in the kernel's ticks (1 to 10 ms), rounded down, and can be late by as much as the tick is;
//! it stands still during suspend. That is why this gate needs [`NFT_MARGIN`](buoy_core::spec::timing::NFT_MARGIN).

mod addresses;
mod features;
#[cfg(test)]
mod foreign_tests;
mod judges;
mod leftovers;
mod mark;
mod message;
mod notices;
mod read;
mod renewals;
mod rounds;
mod rule;
mod ruleset;
mod selftest;
mod sentry;
mod socket;
mod stand_in;
mod tables;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buoy_core::Mono;
use tracing::{info, warn};

pub use leftovers::{NftLeftover, nft_leftover, remove_nft};
pub use notices::TableNotices;

use super::leftovers::remove_by;
use super::supersede::fenced_by_ebpf;
use super::tc::Tc;
use super::{
    Deadlines, Drops, Fenced, Gate, GateError, GateKind, Preceding, SLOT_SHUT, Sentry, SlotId,
    check_slot,
};
use features::Features;
use ruleset::TABLE;
use sentry::NftSentry;
use socket::{Netfilter, Refusal};
use stand_in::STAND_IN;
use tables::{Entry, Tables};

/// The gate in the kernel's nf_tables. Dropping this value leaves it in force, as the end of the process does: no
/// renewal is armed any more, so every address falls silent.
///
/// Interfaces that do not carry the gate are not touched, and neither are other tables. What was counted for an
/// address begins anew when the tables are repaired.
pub struct NftGate {
    tables: Arc<Mutex<Tables>>,
    deadlines: Deadlines,
    tc: Tc,
}

impl NftGate {
    /// Looks at what the kernel can do; makes nothing yet. For the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] names what is missing (capability, kernel) and how to get it.
    pub fn new() -> Result<NftGate, GateError> {
        let features = Features::probe(&mut open(features::PROBE)?)?;
        NftGate::of(Tables::new(open(TABLE)?, open(STAND_IN)?, features))
    }

    fn of(tables: Tables) -> Result<NftGate, GateError> {
        Ok(NftGate {
            deadlines: tables.deadlines.clone(),
            tables: Arc::new(Mutex::new(tables)),
            tc: Tc::new()?,
        })
    }

    /// Whether frames of raw sockets (gratuitous ARP of other programs) are fenced on their way out, which takes
    /// Linux 5.16.
    pub fn fences_raw_sockets(&self) -> bool {
        self.lock().features().egress
    }

    /// Whether the kernel keeps other programs from changing the tables, which takes Linux 6.9.
    pub fn is_owned(&self) -> bool {
        self.lock().features().owner
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }
}

/// A thread that panicked left the books as the kernel acknowledged them: they change after each transaction.
fn lock(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts the gate on an interface, and takes away what an eBPF gate left there: shut for ever, that would keep
/// packets from VIPs that this gate opens.
fn attach(tc: &mut Tc, tables: &Mutex<Tables>, ifindex: u32) -> Result<(), GateError> {
    lock(tables).attach(tc, ifindex)?;
    if remove_by(tc, ifindex)? {
        info!(ifindex, "the eBPF gate of a predecessor is removed");
    }
    Ok(())
}

fn open(table: &'static str) -> Result<Netfilter, GateError> {
    Netfilter::new(table).map_err(|e| {
        let Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) = e.raw_os_error() else {
            return GateError::kernel("open a netfilter socket", e);
        };
        GateError::Unavailable {
            action: "use nftables".to_owned(),
            problem: "this kernel has no netfilter netlink".to_owned(),
            remedy: format!(
                "load the module nfnetlink or use a kernel with CONFIG_NETFILTER_NETLINK, {}",
                super::missing::OPT_OUT
            ),
        }
    })
}

fn failed(action: &str, refusal: Refusal) -> GateError {
    GateError::kernel(format!("{action} in nftables"), refusal.into_io())
}

/// A live process owns the tables.
fn owned(port: u32) -> GateError {
    GateError::Unavailable {
        action: "take over the nftables gate of this machine".to_owned(),
        problem: format!(
            "a live process owns the table {TABLE} (netlink port {port}, which is usually its process id)"
        ),
        remedy: "end that buoy first; stopped processes count as alive".to_owned(),
    }
}

impl Gate for NftGate {
    fn kind(&self) -> GateKind {
        GateKind::Nft
    }

    fn deadlines(&self) -> Deadlines {
        self.deadlines.clone()
    }

    fn arm(&mut self, until: Mono) -> Result<(), GateError> {
        self.lock().arm(until)
    }

    fn advance(&mut self, deadlines: &[(SlotId, Mono)]) -> Result<(), GateError> {
        deadlines
            .iter()
            .try_for_each(|(slot, _)| check_slot(*slot))?;
        self.lock().advance(deadlines)
    }

    fn self_test(&mut self) -> Result<(), GateError> {
        if !self.lock().entries.is_empty() {
            return Err(GateError::InUse);
        }
        let features = self.lock().features();
        selftest::run(&mut self.tc, features)
    }

    fn attach(&mut self, ifindex: u32) -> Result<(), GateError> {
        let addresses = fenced_by_ebpf(&mut self.tc, ifindex)?;
        self.lock().inherit(&addresses)?;
        attach(&mut self.tc, &self.tables, ifindex)
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), GateError> {
        self.lock().detach(ifindex)
    }

    fn verify(&mut self, ifindex: u32) -> Result<bool, GateError> {
        let mut tables = self.lock();
        if !sentry::in_force(&mut tables, ifindex)? {
            return Ok(false);
        }
        match tables.tampered() {
            Ok(None) => Ok(true),
            Ok(Some(difference)) => {
                warn!("somebody changed the nftables gate's sets: {difference}");
                Ok(false)
            }
            Err(e) => Err(failed("read back its sets", e)),
        }
    }

    fn repair(&mut self, ifindex: u32) -> Result<(), GateError> {
        lock(&self.tables).attach(&mut self.tc, ifindex)
    }

    fn inherit(&mut self, addresses: &[IpAddr]) -> Result<(), GateError> {
        self.lock().inherit(addresses)
    }

    fn sentry(&self) -> Result<Box<dyn Sentry>, GateError> {
        Ok(Box::new(NftSentry::new(self.tables.clone())?))
    }

    /// None: nothing keeps a packet from the tables but another table's drop.
    fn preceding(&mut self, _ifindex: u32) -> Result<Vec<Preceding>, GateError> {
        Ok(Vec::new())
    }

    fn manage(&mut self, address: IpAddr) -> Result<(), GateError> {
        self.lock().manage(address.to_canonical())
    }

    fn open(&mut self, address: IpAddr, slot: SlotId) -> Result<(), GateError> {
        check_slot(slot)?;
        self.lock().rest(address.to_canonical(), slot)
    }

    fn shut(&mut self, address: IpAddr) -> Result<(), GateError> {
        self.lock().rest(address.to_canonical(), SLOT_SHUT)
    }

    fn forget(&mut self, address: IpAddr) -> Result<(), GateError> {
        self.lock().forget(address.to_canonical())
    }

    fn forget_inherited(&mut self, address: IpAddr) -> Result<(), GateError> {
        let mut tables = self.lock();
        let address = address.to_canonical();
        match tables.entries.get(&address).is_some_and(|e| e.inherited) {
            true => tables.forget(address),
            false => Ok(()),
        }
    }

    fn shut_all(&mut self) -> Result<(), GateError> {
        self.lock().shut_all()
    }

    fn clear_all(&mut self) -> Result<(), GateError> {
        let mut tables = self.lock();
        tables.shut_all()?;
        tables.forget_all()
    }

    fn remove(&mut self) -> Result<(), GateError> {
        self.lock().remove()
    }

    fn dropped(&self) -> Result<Drops, GateError> {
        let mut tables = self.lock();
        let drops = tables.drops()?;
        Ok(drops.values().fold(tables.earlier, |sum, d| sum.plus(*d)))
    }

    fn list(&self) -> Result<Vec<Fenced>, GateError> {
        let mut tables = self.lock();
        let drops = tables.drops()?;
        let row = |(&address, entry): (&IpAddr, &Entry)| {
            let slot = (entry.slot != SLOT_SHUT).then_some(entry.slot);
            Fenced {
                address,
                slot,
                deadline: slot.map(|slot| self.deadlines.load(slot)),
                drops: drops.get(&address).copied().unwrap_or_default(),
                inherited: entry.inherited,
            }
        };
        Ok(tables.entries.iter().map(row).collect())
    }
}

//! The eBPF gate: which addresses it fences, on which slots they rest, where it is attached.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use buoy_core::Mono;
use tracing::{info, warn};

use super::books::{Books, Entry};
use super::bpf::BPF_NOEXIST;
use super::filters::Filters;
use super::loaded::{INDEX, KEY, Loaded, address, key};
use super::program::{Direction, TC_ACT_SHOT, TC_ACT_UNSPEC};
use super::{
    Deadlines, Drops, Fenced, Gate, GateError, GateKind, Preceding, SLOT_SHUT, Sentry, SlotId,
    check_slot,
};
use crate::clock::check_time_namespace;
use crate::fault_point;

/// Most addresses that a gate fences unless told otherwise; its tables take about 2 MiB of the kernel's memory.
pub const MAX_ADDRESSES: u32 = 16_384;

/// How a gate is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EbpfOptions {
    /// Most addresses that it can fence.
    pub capacity: u32,
    /// Tables mapped into memory. `false` makes every store a call of bpf(2), for machines where a
    /// security policy forbids to map them.
    pub mapped: bool,
}

impl Default for EbpfOptions {
    fn default() -> Self {
        EbpfOptions {
            capacity: MAX_ADDRESSES,
            mapped: true,
        }
    }
}

/// What the program says to a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Goes on to the next filter.
    Pass,
    /// Dropped.
    Drop,
}

/// The gate in the kernel. Dropping this value leaves it in force, as the end of the process does: no
/// deadline moves any more, so every address falls silent.
pub struct EbpfGate {
    kernel: Arc<Loaded>,
    filters: Filters,
    books: Books,
    /// Drops of forgotten addresses.
    forgotten: Drops,
}

impl EbpfGate {
    /// Loads a gate that fences nothing yet and is attached nowhere, in the network namespace of the
    /// calling thread.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] names what is missing (capability, kernel, limit) and how to get it;
    /// [`GateError::Clock`] in a time namespace.
    pub fn new(options: EbpfOptions) -> Result<EbpfGate, GateError> {
        check_time_namespace()?;
        let kernel = Arc::new(Loaded::new(options.capacity, options.mapped)?);
        Ok(EbpfGate {
            filters: Filters::new(kernel.clone())?,
            books: Books::new(options.capacity),
            forgotten: Drops::default(),
            kernel,
        })
    }

    /// What the program says to a frame (from the Ethernet header on, at least 14 bytes) at this
    /// moment. Counts as a packet.
    ///
    /// # Errors
    /// When the kernel refuses the trial.
    pub fn judge(&self, direction: Direction, frame: &[u8]) -> Result<Verdict, GateError> {
        let (verdict, _) = self.try_frame(direction, frame, 1)?;
        named(verdict, direction, frame)
    }

    /// What the program says to a frame when it is `now`, whatever the clock says: the same program on the
    /// same tables with the reading of the clock replaced, loaded for this trial. Counts as a packet.
    ///
    /// # Errors
    /// As [`EbpfGate::judge`]; the kernel's refusal of the program.
    pub fn judge_at(
        &self,
        direction: Direction,
        frame: &[u8],
        now: Mono,
    ) -> Result<Verdict, GateError> {
        let ran = self.kernel.still(direction, now)?.test_run(frame, 1);
        let (verdict, _) = ran.map_err(|e| tried(direction, e))?;
        named(verdict, direction, frame)
    }

    /// Mean time that the program takes for a frame, over `repeat` runs.
    ///
    /// # Errors
    /// As [`EbpfGate::judge`].
    pub fn measure(
        &self,
        direction: Direction,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Duration, GateError> {
        let (_, nanos) = self.try_frame(direction, frame, repeat)?;
        Ok(Duration::from_nanos(nanos.into()))
    }

    fn try_frame(
        &self,
        direction: Direction,
        frame: &[u8],
        repeat: u32,
    ) -> Result<(u32, u32), GateError> {
        let run = self.kernel.program(direction).test_run(frame, repeat);
        run.map_err(|e| tried(direction, e))
    }

    /// Stores the deadline of one slot: one 8-byte store, whatever the number of addresses.
    ///
    /// # Errors
    /// As [`Gate::advance`].
    pub fn store(&self, slot: SlotId, at: Mono) -> Result<(), GateError> {
        fault_point!("ebpf.store");
        let stored = self.kernel.deadlines.store(slot, at);
        fault_point!("ebpf.stored");
        stored
    }

    pub(super) fn manages_nothing(&self) -> bool {
        self.books.entries.is_empty()
    }

    pub(super) fn forget_drops(&mut self) {
        self.forgotten = Drops::default();
    }

    fn add(&mut self, address: IpAddr, inherited: bool) -> Result<(), GateError> {
        let index = self.books.take_index(address)?;
        let added = self
            .set_slot(index, SLOT_SHUT)
            .and_then(|()| self.kernel.clear_drops(index))
            .and_then(|()| {
                let put =
                    self.kernel
                        .addresses
                        .update(&key(address), &index.to_ne_bytes(), BPF_NOEXIST);
                put.map_err(|e| GateError::kernel(format!("fence {address}"), e))
            });
        if let Err(e) = added {
            self.books.return_index(index);
            return Err(e);
        }
        self.books.entries.insert(
            address,
            Entry {
                index,
                slot: SLOT_SHUT,
                inherited,
            },
        );
        Ok(())
    }

    fn set_slot(&self, index: u32, slot: SlotId) -> Result<(), GateError> {
        let stored = self.kernel.slots.store(index, slot.into());
        stored.map_err(|e| GateError::kernel("write its slot table", e))
    }

    fn rest_on(&mut self, address: IpAddr, slot: SlotId) -> Result<(), GateError> {
        let canonical = address.to_canonical();
        let Some(entry) = self.books.entries.get(&canonical) else {
            return Err(GateError::NotManaged { address });
        };
        self.set_slot(entry.index, slot)?;
        if let Some(entry) = self.books.entries.get_mut(&canonical) {
            entry.slot = slot;
        }
        Ok(())
    }

    /// The table of addresses as the kernel has it.
    fn read_addresses(&self) -> Result<BTreeMap<IpAddr, u32>, GateError> {
        let pairs = self.kernel.addresses.dump::<KEY, INDEX>();
        let pairs = pairs.map_err(|e| GateError::kernel("read back its table of addresses", e))?;
        Ok(pairs
            .into_iter()
            .map(|(k, index)| (address(k), u32::from_ne_bytes(index)))
            .collect())
    }

    /// What differs between our books and the kernel's tables, if anything.
    fn tampered(&self) -> Result<Option<String>, GateError> {
        let there = self.read_addresses()?;
        for (address, entry) in &self.books.entries {
            if there.get(address) != Some(&entry.index) {
                return Ok(Some(format!("{address} is not fenced any more")));
            }
            let slot = self.kernel.slots.load(entry.index);
            let slot = slot.map_err(|e| GateError::kernel("read back its slot table", e))?;
            if slot != u64::from(entry.slot) {
                return Ok(Some(format!(
                    "{address} rests on slot {slot} instead of {}",
                    entry.slot
                )));
            }
        }
        let stranger = there.keys().find(|a| !self.books.entries.contains_key(*a));
        Ok(stranger.map(|address| format!("{address} is fenced without our doing")))
    }

    /// Writes our books into the kernel's tables where they differ.
    fn rewrite_tables(&mut self) -> Result<(), GateError> {
        let there = self.read_addresses()?;
        for (address, entry) in &self.books.entries {
            self.set_slot(entry.index, entry.slot)?;
            if there.get(address) != Some(&entry.index) {
                let put =
                    self.kernel
                        .addresses
                        .update(&key(*address), &entry.index.to_ne_bytes(), 0);
                put.map_err(|e| GateError::kernel(format!("fence {address} again"), e))?;
            }
        }
        for address in there
            .keys()
            .filter(|a| !self.books.entries.contains_key(*a))
        {
            let deleted = self.kernel.addresses.delete(&key(*address));
            deleted.map_err(|e| GateError::kernel(format!("stop fencing {address}"), e))?;
        }
        Ok(())
    }
}

fn tried(direction: Direction, e: std::io::Error) -> GateError {
    let action = format!("try its {} program on a frame", direction.name());
    GateError::kernel(action, e)
}

fn named(verdict: u32, direction: Direction, frame: &[u8]) -> Result<Verdict, GateError> {
    match verdict.cast_signed() {
        TC_ACT_UNSPEC => Ok(Verdict::Pass),
        TC_ACT_SHOT => Ok(Verdict::Drop),
        other => Err(GateError::SelfTest {
            case: format!("a frame of {} bytes on {}", frame.len(), direction.name()),
            expected: "pass or drop".to_string(),
            got: format!("verdict {other}"),
        }),
    }
}

impl Gate for EbpfGate {
    fn kind(&self) -> GateKind {
        GateKind::Ebpf
    }

    fn deadlines(&self) -> Deadlines {
        self.kernel.deadlines.clone()
    }

    /// The program reads the clock itself: there is nothing to begin beforehand.
    fn arm(&mut self, _until: Mono) -> Result<(), GateError> {
        Ok(())
    }

    fn advance(&mut self, deadlines: &[(SlotId, Mono)]) -> Result<(), GateError> {
        deadlines
            .iter()
            .try_for_each(|(slot, at)| self.store(*slot, *at))
    }

    fn self_test(&mut self) -> Result<(), GateError> {
        super::selftest::run(self)
    }

    fn attach(&mut self, ifindex: u32) -> Result<(), GateError> {
        let addresses = self.filters.inheritance(ifindex)?;
        self.inherit(&addresses)?;
        self.filters.install(ifindex)
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), GateError> {
        self.filters.remove(ifindex)
    }

    fn verify(&mut self, ifindex: u32) -> Result<bool, GateError> {
        if !self.filters.in_force(ifindex)? {
            return Ok(false);
        }
        if let Some(difference) = self.tampered()? {
            warn!("somebody changed the packet gate's tables: {difference}");
            return Ok(false);
        }
        Ok(true)
    }

    fn repair(&mut self, ifindex: u32) -> Result<(), GateError> {
        self.rewrite_tables()?;
        self.filters.install(ifindex)
    }

    fn inherit(&mut self, addresses: &[IpAddr]) -> Result<(), GateError> {
        for address in addresses {
            if !self.books.entries.contains_key(address) {
                info!(%address, "a predecessor fenced this address: it stays shut");
                self.add(*address, true)?;
            }
        }
        Ok(())
    }

    fn sentry(&self) -> Result<Box<dyn Sentry>, GateError> {
        Ok(Box::new(self.filters.another()?))
    }

    fn preceding(&mut self, ifindex: u32) -> Result<Vec<Preceding>, GateError> {
        self.filters.preceding(ifindex)
    }

    fn manage(&mut self, address: IpAddr) -> Result<(), GateError> {
        let address = address.to_canonical();
        match self.books.entries.get_mut(&address) {
            Some(entry) => {
                entry.inherited = false;
                Ok(())
            }
            None => self.add(address, false),
        }
    }

    fn open(&mut self, address: IpAddr, slot: SlotId) -> Result<(), GateError> {
        check_slot(slot)?;
        self.rest_on(address, slot)
    }

    fn shut(&mut self, address: IpAddr) -> Result<(), GateError> {
        self.rest_on(address, SLOT_SHUT)
    }

    fn forget(&mut self, address: IpAddr) -> Result<(), GateError> {
        let address = address.to_canonical();
        let Some(index) = self.books.entries.get(&address).map(|entry| entry.index) else {
            return Ok(());
        };
        self.rest_on(address, SLOT_SHUT)?;
        let drops = self.kernel.drops(index)?;
        let deleted = self.kernel.addresses.delete(&key(address));
        deleted.map_err(|e| GateError::kernel(format!("stop fencing {address}"), e))?;
        self.books.entries.remove(&address);
        self.books.return_index(index);
        self.forgotten = self.forgotten.plus(drops);
        Ok(())
    }

    fn forget_inherited(&mut self, address: IpAddr) -> Result<(), GateError> {
        let entry = self.books.entries.get(&address.to_canonical());
        match entry.is_some_and(|entry| entry.inherited) {
            true => self.forget(address),
            false => Ok(()),
        }
    }

    fn shut_all(&mut self) -> Result<(), GateError> {
        self.kernel.deadlines.shut_all()?;
        let addresses: Vec<IpAddr> = self.books.addresses();
        addresses
            .into_iter()
            .try_for_each(|address| self.shut(address))
    }

    fn clear_all(&mut self) -> Result<(), GateError> {
        self.shut_all()?;
        let addresses: Vec<IpAddr> = self.books.addresses();
        addresses
            .into_iter()
            .try_for_each(|address| self.forget(address))
    }

    fn remove(&mut self) -> Result<(), GateError> {
        self.clear_all()?;
        self.filters.remove_all()
    }

    fn dropped(&self) -> Result<Drops, GateError> {
        self.books
            .entries
            .values()
            .try_fold(self.forgotten, |sum, entry| {
                Ok(sum.plus(self.kernel.drops(entry.index)?))
            })
    }

    fn list(&self) -> Result<Vec<Fenced>, GateError> {
        let row = |(&address, entry): (&IpAddr, &Entry)| {
            let slot = (entry.slot != SLOT_SHUT).then_some(entry.slot);
            Ok(Fenced {
                address,
                slot,
                deadline: slot.map(|slot| self.kernel.deadlines.load(slot)),
                drops: self.kernel.drops(entry.index)?,
                inherited: entry.inherited,
            })
        };
        self.books.entries.iter().map(row).collect()
    }
}

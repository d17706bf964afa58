//! The kernel's packet gate of one node: the contract of `buoy_fence::gate::Gate` on a virtual clock, without
//! packets. `tests/gate.rs` holds it against the real gates.
//!
//! # When a timed round ends
//!
//! The nftables gate lets the kernel count a length of time. The model takes the kernel's worst: a round ends
//! late by up to [`NFT_MARGIN`]. Why that is what the promises allow for: the kernel begins to count, and has said so,
//! before the renewal leaves, so its count of `L` on a clock that runs no slower than true time ends no later than
//! the sending + `L` + lateness. The voter counts `(L + margin) * (1 + drift) + guard` from a later moment, on a clock
//! that is fast by the drift at most: at least `L + margin` of true time, and the guard. So lateness may be all of the
//! margin, and the guard is left for packets in queues.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use buoy_core::Mono;
use buoy_core::spec::timing::NFT_MARGIN;

/// Slots of the gate; slot 0 is never open.
pub const SLOTS: u32 = 64;
/// Addresses that a gate manages unless told otherwise.
const CAPACITY: usize = 16_384;
/// A renewal within this part of its length from an earlier one shares that one's round.
const COARSE: u32 = 32;
/// Rounds that the timed gate remembers.
const REMEMBERED: usize = 64;

/// How a gate tells that a lease is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It compares the deadline with the clock at every packet (eBPF).
    Exact,
    /// The kernel counts rounds down that were armed before the renewals left (nftables).
    Timed,
}

impl Kind {
    /// How much longer the lease is that a node with such a gate names.
    pub fn margin(self) -> Duration {
        match self {
            Kind::Exact => Duration::ZERO,
            Kind::Timed => NFT_MARGIN,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Exact => "exact",
            Kind::Timed => "timed",
        })
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "exact" => Ok(Kind::Exact),
            "timed" => Ok(Kind::Timed),
            _ => Err(format!("no gate is called {s:?}; there are: exact, timed")),
        }
    }
}

/// Why a gate does not do what it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Only managed addresses are opened and shut.
    NotManaged,
    /// Slot 0, or one past the end.
    NoSuchSlot,
    /// No place for one more address.
    Full,
}

/// A round that is about to be counted down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// It serves deadlines from here on.
    pub until: Mono,
    /// For how long the kernel counts, from when it begins.
    pub length: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    until: Mono,
    /// When the kernel really ends it.
    end: Mono,
}

#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    deadline: Mono,
    end: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u32,
    inherited: bool,
}

/// The gate. It outlives the process, and goes by the clock alone.
#[derive(Clone, Debug)]
pub struct Gate {
    kind: Kind,
    capacity: usize,
    slots: [Slot; SLOTS as usize],
    entries: BTreeMap<IpAddr, Entry>,
    rounds: VecDeque<Round>,
}

impl Gate {
    /// Fences nothing.
    pub fn new(kind: Kind) -> Self {
        Self::with_capacity(kind, CAPACITY)
    }

    /// Fences nothing, and so many addresses at most.
    pub fn with_capacity(kind: Kind, capacity: usize) -> Self {
        Self {
            kind,
            capacity,
            slots: [Slot::default(); SLOTS as usize],
            entries: BTreeMap::new(),
            rounds: VecDeque::new(),
        }
    }

    /// The gate of a new process in the place of this one: it fences the same addresses, all shut.
    pub fn successor(&self, kind: Kind) -> Self {
        let mut next = Self::with_capacity(kind, self.capacity);
        let inherited = next.inherit(self.entries.keys().copied());
        inherited.expect("it has as many places");
        next
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is to be counted for a renewal whose answers permit until `until`; nothing where an earlier round
    /// serves, and nothing by a gate that reads the clock. The process may be stopped between this and [`Gate::count`].
    pub fn plan(&self, until: Mono, now: Mono) -> Option<Count> {
        let left = until.since(now);
        let length = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        if self.kind == Kind::Exact || length.is_zero() {
            return None;
        }
        let shared = |r: Round| until.since(r.until) <= left / COARSE;
        (!self.round_for(until).is_some_and(shared)).then_some(Count { until, length })
    }

    /// The kernel begins to count, and will end late by `late`.
    pub fn count(&mut self, count: Count, now: Mono, late: Duration) {
        if self.rounds.len() == REMEMBERED {
            self.rounds.pop_front();
        }
        self.rounds.push_back(Round {
            until: count.until,
            end: now + count.length + late,
        });
    }

    /// Both at once: a renewal is about to leave.
    pub fn arm(&mut self, until: Mono, now: Mono, late: Duration) {
        if let Some(count) = self.plan(until, now) {
            self.count(count, now, late);
        }
    }

    /// Is there a round of exactly this renewal?
    pub fn is_armed(&self, until: Mono) -> bool {
        self.rounds.iter().any(|r| r.until == until)
    }

    fn round_for(&self, at: Mono) -> Option<Round> {
        let in_time = self.rounds.iter().filter(|r| r.until <= at);
        in_time.max_by_key(|r| r.until).copied()
    }

    /// Moves slots to deadlines, or to what was armed for an earlier one, or shuts them. The timed gate does so
    /// all at once, the exact one slot by slot until one is refused.
    ///
    /// # Errors
    /// [`Refusal::NoSuchSlot`].
    pub fn advance(&mut self, deadlines: &[(u32, Mono)]) -> Result<(), Refusal> {
        if self.kind == Kind::Timed {
            deadlines.iter().try_for_each(|(slot, _)| check(*slot))?;
        }
        for (slot, at) in deadlines {
            check(*slot)?;
            self.slots[*slot as usize] = match self.kind {
                Kind::Exact => Slot {
                    deadline: *at,
                    end: *at,
                },
                Kind::Timed => self.round_for(*at).map_or_else(Slot::default, |r| Slot {
                    deadline: r.until,
                    end: r.end,
                }),
            };
        }
        Ok(())
    }

    /// The deadline of a slot, as the gate says it.
    pub fn deadline(&self, slot: u32) -> Mono {
        check(slot).map_or(Mono::ZERO, |()| self.slots[slot as usize].deadline)
    }

    /// Fences an address, shut; a managed one stays as it is.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn manage(&mut self, address: IpAddr) -> Result<(), Refusal> {
        self.add(address, false)?;
        if let Some(entry) = self.entries.get_mut(&address.to_canonical()) {
            entry.inherited = false;
        }
        Ok(())
    }

    fn add(&mut self, address: IpAddr, inherited: bool) -> Result<(), Refusal> {
        let address = address.to_canonical();
        if self.entries.contains_key(&address) {
            return Ok(());
        }
        if self.entries.len() >= self.capacity {
            return Err(Refusal::Full);
        }
        self.entries.insert(address, Entry { slot: 0, inherited });
        Ok(())
    }

    /// Fences what a predecessor fenced, shut; a managed address stays as it is.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn inherit(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), Refusal> {
        let mut addresses = addresses.into_iter();
        addresses.try_for_each(|address| self.add(address, true))
    }

    /// Rests an address on a slot.
    ///
    /// # Errors
    /// [`Refusal::NoSuchSlot`], [`Refusal::NotManaged`].
    pub fn open(&mut self, address: IpAddr, slot: u32) -> Result<(), Refusal> {
        check(slot)?;
        self.rest(address, slot)
    }

    /// Shuts an address.
    ///
    /// # Errors
    /// [`Refusal::NotManaged`].
    pub fn shut(&mut self, address: IpAddr) -> Result<(), Refusal> {
        self.rest(address, 0)
    }

    fn rest(&mut self, address: IpAddr, slot: u32) -> Result<(), Refusal> {
        let entry = self.entries.get_mut(&address.to_canonical());
        entry.ok_or(Refusal::NotManaged)?.slot = slot;
        Ok(())
    }

    /// No longer fences an address.
    pub fn forget(&mut self, address: IpAddr) {
        self.entries.remove(&address.to_canonical());
    }

    /// The same, where nobody has managed it since it was found in a predecessor's gate.
    pub fn forget_inherited(&mut self, address: IpAddr) {
        let inherited = |e: &Entry| e.inherited;
        if self
            .entries
            .get(&address.to_canonical())
            .is_some_and(inherited)
        {
            self.forget(address);
        }
    }

    /// Shuts every address, and puts every deadline into the past.
    pub fn shut_all(&mut self) {
        self.slots = [Slot::default(); SLOTS as usize];
        self.entries.values_mut().for_each(|entry| entry.slot = 0);
    }

    /// The same, and forgets every address.
    pub fn clear_all(&mut self) {
        self.shut_all();
        self.entries.clear();
    }

    /// Puts the gate back in its place. The timed one makes its tables anew: nothing is counted in them, so every
    /// slot is shut until its next renewal.
    pub fn repair(&mut self) {
        if self.kind == Kind::Timed {
            self.rounds.clear();
            self.slots = [Slot::default(); SLOTS as usize];
        }
    }

    /// Is the address fenced?
    pub fn manages(&self, address: IpAddr) -> bool {
        self.entries.contains_key(&address.to_canonical())
    }

    /// Managed addresses: the slot that each rests on (0: shut), and whether it is inherited.
    pub fn managed(&self) -> impl Iterator<Item = (IpAddr, u32, bool)> + '_ {
        self.entries.iter().map(|(a, e)| (*a, e.slot, e.inherited))
    }

    /// Addresses that rest on a slot, with it and with the time at which the kernel shuts it.
    pub fn mapped(&self) -> impl Iterator<Item = (IpAddr, u32, Mono)> + '_ {
        let open = self.entries.iter().filter(|(_, e)| e.slot != 0);
        open.map(|(a, e)| (*a, e.slot, self.slots[e.slot as usize].end))
    }

    /// Is a managed address open?
    pub fn is_open(&self, address: IpAddr, now: Mono) -> bool {
        self.manages(address) && self.passes(address, now)
    }

    /// Does a packet of the address pass? One that is not managed does.
    pub fn passes(&self, address: IpAddr, now: Mono) -> bool {
        let entry = self.entries.get(&address.to_canonical());
        entry.is_none_or(|e| e.slot != 0 && now < self.slots[e.slot as usize].end)
    }
}

fn check(slot: u32) -> Result<(), Refusal> {
    if slot == 0 || slot >= SLOTS {
        return Err(Refusal::NoSuchSlot);
    }
    Ok(())
}

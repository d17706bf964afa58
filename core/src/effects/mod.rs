//! The ordered steps of a VIP up and down: gate, address, announcement, notification.
//!
//! This is S4 of `docs/leases.md`. One machine for each VIP under one epoch. The lease thread opens and
//! shuts the gate and says so; everything else follows from here:
//!
//! ```text
//! up:    gate open -> add addresses -> announce -> notify
//! down:  gate shut -> stop announcing -> remove addresses -> lowered (the claim may go) -> notify
//! ```
//!
//! Where an edit gives the VIP to the same node again, what the new epoch has unchanged ([`unchanged`]) stays on the
//! interface behind the shut gate, and its claim passes to the new epoch together with the address: before the
//! removal, the machine asks what that is.
//!
//! ```text
//! edit:  gate shut -> stop announcing -> decide what is kept -> remove the rest -> lowered -> notify
//! ```
//!
//! The gate may shut at any point of the way up. What was begun is then undone at once; what comes in
//! late of it means nothing any more. An epoch that was shut never comes up again.
//!
//! # The contract with the driver
//!
//! - [`Event::Opened`] is said after the gate was opened, [`Event::Shut`] after it was shut.
//! - Effects are carried out in order. [`Effect::Remove`] may follow while [`Effect::Add`] is still under
//!   way: the driver lets the removal win, whatever of the addition is done later.
//! - The machine has no deadline of its own: every step waits for the one before. The driver answers
//!   [`Effect::Decide`] in time ([`Again::patience`]), whatever it knows by then.

mod again;
mod unchanged;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::time::Mono;

pub use again::Again;
pub use unchanged::unchanged;

#[cfg(test)]
mod tests;

/// What happens to a VIP under one epoch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Event {
    /// The gate is open for it.
    Opened,
    /// [`Effect::Add`] is done.
    Added {
        /// Addresses that were not added, and why. Empty: all are there.
        failed: BTreeMap<IpAddr, String>,
    },
    /// The gate is shut.
    Shut {
        /// May the VIP have a newer epoch at this very node?
        again: Again,
    },
    /// [`Effect::Decide`] is done.
    Decided {
        /// Addresses that stay for the newer epoch; none if there is no such epoch.
        kept: Vec<IpAddr>,
    },
    /// [`Effect::Remove`] is done: no address is there any more. Where the kernel refuses to remove one, this is said
    /// when its lifetime has certainly ended; the gate is shut over it meanwhile.
    Removed,
}

/// What a VIP wants done.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Effect {
    /// Add the addresses, then say [`Event::Added`].
    Add(Vec<IpAddr>),
    /// Tell the neighbours, and go on telling them, where the addresses are.
    Announce(Vec<IpAddr>),
    /// This node cannot hold the VIP: the lease thread shuts the gate, and says [`Event::Shut`].
    GiveUp {
        /// Why, in words.
        reason: String,
    },
    /// Tell the neighbours nothing more.
    StopAnnouncing(Vec<IpAddr>),
    /// Find out which addresses the newer epoch has [`unchanged`], then say [`Event::Decided`].
    Decide(Again),
    /// Remove the addresses (those that are there), then say [`Event::Removed`].
    Remove(Vec<IpAddr>),
    /// Nothing of the VIP is left here but what is kept: the lease thread may release it.
    Lowered {
        /// Behind the shut gate, for the newer epoch.
        kept: Vec<IpAddr>,
    },
    /// Tell whoever wants to know (log, hooks).
    Notify(Change),
}

/// What is told of a VIP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Change {
    /// Its addresses are here, and announced.
    Up,
    /// They are gone.
    Down,
}

/// How far a VIP is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// Its gate was not opened yet.
    Shut,
    /// Its gate is open, its addresses are being added.
    Adding,
    /// It is up.
    Up,
    /// Some of its addresses were not added. It waits for the gate to be shut.
    Failed,
    /// Its gate is shut, and what stays of it for a newer epoch is not decided yet.
    Deciding,
    /// Its gate is shut, its addresses are being removed, but for those that are kept.
    Removing,
    /// Nothing of it is left. The end.
    Down,
}

/// The steps of one VIP under one epoch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Steps {
    addresses: Vec<IpAddr>,
    kept: Vec<IpAddr>,
    phase: Phase,
    since: Mono,
}

impl Steps {
    /// A VIP whose gate was not opened yet.
    pub fn new(now: Mono, addresses: Vec<IpAddr>) -> Self {
        Self {
            addresses,
            kept: Vec::new(),
            phase: Phase::Shut,
            since: now,
        }
    }

    /// Advances the machine. Effects are appended, to be carried out in order.
    pub fn handle(&mut self, now: Mono, event: Event, effects: &mut Vec<Effect>) {
        match (self.phase, event) {
            (Phase::Shut, Event::Opened) => {
                self.enter(now, Phase::Adding);
                effects.push(Effect::Add(self.addresses.clone()));
            }
            (Phase::Adding, Event::Added { failed }) => match refused(&failed) {
                None => {
                    self.enter(now, Phase::Up);
                    effects.push(Effect::Announce(self.addresses.clone()));
                    effects.push(Effect::Notify(Change::Up));
                }
                Some(reason) => {
                    self.enter(now, Phase::Failed);
                    effects.push(Effect::GiveUp { reason });
                }
            },
            (Phase::Up, Event::Shut { again }) => {
                effects.push(Effect::StopAnnouncing(self.addresses.clone()));
                if again == Again::No {
                    self.remove(now, effects);
                } else {
                    self.enter(now, Phase::Deciding);
                    effects.push(Effect::Decide(again));
                }
            }
            // Of these it is not known which addresses are there.
            (Phase::Shut | Phase::Adding | Phase::Failed, Event::Shut { .. }) => {
                self.remove(now, effects);
            }
            (Phase::Deciding, Event::Decided { kept }) => {
                self.kept = kept;
                self.kept.retain(|ip| self.addresses.contains(ip));
                self.remove(now, effects);
            }
            (Phase::Removing, Event::Removed) => {
                self.enter(now, Phase::Down);
                let kept = self.kept.clone();
                effects.push(Effect::Lowered { kept });
                effects.push(Effect::Notify(Change::Down));
            }
            // Repeated, or the late end of something that was undone meanwhile.
            (
                Phase::Shut
                | Phase::Adding
                | Phase::Up
                | Phase::Failed
                | Phase::Deciding
                | Phase::Removing
                | Phase::Down,
                _,
            ) => {}
        }
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when it is that far.
    pub fn since(&self) -> Mono {
        self.since
    }

    fn remove(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        self.enter(now, Phase::Removing);
        let mut gone = self.addresses.clone();
        gone.retain(|ip| !self.kept.contains(ip));
        effects.push(Effect::Remove(gone));
    }

    fn enter(&mut self, now: Mono, phase: Phase) {
        self.phase = phase;
        self.since = now;
    }
}

/// The addresses that were not added, in words; `None`: there are none.
fn refused(failed: &BTreeMap<IpAddr, String>) -> Option<String> {
    let (ip, why) = failed.first_key_value()?;
    let more = match failed.len() - 1 {
        0 => String::new(),
        n => format!(" (nor were {n} more)"),
    };
    Some(format!("address {ip} was not added: {why}{more}"))
}

//! S4, as the kernel sees it: gate before address before announcement, and the reverse going down.

use std::net::IpAddr;

use buoy_core::Epoch;

use super::check::Checker;
use super::clock::True;
use super::config::Invariant;
use super::node::{Node, Process};

impl Checker {
    /// An address is opened on node `n`: the deadline of its slot was moved before.
    pub fn opened(&mut self, here: &Node, address: IpAddr, slot: u32, epoch: Epoch, now: True) {
        if let Some(p) = &here.process {
            self.opened.insert((p.session, address, epoch));
        }
        // A timed gate may have shut the slot for want of a round.
        let moved = |p: &Process| p.advanced.get(&slot).is_some_and(|at| at.0 > 0);
        if slot == 0 || !here.process.as_ref().is_some_and(moved) {
            self.fail(Invariant::S4, now, || {
                format!(
                    "node {} opens {address} by slot {slot}, which has no deadline",
                    here.id
                )
            });
        }
    }

    /// An address is about to be added: its gate was opened for this epoch. (It may be shut again by
    /// now: the removal follows.)
    pub fn adding(&mut self, here: &Node, address: IpAddr, epoch: Epoch, now: True) {
        let Some(p) = &here.process else { return };
        if !self.opened.contains(&(p.session, address, epoch)) {
            self.fail(Invariant::S4, now, || {
                format!(
                    "node {} adds {address} (epoch {epoch}) before its gate is open",
                    here.id
                )
            });
        }
    }

    /// Addresses are about to be announced: they are there.
    pub fn announced(&mut self, here: &Node, addresses: &[IpAddr], now: True) {
        if let Some(address) = addresses.iter().find(|a| !here.addresses.contains(a)) {
            self.fail(Invariant::S4, now, || {
                format!("node {} announces {address} before it is there", here.id)
            });
        }
    }

    /// Addresses are about to be removed: their gate is shut, and they are not announced.
    pub fn removing(&mut self, here: &Node, addresses: &[IpAddr], epoch: Epoch, now: True) {
        let open = |a: &IpAddr| rests(here, *a, epoch);
        let wrong = |a: &&IpAddr| open(a) || here.announced.contains(a);
        if let Some(address) = addresses.iter().find(wrong) {
            self.fail(Invariant::S4, now, || {
                let what = if open(address) {
                    "its gate is open"
                } else {
                    "it is announced"
                };
                format!("node {} removes {address} while {what}", here.id)
            });
        }
    }

    /// A VIP is about to be called lowered: nothing of it is left, but what is kept behind the shut gate.
    pub fn lowered(
        &mut self,
        here: &Node,
        addresses: &[IpAddr],
        kept: &[IpAddr],
        epoch: Epoch,
        now: True,
    ) {
        let open = |a: &IpAddr| rests(here, *a, epoch);
        let there = |a: &IpAddr| here.addresses.contains(a) && !kept.contains(a);
        let left = |a: &&IpAddr| open(a) || there(a) || here.announced.contains(*a);
        if let Some(address) = addresses.iter().find(left) {
            self.fail(Invariant::S4, now, || {
                format!("node {} calls {address} lowered, and it is not", here.id)
            });
        }
    }

    /// The gate is about to fence an address no longer: it is not on the interface.
    pub fn forgetting(&mut self, here: &Node, address: IpAddr, now: True) {
        if here.addresses.contains(&address) {
            self.fail(Invariant::S4, now, || {
                format!(
                    "node {} no longer fences {address}, which is there",
                    here.id
                )
            });
        }
    }
}

/// Does the gate rest the address on a slot for this epoch?
fn rests(here: &Node, address: IpAddr, epoch: Epoch) -> bool {
    here.resting()
        .any(|r| r.address == address && r.holding.2 == epoch)
}

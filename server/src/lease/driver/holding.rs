//! The holder's effects, carried out: renewals leave, deadlines are stored, the gate opens and shuts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use buoy_core::effects::Again;
use buoy_core::lease::holder::{DownReason, HolderEffect, HolderEvent};
use buoy_core::{Epoch, VipName};
use buoy_fence::clock::boottime;
use buoy_fence::{fault_point, plant};
use tracing::{error, info};

use super::Driver;
use crate::lease::codec::{self, Message};
use crate::lease::messages::LeaseOut;
use crate::lease::shared::{Held, Phase};
use crate::lease::valve::Shut;

impl Driver {
    /// Carries out effects in their order. Deadlines that stand together are moved together, before anything
    /// that follows them.
    pub(super) fn holder_effects(&mut self, effects: impl Iterator<Item = HolderEffect>) {
        for effect in effects {
            if !matches!(effect, HolderEffect::Deadline { .. }) {
                self.valve.advance();
            }
            self.holder_effect(effect);
        }
        self.valve.advance();
    }

    fn holder_effect(&mut self, effect: HolderEffect) {
        match effect {
            HolderEffect::Send { to, renew, until } if to == self.me => {
                plant!(RelativeDeadline => self.valve.planted.lease = renew.lease);
                self.valve.arm(until);
                self.shared.note_heard(renew.session, boottime());
                self.judge(renew);
                fault_point!("own.judged");
            }
            HolderEffect::Send { to, renew, until } => {
                self.valve.arm(until);
                self.shared.renewals.fetch_add(1, Relaxed);
                if let Some(outlet) = self.outbound.get(&to) {
                    let bytes = codec::encode(&Message::Renew(renew), Vec::new());
                    fault_point!("send.encoded", to.0);
                    outlet.send(bytes);
                    fault_point!("send.queued", to.0);
                }
            }
            HolderEffect::Deadline { slot, at } => {
                self.valve.store(slot.0, at);
                fault_point!("deadline.noted");
            }
            HolderEffect::Open {
                vip,
                epoch,
                addresses,
                slot,
            } => match self.withheld.get_mut(&(vip.clone(), epoch)) {
                Some(place) => {
                    *place = Some(slot.0);
                    self.held_changed = true;
                    info!(%vip, %epoch, "lease granted by a quorum: withheld until what it waits for is over");
                    self.tell(LeaseOut::Granted { vip, epoch });
                }
                None => self.open(vip, epoch, addresses, slot.0),
            },
            HolderEffect::Remap {
                vip,
                epoch,
                addresses,
                slot,
            } => {
                self.held_changed = true;
                match self.withheld.get_mut(&(vip.clone(), epoch)) {
                    Some(place) => *place = Some(slot.0),
                    None => {
                        self.map(&vip, epoch, &addresses, slot.0);
                    }
                }
            }
            HolderEffect::Shut {
                vip,
                epoch,
                addresses,
                reason,
            } => {
                self.shut(vip, epoch, addresses, reason);
            }
            HolderEffect::GaveUp { vip, epoch, reason } => {
                if reason.is_lasting() {
                    self.tell(LeaseOut::Unable {
                        vip: vip.clone(),
                        reason: reason.to_string(),
                    });
                }
                self.tell(LeaseOut::GaveUp {
                    vip,
                    epoch,
                    reason: reason.to_string(),
                });
            }
        }
    }

    fn open(&mut self, vip: VipName, epoch: Epoch, addresses: Vec<IpAddr>, slot: u32) {
        info!(%vip, %epoch, "lease granted by a quorum: going up");
        fault_point!("up.granted");
        self.held_changed = true;
        if self.map(&vip, epoch, &addresses, slot) {
            fault_point!("up.opened");
            self.tell(LeaseOut::Up {
                vip,
                epoch,
                addresses,
            });
        }
    }

    /// Opens what was withheld, if a quorum grants it. If it does not yet, nothing is in its way when it does.
    pub(super) fn let_up(&mut self, vip: VipName, epoch: Epoch) {
        // First of all: a lease that is over opens nothing.
        self.holder
            .handle(boottime(), HolderEvent::Tick, &mut self.holder_effects);
        self.settle();
        if let Some(Some(slot)) = self.withheld.remove(&(vip.clone(), epoch)) {
            let mut all = self.holder.status();
            let status = all.find(|status| *status.vip == vip && status.epoch == epoch);
            let addresses = status.map(|status| status.addresses.to_vec());
            drop(all);
            if let Some(addresses) = addresses {
                self.open(vip, epoch, addresses, slot);
            }
        }
        self.settle();
    }

    /// Forgets what is withheld and not wanted here any more.
    pub(super) fn forget_withheld(&mut self) {
        if self.withheld.is_empty() {
            return;
        }
        let wanted: BTreeSet<(VipName, Epoch)> = self
            .holder
            .status()
            .map(|status| (status.vip.clone(), status.epoch))
            .collect();
        self.withheld.retain(|key, _| wanted.contains(key));
    }

    /// Rests the addresses on a slot of the gate; a VIP whose gate refuses is given up.
    fn map(&mut self, vip: &VipName, epoch: Epoch, addresses: &[IpAddr], slot: u32) -> bool {
        let Err((address, e)) = self.valve.rest(addresses, slot) else {
            return true;
        };
        let reason = format!("the packet gate did not open for {address}: {e}");
        error!(%vip, "{reason}");
        // Right here, not with the shut that follows: the deadline of the slot that an address is still
        // in may move on for others before that.
        self.shut_now(vip, addresses);
        self.tell(LeaseOut::Unable {
            vip: vip.clone(),
            reason: reason.clone(),
        });
        self.give_up(vip.clone(), epoch, reason);
        false
    }

    fn give_up(&mut self, vip: VipName, epoch: Epoch, reason: String) {
        let event = HolderEvent::GiveUp { vip, epoch, reason };
        self.holder
            .handle(boottime(), event, &mut self.holder_effects);
    }

    pub(in crate::lease) fn shut(
        &mut self,
        vip: VipName,
        epoch: Epoch,
        addresses: Vec<IpAddr>,
        reason: DownReason,
    ) {
        self.withheld.remove(&(vip.clone(), epoch));
        plant!(ReleaseBeforeShut => if self.planted_release(&vip, epoch, &addresses, &reason) { return });
        fault_point!("down.decided");
        // Before anything is said of it.
        self.shut_now(&vip, &addresses);
        fault_point!("down.shut");
        info!(%vip, %epoch, "going down: {reason}");
        if reason == DownReason::Expired {
            self.shared.lost.fetch_add(1, Relaxed);
        }
        self.held_changed = true;
        let again = self.again(epoch, &addresses, &reason);
        self.tell(LeaseOut::Down {
            vip,
            epoch,
            addresses,
            again,
            reason: reason.to_string(),
        });
    }

    /// May a VIP that went down have a newer epoch at this node? Without the packet gate that makes no difference:
    /// nothing may stay on an interface.
    fn again(&self, epoch: Epoch, addresses: &[IpAddr], reason: &DownReason) -> Again {
        match self.valve.drops_packets() {
            true => Again::of(&self.log_view.load(), self.me, epoch, addresses, reason),
            false => Again::No,
        }
    }

    /// Shuts the gate over the addresses of a VIP; returns only when they are shut.
    fn shut_now(&mut self, vip: &VipName, addresses: &[IpAddr]) {
        match self.valve.shut(addresses) {
            Shut::Done => {}
            // The others would stay silent for ever under a lease that is renewed.
            Shut::Everything => self.give_up_all(vip),
            Shut::Failed => fail_stop(vip),
        }
    }

    /// Every VIP that is up goes down, and may come back under a new epoch.
    fn give_up_all(&mut self, because_of: &VipName) {
        let active: Vec<(VipName, Epoch)> = self
            .holder
            .status()
            .filter(|status| status.phase == Phase::Active)
            .map(|status| (status.vip.clone(), status.epoch))
            .collect();
        for (vip, epoch) in active {
            let reason = format!(
                "the kernel refused to shut the packet gate for VIP {because_of} alone, so it was shut for all"
            );
            self.give_up(vip, epoch, reason);
        }
    }

    /// Shows what is held here; only when it changed, never on the path of a plain renewal.
    pub(super) fn publish(&mut self) {
        let mut held = BTreeMap::new();
        let mut slots = BTreeMap::new();
        for status in self.holder.status() {
            let key = (status.vip.clone(), status.epoch);
            // What is withheld is not up, and its addresses rest on no slot.
            let (phase, slot) = match self.withheld.contains_key(&key) {
                true => (Phase::Claiming, None),
                false => (status.phase, status.slot.map(|slot| slot.0)),
            };
            if let (Phase::Active, Some(slot)) = (phase, slot) {
                slots.extend(status.addresses.iter().map(|address| (*address, slot)));
            }
            let claim = Held {
                phase,
                addresses: status.addresses.to_vec(),
                inherits: status.inherits,
                slot,
            };
            held.insert(key, claim);
        }
        self.shared.slots.store(Arc::new(slots));
        self.shared.held.store(Arc::new(held));
        self.shared.tick();
    }
}

/// Ends the process at once. The claim on an address that cannot be shut keeps nobody out: its promises
/// run out, and the slot that it rests on must not move on with the other VIPs of that slot. Without a process no
/// deadline moves, so the kernel shuts everything within one lease.
fn fail_stop(vip: &VipName) -> ! {
    // Not through the log, whose lines would be lost. Where this waits for a reader, no deadline moves either.
    eprintln!(
        "buoy: the packet gate cannot be shut for VIP {vip}: ending the process, so that the kernel shuts it when the lease ends"
    );
    std::process::abort();
}

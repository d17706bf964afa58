//! The holder's effects, carried out: renewals leave, deadlines are stored, the gate opens and shuts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use buoy_core::effects::Again;
use buoy_core::lease::holder::{DownReason, HolderEffect, HolderEvent};
use buoy_core::{Epoch, VipName};
use buoy_fence::clock::boottime;
use tracing::{error, info};

use super::Driver;
use crate::lease::codec::{self, Message};
use crate::lease::messages::LeaseOut;
use crate::lease::shared::{Held, Phase};
use crate::lease::valve::Shut;

impl Driver {
    pub(super) fn holder_effect(&mut self, effect: HolderEffect) {
        match effect {
            HolderEffect::Send { to, renew } if to == self.me => {
                self.shared.note_heard(renew.session, boottime());
                self.judge(renew);
            }
            HolderEffect::Send { to, renew } => {
                self.shared.renewals.fetch_add(1, Relaxed);
                if let Some(outlet) = self.outbound.get(&to) {
                    outlet.send(codec::encode(&Message::Renew(renew), Vec::new()));
                }
            }
            HolderEffect::Deadline { slot, at } => self.valve.store(slot.0, at),
            HolderEffect::Open {
                vip,
                epoch,
                addresses,
                slot,
            } => {
                self.open(vip, epoch, addresses, slot.0);
            }
            HolderEffect::Remap {
                vip,
                epoch,
                addresses,
                slot,
            } => {
                self.held_changed = true;
                self.map(&vip, epoch, &addresses, slot.0);
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
        self.held_changed = true;
        if self.map(&vip, epoch, &addresses, slot) {
            self.tell(LeaseOut::Up {
                vip,
                epoch,
                addresses,
            });
        }
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

    fn shut(&mut self, vip: VipName, epoch: Epoch, addresses: Vec<IpAddr>, reason: DownReason) {
        // Before anything is said of it.
        self.shut_now(&vip, &addresses);
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
            let slot = status.slot.map(|slot| slot.0);
            if let (Phase::Active, Some(slot)) = (status.phase, slot) {
                slots.extend(status.addresses.iter().map(|address| (*address, slot)));
            }
            let claim = Held {
                phase: status.phase,
                addresses: status.addresses.to_vec(),
                inherits: status.inherits,
                slot,
            };
            held.insert((status.vip.clone(), status.epoch), claim);
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

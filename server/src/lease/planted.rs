//! Planted bugs of the lease thread (`buoy_fence::fault::Plant`), and its fault points that are not one place.

use std::net::IpAddr;
use std::time::Duration;

use buoy_core::lease::holder::{DownReason, HolderEvent};
use buoy_core::{Epoch, Mono, VipName};
use buoy_fence::clock::boottime;
use buoy_fence::fault_point;
use buoy_fence::gate::{Gate, SlotId};

use super::driver::Driver;
use super::messages::LeaseOut;

/// A release has left by then, and a round of renewals has not always begun.
const LATER: Duration = Duration::from_millis(10);

/// The fault point that follows when this has been said.
pub(super) fn what(message: &LeaseOut) -> fn() {
    match message {
        LeaseOut::Up { .. } => || fault_point!("up.told"),
        LeaseOut::Down { .. } => || fault_point!("down.told"),
        _ => || {},
    }
}

/// `Plant::RelativeDeadline`.
#[derive(Default)]
pub(super) struct Relative {
    /// The lease that the last renewal named.
    pub(super) lease: Duration,
}

impl Relative {
    /// Leases begin now instead of when they were asked for.
    pub(super) fn count_from_now(&self, gate: &mut dyn Gate, moves: &mut [(SlotId, Mono)]) {
        let at = boottime() + self.lease;
        if let Err(e) = gate.arm(at) {
            tracing::error!("planted: {e}");
        }
        for (_, deadline) in moves {
            *deadline = at;
        }
    }
}

/// `Plant::ReleaseBeforeShut`: what was released and is still open.
pub(super) struct Released {
    since: Mono,
    vip: VipName,
    epoch: Epoch,
    addresses: Vec<IpAddr>,
    reason: DownReason,
}

impl Driver {
    /// Releases a VIP that is to be shut, which is done later; false if that is now.
    pub(super) fn planted_release(
        &mut self,
        vip: &VipName,
        epoch: Epoch,
        addresses: &[IpAddr],
        reason: &DownReason,
    ) -> bool {
        if self.shutting_released {
            return false;
        }
        let lowered = HolderEvent::Lowered {
            vip: vip.clone(),
            epoch,
            kept: Vec::new(),
        };
        let since = boottime();
        self.holder.handle(since, lowered, &mut self.holder_effects);
        self.released.push(Released {
            since,
            vip: vip.clone(),
            epoch,
            addresses: addresses.to_vec(),
            reason: reason.clone(),
        });
        true
    }

    /// Shuts what was released some time ago.
    pub(super) fn shut_released(&mut self) {
        let now = boottime();
        self.shutting_released = true;
        let due = |r: &mut Released| now.since(r.since) >= LATER;
        let due: Vec<Released> = self.released.extract_if(.., due).collect();
        for r in due {
            self.shut(r.vip, r.epoch, r.addresses, r.reason);
        }
        self.shutting_released = false;
        self.settle();
    }
}

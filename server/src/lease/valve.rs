//! The packet gate in the hands of the lease thread: which addresses it fences, and what happens when the
//! kernel refuses.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use buoy_core::Mono;
use buoy_fence::gate::{Gate, GateError, GateKind, SlotId};
use buoy_fence::{fault_point, plant};
use tracing::error;

/// How far a gate could be shut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Shut {
    /// Over the addresses that were named.
    Done,
    /// Over every address, because the kernel refused to shut one of those that were named.
    Everything,
    /// Perhaps not at all.
    Failed,
}

/// The gate, and the addresses in it.
pub(super) struct Valve {
    gate: Box<dyn Gate>,
    /// The renewals that the gate was last told of.
    armed: Option<Mono>,
    /// Deadlines that are to be moved, all in one go.
    moves: Vec<(SlotId, Mono)>,
    /// Slots whose deadlines the kernel refused to move: they may still have those of VIPs that used them before.
    unmoved: BTreeSet<SlotId>,
    /// Addresses that the gate fences.
    managed: BTreeSet<IpAddr>,
    /// Addresses of the VIPs that exist.
    wanted: BTreeSet<IpAddr>,
    #[cfg(feature = "fault-points")]
    pub(super) planted: super::planted::Relative,
}

impl Valve {
    /// A gate that fences `managed` already.
    pub(super) fn new(gate: Box<dyn Gate>, managed: BTreeSet<IpAddr>) -> Self {
        Self {
            armed: None,
            moves: Vec::new(),
            unmoved: BTreeSet::new(),
            gate,
            wanted: managed.clone(),
            managed,
            #[cfg(feature = "fault-points")]
            planted: Default::default(),
        }
    }

    pub(super) fn gate(&mut self) -> &mut dyn Gate {
        self.gate.as_mut()
    }

    /// Does the kernel drop the packets of an address that is shut?
    pub(super) fn drops_packets(&self) -> bool {
        self.gate.kind() != GateKind::UserspaceOnly
    }

    /// Before renewals leave: an answer permits until `until` at the latest. If the kernel refuses, deadlines
    /// that rest on these renewals end early, never late.
    ///
    /// The gate is told once of all renewals with the same `until`, before the first one leaves. What the kernel began to count
    /// for a later one of them (because it refused before, or because less time was left) would serve the
    /// first one as well, and that one's promise was made before the counting began.
    pub(super) fn arm(&mut self, until: Mono) {
        if self.armed.replace(until) == Some(until) {
            return;
        }
        fault_point!("arm.before");
        if let Err(e) = self.gate.arm(until) {
            error!("the packet gate was not armed for a renewal: {e}");
        }
        fault_point!("arm.after");
    }

    /// Takes down the deadline of a slot; it counts once [`Valve::advance`] has returned.
    pub(super) fn store(&mut self, slot: SlotId, at: Mono) {
        self.moves.push((slot, at));
    }

    /// Moves what was taken down. If the kernel refuses, the old deadlines stand: the VIPs of the slots end
    /// early, never late.
    pub(super) fn advance(&mut self) {
        if self.moves.is_empty() {
            return;
        }
        plant!(RelativeDeadline => self.planted.count_from_now(self.gate.as_mut(), &mut self.moves));
        let slots = self.moves.iter().map(|(slot, _)| *slot);
        match self.gate.advance(&self.moves) {
            Ok(()) => slots.for_each(|slot| {
                self.unmoved.remove(&slot);
            }),
            Err(e) => {
                self.unmoved.extend(slots);
                let slots = self.moves.len();
                error!("the deadlines of {slots} lease slots were not moved: {e}");
            }
        }
        self.moves.clear();
        fault_point!("deadline.moved");
    }

    /// The gate learns addresses before anybody can be assigned them here, and forgets those of deleted
    /// VIPs that are not `held` any more.
    pub(super) fn manage(&mut self, addresses: Vec<IpAddr>, held: &BTreeSet<IpAddr>) {
        self.wanted = addresses.into_iter().collect();
        let new: Vec<IpAddr> = self.wanted.difference(&self.managed).copied().collect();
        for address in new {
            if let Err(e) = self.fence(address) {
                error!(%address, "the packet gate does not take the address: {e}");
            }
        }
        self.forget_unwanted(held);
    }

    fn fence(&mut self, address: IpAddr) -> Result<(), GateError> {
        if !self.managed.contains(&address) {
            self.gate.manage(address)?;
            self.managed.insert(address);
        }
        Ok(())
    }

    /// Is there anything to forget, once it is not held any more?
    pub(super) fn has_unwanted(&self) -> bool {
        self.managed.difference(&self.wanted).next().is_some()
    }

    /// The gate forgets addresses of deleted VIPs once they are not held any more: they may then be
    /// used on this host for something else.
    pub(super) fn forget_unwanted(&mut self, held: &BTreeSet<IpAddr>) {
        let (gate, wanted) = (&mut self.gate, &self.wanted);
        self.managed.retain(|address| {
            if wanted.contains(address) || held.contains(address) {
                return true;
            }
            let forgotten = gate.forget(*address);
            if let Err(e) = &forgotten {
                error!(%address, "the packet gate does not forget the address: {e}");
            }
            forgotten.is_err()
        });
    }

    /// Rests addresses on a slot of the gate; not on one whose deadline may be somebody else's.
    ///
    /// # Errors
    /// The address at which the kernel refused, and why; some may rest on the slot then.
    pub(super) fn rest(
        &mut self,
        addresses: &[IpAddr],
        slot: SlotId,
    ) -> Result<(), (IpAddr, GateError)> {
        if self.unmoved.contains(&slot)
            && let Some(address) = addresses.first()
        {
            let action = format!("open {address} by lease slot {slot}");
            let source = io::Error::other("the kernel refused to move the deadline of that slot");
            return Err((*address, GateError::Kernel { action, source }));
        }
        for address in addresses {
            // An edit may assign an address in the same entry that declares it.
            let rested = self
                .fence(*address)
                .and_then(|()| self.gate.open(*address, slot));
            rested.map_err(|e| (*address, e))?;
            fault_point!("up.rested", if address.is_ipv4() { 4 } else { 6 });
        }
        Ok(())
    }

    /// Shuts the gate over addresses, or over everything if the kernel refuses that.
    pub(super) fn shut(&mut self, addresses: &[IpAddr]) -> Shut {
        let mut all = true;
        for address in addresses {
            match self.gate.shut(*address) {
                // What the gate never took never went up.
                Ok(()) | Err(GateError::NotManaged { .. }) => {}
                Err(e) => {
                    error!(%address, "the packet gate did not shut: {e}");
                    all = false;
                }
            }
            fault_point!("down.one-shut", if address.is_ipv4() { 4 } else { 6 });
        }
        if all {
            return Shut::Done;
        }
        match self.gate.shut_all() {
            Ok(()) => Shut::Everything,
            Err(e) => {
                error!("the packet gate did not shut at all: {e}");
                Shut::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stubborn::Stubborn;
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn valve(gate: &Stubborn) -> Valve {
        Valve::new(Box::new(gate.clone()), BTreeSet::new())
    }

    #[test]
    fn an_address_that_was_refused_is_tried_again_and_shuts_nothing_else() {
        let gate = Stubborn::new();
        let mut valve = valve(&gate);
        gate.whims().manage = vec![ip(2)];
        valve.rest(&[ip(1)], 1).unwrap();
        let (at, _) = valve.rest(&[ip(2)], 1).unwrap_err();
        assert_eq!(at, ip(2));
        assert_eq!(valve.shut(&[ip(2)]), Shut::Done);
        assert_eq!(gate.whims().slot(ip(1)), Some(1), "the other one stays up");

        gate.whims().manage.clear();
        valve.rest(&[ip(2)], 1).unwrap();
        assert_eq!(gate.whims().slot(ip(2)), Some(1));
    }

    #[test]
    fn one_that_does_not_shut_shuts_everything_or_fails() {
        let gate = Stubborn::new();
        let mut valve = valve(&gate);
        valve.rest(&[ip(1), ip(2)], 1).unwrap();
        gate.whims().shut = vec![ip(1)];
        assert_eq!(valve.shut(&[ip(2)]), Shut::Done);
        valve.rest(&[ip(2)], 1).unwrap();
        assert_eq!(valve.shut(&[ip(1)]), Shut::Everything);
        let slots = [1, 2].map(|last| gate.whims().slot(ip(last)));
        assert_eq!(slots, [None, None]);
        gate.whims().shut_all = true;
        assert_eq!(valve.shut(&[ip(1)]), Shut::Failed);
    }

    #[test]
    fn the_gate_counts_before_the_first_renewal_of_a_moment_or_not_at_all() {
        let gate = Stubborn::new();
        let mut valve = valve(&gate);
        gate.whims().arm = true;
        [300, 300]
            .into_iter()
            .for_each(|ms| valve.arm(Mono::from_millis(ms)));
        gate.whims().arm = false;
        [300, 375, 375]
            .into_iter()
            .for_each(|ms| valve.arm(Mono::from_millis(ms)));
        let told = [300, 375].map(Mono::from_millis);
        assert_eq!(
            gate.whims().armed,
            told,
            "the first renewal has left by then"
        );
    }

    #[test]
    fn nothing_opens_by_a_slot_whose_deadline_was_not_moved() {
        let gate = Stubborn::new();
        let mut valve = valve(&gate);
        valve.store(1, Mono(900));
        valve.advance();
        // The slot is used anew, for another VIP with less time.
        gate.whims().advance = true;
        valve.store(1, Mono(500));
        valve.advance();
        let (at, e) = valve.rest(&[ip(1)], 1).unwrap_err();
        assert_eq!(at, ip(1));
        assert!(e.to_string().contains("slot 1"), "{e}");
        assert_eq!(gate.whims().slot(ip(1)), None);
        valve.rest(&[ip(1)], 2).unwrap();
        gate.whims().advance = false;
        valve.store(1, Mono(500));
        valve.advance();
        valve.rest(&[ip(1)], 1).unwrap();
        assert_eq!(gate.whims().slot(ip(1)), Some(1));
    }

    #[test]
    fn addresses_of_deleted_vips_are_forgotten_once_they_are_not_held() {
        let gate = Stubborn::new();
        let mut valve = valve(&gate);
        valve.manage(vec![ip(1), ip(2)], &BTreeSet::new());
        assert!(!valve.has_unwanted());
        valve.manage(vec![ip(1)], &BTreeSet::from([ip(2)]));
        assert!(valve.has_unwanted());
        assert_eq!(gate.list().unwrap().len(), 2);
        valve.forget_unwanted(&BTreeSet::new());
        assert!(!valve.has_unwanted());
        assert_eq!(gate.list().unwrap().len(), 1);
    }
}

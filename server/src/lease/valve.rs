//! The packet gate in the hands of the lease thread: which addresses it fences, and what happens when the
//! kernel refuses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use buoy_core::Mono;
use buoy_fence::gate::{Deadlines, Gate, GateError, GateKind, SlotId};
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
    deadlines: Deadlines,
    /// Addresses that the gate fences.
    managed: BTreeSet<IpAddr>,
    /// Addresses of the VIPs that exist.
    wanted: BTreeSet<IpAddr>,
}

impl Valve {
    /// A gate that fences `managed` already.
    pub(super) fn new(gate: Box<dyn Gate>, managed: BTreeSet<IpAddr>) -> Self {
        Self {
            deadlines: gate.deadlines(),
            gate,
            wanted: managed.clone(),
            managed,
        }
    }

    pub(super) fn gate(&mut self) -> &mut dyn Gate {
        self.gate.as_mut()
    }

    /// Does the kernel drop the packets of an address that is shut?
    pub(super) fn drops_packets(&self) -> bool {
        self.gate.kind() != GateKind::UserspaceOnly
    }

    /// Stores the deadline of a slot. If the kernel refuses, the old one stands: the VIPs of the slot end
    /// early, never late.
    pub(super) fn store(&self, slot: SlotId, at: Mono) {
        if let Err(e) = self.deadlines.store(slot, at) {
            error!("the deadline of lease slot {slot} was not stored: {e}");
        }
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

    /// Rests addresses on a slot of the gate.
    ///
    /// # Errors
    /// The address at which the kernel refused, and why; some may rest on the slot then.
    pub(super) fn rest(
        &mut self,
        addresses: &[IpAddr],
        slot: SlotId,
    ) -> Result<(), (IpAddr, GateError)> {
        for address in addresses {
            // An edit may assign an address in the same entry that declares it.
            let rested = self
                .fence(*address)
                .and_then(|()| self.gate.open(*address, slot));
            rested.map_err(|e| (*address, e))?;
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

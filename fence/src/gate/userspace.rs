//! No packet gate at all: the explicit `fence = "userspace-only"`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_core::Mono;

use super::table::Table;
use super::{
    Deadlines, Drops, Fenced, Gate, GateError, GateKind, Preceding, SLOT_SHUT, SLOTS, Sentry,
    SlotId, check_slot,
};

/// A gate that fences nothing and says so: it keeps the books for status, and every packet passes.
/// Only the daemon itself and the addresses' lifetimes then end the use of a VIP.
pub struct UserspaceGate {
    addresses: BTreeMap<IpAddr, SlotId>,
    deadlines: Deadlines,
}

impl UserspaceGate {
    /// Books without addresses.
    pub fn new() -> UserspaceGate {
        let deadlines = Deadlines::new(Arc::new(Table::in_memory(SLOTS)));
        UserspaceGate {
            addresses: BTreeMap::new(),
            deadlines,
        }
    }

    fn set(&mut self, address: IpAddr, slot: SlotId) -> Result<(), GateError> {
        match self.addresses.get_mut(&address.to_canonical()) {
            Some(place) => {
                *place = slot;
                Ok(())
            }
            None => Err(GateError::NotManaged { address }),
        }
    }
}

/// There are no filters, so none is missing.
struct NothingToWatch;

impl Sentry for NothingToWatch {
    fn verify(&mut self, _ifindex: u32) -> Result<bool, GateError> {
        Ok(true)
    }

    fn inheritance(&mut self, _ifindex: u32) -> Result<Vec<IpAddr>, GateError> {
        Ok(Vec::new())
    }

    fn attach(&mut self, _ifindex: u32) -> Result<(), GateError> {
        Ok(())
    }

    fn repair(&mut self, _ifindex: u32) -> Result<(), GateError> {
        Ok(())
    }
}

impl Default for UserspaceGate {
    fn default() -> Self {
        UserspaceGate::new()
    }
}

impl Gate for UserspaceGate {
    fn kind(&self) -> GateKind {
        GateKind::UserspaceOnly
    }

    fn deadlines(&self) -> Deadlines {
        self.deadlines.clone()
    }

    fn arm(&mut self, _until: Mono) -> Result<(), GateError> {
        Ok(())
    }

    fn advance(&mut self, deadlines: &[(SlotId, Mono)]) -> Result<(), GateError> {
        deadlines
            .iter()
            .try_for_each(|(slot, at)| self.deadlines.store(*slot, *at))
    }

    fn self_test(&mut self) -> Result<(), GateError> {
        Ok(())
    }

    fn attach(&mut self, _ifindex: u32) -> Result<(), GateError> {
        Ok(())
    }

    fn detach(&mut self, _ifindex: u32) -> Result<(), GateError> {
        Ok(())
    }

    fn verify(&mut self, _ifindex: u32) -> Result<bool, GateError> {
        Ok(true)
    }

    fn repair(&mut self, _ifindex: u32) -> Result<(), GateError> {
        Ok(())
    }

    fn inherit(&mut self, addresses: &[IpAddr]) -> Result<(), GateError> {
        addresses.iter().try_for_each(|ip| self.manage(*ip))
    }

    fn sentry(&self) -> Result<Box<dyn Sentry>, GateError> {
        Ok(Box::new(NothingToWatch))
    }

    fn preceding(&mut self, _ifindex: u32) -> Result<Vec<Preceding>, GateError> {
        Ok(Vec::new())
    }

    fn manage(&mut self, address: IpAddr) -> Result<(), GateError> {
        self.addresses
            .entry(address.to_canonical())
            .or_insert(SLOT_SHUT);
        Ok(())
    }

    fn open(&mut self, address: IpAddr, slot: SlotId) -> Result<(), GateError> {
        check_slot(slot)?;
        self.set(address, slot)
    }

    fn shut(&mut self, address: IpAddr) -> Result<(), GateError> {
        self.set(address, SLOT_SHUT)
    }

    fn forget(&mut self, address: IpAddr) -> Result<(), GateError> {
        self.addresses.remove(&address.to_canonical());
        Ok(())
    }

    fn forget_inherited(&mut self, _address: IpAddr) -> Result<(), GateError> {
        Ok(())
    }

    fn shut_all(&mut self) -> Result<(), GateError> {
        self.addresses
            .values_mut()
            .for_each(|slot| *slot = SLOT_SHUT);
        self.deadlines.shut_all()
    }

    fn clear_all(&mut self) -> Result<(), GateError> {
        self.shut_all()?;
        self.addresses.clear();
        Ok(())
    }

    fn remove(&mut self) -> Result<(), GateError> {
        self.clear_all()
    }

    fn dropped(&self) -> Result<Drops, GateError> {
        Ok(Drops::default())
    }

    fn list(&self) -> Result<Vec<Fenced>, GateError> {
        let row = |(&address, &slot): (&IpAddr, &SlotId)| Fenced {
            address,
            slot: (slot != SLOT_SHUT).then_some(slot),
            deadline: (slot != SLOT_SHUT).then(|| self.deadlines.load(slot)),
            drops: Drops::default(),
            inherited: false,
        };
        Ok(self.addresses.iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_books_and_says_that_it_is_no_fence() {
        let mut gate = UserspaceGate::new();
        let vip: IpAddr = "192.0.2.1".parse().expect("an address");
        assert_eq!(gate.kind().to_string(), "userspace-only");
        assert!(matches!(
            gate.open(vip, 1),
            Err(GateError::NotManaged { .. })
        ));
        gate.manage(vip).expect("manage");
        assert!(matches!(
            gate.open(vip, SLOT_SHUT),
            Err(GateError::NoSuchSlot { slot: 0 })
        ));
        assert!(matches!(
            gate.open(vip, SLOTS),
            Err(GateError::NoSuchSlot { slot: SLOTS })
        ));
        gate.advance(&[(3, Mono(77))]).expect("store");
        gate.open(vip, 3).expect("open");
        gate.manage(vip).expect("manage again");
        let row = gate.list().expect("list")[0];
        assert_eq!((row.slot, row.deadline), (Some(3), Some(Mono(77))));
        gate.shut_all().expect("shut");
        assert_eq!(gate.deadlines().load(3), Mono::ZERO);
        assert_eq!(gate.list().expect("list")[0].slot, None);
        gate.clear_all().expect("clear");
        assert!(gate.list().expect("list").is_empty());
    }
}

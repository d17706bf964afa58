//! For tests: a gate that refuses what it is told to refuse, as a kernel might.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use buoy_core::Mono;
use buoy_fence::gate::{
    Deadlines, Drops, Fenced, Gate, GateError, GateKind, Preceding, Sentry, SlotId, UserspaceGate,
};

/// What a gate refuses, and its books; shared with the test.
pub(super) struct Whims {
    pub kind: GateKind,
    pub manage: Vec<IpAddr>,
    pub open: Vec<IpAddr>,
    pub shut: Vec<IpAddr>,
    pub shut_all: bool,
    pub arm: bool,
    pub advance: bool,
    /// What was armed, and what was moved, in order.
    pub armed: Vec<Mono>,
    pub advanced: Vec<Vec<(SlotId, Mono)>>,
    pub inner: UserspaceGate,
}

impl Whims {
    /// Slot that an address rests on.
    pub fn slot(&self, address: IpAddr) -> Option<SlotId> {
        let rows = self.inner.list().unwrap();
        rows.iter().find(|row| row.address == address)?.slot
    }
}

/// The gate itself; clones share everything.
#[derive(Clone)]
pub(super) struct Stubborn(pub Arc<Mutex<Whims>>);

impl Stubborn {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Whims {
            kind: GateKind::Ebpf,
            manage: Vec::new(),
            open: Vec::new(),
            shut: Vec::new(),
            shut_all: false,
            arm: false,
            advance: false,
            armed: Vec::new(),
            advanced: Vec::new(),
            inner: UserspaceGate::new(),
        })))
    }

    pub fn whims(&self) -> std::sync::MutexGuard<'_, Whims> {
        self.0.lock().unwrap()
    }
}

fn refusal(action: &str) -> GateError {
    GateError::Kernel {
        action: action.to_owned(),
        source: std::io::Error::from_raw_os_error(libc::ENOSPC),
    }
}

impl Gate for Stubborn {
    fn kind(&self) -> GateKind {
        self.whims().kind
    }
    fn deadlines(&self) -> Deadlines {
        self.whims().inner.deadlines()
    }
    fn arm(&mut self, until: Mono) -> Result<(), GateError> {
        let mut whims = self.whims();
        whims.armed.push(until);
        if whims.arm {
            return Err(refusal("arm a renewal"));
        }
        whims.inner.arm(until)
    }
    fn advance(&mut self, deadlines: &[(SlotId, Mono)]) -> Result<(), GateError> {
        let mut whims = self.whims();
        whims.advanced.push(deadlines.to_vec());
        if whims.advance {
            return Err(refusal("move deadlines"));
        }
        whims.inner.advance(deadlines)
    }
    fn self_test(&mut self) -> Result<(), GateError> {
        Ok(())
    }
    fn attach(&mut self, _: u32) -> Result<(), GateError> {
        Ok(())
    }
    fn detach(&mut self, _: u32) -> Result<(), GateError> {
        Ok(())
    }
    fn verify(&mut self, _: u32) -> Result<bool, GateError> {
        Ok(true)
    }
    fn repair(&mut self, _: u32) -> Result<(), GateError> {
        Ok(())
    }
    fn inherit(&mut self, addresses: &[IpAddr]) -> Result<(), GateError> {
        self.whims().inner.inherit(addresses)
    }
    fn sentry(&self) -> Result<Box<dyn Sentry>, GateError> {
        self.whims().inner.sentry()
    }
    fn preceding(&mut self, _: u32) -> Result<Vec<Preceding>, GateError> {
        Ok(Vec::new())
    }
    fn manage(&mut self, address: IpAddr) -> Result<(), GateError> {
        let mut whims = self.whims();
        if whims.manage.contains(&address) {
            return Err(refusal("fence an address"));
        }
        whims.inner.manage(address)
    }
    fn open(&mut self, address: IpAddr, slot: SlotId) -> Result<(), GateError> {
        let mut whims = self.whims();
        if whims.open.contains(&address) {
            return Err(refusal("open"));
        }
        whims.inner.open(address, slot)
    }
    fn shut(&mut self, address: IpAddr) -> Result<(), GateError> {
        let mut whims = self.whims();
        if whims.shut.contains(&address) {
            return Err(refusal("shut"));
        }
        whims.inner.shut(address)
    }
    fn forget(&mut self, address: IpAddr) -> Result<(), GateError> {
        self.whims().inner.forget(address)
    }
    fn forget_inherited(&mut self, address: IpAddr) -> Result<(), GateError> {
        self.whims().inner.forget_inherited(address)
    }
    fn shut_all(&mut self) -> Result<(), GateError> {
        let mut whims = self.whims();
        if whims.shut_all {
            return Err(refusal("shut everything"));
        }
        whims.inner.shut_all()
    }
    fn remove(&mut self) -> Result<(), GateError> {
        self.whims().inner.remove()
    }
    fn clear_all(&mut self) -> Result<(), GateError> {
        self.whims().inner.clear_all()
    }
    fn dropped(&self) -> Result<Drops, GateError> {
        self.whims().inner.dropped()
    }
    fn list(&self) -> Result<Vec<Fenced>, GateError> {
        self.whims().inner.list()
    }
}

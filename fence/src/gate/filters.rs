//! The gate's filters on interfaces: put there, watched, repaired, taken away.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::leftovers::fenced_by;
use super::loaded::Loaded;
use super::program::Direction;
use super::tc::Tc;
use super::{GateError, Preceding, Sentry};
use crate::plant;

/// Interfaces with our filters, and whether their clsact is ours to remove.
type Attached = BTreeMap<u32, bool>;

/// The filters of one gate, through a netlink socket of this value's own.
pub(super) struct Filters {
    kernel: Arc<Loaded>,
    tc: Tc,
    attached: Arc<Mutex<Attached>>,
}

impl Filters {
    pub(super) fn new(kernel: Arc<Loaded>) -> Result<Filters, GateError> {
        Ok(Filters {
            kernel,
            tc: Tc::new()?,
            attached: Arc::default(),
        })
    }

    /// The same filters for another thread, which must be in the same network namespace.
    pub(super) fn another(&self) -> Result<Filters, GateError> {
        Ok(Filters {
            kernel: self.kernel.clone(),
            tc: Tc::new()?,
            attached: self.attached.clone(),
        })
    }

    /// clsact and both filters. What is done when it fails halfway fences more, not less, and goes with
    /// [`Filters::remove`].
    pub(super) fn install(&mut self, ifindex: u32) -> Result<(), GateError> {
        let attached = self.attached.clone();
        install(&mut self.tc, &self.kernel, &mut lock(&attached), ifindex)
    }

    /// Our filters, and clsact if it is ours and nobody else uses it.
    pub(super) fn remove(&mut self, ifindex: u32) -> Result<(), GateError> {
        let attached = self.attached.clone();
        let mut attached = lock(&attached);
        for direction in Direction::BOTH {
            self.tc.delete(ifindex, direction)?;
        }
        if attached.remove(&ifindex) == Some(true) {
            self.tc.remove_empty_clsact(ifindex)?;
        }
        Ok(())
    }

    /// [`Filters::remove`] on every interface; goes on where one refuses.
    pub(super) fn remove_all(&mut self) -> Result<(), GateError> {
        let interfaces: Vec<u32> = lock(&self.attached).keys().copied().collect();
        let removed = interfaces.into_iter().map(|ifindex| self.remove(ifindex));
        removed.fold(Ok(()), Result::and)
    }

    /// Whether both filters are there and run our programs on our tables; says why not in the log.
    pub(super) fn in_force(&mut self, ifindex: u32) -> Result<bool, GateError> {
        plant!(NeverArmed => return Ok(true));
        for direction in Direction::BOTH {
            let program = self.kernel.program(direction).id();
            let filters = self.tc.filters(ifindex, direction)?;
            if !filters.iter().any(|f| f.enforces(program)) {
                let direction = direction.name();
                warn!(
                    ifindex,
                    direction, "the packet gate's filter is not in force"
                );
                return Ok(false);
            }
        }
        if !self.kernel.on_our_tables()? {
            warn!("the packet gate's programs do not stand on the tables of this process");
            return Ok(false);
        }
        Ok(true)
    }

    /// Programs of filters under our name that are not ours: a predecessor's.
    fn predecessors(&mut self, ifindex: u32) -> Result<Vec<u32>, GateError> {
        let mut programs = Vec::new();
        for direction in Direction::BOTH {
            let own = self.kernel.program(direction).id();
            let filters = self.tc.filters(ifindex, direction)?;
            let theirs = filters.iter().filter(|f| f.is_ours());
            programs.extend(theirs.filter_map(|f| f.program).filter(|id| *id != own));
        }
        Ok(programs)
    }

    pub(super) fn preceding(&mut self, ifindex: u32) -> Result<Vec<Preceding>, GateError> {
        self.tc.preceding(ifindex)
    }
}

impl Sentry for Filters {
    fn verify(&mut self, ifindex: u32) -> Result<bool, GateError> {
        self.in_force(ifindex)
    }

    fn inheritance(&mut self, ifindex: u32) -> Result<Vec<IpAddr>, GateError> {
        let mut addresses = Vec::new();
        for program in self.predecessors(ifindex)? {
            match fenced_by(program) {
                Ok(fenced) => addresses.extend(fenced.into_iter().map(|row| row.address)),
                Err(e) => warn!(
                    ifindex,
                    program,
                    "cannot read which addresses the predecessor's packet gate fenced ({e}): addresses that \
                     it left on this machine and that are not in the configuration are no longer fenced"
                ),
            }
        }
        Ok(addresses)
    }

    fn attach(&mut self, ifindex: u32) -> Result<(), GateError> {
        self.install(ifindex)
    }

    fn repair(&mut self, ifindex: u32) -> Result<(), GateError> {
        let attached = self.attached.clone();
        // Held throughout, so that a detach on the other thread comes before or after, never between.
        let mut attached = lock(&attached);
        if !attached.contains_key(&ifindex) {
            return Err(GateError::NotAttached { ifindex });
        }
        install(&mut self.tc, &self.kernel, &mut attached, ifindex)
    }
}

/// A thread that panicked left the map whole: each change of it is one insertion or removal.
fn lock(attached: &Mutex<Attached>) -> MutexGuard<'_, Attached> {
    attached.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install(
    tc: &mut Tc,
    kernel: &Loaded,
    attached: &mut Attached,
    ifindex: u32,
) -> Result<(), GateError> {
    plant!(NeverArmed => return Ok(()));
    let device = tc.ethernet(ifindex)?;
    for direction in Direction::BOTH {
        tc.check_place(ifindex, &device, direction)?;
    }
    *attached.entry(ifindex).or_default() |= tc.add_clsact(ifindex, &device)?;
    for direction in Direction::BOTH {
        let program = kernel.program(direction).as_raw_fd();
        tc.replace(ifindex, &device, direction, program)?;
    }
    for other in tc.preceding(ifindex)? {
        warn!(
            interface = device.name,
            direction = other.direction,
            kind = other.kind,
            name = other.name,
            "another tc filter decides before the packet gate does and may let packets past it"
        );
    }
    Ok(())
}

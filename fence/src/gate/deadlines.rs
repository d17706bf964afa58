//! The deadlines of the lease slots: what a renewal moves.

use std::fmt;
use std::sync::Arc;

use buoy_core::Mono;

use super::table::Table;
use super::{GateError, SLOTS, SlotId, check_slot};

/// The slots' deadlines. Cheap to clone and to read from any thread; only the gate moves them
/// ([`Gate::advance`](super::Gate::advance)).
#[derive(Clone)]
pub struct Deadlines {
    table: Arc<Table>,
}

impl Deadlines {
    pub(super) fn new(table: Arc<Table>) -> Deadlines {
        debug_assert_eq!(table.len(), SLOTS);
        Deadlines { table }
    }

    /// Stores a deadline. With the table of the eBPF gate this is one aligned 8-byte atomic store into
    /// memory that the program reads: no system call, no lock, no allocation. (Where that table cannot be
    /// mapped it is one bpf(2) call of about 3 us.)
    ///
    /// # Errors
    /// [`GateError::NoSuchSlot`] for slot 0 and slots past the end; the kernel's refusal where a call
    /// is needed. The old deadline then stands.
    pub(super) fn store(&self, slot: SlotId, at: Mono) -> Result<(), GateError> {
        check_slot(slot)?;
        self.table
            .store(slot, at.0)
            .map_err(|e| GateError::kernel(format!("store the deadline of slot {slot}"), e))
    }

    /// The deadline stored last. Slots that do not exist or cannot be read have none ahead: [`Mono::ZERO`].
    pub fn load(&self, slot: SlotId) -> Mono {
        if check_slot(slot).is_err() {
            return Mono::ZERO;
        }
        self.table.load(slot).map_or(Mono::ZERO, Mono)
    }

    /// Puts every deadline into the past.
    pub(super) fn shut_all(&self) -> Result<(), GateError> {
        (1..SLOTS).try_for_each(|slot| self.store(slot, Mono::ZERO))
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = (1..SLOTS)
            .map(|slot| (slot, self.load(slot)))
            .filter(|(_, at)| *at != Mono::ZERO);
        f.debug_map().entries(set).finish()
    }
}

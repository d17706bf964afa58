//! The applied state of this node, shared between the state machine and those who read it.

use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use buoy_core::Membership;
use buoy_core::state::State;
use tokio::sync::watch;

use crate::types::{LogId, StoredMembership, core_membership};

/// The state and how far it has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct AppliedState {
    pub(crate) state: State,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

/// The applied state, for its one writer.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    applied: Arc<RwLock<AppliedState>>,
    progress: Arc<watch::Sender<u64>>,
}

impl Shared {
    pub(crate) fn new(applied: AppliedState) -> Shared {
        let index = applied.last.map_or(0, |id| id.index);
        Shared {
            applied: Arc::new(RwLock::new(applied)),
            progress: Arc::new(watch::Sender::new(index)),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, AppliedState> {
        // A writer that panicked has stopped the state machine; readers see what it left.
        self.applied.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, AppliedState> {
        self.applied.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the subscribers how far the state has come.
    pub(crate) fn notify(&self) {
        let index = self.read().last.map_or(0, |id| id.index);
        self.progress.send_replace(index);
    }

    pub(crate) fn reader(&self) -> StateReader {
        StateReader(self.clone())
    }
}

/// Reads the applied state; clones share it.
#[derive(Clone, Debug)]
pub struct StateReader(Shared);

impl StateReader {
    /// The state as it is now. While the guard lives nothing is applied: keep it for a look, never
    /// across an `await`.
    pub fn read(&self) -> Applied<'_> {
        Applied(self.0.read())
    }

    /// The membership of the applied state.
    pub fn applied_membership(&self) -> Membership {
        self.read().membership()
    }

    /// The applied index (0 also before the first entry). It moves after the state has and before the
    /// clients are answered: who was answered, or sees the index move, sees that state or a later one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.progress.subscribe()
    }
}

/// A look at the applied state: all that it shows belongs together.
pub struct Applied<'a>(RwLockReadGuard<'a, AppliedState>);

impl Applied<'_> {
    /// The applied membership.
    pub fn membership(&self) -> Membership {
        core_membership(&self.0.membership)
    }

    /// The applied membership as openraft has it, with the nodes' addresses.
    pub fn stored_membership(&self) -> &StoredMembership {
        &self.0.membership
    }

    /// The last entry applied.
    pub fn log_id(&self) -> Option<LogId> {
        self.0.last
    }
}

impl Deref for Applied<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0.state
    }
}

//! Whether this node takes part in Raft yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tonic::Status;

/// Shut while a node with an empty disk does not know yet whether it has lost one (see `form`): until
/// then it votes for nobody and confirms nothing. Clones share it.
#[derive(Clone, Debug)]
pub struct Admission(Arc<AtomicBool>);

impl Admission {
    /// Open for a node that has its disk; shut for one whose disk is empty.
    pub fn new(open: bool) -> Self {
        Self(Arc::new(AtomicBool::new(open)))
    }

    /// From now on this node takes part.
    pub fn open(&self) {
        self.0.store(true, SeqCst);
    }

    /// Does this node take part?
    pub fn is_open(&self) -> bool {
        self.0.load(SeqCst)
    }

    /// # Errors
    /// UNAVAILABLE: it does not take part yet.
    pub(super) fn check(&self) -> Result<(), Status> {
        if self.is_open() {
            return Ok(());
        }
        Err(Status::unavailable(
            "this node does not take part yet: its disk is empty, and it is asking the others whether it has lost one",
        ))
    }
}

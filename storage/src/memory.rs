//! An engine in memory that can lose power: for simulations and tests.
//!
//! The disk outlives the engine, as a disk outlives a process. A commit is staged, synced, and only then
//! durable; the disk can be told to make a sync slow, to let it fail, and to lose what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::{Engine, Op, Pairs};
use crate::error::OpenError;

/// A disk in memory; clones share it.
#[derive(Clone, Default, Debug)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Default, Debug)]
struct Disk {
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    staged: Vec<Op>,
    syncs: u64,
    sync_takes: Duration,
    /// How many more syncs succeed; `None`: all.
    syncs_left: Option<u64>,
}

impl Disk {
    fn keep_staged(&mut self) {
        for op in std::mem::take(&mut self.staged) {
            match op {
                Op::Put(key, value) => drop(self.durable.insert(key, value)),
                Op::Remove(key) => drop(self.durable.remove(&key)),
            }
        }
    }
}

impl MemoryDisk {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An engine on this disk. One at a time.
    pub fn engine(&self) -> MemoryEngine {
        MemoryEngine(self.clone())
    }

    /// How many syncs have succeeded.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// Each sync takes this long from now on (real time; the calling thread sleeps).
    pub fn set_sync_time(&self, takes: Duration) {
        self.disk().sync_takes = takes;
    }

    /// The next `n` syncs succeed, and all after them fail.
    pub fn fail_after(&self, n: u64) {
        self.disk().syncs_left = Some(n);
    }

    /// Power fails and comes back: what was written but not synced is gone, or (`kept`) happens to have
    /// reached the disk. Failing syncs succeed again.
    pub fn power_failure(&self, kept: bool) {
        let mut disk = self.disk();
        if kept {
            disk.keep_staged();
        }
        disk.staged.clear();
        disk.syncs_left = None;
    }
}

/// An engine on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryEngine(MemoryDisk);

impl Engine for MemoryEngine {
    fn load(&mut self) -> Result<Pairs, OpenError> {
        Ok(self.0.disk().durable.clone().into_iter().collect())
    }

    fn commit(&mut self, ops: Vec<Op>) -> io::Result<()> {
        let takes = {
            let mut disk = self.0.disk();
            disk.staged.extend(ops);
            disk.sync_takes
        };
        if !takes.is_zero() {
            std::thread::sleep(takes);
        }
        let mut disk = self.0.disk();
        match &mut disk.syncs_left {
            Some(0) => return Err(io::Error::other("the disk in memory was told to fail")),
            Some(left) => *left -= 1,
            None => {}
        }
        disk.keep_staged();
        disk.syncs += 1;
        Ok(())
    }
}

//! Durable small values besides Raft's own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::journal::Change;
use crate::record::{Key, Value};
use crate::writer::Writer;

/// Durable small values; clones share them.
#[derive(Clone)]
pub struct Meta {
    /// The disk says no less than this. Written with `order` held.
    durable: Arc<watch::Sender<Duration>>,
    /// One change at a time, so that a smaller length never overtakes a larger one.
    order: Arc<Mutex<Writer>>,
}

impl Meta {
    pub(crate) fn new(max_promise: Duration, writer: Writer) -> Meta {
        Meta {
            durable: Arc::new(watch::Sender::new(max_promise)),
            order: Arc::new(Mutex::new(writer)),
        }
    }

    /// The longest promise that this voter may have given, as it stands on disk: so long must it
    /// promise nothing after a start (`docs/leases.md`, quarantine). Zero: it has never promised.
    pub fn max_promise(&self) -> Duration {
        *self.durable.borrow()
    }

    /// Raises [`Meta::max_promise`] to `length`; on disk when it returns `Ok`, and only then may a promise
    /// of that length be given. A length that is not larger changes nothing.
    pub async fn raise_max_promise(&self, length: Duration) -> io::Result<()> {
        let writer = self.order.lock().await;
        if length <= self.max_promise() {
            return Ok(());
        }
        writer.durable(change(length)?).await?;
        self.durable.send_replace(length);
        Ok(())
    }

    /// As [`Meta::raise_max_promise`], for threads that run no async code (panics on one that does).
    pub fn raise_max_promise_blocking(&self, length: Duration) -> io::Result<()> {
        let writer = self.order.blocking_lock();
        if length <= self.max_promise() {
            return Ok(());
        }
        writer.durable_blocking(change(length)?)?;
        self.durable.send_replace(length);
        Ok(())
    }

    /// Lowers [`Meta::max_promise`] to `length`. Only for a voter that has been through the quarantine
    /// of the old length, and none of whose promises lasts longer than `length` from now on: then a
    /// quarantine of `length` outlasts each. A length that is not smaller changes nothing. After an error the disk
    /// may say either, and the shorter length is taken for what it says.
    pub async fn lower_max_promise_after_quarantine(&self, length: Duration) -> io::Result<()> {
        let writer = self.order.lock().await;
        if length >= self.max_promise() {
            return Ok(());
        }
        let change = change(length)?;
        // First: a raise to what the disk said before must not be taken for done if this fails half-way.
        self.durable.send_replace(length);
        writer.durable(change).await
    }
}

fn change(length: Duration) -> io::Result<Vec<Change>> {
    let bytes = postcard::to_stdvec(&length).map_err(io::Error::other)?;
    Ok(vec![Change::Put(Key::Value(Value::MaxPromise), bytes)])
}

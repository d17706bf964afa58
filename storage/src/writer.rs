//! The one writer of the journal: a thread that commits whatever has gathered while it was syncing.
//!
//! Requests are committed in the order in which they were submitted, and each is answered only when its
//! commit is durable, so that openraft's rule holds (votes and entries are written in one order). Under
//! load one sync serves many requests.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use crate::journal::{Change, Journal};
use crate::types::TypeConfig;

/// Requests that wait for the writer; who submits one more waits as well.
const QUEUE: usize = 1024;

/// Requests that one commit takes at most: a bound for the latency of the first.
const MAX_GROUP: usize = 256;

/// Whom to tell that a request is durable.
pub(crate) enum Done {
    /// openraft, about appended entries.
    Flushed(IOFlushed<TypeConfig>),
    /// Somebody who waits.
    Waiter(oneshot::Sender<io::Result<()>>),
    /// Nobody: the request may wait for the next one that matters.
    Lazy,
}

impl Done {
    fn tell(self, result: &io::Result<()>) {
        let result = match result {
            Ok(()) => Ok(()),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        match self {
            Done::Flushed(flushed) => flushed.io_completed(result),
            // A waiter that has gone away needs no answer.
            Done::Waiter(waiter) => drop(waiter.send(result)),
            Done::Lazy => {}
        }
    }
}

struct Request {
    changes: Vec<Change>,
    done: Done,
}

/// Where the journal is written.
enum Sink {
    /// By a thread of its own.
    Thread {
        queue: Option<mpsc::Sender<Request>>,
        thread: Option<JoinHandle<()>>,
    },
    /// By whoever calls: for deterministic simulations.
    Inline(Mutex<Journal>),
}

impl Drop for Sink {
    fn drop(&mut self) {
        let Sink::Thread { queue, thread } = self else {
            return;
        };
        drop(queue.take());
        // When this returns everything submitted is durable and the directory is unlocked.
        if thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the log's writer thread had panicked");
        }
    }
}

/// The way to the journal. The last clone that is dropped waits until all is written.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Sink>);

/// Something that must stay open as long as the journal is written (the locked directory).
pub(crate) type Keep = Box<dyn Send>;

fn stopped() -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        "the log's writer thread has stopped",
    )
}

impl Writer {
    /// Starts the thread "buoy-log".
    pub(crate) fn spawn(journal: Journal, keep: Keep) -> io::Result<Writer> {
        let (queue, requests) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("buoy-log".to_owned())
            .spawn(move || {
                run(journal, requests);
                drop(keep);
            })?;
        Ok(Writer(Arc::new(Sink::Thread {
            queue: Some(queue),
            thread: Some(thread),
        })))
    }

    /// Writes within each call, without a thread.
    pub(crate) fn inline(journal: Journal) -> Writer {
        Writer(Arc::new(Sink::Inline(Mutex::new(journal))))
    }

    /// Hands a request over; waits while the queue is full.
    pub(crate) async fn submit(&self, changes: Vec<Change>, done: Done) -> io::Result<()> {
        let request = Request { changes, done };
        match &*self.0 {
            Sink::Thread { queue, .. } => {
                let queue = queue.as_ref().ok_or_else(stopped)?;
                queue.send(request).await.map_err(|_| stopped())
            }
            Sink::Inline(journal) => {
                commit_inline(journal, request);
                Ok(())
            }
        }
    }

    /// Hands a request over and waits until it is durable.
    pub(crate) async fn durable(&self, changes: Vec<Change>) -> io::Result<()> {
        let (waiter, answer) = oneshot::channel();
        self.submit(changes, Done::Waiter(waiter)).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// As [`Writer::durable`], for threads that run no async code (panics on one that does).
    pub(crate) fn durable_blocking(&self, changes: Vec<Change>) -> io::Result<()> {
        let (waiter, answer) = oneshot::channel();
        let request = Request {
            changes,
            done: Done::Waiter(waiter),
        };
        match &*self.0 {
            Sink::Thread { queue, .. } => {
                queue
                    .as_ref()
                    .ok_or_else(stopped)?
                    .blocking_send(request)
                    .map_err(|_| stopped())?;
            }
            Sink::Inline(journal) => commit_inline(journal, request),
        }
        answer.blocking_recv().map_err(|_| stopped())?
    }
}

fn commit_inline(journal: &Mutex<Journal>, request: Request) {
    let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
    let result = journal.commit(&request.changes);
    request.done.tell(&result);
}

/// Requests that are committed together.
#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    done: Vec<Done>,
    /// Somebody waits for it.
    urgent: bool,
}

impl Group {
    fn add(&mut self, request: Request) {
        self.urgent |= !matches!(request.done, Done::Lazy);
        self.changes.extend(request.changes);
        self.done.push(request.done);
    }

    fn full(&self) -> bool {
        self.done.len() >= MAX_GROUP
    }

    fn commit(&mut self, journal: &mut Journal) {
        let result = journal.commit(&self.changes);
        if let Err(e) = &result {
            tracing::error!(error = %e, "writing the Raft log failed");
        }
        self.changes.clear();
        self.urgent = false;
        self.done.drain(..).for_each(|done| done.tell(&result));
    }
}

fn run(mut journal: Journal, mut requests: mpsc::Receiver<Request>) {
    let mut group = Group::default();
    while let Some(request) = requests.blocking_recv() {
        group.add(request);
        while !group.full() {
            match requests.try_recv() {
                Ok(request) => group.add(request),
                Err(_) => break,
            }
        }
        if group.urgent || group.full() {
            group.commit(&mut journal);
        }
    }
    if !group.done.is_empty() {
        group.commit(&mut journal);
    }
}

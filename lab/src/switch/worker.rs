//! A thread for what the kernel makes one wait for: carriers, and devices that come and go. All of that takes
//! a lock that the whole machine shares; the data path must not stand in that queue.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result};

use super::protocol::PortSpec;
use super::tap::Tap;
use crate::ns::Netns;

enum Task {
    Carrier {
        port: usize,
        tap: Arc<Tap>,
        up: bool,
    },
    Renew {
        port: usize,
        old: Option<Arc<Tap>>,
        spec: PortSpec,
    },
}

/// What the worker has done for a port.
pub(super) enum Done {
    /// Made its device anew, or why not.
    Renewed(usize, Result<Tap>),
    /// Could not switch its carrier, and why.
    CarrierFailed(usize, std::io::Error),
}

/// The worker, seen from the data path: nothing here blocks.
pub(super) struct Worker {
    tasks: mpsc::Sender<Task>,
    done: mpsc::Receiver<Done>,
    /// Readable when something is done.
    bell: UnixStream,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread or no socket can be made.
    pub(super) fn start() -> Result<Self> {
        let (bell, ring) = UnixStream::pair().context("make a pair of sockets")?;
        bell.set_nonblocking(true)?;
        let (tasks, inbox) = mpsc::channel();
        let (outbox, done) = mpsc::channel();
        std::thread::Builder::new()
            .name("switch-worker".into())
            .spawn(move || work(&inbox, &outbox, ring))
            .context("start a thread")?;
        Ok(Self { tasks, done, bell })
    }

    /// Switches the carrier of a device, after all that was asked before.
    pub(super) fn carrier(&self, port: usize, tap: Arc<Tap>, up: bool) {
        self.send(Task::Carrier { port, tap, up });
    }

    /// Removes a device and makes it anew without carrier, after all that was asked before.
    pub(super) fn renew(&self, port: usize, old: Option<Arc<Tap>>, spec: PortSpec) {
        self.send(Task::Renew { port, old, spec });
    }

    fn send(&self, task: Task) {
        // The worker ends when this side does, not before.
        let _ = self.tasks.send(task);
    }

    /// What has been done since the last call.
    pub(super) fn done(&mut self) -> Vec<Done> {
        let mut rings = [0; 64];
        while self.bell.read(&mut rings).is_ok_and(|count| count > 0) {}
        self.done.try_iter().collect()
    }
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

fn work(inbox: &mpsc::Receiver<Task>, outbox: &mpsc::Sender<Done>, mut ring: UnixStream) {
    while let Ok(task) = inbox.recv() {
        let done = match task {
            Task::Carrier { port, tap, up } => match tap.set_carrier(up) {
                Ok(()) => continue,
                Err(error) => Done::CarrierFailed(port, error),
            },
            Task::Renew { port, old, spec } => {
                drop(old);
                let made = make(&spec).and_then(|tap| {
                    tap.set_carrier(false).context("switch off the carrier")?;
                    Ok(tap)
                });
                Done::Renewed(port, made)
            }
        };
        // Both fail only when the switch has ended meanwhile.
        if outbox.send(done).is_err() || ring.write_all(b"!").is_err() {
            return;
        }
    }
}

/// Makes the device of a port.
///
/// # Errors
/// Its namespace or its device cannot be had, or the kernel cannot switch carriers.
pub(super) fn make(spec: &PortSpec) -> Result<Tap> {
    let made = Netns::open(&spec.netns)
        .and_then(|ns| Tap::create(&ns, &spec.interface, spec.mac))
        .and_then(|tap| {
            tap.set_carrier(true)
                .context("switch the carrier (needs Linux 5.0)")?;
            Ok(tap)
        });
    made.with_context(|| format!("make port {} of the switch", spec.name))
}

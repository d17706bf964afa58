//! What a router says about itself, with the time at which we heard it.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sys::clock::now_ns;
use crate::sys::cvt;

/// State of a virtual router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It does not take part: it was not started yet, or has ended in good order.
    Stopped,
    /// It listens.
    Backup,
    /// It has the addresses.
    Master,
    /// It cannot take part, because its interface is down, for one thing.
    Fault,
}

/// A change of state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// When we heard of it, ns of CLOCK_BOOTTIME.
    pub at: u64,
    /// The new state.
    pub state: State,
}

/// The states of a router, in order.
pub struct States {
    shared: Arc<Shared>,
    /// While we have the pipe open for writing it has no end. Dropped with us: the reader ends with the router.
    _open: File,
}

#[derive(Default)]
struct Shared {
    events: Mutex<VecDeque<Event>>,
    changed: Condvar,
}

impl Shared {
    fn events(&self) -> MutexGuard<'_, VecDeque<Event>> {
        // Nothing panics while it is locked.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl States {
    /// Makes a named pipe and follows what is written into it; `parse` says which lines are a change of state.
    ///
    /// # Errors
    /// The pipe cannot be made.
    pub(super) fn follow(
        path: &Path,
        parse: impl Fn(&str) -> Option<State> + Send + 'static,
    ) -> Result<Self> {
        make_pipe(path).with_context(|| format!("make the pipe {}", path.display()))?;
        // Open for both at first: an end of a pipe waits for the other one.
        let open = OpenOptions::new().read(true).write(true).open(path);
        let open = open.with_context(|| format!("open {}", path.display()))?;
        let read = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let shared = Arc::new(Shared::default());
        let heard = shared.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(read).lines().map_while(|line| line.ok()) {
                let at = now_ns();
                if let Some(state) = parse(&line) {
                    heard.events().push_back(Event { at, state });
                    heard.changed.notify_all();
                }
            }
        });
        Ok(Self {
            shared,
            _open: open,
        })
    }

    /// The state now; `None` until it has said something.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        self.shared.events().back().map(|event| event.state)
    }

    /// What it became at `from` (ns of CLOCK_BOOTTIME) and later; 0 is from the beginning.
    #[must_use]
    pub fn since(&self, from: u64) -> Vec<Event> {
        let events = self.shared.events();
        events.iter().filter(|it| it.at >= from).copied().collect()
    }

    /// Waits until it is in this state, and says since when it is.
    ///
    /// # Errors
    /// It is not when the time is over; the words say what it was meanwhile.
    pub fn wait(&self, state: State, within: Duration) -> Result<Event> {
        let end = Instant::now() + within;
        let mut events = self.shared.events();
        loop {
            if let Some(event) = events.back().filter(|event| event.state == state) {
                return Ok(*event);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let history: Vec<_> = events.iter().map(|event| event.state).collect();
                bail!("not {state:?} within {within:?}, but {history:?}");
            }
            events = (self.shared.changed)
                .wait_timeout(events, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn make_pipe(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    cvt(unsafe { libc::mkfifo(path.as_ptr(), 0o600) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_become_events_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let states = States::follow(&path, |line| match line {
            "b" => Some(State::Backup),
            "m" => Some(State::Master),
            _ => None,
        })
        .unwrap();
        assert_eq!(states.state(), None);
        let mut pipe = OpenOptions::new().write(true).open(&path).unwrap();
        let before = now_ns();
        pipe.write_all(b"b\nnoise\nm\n").unwrap();
        let event = states.wait(State::Master, Duration::from_secs(5)).unwrap();
        assert!((before..=now_ns()).contains(&event.at));
        let seen: Vec<_> = states.since(before).iter().map(|it| it.state).collect();
        assert_eq!(seen, [State::Backup, State::Master]);
        assert!(states.since(event.at + 1).is_empty());
        let error = states.wait(State::Fault, Duration::from_millis(10));
        assert!(error.unwrap_err().to_string().contains("Backup, Master"));
    }
}

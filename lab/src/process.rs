//! Processes that are signalled and awaited by identity, never by a number that may have been reused.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::sys::cvt;

/// What identifies a process beyond its number: the number and when it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessId {
    /// The number.
    pub pid: i32,
    /// Start in clock ticks since boot (field 22 of /proc/PID/stat).
    pub started: u64,
}

impl ProcessId {
    /// Reads a pid file written by [`Process::write_pidfile`]; `None` if there is none.
    ///
    /// # Errors
    /// The file exists and cannot be read or understood.
    pub fn read_pidfile(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is not a pid file of the lab", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// The process, if it still runs.
    #[must_use]
    pub fn open(self) -> Option<Process> {
        Process::from_pid(self.pid)
            .ok()
            .filter(|process| process.id == self)
    }
}

/// Whether something can be read from `fd` (the end of it included) before the time is over.
#[must_use]
pub fn readable(fd: impl AsFd, timeout: Duration) -> bool {
    poll_until(fd.as_fd(), Instant::now() + timeout)
}

fn poll_until(fd: BorrowedFd<'_>, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // Rounded up: a last fraction of a millisecond is waited for, not spun through.
        let millis = i32::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX);
        // SAFETY: `poll` is one valid pollfd.
        match cvt(unsafe { libc::poll(&mut poll, 1, millis) }) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) => {}
            Ok(_) => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// A handle on a running process.
pub struct Process {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl Process {
    /// A handle on our own child, which may have ended already; it is reaped under [`Process::wait_exit`].
    ///
    /// # Errors
    /// The kernel has no pidfd_open (before Linux 5.3), or the child has been reaped.
    pub fn from_child(child: &Child) -> Result<Self> {
        let pid = i32::try_from(child.id()).context("a process id beyond the kernel's range")?;
        let (process, _) = Self::open(pid)?;
        Ok(process)
    }

    /// A handle on whatever process has the number now. Zombies count as gone.
    ///
    /// # Errors
    /// There is no such process.
    pub fn from_pid(pid: i32) -> Result<Self> {
        match Self::open(pid)? {
            (process, Life::Running) => Ok(process),
            (_, Life::Zombie) => bail!("process {pid} has ended and waits to be reaped"),
        }
    }

    fn open(pid: i32) -> Result<(Self, Life)> {
        // SAFETY: pidfd_open takes integers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd =
            cvt(i32::try_from(fd).unwrap_or(-1)).with_context(|| format!("open process {pid}"))?;
        // SAFETY: `fd` was just created and is owned by nobody else.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
        let (started, life) = read_stat(pid)?;
        let id = ProcessId { pid, started };
        Ok((Self { id, pidfd }, life))
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Writes its identity to a file, for a later program to find it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_pidfile(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(&self.id)?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Sends a signal; a process that is gone already is no error.
    ///
    /// # Errors
    /// No permission, or no such signal.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        // SAFETY: the pidfd is open; a null siginfo makes the kernel fill it as kill(2) does.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match cvt(i32::try_from(result).unwrap_or(-1)) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Err(error) => Err(error)
                .with_context(|| format!("send signal {signal} to process {}", self.id.pid)),
        }
    }

    /// Number of the session that it is in.
    ///
    /// # Errors
    /// It is gone.
    pub fn session(&self) -> Result<i32> {
        // Field 6 of the line; the first that is left is field 3.
        let fields = stat_fields(self.id.pid)?;
        let session = fields.split_ascii_whitespace().nth(3);
        let session = session.and_then(|field| field.parse().ok());
        session.with_context(|| format!("/proc/{}/stat has no session in field 6", self.id.pid))
    }

    /// Whether it still runs (a zombie does not).
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.exited_within(Duration::ZERO)
    }

    /// Waits until it has ended, and reaps it if it is our child.
    ///
    /// # Errors
    /// It still runs when the time is over.
    pub fn wait_exit(&self, timeout: Duration) -> Result<()> {
        if !self.exited_within(timeout) {
            bail!(
                "process {} still runs after {} ms",
                self.id.pid,
                timeout.as_millis()
            );
        }
        Ok(())
    }

    /// Ends it: SIGTERM, and SIGKILL after `grace`.
    ///
    /// # Errors
    /// It cannot be signalled, or survives SIGKILL for 5 s.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        // A stopped process would sit on its SIGTERM for ever.
        self.signal(libc::SIGCONT)?;
        if !self.exited_within(grace) {
            self.signal(libc::SIGKILL)?;
        }
        self.wait_exit(Duration::from_secs(5))
    }

    fn exited_within(&self, timeout: Duration) -> bool {
        let exited = poll_until(self.pidfd.as_fd(), Instant::now() + timeout);
        if exited {
            self.reap();
        }
        exited
    }

    /// Takes the zombie away if the process was our child, whoever of us started it; of another's
    /// child the call says ECHILD, and there is nothing to do.
    fn reap(&self) {
        // SAFETY: a zeroed siginfo_t is valid, and the call writes into it.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(
                libc::P_PIDFD,
                self.pidfd.as_raw_fd().unsigned_abs(),
                &mut info,
                libc::WEXITED | libc::WNOHANG,
            );
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Reaps a child that has ended; one that still runs goes to init when we end.
        self.reap();
    }
}

enum Life {
    Running,
    Zombie,
}

/// The fields of /proc/PID/stat from the third on.
fn stat_fields(pid: i32) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("read /proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses and may hold anything.
    stat.rsplit_once(')')
        .map(|(_, rest)| rest.to_owned())
        .with_context(|| format!("/proc/{pid}/stat has no program name"))
}

fn read_stat(pid: i32) -> Result<(u64, Life)> {
    let stat = stat_fields(pid)?;
    let mut fields = stat.split_ascii_whitespace();
    let life = match fields.next() {
        Some("Z" | "X") => Life::Zombie,
        _ => Life::Running,
    };
    // Field 3 (state) is consumed; field 22 is 18 further.
    let started = fields.nth(18).and_then(|field| field.parse().ok());
    started
        .map(|started| (started, life))
        .with_context(|| format!("/proc/{pid}/stat has no start time in field 22"))
}

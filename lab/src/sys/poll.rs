//! epoll and timerfd, thin and without allocation per event.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::cvt;

/// Most events taken from the kernel in one wait.
pub const EVENTS: usize = 128;

/// What a file descriptor is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Readable (or closed by the peer).
    Read,
    /// Writable (or connected).
    Write,
    /// Both.
    Both,
}

impl Interest {
    fn bits(self) -> u32 {
        let bits = match self {
            Self::Read => libc::EPOLLIN,
            Self::Write => libc::EPOLLOUT,
            Self::Both => libc::EPOLLIN | libc::EPOLLOUT,
        };
        bits.cast_unsigned()
    }
}

/// An epoll instance; level triggered.
pub struct Epoll(OwnedFd);

impl Epoll {
    /// A new, empty instance.
    ///
    /// # Errors
    /// EMFILE when the process has too many open files.
    pub fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes flags only.
        let fd = cvt(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` was just created and is owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches `fd`; its events carry `token`.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd().as_raw_fd(), token, interest)
    }

    /// Changes what `fd` is watched for.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd().as_raw_fd(), token, interest)
    }

    fn control(&self, op: i32, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest.bits(),
            u64: token,
        };
        // SAFETY: both descriptors are open for the duration of the call, and `event` is valid.
        cvt(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, fd, &mut event) }).map(drop)
    }

    /// Waits until something happens and writes the tokens into `ready`; -1 waits for ever. An
    /// interrupted wait returns with no tokens.
    ///
    /// # Errors
    /// As epoll_wait(2), except EINTR.
    pub fn wait(&self, ready: &mut Vec<u64>, timeout_ms: i32) -> io::Result<()> {
        ready.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: `events` has room for EVENTS entries, the number that the call is told.
        let count = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                i32::try_from(EVENTS).expect("a small constant"),
                timeout_ms,
            )
        };
        match cvt(count) {
            Ok(count) => {
                ready.extend(
                    events[..count.unsigned_abs() as usize]
                        .iter()
                        .map(|event| event.u64),
                );
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A timer on CLOCK_BOOTTIME that epoll can watch.
pub struct Timer(OwnedFd);

impl Timer {
    /// A disarmed timer.
    ///
    /// # Errors
    /// EMFILE when the process has too many open files.
    pub fn new() -> io::Result<Self> {
        // SAFETY: timerfd_create takes a clock and flags only.
        let fd = cvt(unsafe {
            libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC)
        })?;
        // SAFETY: `fd` was just created and is owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Fires at `first_ns` of CLOCK_BOOTTIME and then every `every_ns`; 0 for both disarms, 0 for
    /// `every_ns` alone fires once.
    ///
    /// # Errors
    /// As timerfd_settime(2).
    pub fn set(&self, first_ns: u64, every_ns: u64) -> io::Result<()> {
        let spec = libc::itimerspec {
            it_value: timespec(first_ns),
            it_interval: timespec(every_ns),
        };
        // SAFETY: `spec` is valid for the call; a null old value is allowed.
        cvt(unsafe {
            libc::timerfd_settime(
                self.0.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &spec,
                std::ptr::null_mut(),
            )
        })
        .map(drop)
    }

    /// How often it has fired since the last call; 0 if it has not.
    #[must_use]
    pub fn fired(&self) -> u64 {
        let mut count = 0_u64;
        // SAFETY: the buffer is 8 bytes, what a timerfd writes.
        let read = unsafe {
            libc::read(
                self.0.as_raw_fd(),
                std::ptr::from_mut(&mut count).cast(),
                size_of::<u64>(),
            )
        };
        if read == 8 { count } else { 0 }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[expect(
    clippy::cast_possible_wrap,
    reason = "seconds of uptime and a remainder below 1e9 are small"
)]
fn timespec(ns: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    }
}

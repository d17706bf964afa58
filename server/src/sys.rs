//! What the daemon asks of the machine: realtime scheduling, locked memory, and how late it wakes up.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::clock::boottime;

/// SCHED_RR priority of the lease thread: above ordinary work, below the kernel's own threads.
pub const LEASE_PRIORITY: i32 = 10;
/// That of the VRRP thread: it must never hold up a renewal.
pub const VRRP_PRIORITY: i32 = 5;

/// Puts the calling thread under SCHED_RR with a priority of 1 to 99.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE or an RLIMIT_RTPRIO of at least that.
pub fn realtime(priority: i32) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: `param` outlives the call; pid 0 is the calling thread.
    let done =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &param) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Locks the process's pages into memory as they are touched, so that a renewal never waits for swap.
///
/// # Errors
/// `EPERM` or `ENOMEM` without CAP_IPC_LOCK or a large enough RLIMIT_MEMLOCK.
pub fn lock_memory() -> io::Result<()> {
    // ONFAULT: without it every thread's whole stack would be resident at once.
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: takes no pointer.
    let done = unsafe { libc::mlockall(flags) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets the kernel wake the calling thread, and those that it starts, up to `slack` late where that saves a wake-up. Realtime
/// threads are always woken on time (prctl(2), PR_SET_TIMERSLACK).
///
/// # Errors
/// The kernel's refusal.
pub fn timer_slack(slack: Duration) -> io::Result<()> {
    // Zero would stand for the default.
    let nanos = libc::c_ulong::try_from(slack.as_nanos())
        .unwrap_or(libc::c_ulong::MAX)
        .max(1);
    // SAFETY: takes no pointer.
    let done = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, nanos) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A descriptor of a child that was not reaped yet; readable once it has ended.
///
/// # Errors
/// No descriptor is left.
pub fn pidfd(child: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Kills every process of a group.
///
/// # Errors
/// No such group.
pub fn kill_group(leader: u32) -> io::Result<()> {
    let group = libc::pid_t::try_from(leader).map_err(io::Error::other)?;
    // Of 0 and 1 the kernel would take other groups: our own, and everything.
    if group < 2 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: takes integers only.
    match unsafe { libc::killpg(group, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sleeps until a CLOCK_BOOTTIME reading.
fn sleep_until(at: Mono) {
    let ts = libc::timespec {
        tv_sec: (at.0 / 1_000_000_000)
            .try_into()
            .unwrap_or(libc::time_t::MAX),
        tv_nsec: (at.0 % 1_000_000_000) as libc::c_long,
    };
    loop {
        // SAFETY: `ts` outlives the call; no remainder is asked for.
        let done = unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_BOOTTIME,
                libc::TIMER_ABSTIME,
                &ts,
                std::ptr::null_mut(),
            )
        };
        if done != libc::EINTR {
            return;
        }
    }
}

/// How late a thread like the lease thread (realtime where allowed) wakes up: `n` sleeps of `tick`.
pub fn measure_wake_lateness(n: usize, tick: Duration) -> Vec<Duration> {
    let sampler = move || {
        // A refusal shows in the samples themselves, and the lease thread reports it.
        let _ = realtime(LEASE_PRIORITY);
        (0..n)
            .map(|_| {
                let due = boottime() + tick;
                sleep_until(due);
                boottime().since(due)
            })
            .collect()
    };
    match std::thread::Builder::new()
        .name("buoy-wake-probe".to_owned())
        .spawn(sampler)
    {
        Ok(handle) => handle.join().unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// The middle and the largest of some measured durations; zero for none.
pub fn median_and_max(samples: &[Duration]) -> (Duration, Duration) {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    (median, sorted.last().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_measured() {
        let samples = measure_wake_lateness(5, Duration::from_millis(2));
        assert_eq!(samples.len(), 5);
        let (median, max) = median_and_max(&samples);
        assert!(median <= max && max > Duration::ZERO);
    }
}

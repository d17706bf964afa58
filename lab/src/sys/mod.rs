//! The few system calls that the lab needs and the standard library does not offer.

pub mod clock;
pub mod iface;
pub mod poll;

use std::io;

/// Turns the result of a libc call into a `Result`, reading `errno` on -1.
///
/// # Errors
/// The error that `errno` names, if `result` is -1.
pub fn cvt(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Puts the calling thread under SCHED_RR with `priority` (1 to 99).
///
/// # Errors
/// EPERM without CAP_SYS_NICE or an RLIMIT_RTPRIO that allows it.
pub fn realtime(priority: i32) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: `param` is a valid sched_param that outlives the call; 0 names the calling thread.
    cvt(unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &param) }).map(drop)
}

/// Locks the memory of this process, present and future, so that a page fault never delays a frame.
///
/// # Errors
/// EPERM or ENOMEM when RLIMIT_MEMLOCK forbids it.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: mlockall takes flags only and touches no memory of ours.
    cvt(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) }).map(drop)
}

/// Whether the calling process is root (effective user id 0).
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

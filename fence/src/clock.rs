//! The clock of the leases: CLOCK_BOOTTIME as this process and as the packet gate read it.

use std::io;

use buoy_core::Mono;

/// Helper `bpf_ktime_get_boot_ns` (Linux 5.8 and newer): the clock that the packet gate's program
/// reads. The older `bpf_ktime_get_ns` reads CLOCK_MONOTONIC, which stands still during suspend: a
/// gate on it would stay open after its deadline by the length of the suspend, so it is never used.
pub const BPF_KTIME_GET_BOOT_NS: i32 = 125;

const TIMENS_OFFSETS: &str = "/proc/self/timens_offsets";

/// Why deadlines of this process would mean another moment to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The process lives in a time namespace with an offset; the packet gate reads the host's clock.
    #[error(
        "this process runs in a time namespace ({line:?} in {TIMENS_OFFSETS}), but the kernel's packet \
         gate reads the host's clock, so lease deadlines would be wrong by that offset; start buoy in \
         the host's time namespace (no `unshare --time`, no container time offsets)"
    )]
    TimeNamespace {
        /// The offending line: clock name, seconds, nanoseconds.
        line: String,
    },
    /// The offsets could not be read or understood.
    #[error(
        "cannot tell whether this process runs in a time namespace: {TIMENS_OFFSETS}: {problem}"
    )]
    Unreadable {
        /// What was wrong with the file.
        problem: String,
    },
    /// The program's clock is not between two readings of ours.
    #[error(
        "the packet gate's clock reads {kernel:?} while CLOCK_BOOTTIME went from {before:?} to {after:?} in \
         this process: they are not the same clock, so lease deadlines cannot be enforced; start buoy in \
         the host's time namespace"
    )]
    Differs {
        /// Our reading before the program ran.
        before: Mono,
        /// What the program read.
        kernel: Mono,
        /// Our reading after it ran.
        after: Mono,
    },
}

/// CLOCK_BOOTTIME now. It counts suspend, never steps, and starts near zero at boot.
///
/// # Panics
/// When the kernel does not know CLOCK_BOOTTIME (Linux before 2.6.39). A made-up reading would be
/// unsafe in one of the two lease machines whichever way it erred.
pub fn boottime() -> Mono {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec that lives across the call.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    assert_eq!(
        rc,
        0,
        "clock_gettime(CLOCK_BOOTTIME): {}",
        io::Error::last_os_error()
    );
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Mono(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Refuses a process whose clocks have a time namespace's offset: the packet gate reads the host's.
///
/// # Errors
/// [`ClockError::TimeNamespace`], or [`ClockError::Unreadable`] when that cannot be told. Kernels
/// without time namespaces (before 5.6, or built without) have no such file: that is fine.
pub fn check_time_namespace() -> Result<(), ClockError> {
    match std::fs::read_to_string(TIMENS_OFFSETS) {
        Ok(text) => check_offsets(&text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(ClockError::Unreadable {
            problem: e.to_string(),
        }),
    }
}

/// Lines are `clock seconds nanoseconds`.
fn check_offsets(text: &str) -> Result<(), ClockError> {
    for line in text.lines() {
        let offsets: Option<Vec<i64>> = line
            .split_whitespace()
            .skip(1)
            .map(|n| n.parse().ok())
            .collect();
        match offsets.as_deref() {
            Some([0, 0]) => {}
            Some([_, _]) => {
                let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
                return Err(ClockError::TimeNamespace { line });
            }
            _ => {
                let problem = format!("expected `clock seconds nanoseconds`, found {line:?}");
                return Err(ClockError::Unreadable { problem });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_follows_the_kernels_uptime() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("/proc/uptime");
        let seconds: f64 = uptime
            .split(' ')
            .next()
            .and_then(|s| s.parse().ok())
            .expect("seconds");
        let read = boottime();
        assert!(
            (read.0 as f64 / 1e9 - seconds).abs() < 5.0,
            "{read:?} against {seconds} s"
        );
        assert!(boottime() >= read);
    }

    #[test]
    fn offsets_are_refused_and_named() {
        assert!(
            check_offsets("monotonic           0         0\nboottime            0         0\n")
                .is_ok()
        );
        let e = check_offsets("monotonic 0 0\nboottime   -86400   0\n").expect_err("an offset");
        assert!(e.to_string().contains("boottime -86400 0"), "{e}");
        let e = check_offsets("monotonic 0 7\nboottime 0 0\n").expect_err("an offset");
        assert!(matches!(e, ClockError::TimeNamespace { .. }), "{e}");
        let e = check_offsets("boottime zero 0\n").expect_err("no number");
        assert!(matches!(e, ClockError::Unreadable { .. }), "{e}");
        let e = check_offsets("boottime 0\n").expect_err("a field is missing");
        assert!(matches!(e, ClockError::Unreadable { .. }), "{e}");
    }
}

//! The one clock of the lab: CLOCK_BOOTTIME in nanoseconds, the same in every process and namespace.

use std::time::Duration;

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// Now, in nanoseconds of CLOCK_BOOTTIME.
#[must_use]
pub fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec; CLOCK_BOOTTIME exists since Linux 2.6.39, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Nanoseconds as milliseconds with fractions, for reports.
#[must_use]
pub fn ns_to_ms(ns: u64) -> f64 {
    // Whole microseconds are exact in an f64 for 285 years.
    #[expect(clippy::cast_precision_loss, reason = "microseconds fit 52 bits")]
    let ms = (ns / 1_000) as f64 / 1_000.0;
    ms
}

/// A duration in nanoseconds; longer than 584 years saturates.
#[must_use]
pub fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

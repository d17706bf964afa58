//! The timers of RFC 9568 section 6.1 and RFC 3768 section 6.1.

use std::time::Duration;

use buoy_core::Mono;

use super::{Settings, Version};

/// Shortest interval of advertisements: one centisecond, the unit of version 3.
pub const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Least time between two advertisements that outsiders provoke, so that a flood of forged packets does not
/// become a flood of ours.
pub const MIN_ANSWER_GAP: Duration = Duration::from_millis(10);

/// How much earlier than it is due an advertisement may leave, to go with those of other routers: a node with many
/// wakes up once for all of them. It never leaves late for that, and each keeps its own slots.
pub(super) fn early(interval: Duration) -> Duration {
    (interval / 20).min(Duration::from_millis(5))
}

/// `Skew_Time` of a router with this priority: the higher, the earlier it takes over from a silent master.
///
/// Version 2 counts `(256 - priority) / 256` seconds whatever the interval, version 3 as many parts of
/// `interval`, that of the master.
pub fn skew_time(priority: u8, version: Version, interval: Duration) -> Duration {
    let whole = match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => interval,
    };
    whole.saturating_mul(256 - u32::from(priority)) / 256
}

/// `Active_Down_Interval` (`Master_Down_Interval` in version 2): how long a master with this interval is
/// silent before a router with this priority takes over.
pub fn master_down_interval(priority: u8, version: Version, interval: Duration) -> Duration {
    interval
        .saturating_mul(3)
        .saturating_add(skew_time(priority, version, interval))
}

/// The first of `due + n * interval` after both: a late advertisement does not shift the later ones, and
/// those that a stall swallowed are not made up for.
pub(super) fn slot_after(due: Mono, interval: Duration, now: Mono) -> Mono {
    let step = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    let missed = now.since(due).as_nanos() / u128::from(step);
    let ahead = u128::from(step) * (missed + 1);
    due + Duration::from_nanos(u64::try_from(ahead).unwrap_or(u64::MAX))
}

impl Settings {
    /// With what does not make sense on the wire moved to the next value that does.
    pub(super) fn sane(self) -> Settings {
        Settings {
            priority: self.priority.max(1),
            interval: self.interval.max(MIN_INTERVAL),
            ..self
        }
    }

    /// How long a master of lower priority is let be; `None`: as long as it lasts.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self {
            // The owner of the addresses always preempts, whatever is configured.
            Settings { priority: 255, .. } => Some(Duration::ZERO),
            Settings { preempt: false, .. } => None,
            Settings { preempt_delay, .. } => Some(*preempt_delay),
        }
    }

    /// The interval that counts for an outsider that announces `heard`.
    pub(super) fn interval_of(&self, heard: Duration) -> Duration {
        match self.version {
            Version::V3 if !heard.is_zero() => heard,
            _ => self.interval,
        }
    }

    /// `Skew_Time` towards a master of this interval.
    pub(super) fn skew(&self, interval: Duration) -> Duration {
        skew_time(self.priority, self.version, interval)
    }

    /// `Active_Down_Interval` towards a master of this interval.
    pub(super) fn down(&self, interval: Duration) -> Duration {
        master_down_interval(self.priority, self.version, interval)
    }
}

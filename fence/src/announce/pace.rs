//! How often one address is announced: Buoy's own series, or what is set in its place.

use std::net::IpAddr;
use std::time::Duration;

use buoy_core::spec::VrrpGarp;

use super::schedule::{OFFSETS, REFRESH};

/// Announcements that leave at once, and once more after a delay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bursts {
    /// Announcements in each.
    pub repeat: usize,
    /// From the beginning of the first to that of the second; zero: there is no second.
    pub delay: Duration,
}

impl Bursts {
    fn len(self) -> usize {
        match self.delay.is_zero() {
            true => self.repeat,
            false => 2 * self.repeat,
        }
    }

    /// See [`Pace::after`].
    pub(super) fn after(self, round: usize) -> Option<(Duration, usize)> {
        let next = round + 1;
        let gap = if next == self.repeat {
            self.delay
        } else {
            Duration::ZERO
        };
        (next < self.len()).then_some((gap, next))
    }

    pub(super) fn begins(self, round: usize) -> bool {
        round.checked_rem(self.repeat) == Some(0)
    }
}

/// How often an address is announced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pace {
    /// After a takeover; `None`: the series of [`OFFSETS`].
    pub bursts: Option<Bursts>,
    /// After an advertisement of lower priority; `None`: as after a takeover.
    pub lower: Option<Bursts>,
    /// Period of the refresh after the series; zero: there is none.
    pub refresh: Duration,
    /// Announcements in a refresh, 1 at least.
    pub refresh_repeat: usize,
    /// Least time between two frames of this kind on the interface, among the addresses that have one. Zero: none.
    pub gap: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            bursts: None,
            lower: None,
            refresh: REFRESH,
            refresh_repeat: 1,
            gap: Duration::ZERO,
        }
    }
}

impl Pace {
    /// The pace of an address whose VIP sets `garp`.
    pub fn new(garp: &VrrpGarp, ip: IpAddr) -> Pace {
        let bursts = |(repeat, delay): (u8, Duration)| Bursts {
            repeat: repeat.into(),
            delay,
        };
        let gap = match ip {
            IpAddr::V4(_) => garp.interval,
            IpAddr::V6(_) => garp.gna_interval,
        };
        Pace {
            bursts: garp.master().map(bursts),
            lower: garp.lower_prio().map(bursts),
            refresh: garp.master_refresh.unwrap_or(REFRESH),
            refresh_repeat: garp.master_refresh_repeat.unwrap_or(1).max(1).into(),
            gap: gap.unwrap_or_default(),
        }
    }

    fn series(&self) -> usize {
        self.bursts.map_or(OFFSETS.len(), Bursts::len)
    }

    /// The round that follows `round`, and how long after the beginning of the burst of `round`.
    pub(super) fn after(&self, round: usize) -> Option<(Duration, usize)> {
        let (next, series) = (round + 1, self.series());
        if next < series {
            return match self.bursts {
                Some(bursts) => bursts.after(round),
                None => Some((OFFSETS[next] - OFFSETS[round], next)),
            };
        }
        if (series + 1..series + self.refresh_repeat).contains(&next) {
            return Some((Duration::ZERO, next));
        }
        (!self.refresh.is_zero()).then_some((self.refresh, series))
    }

    /// Whether `round` is the first of its burst.
    pub(super) fn begins(&self, round: usize) -> bool {
        let series = self.series();
        match self.bursts {
            _ if round >= series => round == series,
            Some(bursts) => bursts.begins(round),
            None => true,
        }
    }
}

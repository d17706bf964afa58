//! How often the addresses of a VIP are announced, where that is set as keepalived has it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest delay of a second burst.
pub const MAX_GARP_DELAY: Duration = Duration::from_secs(1000);
/// Shortest period of a refresh.
pub const MIN_GARP_REFRESH: Duration = Duration::from_secs(1);
/// Longest period of a refresh.
pub const MAX_GARP_REFRESH: Duration = Duration::from_secs(24 * 3600);
/// Longest gap between two frames: with a longer one a takeover of many addresses would take minutes.
pub const MAX_GARP_INTERVAL: Duration = Duration::from_secs(1);
/// Announcements in a burst where only its delay is set (keepalived's default).
pub const DEFAULT_GARP_REPEAT: u8 = 5;
/// Delay of a second burst where only its announcements are counted (keepalived's default).
pub const DEFAULT_GARP_DELAY: Duration = Duration::from_secs(5);

/// keepalived's `garp_*` and `gna_interval`; what is `None` is as Buoy does it by itself. An announcement is a
/// gratuitous ARP in both of its forms, or one unsolicited neighbour advertisement.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(default)]
pub struct VrrpGarp {
    /// Announcements in each of the two bursts after a takeover.
    pub master_repeat: Option<u8>,
    /// From the first burst to the second; zero: there is no second.
    pub master_delay: Option<Duration>,
    /// Period of the refresh; zero: there is none.
    pub master_refresh: Option<Duration>,
    /// Announcements in a refresh.
    pub master_refresh_repeat: Option<u8>,
    /// Announcements in each of the two bursts after an advertisement of lower priority; zero: there are none.
    pub lower_prio_repeat: Option<u8>,
    /// From the first of them to the second; zero: there is no second.
    pub lower_prio_delay: Option<Duration>,
    /// Least time between two gratuitous ARP frames.
    pub interval: Option<Duration>,
    /// Least time between two unsolicited neighbour advertisements.
    pub gna_interval: Option<Duration>,
}

impl VrrpGarp {
    /// Announcements of a burst after a takeover, and the delay of the second; `None`: as Buoy does it.
    pub fn master(&self) -> Option<(u8, Duration)> {
        self.bursts(self.master_repeat, self.master_delay)
    }

    /// The same after an advertisement of lower priority; `None`: as after a takeover.
    pub fn lower_prio(&self) -> Option<(u8, Duration)> {
        if self.lower_prio_repeat.is_none() && self.lower_prio_delay.is_none() {
            return None;
        }
        self.bursts(
            self.lower_prio_repeat.or(self.master_repeat),
            self.lower_prio_delay.or(self.master_delay),
        )
    }

    fn bursts(&self, repeat: Option<u8>, delay: Option<Duration>) -> Option<(u8, Duration)> {
        (repeat.is_some() || delay.is_some()).then(|| {
            (
                repeat.unwrap_or(DEFAULT_GARP_REPEAT),
                delay.unwrap_or(DEFAULT_GARP_DELAY),
            )
        })
    }

    /// Everything that is wrong with it: field, message, hint.
    pub(super) fn check(&self, refuse: &mut impl FnMut(&str, String, &str)) {
        for (field, count) in [
            ("garp_master_repeat", self.master_repeat),
            ("garp_master_refresh_repeat", self.master_refresh_repeat),
        ] {
            if count == Some(0) {
                refuse(
                    field,
                    format!("{field} is 0, expected 1 to 255"),
                    "without any announcement neighbours go on to send to where the VIP was",
                );
            }
        }
        let millis = Duration::from_millis(1);
        for (field, value, least, most) in [
            (
                "garp_master_delay",
                self.master_delay,
                millis,
                MAX_GARP_DELAY,
            ),
            (
                "garp_lower_prio_delay",
                self.lower_prio_delay,
                millis,
                MAX_GARP_DELAY,
            ),
            (
                "garp_master_refresh",
                self.master_refresh,
                MIN_GARP_REFRESH,
                MAX_GARP_REFRESH,
            ),
        ] {
            let Some(value) = value.filter(|v| !v.is_zero()) else {
                continue;
            };
            if !(least..=most).contains(&value) || !whole(value, millis) {
                refuse(
                    field,
                    format!(
                        "{field} is {value:?}, expected 0 or {least:?} to {most:?} in whole milliseconds"
                    ),
                    "0 leaves these announcements out",
                );
            }
        }
        let micros = Duration::from_micros(1);
        for (field, value) in [
            ("garp_interval", self.interval),
            ("gna_interval", self.gna_interval),
        ] {
            let Some(value) = value else { continue };
            if !(micros..=MAX_GARP_INTERVAL).contains(&value) || !whole(value, micros) {
                refuse(
                    field,
                    format!(
                        "{field} is {value:?}, expected {micros:?} to {MAX_GARP_INTERVAL:?} in whole microseconds"
                    ),
                    "leave it out for no gap between frames",
                );
            }
        }
        if self.master_refresh == Some(Duration::ZERO) && self.master_refresh_repeat.is_some() {
            refuse(
                "garp_master_refresh_repeat",
                "garp_master_refresh_repeat is set, but garp_master_refresh is 0: there is no refresh"
                    .to_owned(),
                "remove one of the two",
            );
        }
        if self.lower_prio_repeat == Some(0) && self.lower_prio_delay.is_some() {
            refuse(
                "garp_lower_prio_delay",
                "garp_lower_prio_delay is set, but garp_lower_prio_repeat is 0: there is no burst"
                    .to_owned(),
                "remove one of the two",
            );
        }
    }
}

fn whole(value: Duration, unit: Duration) -> bool {
    value.as_nanos().is_multiple_of(unit.as_nanos())
}

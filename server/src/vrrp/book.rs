//! What a router has heard that it did not believe, and what is shown of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::health::Hearing;
use buoy_core::{Mono, VipName};
use buoy_vrrp_compat::accept::Cause;
use buoy_vrrp_compat::router::{State, Stats};

/// A source is named in the log this often for each router.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Sources that are remembered for that, and outsiders that are shown.
const MAX_SOURCES: usize = 64;

/// Mismatches of one router.
#[derive(Default)]
pub struct Mismatches {
    counts: BTreeMap<Cause, u64>,
    said: BTreeMap<IpAddr, Mono>,
}

impl Mismatches {
    /// One more; true if it is to be said in the log.
    pub fn note(&mut self, source: IpAddr, cause: Cause, now: Mono) -> bool {
        *self.counts.entry(cause).or_default() += 1;
        self.said.retain(|_, at| now.since(*at) < SAY_EVERY);
        if self.said.contains_key(&source) || self.said.len() >= MAX_SOURCES {
            return false;
        }
        self.said.insert(source, now);
        true
    }

    /// How many by cause; only what there was.
    pub fn counts(&self) -> &BTreeMap<Cause, u64> {
        &self.counts
    }
}

/// Routers outside that were heard with what matches.
#[derive(Default)]
pub struct Outsiders(BTreeMap<IpAddr, (u8, Duration, Mono)>);

impl Outsiders {
    /// One advertised.
    pub fn note(&mut self, source: IpAddr, priority: u8, interval: Duration, now: Mono) {
        if self.0.len() >= MAX_SOURCES && !self.0.contains_key(&source) {
            let oldest = self.0.iter().min_by_key(|(_, (.., at))| *at);
            if let Some(oldest) = oldest.map(|(ip, _)| *ip) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(source, (priority, interval, now));
    }

    /// When this one was last heard.
    pub fn heard(&self, source: IpAddr) -> Option<Mono> {
        self.0.get(&source).map(|(.., at)| *at)
    }

    /// What is shown of them.
    pub fn view(&self, now: Mono) -> Vec<OutsiderView> {
        let all = self.0.iter();
        all.map(|(source, (priority, interval, at))| OutsiderView {
            source: *source,
            priority: *priority,
            interval: *interval,
            heard_ago: now.since(*at),
        })
        .collect()
    }
}

/// A router outside, as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutsiderView {
    /// Where its advertisements come from.
    pub source: IpAddr,
    /// Priority of its last one.
    pub priority: u8,
    /// The interval that it announces.
    pub interval: Duration,
    /// Since the last one.
    pub heard_ago: Duration,
}

/// A router of this node, as it is shown.
#[derive(Clone, Debug)]
pub struct RouterView {
    /// Its VIP.
    pub vip: VipName,
    /// Virtual router id.
    pub vrid: u8,
    /// IPv4, or IPv6.
    pub v4: bool,
    /// 2 or 3.
    pub version: u8,
    /// Priority of the group.
    pub priority: u8,
    /// Its interface.
    pub interface: String,
    /// Where this node sends from; `None` while the interface cannot be used.
    pub source: Option<IpAddr>,
    /// As RFC 9568 names it.
    pub state: State,
    /// What it says of routers outside; `None` while it hears nothing.
    pub hearing: Option<Hearing>,
    /// What it did.
    pub stats: Stats,
    /// Advertisements sent, all priorities.
    pub sent: u64,
    /// Of these with priority 0.
    pub sent_zero: u64,
    /// Advertisements that were due without a live lease, and not sent.
    pub withheld: u64,
    /// Advertisements that the kernel refused to send, and the last reason.
    pub failed: (u64, Option<String>),
    /// Advertisements of members.
    pub members_heard: u64,
    /// Routers outside.
    pub outsiders: Vec<OutsiderView>,
    /// What did not match, by cause.
    pub mismatches: BTreeMap<Cause, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_said_once_a_minute() {
        let mut book = Mismatches::default();
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        let at = Mono::from_millis;
        assert!(book.note(ip(1), Cause::Interval, at(1_000)));
        assert!(!book.note(ip(1), Cause::Addresses, at(2_000)));
        assert!(book.note(ip(2), Cause::Interval, at(2_000)));
        assert!(book.note(ip(1), Cause::Interval, at(61_000)));
        assert_eq!(book.counts()[&Cause::Interval], 3);
        assert_eq!(book.counts()[&Cause::Addresses], 1);
        // However many addresses somebody invents, the log has an end.
        let said = (0..=255u8)
            .filter(|i| book.note(ip(*i), Cause::Ttl, at(62_000)))
            .count();
        assert!(said <= MAX_SOURCES, "{said}");
    }

    #[test]
    fn outsiders_are_bounded() {
        let mut book = Outsiders::default();
        for i in 0..=255u8 {
            let at = Mono::from_millis(1_000 + u64::from(i));
            book.note([192, 0, 2, i].into(), i, Duration::from_secs(1), at);
        }
        let view = book.view(Mono::from_millis(2_000));
        assert_eq!(view.len(), MAX_SOURCES);
        assert_eq!(view.last().unwrap().priority, 255);
    }
}

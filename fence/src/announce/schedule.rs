//! When which VIP is announced: growing intervals after a takeover, a slow refresh, one pace for all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;

/// When a VIP is announced, counted from its takeover; then every [`REFRESH`].
pub const OFFSETS: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(350),
    Duration::from_millis(750),
    Duration::from_millis(1_500),
    Duration::from_secs(3),
    Duration::from_secs(6),
];
/// Interval of announcements after the last of [`OFFSETS`].
pub const REFRESH: Duration = Duration::from_secs(60);
/// Pace over all VIPs. 200 IPv4 VIPs (400 frames) are announced for the first time within 80 ms.
pub const FRAMES_PER_SECOND: u32 = 5_000;
/// Frames that may leave back to back after a pause.
pub const BURST: u32 = 50;
/// Least time between an announcement and the next one that a conflict provokes.
pub const CONFLICT_GAP: Duration = Duration::from_millis(250);
/// A conflict begins the whole series anew unless one has done so this recently (the DEFEND_INTERVAL of
/// RFC 5227 section 2.4): two that defend one address must not drive each other.
pub const CONFLICT_QUIET: Duration = Duration::from_secs(10);

const FRAME_TIME: Duration = Duration::from_nanos(1_000_000_000 / FRAMES_PER_SECOND as u64);
const BURST_TIME: Duration = Duration::from_nanos(FRAME_TIME.as_nanos() as u64 * BURST as u64);
/// An announcement later than this was held up: the rest of its series is put off with it.
const HELD_UP: Duration = Duration::from_millis(10);

/// What happens to a VIP's address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Event {
    /// It became active here, or its neighbours need to be told again: the series begins.
    Up(IpAddr),
    /// It is no longer active here: not one more announcement.
    Down(IpAddr),
    /// Somebody else claims to have it.
    Conflict(IpAddr),
    /// Time passed.
    Tick,
}

/// What has to be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Effect {
    /// Announce this address, now: [`frames`] frames.
    Announce(IpAddr),
}

/// Frames that one announcement of an address takes: two ARP forms, or one advertisement.
pub fn frames(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 2 } else { 1 }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Entry {
    /// Announcements of the series so far.
    round: usize,
    /// When the next one of the series is due.
    due: Mono,
    /// A conflict wants one before that.
    extra: Option<Mono>,
    last: Option<Mono>,
    /// When a conflict last began the series anew.
    restarted: Option<Mono>,
}

impl Entry {
    fn next(&self) -> (Mono, usize) {
        match self.extra {
            Some(extra) if extra < self.due => (extra, 0),
            _ => (self.due, self.round),
        }
    }
}

/// The schedule of all announcements of this host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<IpAddr, Entry>,
    /// By time.
    waiting: BTreeSet<(Mono, usize, IpAddr)>,
    /// Due, and held up by the pace: earlier rounds first, so that every VIP is announced once before
    /// any is announced again.
    ready: BTreeSet<(usize, Mono, IpAddr)>,
    /// When the frames sent so far would have left at an even pace.
    paced: Mono,
}

impl Schedule {
    /// Takes an event; what has to be done is added to `effects`.
    pub fn handle(&mut self, now: Mono, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Up(ip) => {
                self.take_out(ip);
                self.put_in(
                    ip,
                    Entry {
                        round: 0,
                        due: now,
                        extra: None,
                        last: None,
                        restarted: None,
                    },
                );
            }
            Event::Down(ip) => drop(self.take_out(ip)),
            Event::Conflict(ip) => self.conflict(now, ip),
            Event::Tick => {}
        }
        self.send(now, effects);
    }

    /// When [`Event::Tick`] is next needed.
    pub fn next_deadline(&self) -> Option<Mono> {
        let paced = self.ready.first().map(|_| self.paced - BURST_TIME);
        let waiting = self.waiting.first().map(|(due, _, _)| *due);
        match (paced, waiting) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn conflict(&mut self, now: Mono, ip: IpAddr) {
        let Some(mut entry) = self.take_out(ip) else {
            return;
        };
        let not_before = entry.last.map_or(now, |last| now.max(last + CONFLICT_GAP));
        let quiet = entry
            .restarted
            .is_none_or(|at| now.since(at) >= CONFLICT_QUIET);
        if quiet && entry.round > 0 {
            entry.restarted = Some(now);
            entry.round = 0;
            entry.due = now;
            entry.extra = None;
        } else {
            let extra = entry
                .extra
                .map_or(not_before, |extra| extra.min(not_before));
            entry.extra = Some(extra);
        }
        self.put_in(ip, entry);
    }

    fn send(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        while let Some(&(due, round, ip)) = self.waiting.first().filter(|(due, _, _)| *due <= now) {
            self.waiting.pop_first();
            self.ready.insert((round, due, ip));
        }
        while self.paced <= now + BURST_TIME {
            let Some(&(_, _, ip)) = self.ready.first() else {
                return;
            };
            let Some(mut entry) = self.take_out(ip) else {
                return;
            };
            self.paced = self.paced.max(now) + FRAME_TIME * frames(ip);
            effects.push(Effect::Announce(ip));
            entry.last = Some(now);
            entry.extra = None;
            if entry.due <= now {
                let from = if now.since(entry.due) > HELD_UP {
                    now
                } else {
                    entry.due
                };
                let gap = |round: usize| Some(*OFFSETS.get(round + 1)? - *OFFSETS.get(round)?);
                entry.due = from + gap(entry.round).unwrap_or(REFRESH);
                entry.round = (entry.round + 1).min(OFFSETS.len());
            }
            self.put_in(ip, entry);
        }
    }

    fn take_out(&mut self, ip: IpAddr) -> Option<Entry> {
        let entry = self.entries.remove(&ip)?;
        let (due, round) = entry.next();
        self.waiting.remove(&(due, round, ip));
        self.ready.remove(&(round, due, ip));
        Some(entry)
    }

    fn put_in(&mut self, ip: IpAddr, entry: Entry) {
        let (due, round) = entry.next();
        self.waiting.insert((due, round, ip));
        self.entries.insert(ip, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn vip(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n))
    }

    /// Runs from `from` until `until`, waking exactly when asked: what was announced, and when (ms).
    fn run(schedule: &mut Schedule, from: Mono, until: Mono) -> Vec<(f64, IpAddr)> {
        let (mut sent, mut now) = (Vec::new(), from);
        loop {
            let mut effects = Vec::new();
            schedule.handle(now, Event::Tick, &mut effects);
            sent.extend(
                effects
                    .into_iter()
                    .map(|Effect::Announce(ip)| (now.0 as f64 / 1e6, ip)),
            );
            match schedule.next_deadline() {
                Some(next) if next <= until => {
                    assert!(next > now, "{next:?} does not lead on from {now:?}");
                    now = next;
                }
                _ => return sent,
            }
        }
    }

    fn up(schedule: &mut Schedule, now: Mono, ip: IpAddr) -> usize {
        let mut effects = Vec::new();
        schedule.handle(now, Event::Up(ip), &mut effects);
        effects.len()
    }

    const START: Mono = Mono::from_millis(10_000);

    #[test]
    fn one_vip_is_announced_at_the_offsets_and_then_every_minute() {
        let mut schedule = Schedule::default();
        assert_eq!(up(&mut schedule, START, vip(1)), 1, "at once");
        let sent = run(&mut schedule, START, Mono::from_millis(140_000));
        let at: Vec<_> = sent.iter().map(|(at, _)| at - 10_000.0).collect();
        assert_eq!(
            at,
            [
                50.0, 150.0, 350.0, 750.0, 1500.0, 3000.0, 6000.0, 66_000.0, 126_000.0
            ]
        );
    }

    #[test]
    fn the_first_round_of_200_vips_is_over_in_100_ms_and_comes_first() {
        let mut schedule = Schedule::default();
        let mut effects = Vec::new();
        for n in 0..200 {
            schedule.handle(START, Event::Up(vip(n)), &mut effects);
        }
        assert_eq!(
            effects.len(),
            26,
            "the burst of 50 frames, and one that was begun"
        );
        let sent = run(&mut schedule, START, Mono::from_millis(16_500));
        let mut order: Vec<_> = effects
            .iter()
            .map(|Effect::Announce(ip)| (10_000.0, *ip))
            .collect();
        order.extend(sent);
        let first: BTreeSet<_> = order[..200].iter().map(|(_, ip)| *ip).collect();
        assert_eq!(first.len(), 200, "each once before any twice");
        assert!(order[199].0 - 10_000.0 <= 100.0, "{}", order[199].0);
        assert_eq!(order.len(), 200 * OFFSETS.len(), "nobody is forgotten");
    }

    #[test]
    fn the_pace_is_kept_over_any_second() {
        let mut schedule = Schedule::default();
        let mut effects = Vec::new();
        for n in 0..10_000 {
            schedule.handle(START, Event::Up(vip(n)), &mut effects);
        }
        let sent = run(&mut schedule, START, Mono::from_millis(20_000));
        let first: BTreeSet<_> = sent[..9_974].iter().map(|(_, ip)| *ip).collect();
        assert_eq!(first.len(), 9_974, "each once before any twice");
        for second in 0..9 {
            let from = 10_000.0 + f64::from(second) * 1000.0;
            let frames: u32 = sent
                .iter()
                .filter(|(at, _)| (from..from + 1000.0).contains(at))
                .map(|(_, ip)| frames(*ip))
                .sum();
            assert!(
                frames <= FRAMES_PER_SECOND + BURST,
                "{frames} frames from {from} ms"
            );
            assert!(
                frames >= FRAMES_PER_SECOND - 2,
                "{frames} frames from {from} ms"
            );
        }
    }

    #[test]
    fn a_vip_that_goes_down_is_not_announced_again() {
        let mut schedule = Schedule::default();
        let mut effects = Vec::new();
        for n in 0..100 {
            schedule.handle(START, Event::Up(vip(n)), &mut effects);
        }
        let now = START + Duration::from_millis(5);
        for n in (0..100).filter(|n| n % 2 == 0) {
            let mut late = Vec::new();
            schedule.handle(now, Event::Down(vip(n)), &mut late);
            assert!(!late.contains(&Effect::Announce(vip(n))));
            effects.extend(late);
        }
        let sent = run(&mut schedule, now, Mono::from_millis(100_000));
        let even = |ip: &IpAddr| matches!(ip, IpAddr::V4(v4) if v4.to_bits() % 2 == 0);
        assert!(!sent.iter().any(|(_, ip)| even(ip)));
        let mut rest = schedule.clone();
        for n in 0..100 {
            rest.handle(now, Event::Down(vip(n)), &mut Vec::new());
        }
        assert_eq!(rest.next_deadline(), None);
        assert!(rest.entries.is_empty() && rest.waiting.is_empty() && rest.ready.is_empty());
    }

    #[test]
    fn a_conflict_begins_anew_but_two_defenders_do_not_drive_each_other() {
        let mut schedule = Schedule::default();
        up(&mut schedule, START, vip(1));
        let calm = Mono::from_millis(30_000);
        run(&mut schedule, START, calm);
        // Somebody contradicts, and contradicts each of our announcements at once, for 25 s.
        let (mut sent, mut now) = (Vec::new(), calm);
        let mut event = Event::Conflict(vip(1));
        while now < Mono::from_millis(55_000) {
            let mut effects = Vec::new();
            schedule.handle(now, event, &mut effects);
            sent.extend(effects.iter().map(|_| now.since(calm).as_millis()));
            (event, now) = match effects.is_empty() {
                true => (
                    Event::Tick,
                    schedule.next_deadline().expect("a next announcement"),
                ),
                false => (Event::Conflict(vip(1)), now + Duration::from_micros(100)),
            };
        }
        // Each of the first is answered by a contradiction, which is heeded at most every 250 ms.
        assert_eq!(sent[..5], [0, 50, 150, 350, 600], "the series: {sent:?}");
        let series = 3 * OFFSETS.len();
        let provoked = 25_000 / CONFLICT_GAP.as_millis() as usize;
        assert!(sent.len() > provoked / 2, "it is defended: {sent:?}");
        assert!(
            sent.len() <= series + provoked,
            "{} announcements in 25 s",
            sent.len()
        );
        // A conflict about somebody else's address is none.
        let before = schedule.entries.clone();
        let mut effects = Vec::new();
        schedule.handle(
            Mono::from_millis(54_000),
            Event::Conflict(vip(2)),
            &mut effects,
        );
        assert_eq!((schedule.entries, effects), (before, vec![]));
    }
}

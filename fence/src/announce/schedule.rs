//! When which VIP is announced: growing intervals after a takeover, a slow refresh, one pace for all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;
use buoy_core::spec::garp::MAX_GARP_INTERVAL;

use super::frames::ArpForm;
use super::pace::Pace;

/// When a VIP is announced, counted from its takeover, unless its [`Pace`] says otherwise; then every [`REFRESH`].
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
/// Pace of first announcements over all VIPs: each ends an outage. 1,000 IPv4 VIPs (2,000 frames) take 40 ms and less
/// than 30 Mbit/s.
pub const FIRST_FRAMES_PER_SECOND: u32 = 40_000;
/// Pace of all others, which are there for what was lost.
pub const FRAMES_PER_SECOND: u32 = 5_000;
/// After a pause, what would have left within this time may leave back to back.
pub const BURST: Duration = Duration::from_millis(10);
/// Least time between an announcement and the next one that a conflict provokes.
pub const CONFLICT_GAP: Duration = Duration::from_millis(250);
/// A conflict begins the whole series anew unless one has done so this recently (the DEFEND_INTERVAL of
/// RFC 5227 section 2.4): two that defend one address must not drive each other.
pub const CONFLICT_QUIET: Duration = Duration::from_secs(10);

/// An announcement later than this was held up: the rest of its series is put off with it.
const HELD_UP: Duration = Duration::from_millis(10);

/// What happens to a VIP's address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Event {
    /// It became active here, or its neighbours need to be told again: the series begins.
    Up {
        /// The address.
        ip: IpAddr,
        /// Index of its interface.
        ifindex: u32,
        /// How often it is announced.
        pace: Pace,
    },
    /// It is no longer active here: not one more announcement.
    Down(IpAddr),
    /// A router of lower priority may have told its neighbours otherwise.
    LowerPriority(IpAddr),
    /// Somebody else claims to have it.
    Conflict(IpAddr),
    /// Time passed.
    Tick,
}

/// What of an announcement leaves now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// All its frames.
    Whole,
    /// One of two ARP frames: there is to be a gap between them.
    Form(ArpForm),
}

/// What has to be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Effect {
    /// Announce this address, now: [`frames`] frames if whole.
    Announce(IpAddr, Part),
}

/// The time that the pace gives to a frame of an announcement of this round.
fn frame_time(round: usize) -> Duration {
    let per_second = match round {
        0 => FIRST_FRAMES_PER_SECOND,
        _ => FRAMES_PER_SECOND,
    };
    Duration::from_secs(1) / per_second
}

/// Frames that one announcement of an address takes: two ARP forms, or one advertisement.
pub fn frames(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 2 } else { 1 }
}

/// Announcements that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Run {
    /// Announcements so far; those of a refresh count up from the end of the series each time.
    round: usize,
    /// When the next one is due.
    due: Mono,
    /// When the burst began that it belongs to.
    burst: Mono,
}

impl Run {
    fn new(now: Mono) -> Run {
        Run {
            round: 0,
            due: now,
            burst: now,
        }
    }

    /// One was sent; `after` follows, counted from the beginning of the burst, which is this one if it `begins`.
    fn sent(self, now: Mono, begins: bool, after: Option<(Duration, usize)>) -> Option<Run> {
        let (gap, round) = after?;
        let burst = match begins {
            false => self.burst,
            true if now.since(self.due) > HELD_UP => now,
            true => self.due,
        };
        Some(Run {
            round,
            due: burst + gap,
            burst,
        })
    }
}

/// Why an address is announced, in order of precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Why {
    /// The second frame of an announcement.
    Rest,
    Series,
    LowerPriority,
    Conflict,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Entry {
    ifindex: u32,
    pace: Pace,
    series: Option<Run>,
    /// Bursts after an advertisement of lower priority.
    lower: Option<Run>,
    /// A conflict wants one before that.
    extra: Option<Mono>,
    /// The second frame of an announcement: when it is due at the earliest, and of which round.
    rest: Option<(Mono, usize)>,
    last: Option<Mono>,
    /// When a conflict last began the series anew.
    restarted: Option<Mono>,
}

impl Entry {
    fn new(now: Mono, ifindex: u32, pace: Pace) -> Entry {
        Entry {
            ifindex,
            pace,
            series: Some(Run::new(now)),
            lower: None,
            extra: None,
            rest: None,
            last: None,
            restarted: None,
        }
    }

    fn next(&self) -> Option<(Mono, usize, Why)> {
        if let Some((since, round)) = self.rest {
            return Some((since, round, Why::Rest));
        }
        let run = |run: Option<Run>, why| run.map(|run| (run.due, run.round, why));
        let all = [
            run(self.series, Why::Series),
            run(self.lower, Why::LowerPriority),
            self.extra.map(|at| (at, 0, Why::Conflict)),
        ];
        let all = all.into_iter().flatten();
        all.min_by_key(|(due, _, why)| (*due, *why))
    }

    fn lane(&self, ip: IpAddr) -> Option<(u32, bool)> {
        (!self.pace.gap.is_zero()).then_some((self.ifindex, ip.is_ipv4()))
    }

    /// What leaves of the announcement that is next; what follows from that is noted.
    fn send(&mut self, now: Mono, ip: IpAddr, round: usize, why: Why) -> Part {
        if why == Why::Rest {
            self.rest = None;
            return Part::Form(ArpForm::Reply);
        }
        self.last = Some(now);
        self.extra = None;
        let pace = self.pace;
        if why == Why::LowerPriority {
            let next = |run: Run| {
                let bursts = pace.lower?;
                run.sent(now, bursts.begins(run.round), bursts.after(run.round))
            };
            self.lower = self.lower.and_then(next);
        } else if let Some(run) = self.series.filter(|run| run.due <= now) {
            self.series = run.sent(now, pace.begins(run.round), pace.after(run.round));
        }
        if ip.is_ipv6() || pace.gap.is_zero() {
            return Part::Whole;
        }
        self.rest = Some((now + pace.gap, round));
        Part::Form(ArpForm::Request)
    }
}

/// Round, time since when it is due, address: earlier rounds first, so that every VIP is announced once before any is
/// announced again.
type Turn = (usize, Mono, IpAddr);

/// Frames of one kind on one interface that keep a gap between them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
struct Lane {
    ready: BTreeSet<Turn>,
    /// When the last one left, and the gap that it keeps.
    last: Option<(Mono, Duration)>,
}

/// The schedule of all announcements of this host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<IpAddr, Entry>,
    /// By time.
    waiting: BTreeSet<(Mono, usize, IpAddr)>,
    /// Due, and held up by the pace of all.
    ready: BTreeSet<Turn>,
    /// Due, and held up by a gap as well: by interface, IPv4 apart.
    lanes: BTreeMap<(u32, bool), Lane>,
    /// When the frames sent so far would have left at an even pace.
    paced: Mono,
}

impl Schedule {
    /// Takes an event; what has to be done is added to `effects`.
    pub fn handle(&mut self, now: Mono, event: Event, effects: &mut Vec<Effect>) {
        self.note(now, event);
        self.send(now, effects);
    }

    /// Takes an event of several that happen at once; [`Event::Tick`] comes after them. One by one, the second
    /// announcement of an address could leave before the first one of another.
    pub fn note(&mut self, now: Mono, event: Event) {
        match event {
            Event::Up { ip, ifindex, pace } => {
                self.take_out(ip);
                self.put_in(ip, Entry::new(now, ifindex, pace));
            }
            Event::Down(ip) => drop(self.take_out(ip)),
            Event::LowerPriority(ip) => self.lower_priority(now, ip),
            Event::Conflict(ip) => self.conflict(now, ip),
            Event::Tick => {}
        }
    }

    /// When [`Event::Tick`] is next needed.
    pub fn next_deadline(&self) -> Option<Mono> {
        let paced = self.ready.first().map(|_| self.paced - BURST);
        let waiting = self.waiting.first().map(|(due, _, _)| *due);
        let all = [paced, waiting, self.next_gap()];
        all.into_iter().flatten().min()
    }

    /// When the next frame is due that only a gap holds up: such gaps may be shorter than a timer's tick.
    pub fn next_gap(&self) -> Option<Mono> {
        let lanes = self.lanes.values();
        let free = lanes.filter_map(|lane| Some(self.free(lane)?.0));
        free.min().map(|at| at.max(self.paced - BURST))
    }

    /// When the first turn of a lane may leave.
    fn free(&self, lane: &Lane) -> Option<(Mono, Turn)> {
        let turn = *lane.ready.first()?;
        let gap = self.entries.get(&turn.2)?.pace.gap;
        let at = lane.last.map(|(at, kept)| at + kept.max(gap));
        Some((at.unwrap_or(Mono::ZERO), turn))
    }

    fn lower_priority(&mut self, now: Mono, ip: IpAddr) {
        let Some(mut entry) = self.take_out(ip) else {
            return;
        };
        match entry.pace.lower {
            None => entry = Entry::new(now, entry.ifindex, entry.pace),
            Some(bursts) if bursts.repeat > 0 => entry.lower = Some(Run::new(now)),
            Some(_) => {}
        }
        self.put_in(ip, entry);
    }

    fn conflict(&mut self, now: Mono, ip: IpAddr) {
        let Some(mut entry) = self.take_out(ip) else {
            return;
        };
        let not_before = entry.last.map_or(now, |last| now.max(last + CONFLICT_GAP));
        let quiet = entry
            .restarted
            .is_none_or(|at| now.since(at) >= CONFLICT_QUIET);
        if quiet && entry.series.is_none_or(|run| run.round > 0) {
            entry.restarted = Some(now);
            entry.series = Some(Run::new(now));
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
        self.lanes.retain(|_, lane| {
            // Another address may keep the longest gap there is.
            let busy = |(at, _): (Mono, Duration)| at + MAX_GARP_INTERVAL > now;
            !lane.ready.is_empty() || lane.last.is_some_and(busy)
        });
        loop {
            self.make_ready(now);
            if self.paced > now + BURST {
                return;
            }
            let free = self.lanes.values().filter_map(|lane| self.free(lane));
            let free = free.filter(|(at, _)| *at <= now).map(|(_, turn)| turn);
            let Some((round, _, ip)) = free.chain(self.ready.first().copied()).min() else {
                return;
            };
            let Some(mut entry) = self.take_out(ip) else {
                return;
            };
            if let Some((_, _, why)) = entry.next() {
                let part = entry.send(now, ip, round, why);
                let count = if part == Part::Whole { frames(ip) } else { 1 };
                self.paced = self.paced.max(now) + frame_time(round) * count;
                effects.push(Effect::Announce(ip, part));
            }
            if let Some(lane) = entry.lane(ip).and_then(|lane| self.lanes.get_mut(&lane)) {
                lane.last = Some((now, entry.pace.gap));
            }
            self.put_in(ip, entry);
        }
    }

    /// What is due may leave.
    fn make_ready(&mut self, now: Mono) {
        while let Some(&(due, round, ip)) = self.waiting.first().filter(|(due, _, _)| *due <= now) {
            self.waiting.pop_first();
            let lane = self.entries.get(&ip).and_then(|entry| entry.lane(ip));
            let ready = match lane {
                Some(lane) => &mut self.lanes.entry(lane).or_default().ready,
                None => &mut self.ready,
            };
            ready.insert((round, due, ip));
        }
    }

    fn take_out(&mut self, ip: IpAddr) -> Option<Entry> {
        let entry = self.entries.remove(&ip)?;
        if let Some((due, round, _)) = entry.next() {
            self.waiting.remove(&(due, round, ip));
            let lane = entry.lane(ip).and_then(|lane| self.lanes.get_mut(&lane));
            let ready = lane.map_or(&mut self.ready, |lane| &mut lane.ready);
            ready.remove(&(round, due, ip));
        }
        Some(entry)
    }

    fn put_in(&mut self, ip: IpAddr, entry: Entry) {
        if let Some((due, round, _)) = entry.next() {
            self.waiting.insert((due, round, ip));
        }
        self.entries.insert(ip, entry);
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;

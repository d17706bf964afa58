//! Who answers for an address, seen from the switch: a prober that asks every port at the same instant,
//! and a witness of every frame that is sent in the address's name.

mod figures;
mod frames;
mod judgement;

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::runs::{Run, Runs};
use crate::sys::clock::MS;
use frames::Probe;

pub use figures::{Dark, Dual, Figures, Owner, figures};
pub use judgement::{BLIND_MS, Judgement};

/// Most observed addresses.
pub const MAX_TARGETS: usize = 512;
/// Most runs kept for each address.
pub const MAX_RUNS: usize = 10_000;
/// Shortest and longest time between two probes of an address, microseconds.
pub const INTERVAL_US: std::ops::RangeInclusive<u64> = 200..=1_000_000;

/// Probes of an address that are remembered; a power of two.
const WINDOW: u32 = 512;
/// A probe is judged when so many later ones have been sent; answers that come after are late.
const LAG: u32 = 256;
/// A frame in an address's name is astray if its sender answered none of the probes so many before and
/// after it, while somebody else did.
const STRAY_REACH: u32 = 2;
/// Probes that [`Observer::answering`] looks at.
const RECENT: u32 = 10;

/// A set of ports, one bit each.
pub type PortSet = u16;

#[derive(Clone, Copy, Default)]
struct Slot {
    number: u32,
    sent: u64,
    answered: PortSet,
    sources: PortSet,
}

struct Target {
    address: IpAddr,
    probe: Probe,
    window: Vec<Slot>,
    runs: Runs<PortSet>,
    strays: Runs<u8>,
}

/// The prober and witness inside a switch.
pub struct Observer {
    targets: Vec<Target>,
    index: HashMap<IpAddr, usize>,
    interval_ns: u64,
    /// Number of the latest probe; 0 before the first.
    number: u32,
    judged_until: u64,
    last_sent: u64,
    longest_gap_ns: u64,
    late_answers: u64,
}

/// What was observed of all addresses in a stretch of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Observations {
    /// Names of the ports; bit n of a [`PortSet`] is the n-th.
    pub ports: Vec<String>,
    /// Time between two probes of an address, ns.
    pub interval_ns: u64,
    /// Probes sent up to this time have been judged.
    pub judged_until: u64,
    /// Longest time without probes (the switch did not get a CPU), ns.
    pub longest_gap_ns: u64,
    /// Answers that came too late to count. Not 0 means that a node was held up, or the observer.
    pub late_answers: u64,
    /// The addresses.
    pub targets: Vec<TargetObservations>,
}

/// What was observed of one address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetObservations {
    /// The address.
    pub address: IpAddr,
    /// Who answered: runs of probes that the same set of ports answered.
    pub runs: Vec<Run<PortSet>>,
    /// Frames in the address's name from a port while another one, and not this, answered: the key is
    /// the port, the count is the number of probe intervals with such frames.
    pub strays: Vec<Run<u8>>,
    /// Runs and strays forgotten because there were too many; figures then have a hole at the beginning.
    pub forgotten: u64,
}

impl Observer {
    /// An observer of these addresses, at most [`MAX_TARGETS`].
    #[must_use]
    pub fn new(addresses: &[IpAddr], interval_ns: u64) -> Self {
        let mut index = HashMap::new();
        let mut targets = Vec::new();
        for &address in addresses.iter().take(MAX_TARGETS) {
            index.entry(address).or_insert_with(|| {
                targets.push(Target {
                    address,
                    probe: Probe::new(address),
                    window: vec![Slot::default(); WINDOW as usize],
                    runs: Runs::new(MAX_RUNS),
                    strays: Runs::new(MAX_RUNS),
                });
                targets.len() - 1
            });
        }
        Self {
            targets,
            index,
            interval_ns,
            number: 0,
            judged_until: 0,
            last_sent: 0,
            longest_gap_ns: 0,
            late_answers: 0,
        }
    }

    /// Time between two probes of an address, ns.
    #[must_use]
    pub fn interval_ns(&self) -> u64 {
        self.interval_ns
    }

    /// Sends the next probe of every address: `send` gives one frame to all ports.
    pub fn tick(&mut self, now: u64, mut send: impl FnMut(&[u8])) {
        if self.number > 0 {
            self.longest_gap_ns = self.longest_gap_ns.max(now - self.last_sent);
        }
        self.last_sent = now;
        self.number += 1;
        for target in &mut self.targets {
            target.window[slot_of(self.number)] = Slot {
                number: self.number,
                sent: now,
                ..Slot::default()
            };
            send(target.probe.frame(self.number));
            if let Some(number) = self.number.checked_sub(LAG).filter(|&number| number > 0) {
                self.judged_until = target.judge(number);
            }
        }
    }

    /// Looks at a frame that came in at `port`. True if it was for the prober and goes nowhere else.
    pub fn ingress(&mut self, port: usize, frame: &[u8]) -> bool {
        if let Some(number) = frames::addressed_probe(frame) {
            self.answer(port, number, frame);
            return true;
        }
        if let Some(target) = frames::spoken_for(frame)
            .and_then(|address| self.index.get(&address))
            .and_then(|&at| self.targets.get_mut(at))
        {
            target.window[slot_of(self.number)].sources |= 1 << port;
        }
        false
    }

    fn answer(&mut self, port: usize, number: u32, frame: &[u8]) {
        let Some(target) = frames::answered_address(frame)
            .and_then(|address| self.index.get(&address))
            .and_then(|&at| self.targets.get_mut(at))
        else {
            return;
        };
        let slot = &mut target.window[slot_of(number)];
        if slot.number == number && number + LAG > self.number {
            slot.answered |= 1 << port;
        } else {
            self.late_answers += 1;
        }
    }

    /// Who answered one of the latest probes of each address. The very latest is left out: its answers
    /// may be on the way.
    #[must_use]
    pub fn answering(&self) -> Vec<(IpAddr, PortSet)> {
        self.targets
            .iter()
            .map(|target| {
                let ports = (1..=RECENT)
                    .filter_map(|back| self.number.checked_sub(back))
                    .fold(0, |ports, number| ports | target.answered(number));
                (target.address, ports)
            })
            .collect()
    }

    /// What was judged of the time `from..=to`; names are those of the ports.
    #[must_use]
    pub fn observations(&self, from: u64, to: u64, ports: Vec<String>) -> Observations {
        Observations {
            ports,
            interval_ns: self.interval_ns,
            judged_until: self.judged_until,
            longest_gap_ns: self.longest_gap_ns,
            late_answers: self.late_answers,
            targets: self
                .targets
                .iter()
                .map(|target| TargetObservations {
                    address: target.address,
                    runs: target.runs.between(from, to),
                    strays: target.strays.between(from, to),
                    forgotten: target.runs.dropped() + target.strays.dropped(),
                })
                .collect(),
        }
    }
}

impl Target {
    /// Moves a probe from the window into the timeline; returns when it was sent.
    fn judge(&mut self, number: u32) -> u64 {
        let Slot {
            sent,
            answered,
            sources,
            ..
        } = self.window[slot_of(number)];
        self.runs.push(answered, sent);
        let around = (number.saturating_sub(STRAY_REACH)..=number + STRAY_REACH)
            .fold(0, |ports, near| ports | self.answered(near));
        if around != 0 {
            let astray = sources & !around;
            for port in 0..PortSet::BITS {
                if astray >> port & 1 == 1 {
                    self.strays
                        .push(u8::try_from(port).unwrap_or(u8::MAX), sent);
                }
            }
        }
        sent
    }

    fn answered(&self, number: u32) -> PortSet {
        let slot = &self.window[slot_of(number)];
        if slot.number == number {
            slot.answered
        } else {
            0
        }
    }
}

fn slot_of(number: u32) -> usize {
    (number % WINDOW) as usize
}

/// How long after a moment its probes have been judged, ns, for a prober with this interval.
#[must_use]
pub fn judging_lag_ns(interval_ns: u64) -> u64 {
    (u64::from(LAG) + 4) * interval_ns + MS
}

#[cfg(test)]
mod tests;

//! The network between the nodes: loses, delays, repeats, swaps and cuts.

use std::collections::BTreeSet;

use buoy_core::NodeId;
use buoy_core::lease::{Answer, Renew};

use super::clock::{MS, True};
use super::node::Report;
use super::raft::{Ack, Append};
use super::rng::Rng;

/// A message.
#[derive(Clone, Debug)]
pub enum Message {
    /// Holder to voter.
    Renew(Renew),
    /// Voter to holder. `pushed`: not in direct response to a renewal (only the planted bugs look at it).
    Answer {
        /// The answer.
        answer: Answer,
        /// Sent without being asked at that moment.
        pushed: bool,
    },
    /// Leader to follower.
    Append(Append),
    /// Follower to leader.
    Ack(Ack),
    /// What a node has given up.
    Report(NodeId, Report),
}

/// How the network behaves at present.
#[derive(Clone, Debug)]
pub struct Network {
    /// Shortest and longest usual delay, nanoseconds.
    pub delay: (u64, u64),
    /// Messages of a million that take much longer.
    pub late: u64,
    /// How long those take at most.
    pub very_late: u64,
    /// Messages of a million that are lost.
    pub lost: u64,
    /// Messages of a million that come twice.
    pub doubled: u64,
    /// Directed links that carry nothing.
    pub cut: BTreeSet<(NodeId, NodeId)>,
}

impl Network {
    /// A switch on a good day.
    pub fn calm() -> Self {
        Self {
            delay: (MS / 10, MS),
            late: 0,
            very_late: 0,
            lost: 0,
            doubled: 0,
            cut: BTreeSet::new(),
        }
    }

    /// A bad one, in one of several ways.
    pub fn rough(rng: &mut Rng) -> Self {
        let slow = [MS, 5 * MS, 30 * MS, 100 * MS];
        let often = [0, 2_000, 50_000, 300_000];
        let choose = |rng: &mut Rng, from: &[u64]| rng.pick(from).copied().unwrap_or_default();
        Self {
            delay: (MS / 20, choose(rng, &slow)),
            late: choose(rng, &often[..3]),
            very_late: choose(rng, &[200 * MS, 1_500 * MS]),
            lost: choose(rng, &often),
            doubled: choose(rng, &often),
            cut: BTreeSet::new(),
        }
    }

    /// Does the link carry messages at present?
    pub fn carries(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// When copies of a message sent now arrive.
    pub fn arrivals(&self, rng: &mut Rng, now: True, from: NodeId, to: NodeId) -> Vec<True> {
        if !self.carries(from, to) {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.chance(self.doubled));
        let mut at = Vec::with_capacity(copies);
        for _ in 0..copies {
            if rng.chance(self.lost) {
                continue;
            }
            let usual = rng.within(self.delay.0..=self.delay.1.max(self.delay.0));
            let extra = if rng.chance(self.late) {
                rng.below(self.very_late)
            } else {
                0
            };
            at.push(now + usual + extra);
        }
        at
    }
}

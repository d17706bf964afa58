//! What goes wrong, and when.

use std::collections::BTreeSet;

use buoy_core::NodeId;
use buoy_core::lease::holder::Phase;

use super::clock::MS;
use super::config::Faults;
use super::log::Command;
use super::net::Network;
use super::node::Input;
use super::rng::Rng;
use super::{Event, Sim};

/// How this run is rough.
#[derive(Clone, Debug)]
pub(super) struct Chaos {
    faults: Faults,
    /// A step of a lease thread is stopped before, in so many of a million cases.
    pub step_pause: u64,
    /// Wake-ups are late by up to this.
    pub late_wake: u64,
    /// Telling the lease thread of a new view takes up to this.
    pub slow_telling: u64,
    /// Removing an address takes up to this.
    pub slow_netlink: u64,
    /// The kernel refuses to add an address, in so many of a million cases.
    pub refused_address: u64,
    /// The kernel refuses to count a round or to move deadlines, in so many of a million cases.
    pub refused_gate: u64,
    /// Writing the longest promise down takes up to this.
    pub slow_disk: u64,
    /// Lease lengths differ.
    pub lease_lengths: bool,
    /// Usual time between two faults.
    pace: u64,
    paused_steps: u64,
}

impl Chaos {
    pub fn choose(rng: &mut Rng, allowed: &Faults) -> Self {
        // Not all at once in every run: what hides behind a crash shows in runs without crashes.
        let mut some = |allowed: bool| allowed && rng.chance(700_000);
        let faults = Faults {
            network: some(allowed.network),
            crashes: some(allowed.crashes),
            pauses: some(allowed.pauses),
            memberships: some(allowed.memberships),
            operations: some(allowed.operations),
            lease_lengths: some(allowed.lease_lengths),
        };
        let rough = faults != Faults::NONE;
        let one_of = |rng: &mut Rng, from: &[u64]| rng.pick(from).copied().unwrap_or_default();
        Self {
            faults,
            step_pause: 0,
            late_wake: one_of(rng, &[MS / 10, MS, 10 * MS][..if rough { 3 } else { 2 }]),
            slow_telling: one_of(
                rng,
                &[MS / 10, 5 * MS, 1_500 * MS][..if rough { 3 } else { 1 }],
            ),
            slow_netlink: one_of(rng, &[MS, 3 * MS, 50 * MS][..if rough { 3 } else { 2 }]),
            slow_disk: one_of(
                rng,
                &[5 * MS, 30 * MS, 400 * MS][..if rough { 3 } else { 2 }],
            ),
            refused_address: 0,
            refused_gate: 0,
            lease_lengths: faults.lease_lengths,
            pace: one_of(rng, &[30 * MS, 120 * MS, 400 * MS]),
            paused_steps: if faults.pauses {
                one_of(rng, &[0, 100, 1_000, 5_000])
            } else {
                0
            },
        }
    }
}

impl Sim {
    fn someone(&mut self) -> usize {
        self.rng.below(self.nodes.len() as u64) as usize
    }

    /// The next fault.
    pub(super) fn fault(&mut self) {
        if self.healed.is_some() {
            return;
        }
        self.chaos.step_pause = self.chaos.paused_steps;
        self.chaos.refused_address = if self.chaos.faults.operations {
            20_000
        } else {
            0
        };
        self.chaos.refused_gate = self.chaos.refused_address;
        let next = self.now + self.rng.within(self.chaos.pace / 4..=2 * self.chaos.pace);
        self.schedule(next, Event::Fault);
        let faults = self.chaos.faults;
        let n = self.someone();
        if faults.operations && self.gates.chance(50_000) {
            self.repair_gate(n);
        }
        match self.rng.below(10) {
            0 | 1 if faults.network => self.network_fault(),
            2 if faults.network => self.network.cut.clear(),
            3 if faults.crashes => {
                let host = self.rng.chance(300_000);
                if self.rng.chance(700_000) {
                    self.crash(n, host)
                } else {
                    self.stop(n)
                }
            }
            4 if faults.pauses => self.pause(n),
            5 if faults.pauses => {
                let until = self.now + self.rng.within(MS..=1_500 * MS);
                if let Some(p) = self.nodes[n].process.as_mut() {
                    p.apply_stalled_until = until;
                }
            }
            6 | 7 if faults.memberships => self.wish_membership(),
            8 | 9 if faults.operations => self.operation(),
            _ => {}
        }
    }

    fn network_fault(&mut self) {
        let ids = self.everybody.clone();
        let (a, b) = (self.someone(), self.someone());
        match self.rng.below(4) {
            0 => {
                let cut = std::mem::take(&mut self.network.cut);
                self.network = Network {
                    cut,
                    ..Network::rough(&mut self.rng)
                };
            }
            1 => {
                self.network.cut.insert((ids[a], ids[b]));
            }
            2 => {
                let alone = |other: &NodeId| [(ids[a], *other), (*other, ids[a])];
                self.network.cut.extend(ids.iter().flat_map(alone));
            }
            _ => {
                let side: BTreeSet<NodeId> = ids
                    .iter()
                    .copied()
                    .filter(|_| self.rng.chance(500_000))
                    .collect();
                for x in &ids {
                    let across = ids.iter().filter(|y| side.contains(x) != side.contains(y));
                    self.network.cut.extend(across.map(|y| (*x, *y)));
                }
            }
        }
    }

    fn wish_membership(&mut self) {
        if !self.wishes.is_empty() {
            return;
        }
        let mut voters: BTreeSet<NodeId> = self
            .everybody
            .iter()
            .copied()
            .filter(|_| self.rng.chance(500_000))
            .collect();
        if voters.is_empty() {
            voters.extend(self.everybody.first());
        }
        self.wishes.push_back(Command::Members(vec![voters]));
    }

    fn operation(&mut self) {
        let vips = self.vips as u64;
        let (v, w) = (self.rng.below(vips) as usize, self.rng.below(vips) as usize);
        let n = self.someone();
        let id = self.nodes[n].id;
        if !self.wishes.is_empty() {
            return;
        }
        match self.rng.below(6) {
            0 | 1 => self.wishes.push_back(Command::Assign(vec![(v, Some(id))])),
            2 if v != w => self.wishes.push_back(Command::Swap(v, w)),
            3 => self.wishes.push_back(Command::Resize(v)),
            4 => self.wishes.push_back(Command::Assign(vec![(v, None)])),
            _ => {
                let Some(p) = self.nodes[n].process.as_ref() else {
                    return;
                };
                let up = p.holder.status().find(|s| s.phase == Phase::Active);
                if let Some((vip, epoch)) = up.map(|s| (s.vip.clone(), s.epoch))
                    && p.paused_until.is_none()
                {
                    self.lease_input(n, Input::GiveUp(vip, epoch));
                }
            }
        }
    }
}

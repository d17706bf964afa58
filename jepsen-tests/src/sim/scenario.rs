//! Directed runs: one thing goes wrong at the worst moment, in a cluster that is well otherwise.

use std::time::Duration;

use buoy_core::lease::holder::Phase;

use super::clock::{Clock, MS, True};
use super::config::{Invariant, Scenario};
use super::log::Command;
use super::{Event, LEASE, Sim};

/// When the scenario begins.
const BEGINS: True = 1_000 * MS;
/// VIPs of a directed run.
pub(super) const VIPS: usize = 4;
/// What a takeover takes beside the rest of the lease: a late wake-up of the voters and the answer's
/// way, then a slow netlink message for each VIP.
const TAKEOVER_SLACK: True = 5 * MS + VIPS as True * 3 * MS;
/// After this a scenario has come to nothing.
const PATIENCE: True = 3_000 * MS;

/// How far a scenario is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// A node that holds a VIP is about to lose its power.
    Crash,
    /// An operator edits a VIP of somebody else while the dead node's lease runs.
    Edit { crashed: True, dead: usize },
    /// All VIPs must come up elsewhere in time.
    TakenOver { crashed: True, dead: usize },
    /// A daemon is about to be restarted with a longer lease.
    Lengthen,
    /// It must hold a VIP under the longer lease before its voters are restarted.
    Lengthened { n: usize },
    /// Its voters are about to be restarted.
    Restart { n: usize },
}

impl Sim {
    pub(super) fn begin(&mut self, scenario: Scenario) {
        let stage = match scenario {
            Scenario::Takeover => Stage::Crash,
            Scenario::LongerLease => Stage::Lengthen,
            Scenario::ShorterLease => {
                let longest = self.longest_promise_of(LEASE * 2);
                for node in &mut self.nodes {
                    node.durable_max = longest;
                }
                self.chaos.slow_disk = 1_000 * MS;
                Stage::Lengthen
            }
        };
        // At any moment between two renewals.
        let at = BEGINS + self.rng.below(LEASE.as_nanos() as True);
        self.schedule(at, Event::Scenario(stage));
    }

    pub(super) fn scenario(&mut self, stage: Stage) {
        match stage {
            Stage::Crash => self.crash_a_holder(),
            Stage::Edit { crashed, dead } => {
                self.edit_elsewhere(dead);
                self.schedule(
                    self.now + MS,
                    Event::Scenario(Stage::TakenOver { crashed, dead }),
                );
            }
            Stage::TakenOver { crashed, dead } => self.look_for_takeover(crashed, dead),
            Stage::Lengthen => self.lengthen(),
            Stage::Lengthened { n } => self.look_for_longer(n),
            Stage::Restart { n } => self.restart_voters_of(n),
        }
    }

    fn holders(&self) -> Vec<usize> {
        let holds = |n: &usize| {
            let p = self.nodes[*n].process.as_ref();
            p.is_some_and(|p| p.holder.status().any(|v| v.phase == Phase::Active))
        };
        (0..self.nodes.len()).filter(holds).collect()
    }

    fn crash_a_holder(&mut self) {
        let holders = self.holders();
        let Some(n) = self.rng.pick(&holders).copied() else {
            self.checker.fail(Invariant::L1, self.now, || {
                "nothing is up before the crash".to_owned()
            });
            return;
        };
        let crashed = self.now;
        self.note(|s| format!("node {} loses its power for good", s.nodes[n].id));
        self.gone.insert(self.nodes[n].id);
        self.end_process(n);
        self.lose_kernel(n);
        let at = self.now + self.rng.below(LEASE.as_nanos() as True * 2 / 3);
        self.schedule(at, Event::Scenario(Stage::Edit { crashed, dead: n }));
    }

    /// Each voter's log changes for a reason that has nothing to do with the dead node.
    fn edit_elsewhere(&mut self, dead: usize) {
        let dead = self.nodes[dead].id;
        let Some(p) = self.nodes.iter().find_map(|n| n.process.as_ref()) else {
            return;
        };
        let other = |v: &usize| {
            let owner = p.applied.vips[*v].owner;
            owner.is_some_and(|(node, _)| node != dead)
        };
        if let Some(v) = (0..self.vips).find(other) {
            self.wishes.push_back(Command::Resize(v));
        }
    }

    fn look_for_takeover(&mut self, crashed: True, dead: usize) {
        let named = LEASE + self.nodes[dead].gate.kind().margin();
        let lease = self.allowance.voter_length(named).as_nanos() as True;
        let dark = self.now - crashed;
        match self.not_up() {
            None => {
                self.stats.recovery_ms = dark / MS;
                self.over = true;
            }
            Some(what) if dark > lease + TAKEOVER_SLACK => {
                self.checker.fail(Invariant::L1, self.now, || {
                    format!(
                        "{:.3} ms after a node died, longer than the rest of its lease, {what}",
                        dark as f64 / 1e6
                    )
                });
            }
            Some(_) => self.schedule(
                self.now + MS / 4,
                Event::Scenario(Stage::TakenOver { crashed, dead }),
            ),
        }
    }

    /// Restarts a holder with twice the lease, while disks are slow.
    fn lengthen(&mut self) {
        let holders = self.holders();
        let Some(n) = self.rng.pick(&holders).copied() else {
            self.over = true;
            return;
        };
        self.chaos.slow_disk = 400 * MS;
        self.end_process(n);
        self.start_with(n, LEASE * 2);
        for v in 0..self.vips {
            let id = self.nodes[n].id;
            self.wishes.push_back(Command::Assign(vec![(v, Some(id))]));
        }
        self.schedule(self.now + MS, Event::Scenario(Stage::Lengthened { n }));
    }

    /// As soon as the longer lease permits something, or some time later, its voters are restarted.
    fn look_for_longer(&mut self, n: usize) {
        if !self.holders().contains(&n) {
            if self.now > BEGINS + PATIENCE {
                self.over = true;
            } else {
                self.schedule(self.now + MS, Event::Scenario(Stage::Lengthened { n }));
            }
            return;
        }
        let later = match self.cfg.scenario {
            Some(Scenario::ShorterLease) => self.rng.below(self.chaos.slow_disk),
            _ => 0,
        };
        self.schedule(self.now + later, Event::Scenario(Stage::Restart { n }));
    }

    fn restart_voters_of(&mut self, n: usize) {
        for other in (0..self.nodes.len()).filter(|o| *o != n) {
            self.end_process(other);
            self.start_with(other, LEASE);
        }
        // Long enough for every old promise to end.
        self.heal();
    }

    /// The machine is off: nothing of its kernel is left, and its clock begins anew.
    pub(super) fn lose_kernel(&mut self, n: usize) {
        let (base, ppm) = (
            self.rng.below(1 << 40),
            self.rng.below(super::FASTEST_PPM + 1),
        );
        let node = &mut self.nodes[n];
        node.gate = super::gate::Gate::new(node.gate.kind());
        node.opened_for.clear();
        node.addresses.clear();
        node.clock = Clock::new(self.now, base, ppm);
    }

    /// The process is gone, and with it what it says.
    pub(super) fn end_process(&mut self, n: usize) {
        self.nodes[n].process = None;
        self.nodes[n].announced.clear();
        self.stats.ends += 1;
    }

    fn start_with(&mut self, n: usize, lease: Duration) {
        self.next_lease = Some(lease);
        self.start(n);
    }
}

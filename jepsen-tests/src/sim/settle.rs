//! The end of a run: faults heal, every VIP must come up in time (L1), and then nothing moves (L2).

use std::net::IpAddr;
use std::time::Duration;

use buoy_core::{Membership, NodeId};

use super::clock::{MS, True};
use super::config::{Faults, Invariant};
use super::log::Fold;
use super::net::Network;
use super::node::Node;
use super::{Event, LEASE, Sim};

/// Time for an election.
const ELECTION: u64 = 300 * MS;
/// Quiet time in which nothing may move.
const QUIET: u64 = 1_500 * MS;

impl Sim {
    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        self.healed = Some(self.now);
        self.note(|_| "all faults are healed".to_owned());
        self.network = Network::calm();
        self.chaos.step_pause = 0;
        self.chaos.refused_address = 0;
        self.chaos.refused_gate = 0;
        self.wishes.clear();
        let random = self.cfg.scenario.is_none() && self.cfg.faults != Faults::NONE;
        if random && self.rng.chance(500_000) {
            self.lose_a_minority();
        }
        for n in 0..self.nodes.len() {
            if self.nodes[n].process.as_ref().is_some_and(|p| p.stopping) {
                self.end_process(n);
            }
            if let Some(p) = self.nodes[n].process.as_mut() {
                p.apply_stalled_until = 0;
                if p.paused_until.is_some() {
                    self.resume(n);
                }
            } else {
                self.start(n);
            }
        }
        // What was decided on silence before may still come; after a lease nobody is silent any more.
        self.schedule(self.now + LEASE.as_nanos() as True, Event::Look);
    }

    /// A few nodes stay dead or cut off for the rest of the run: as many as leave a majority of every
    /// membership that is in any log and may still come into force.
    fn lose_a_minority(&mut self) {
        let mut memberships: Vec<Membership> = Vec::new();
        for node in &self.nodes {
            let whole = Fold::of(self.vips, &node.raft.log).view.membership;
            let known = &node.raft.log[..self.committed.min(node.raft.log.len())];
            memberships.extend([whole, Fold::of(self.vips, known).view.membership]);
        }
        let dead = self.rng.chance(500_000);
        for n in 0..self.nodes.len() {
            let id = self.nodes[n].id;
            self.gone.insert(id);
            let lives = |v: NodeId| (!self.gone.contains(&v)).then_some(());
            let enough = memberships.iter().all(|m| m.quorum_value(lives).is_some());
            if !enough || self.rng.chance(500_000) {
                self.gone.remove(&id);
                continue;
            }
            self.note(|_| format!("node {id} stays away, dead: {dead}"));
            if dead {
                self.end_process(n);
            }
            let others = self.everybody.iter().filter(|o| **o != id);
            let links = others.flat_map(|o| [(id, *o), (*o, id)]);
            self.network.cut.extend(links);
        }
    }

    /// Is the node dead or cut off for the rest of the run?
    pub(super) fn is_gone(&self, n: usize) -> bool {
        self.gone.contains(&self.nodes[n].id)
    }

    /// Are all VIPs up where the newest committed state wants them?
    pub(super) fn not_up(&self) -> Option<String> {
        let quarantined = |n: &Node| {
            n.process
                .as_ref()
                .is_none_or(|p| p.voter.quarantine_until() > n.read(self.now))
        };
        let here = || self.nodes.iter().filter(|n| !self.gone.contains(&n.id));
        if let Some(node) = here().find(|n| quarantined(n)) {
            // The aftermath of a fault: leases may still end for want of promises.
            return Some(format!("the voter of node {} is in quarantine", node.id));
        }
        let leaders = here().filter(|n| n.raft.leader && n.process.is_some());
        let Some(newest) = leaders.max_by_key(|n| n.raft.term) else {
            return Some("nobody leads".to_owned());
        };
        let all = newest.raft.log.len();
        let behind = |n: &Node| {
            n.process
                .as_ref()
                .is_none_or(|p| (p.applied.index as usize) < all)
        };
        if let Some(node) = here().find(|n| behind(n)) {
            return Some(format!(
                "node {} has not applied all {all} entries",
                node.id
            ));
        }
        let state = Fold::of(self.vips, &newest.raft.log[..newest.raft.commit]);
        for vip in &state.vips {
            let Some((owner, epoch)) = vip.owner else {
                return Some(format!("{} has no owner", vip.name));
            };
            if self.gone.contains(&owner) {
                // It may still serve, by a lease that nobody renews.
                return Some(format!(
                    "{} is still on node {owner}, which is away",
                    vip.name
                ));
            }
            let node = &self.nodes[self.index(owner)];
            let now = node.read(self.now);
            if let Some(a) = vip.addresses.iter().find(|a| !node.gate.is_open(**a, now)) {
                return Some(format!(
                    "{a} of {} does not pass on node {owner} (epoch {epoch})",
                    vip.name
                ));
            }
            let told = |a: &&IpAddr| node.addresses.contains(a) && node.announced.contains(a);
            if let Some(a) = vip.addresses.iter().find(|a| !told(a)) {
                return Some(format!(
                    "{a} of {} is not announced on node {owner} (epoch {epoch})",
                    vip.name
                ));
            }
        }
        None
    }

    /// Looks whether everything is up; late is a violation of L1.
    pub(super) fn look(&mut self) {
        let Some(healed) = self.healed else { return };
        let longest = Duration::max(
            self.longest_promise(),
            self.nodes
                .iter()
                .map(|n| n.durable_max)
                .max()
                .unwrap_or_default(),
        );
        let bound = healed + longest.as_nanos() as True + ELECTION + 1_000 * MS;
        match self.not_up() {
            None => {
                self.stats.recovery_ms = (self.now - healed) / MS;
                self.settled = Some((self.stats.shuts, self.stats.assigns));
                self.schedule(self.now + QUIET, Event::End);
            }
            Some(what) if self.now > bound && self.checker.looks_at(Invariant::L1) => {
                let late = (self.now - healed) / MS;
                self.checker.fail(Invariant::L1, self.now, || {
                    format!("{late} ms after all faults were healed {what}")
                });
            }
            Some(_) if self.now > bound => self.over = true,
            Some(_) => self.schedule(self.now + 5 * MS, Event::Look),
        }
    }

    /// The quiet time is over: nothing moved, everything is up.
    pub(super) fn end(&mut self) {
        self.over = true;
        let moved = self.settled != Some((self.stats.shuts, self.stats.assigns));
        if let Some(what) = self.not_up() {
            self.checker
                .fail(Invariant::L2, self.now, || format!("without faults {what}"));
        } else if moved {
            self.checker.fail(Invariant::L2, self.now, || {
                "a VIP moved or went down without any fault".to_owned()
            });
        }
    }
}

//! How a simulated daemon begins, receives messages, applies entries, is stopped, and ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use buoy_core::lease::{Holder, Voter};
use buoy_core::{ConfigId, Incarnation, NodeId, Session};

use super::bugs::BugState;
use super::clock::MS;
use super::config::Bug;
use super::disk::Orders;
use super::log::{Command, Fold};
use super::net::Message;
use super::node::{Input, MembershipWait, Process};
use super::{Event, LEASE, Sim};

/// Messages that a stopped process finds when it goes on.
const SOCKET_BUFFER: usize = 500;

impl Sim {
    pub(super) fn start(&mut self, n: usize) {
        if self.nodes[n].process.is_some() || self.is_gone(n) {
            return;
        }
        let lease = if let Some(lease) = self.next_lease.take() {
            lease
        } else if self.chaos.lease_lengths {
            let lengths = [100, 300, 300, 600].map(Duration::from_millis);
            self.rng.pick(&lengths).copied().unwrap_or(LEASE)
        } else {
            LEASE
        };
        let incarnation = Incarnation(self.rng.next());
        let (now, vips) = (self.now, self.vips);
        let node = &mut self.nodes[n];
        // A new process first closes what its predecessor left open, and removes what it left. It may find a
        // kernel that has only the other kind of gate.
        if self.cfg.bug != Some(Bug::RestartKeepsSlots) {
            let kind = match self.chaos.lease_lengths && node.generation > 0 {
                true => self.cfg.gate(&mut self.gates),
                false => node.gate.kind(),
            };
            node.gate = node.gate.successor(kind);
            node.opened_for.clear();
        }
        let params = Process::params(lease, node.gate.kind(), self.cfg.bug);
        node.addresses.clear();
        node.generation += 1;
        node.raft.restart();
        let started = node.clock.read(now);
        let durable = match self.cfg.bug {
            Some(Bug::NoQuarantine) => Duration::ZERO,
            _ => node.durable_max,
        };
        let session = Session {
            node: node.id,
            incarnation,
        };
        let appended = Fold::of(vips, &node.raft.log);
        let published = Arc::new(appended.view.clone());
        let applied = Fold::of(vips, &node.raft.log[..node.raft.commit]);
        node.process = Some(Process {
            session,
            lease,
            voter: Voter::new(
                node.id,
                self.allowance,
                started,
                durable,
                params.lease + params.gate_margin,
            ),
            holder: Holder::new(session, params),
            inbox: VecDeque::from([Input::Log]),
            work: VecDeque::new(),
            disk: Orders::default(),
            steps: BTreeMap::new(),
            undecided: BTreeSet::new(),
            netlink: VecDeque::new(),
            paused_until: None,
            held: Vec::new(),
            appended_log: node.raft.log.clone(),
            appended,
            published,
            told: Arc::default(),
            given: Arc::default(),
            counted_under: applied.view.membership.clone(),
            applied,
            apply_stalled_until: 0,
            tick: None,
            gave_up: BTreeMap::new(),
            managed: BTreeSet::new(),
            wanted: BTreeSet::new(),
            armed: None,
            advanced: BTreeMap::new(),
            report: 0,
            reports: BTreeMap::new(),
            stopping: false,
            membership_wait: MembershipWait::default(),
            last_beat: started,
            hearing_since: None,
            bugs: BugState::default(),
        });
        self.note(|s| {
            format!(
                "node {} starts with {session:?}, lease {lease:?}, gate {:?}",
                s.nodes[n].id,
                s.nodes[n].gate.kind()
            )
        });
        self.checker.voter_changed(&self.nodes, n, self.now);
        self.feed_applied(n);
    }

    /// Gives the applied state to the lease thread.
    pub(super) fn feed_applied(&mut self, n: usize) {
        let id = self.nodes[n].id;
        let Some(p) = self.nodes[n].process.as_ref() else {
            return;
        };
        let fold = match self.cfg.bug {
            Some(Bug::ClaimsUnapplied) => &p.appended,
            _ => &p.applied,
        };
        let addresses = fold.vips.iter().flat_map(|v| v.addresses.iter().copied());
        let manage = Input::Manage(addresses.collect());
        let input = Input::Applied(fold.holder_view(id), fold.view.membership.clone());
        // The gate knows an address before a lease can open it.
        self.lease_input(n, manage);
        self.lease_input(n, input);
    }

    pub(super) fn deliver(&mut self, to: NodeId, message: Message) {
        let n = self.index(to);
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        if p.paused_until.is_some() {
            if p.held.len() < SOCKET_BUFFER {
                p.held.push(message);
            }
            return;
        }
        match message {
            Message::Renew(renew) => self.lease_input(n, Input::Renew(renew)),
            Message::Answer { answer, pushed } => {
                self.lease_input(n, Input::Answer { answer, pushed });
            }
            Message::Append(append) => {
                let (ack, changed) = self.nodes[n].raft.accept(to, self.now, &append);
                // Published before it is acknowledged.
                if changed {
                    self.publish(n);
                }
                self.send(n, append.leader, Message::Ack(ack));
                self.commit_moved(n);
            }
            Message::Ack(ack) => {
                let membership = p.appended.view.membership.clone();
                let before = self.nodes[n].raft.commit;
                self.nodes[n].raft.count(to, self.now, &membership, ack);
                if self.nodes[n].raft.commit > before {
                    self.replicate(n);
                }
                self.commit_moved(n);
            }
            Message::Report(from, report) => {
                if p.reports
                    .get(&from)
                    .is_none_or(|newest| newest.number < report.number)
                {
                    p.reports.insert(from, report);
                }
            }
        }
    }

    /// The log of node `n` changed: its lease thread can load the new view from now on, and is told soon.
    pub(super) fn publish(&mut self, n: usize) {
        let (vips, log) = (self.vips, self.nodes[n].raft.log.clone());
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        if p.publish(vips, &log) {
            let at = self.now + self.rng.below(self.chaos.slow_telling + 1);
            let generation = self.nodes[n].generation;
            self.schedule(
                at,
                Event::Later {
                    n,
                    generation,
                    input: Input::Log,
                },
            );
        }
        if self.cfg.bug == Some(Bug::ClaimsUnapplied) {
            self.feed_applied(n);
        }
    }

    pub(super) fn commit_moved(&mut self, n: usize) {
        let node = &self.nodes[n];
        for i in self.committed..node.raft.commit {
            if let Command::Members(_) = node.raft.log[i].command {
                let id = ConfigId {
                    term: node.raft.log[i].term,
                    index: i as u64 + 1,
                };
                let wait = self.longest_promise();
                self.checker.membership_committed(id, wait, self.now);
            }
        }
        self.committed = self.committed.max(node.raft.commit);
        let Some(p) = &node.process else { return };
        if (p.applied.index as usize) < node.raft.commit {
            let generation = node.generation;
            let at = self.now + self.rng.within(MS / 20..=2 * MS);
            self.schedule(at, Event::Apply { n, generation });
        }
    }

    pub(super) fn apply(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let generation = node.generation;
        let Some(p) = node.process.as_mut() else {
            return;
        };
        let stalled = p.apply_stalled_until.max(p.paused_until.unwrap_or(0));
        if stalled > self.now {
            self.schedule(stalled + 1, Event::Apply { n, generation });
            return;
        }
        let from = p.applied.index as usize;
        if from >= node.raft.commit {
            return;
        }
        node.raft.log[from..node.raft.commit]
            .iter()
            .for_each(|e| p.applied.apply(e));
        if self.cfg.bug != Some(Bug::ClaimsUnapplied) {
            self.feed_applied(n);
        }
        self.decide(n);
    }

    /// Stops the process of node `n` where it stands.
    pub(super) fn pause(&mut self, n: usize) {
        let lengths = [5 * MS, 60 * MS, 350 * MS, 1_200 * MS];
        let longest = self.rng.pick(&lengths).copied().unwrap_or(MS);
        let until = self.now + self.rng.within(MS..=longest);
        let node = &mut self.nodes[n];
        let generation = node.generation;
        let Some(p) = node.process.as_mut() else {
            return;
        };
        if p.paused_until.is_none() {
            p.paused_until = Some(until);
            self.stats.pauses += 1;
            self.schedule(until, Event::Resume { n, generation });
            self.note(|s| format!("node {} is stopped until {}", s.nodes[n].id, until / MS));
        }
    }

    pub(super) fn resume(&mut self, n: usize) {
        let id = self.nodes[n].id;
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        p.paused_until = None;
        // A timer that is overdue may fire before or after the messages are read.
        let held = std::mem::take(&mut p.held);
        p.tick = None;
        if self.rng.chance(500_000) {
            self.lease_input(n, Input::Tick);
        }
        self.run_lease(n);
        for message in held {
            self.deliver(id, message);
        }
        self.run_lease(n);
    }

    /// The process is gone at once; with `host` the whole machine is.
    pub(super) fn crash(&mut self, n: usize, host: bool) {
        if self.nodes[n].process.is_none() {
            return;
        }
        self.end_process(n);
        self.note(|s| format!("node {} crashes, host: {host}", s.nodes[n].id));
        let longest = if self.rng.chance(500_000) {
            30 * MS
        } else {
            1_500 * MS
        };
        let back = self.now + self.rng.within(MS..=longest);
        if host {
            self.lose_kernel(n);
        }
        self.schedule(back, Event::Start { n });
    }

    /// The process is told to stop, and ends soon after.
    pub(super) fn stop(&mut self, n: usize) {
        let generation = self.nodes[n].generation;
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        p.stopping = true;
        let at = self.now + self.rng.within(20 * MS..=200 * MS);
        self.schedule(at, Event::Exit { n, generation });
        self.lease_input(n, Input::Stop);
    }

    pub(super) fn exit(&mut self, n: usize) {
        self.end_process(n);
        let back = self.now + self.rng.within(MS..=800 * MS);
        self.schedule(back, Event::Start { n });
    }
}

//! Elections, and what a leader does: replicate, place VIPs, change memberships one after the other.

use std::collections::BTreeSet;

use buoy_core::{Mono, NodeId};

use super::clock::MS;
use super::config::Bug;
use super::gate::Kind;
use super::log::{Command, Fold};
use super::net::Message;
use super::node::{MembershipWait, Process, Report};
use super::raft::LEADER_LEASE;
use super::{Event, HEARTBEAT, LEASE, Sim};

/// Silence after which a leader moves a node's VIPs, as a part of the lease.
fn suspect_after() -> std::time::Duration {
    LEASE * 2 / 3
}

/// Beats between two reports that say nothing new.
const REPORT_EVERY: u64 = 8;

impl Sim {
    /// Called at every node every few milliseconds.
    pub(super) fn beat(&mut self, n: usize) {
        let next = self.now + self.rng.within(HEARTBEAT / 2..=HEARTBEAT);
        self.schedule(next, Event::Beat { n });
        if !self.nodes[n].is_awake() {
            return;
        }
        self.note_hearing(n);
        self.report(n);
        if self.nodes[n].raft.leader {
            self.lead(n);
        } else if self.now
            > self.nodes[n].raft.heard_leader + LEADER_LEASE + self.rng.below(60 * MS)
        {
            self.stand(n);
        }
    }

    /// Tells everybody what this node has given up: when it changed, and every few beats.
    fn report(&mut self, n: usize) {
        let generation = self.nodes[n].generation;
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let id = p.session.node;
        p.report += 1;
        let changed = p
            .reports
            .get(&id)
            .is_none_or(|said| said.gave_up != p.gave_up);
        if changed || p.report.is_multiple_of(REPORT_EVERY) {
            let report = Report {
                number: (generation, p.report),
                gave_up: p.gave_up.clone(),
            };
            p.reports.insert(id, report.clone());
            self.send_to_others(n, &Message::Report(id, report));
        }
    }

    /// Keeps since when this node has heard a majority without a gap.
    fn note_hearing(&mut self, n: usize) {
        let now = self.nodes[n].read(self.now);
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let heard = |v: NodeId| is_heard(p, v, now).then_some(());
        let hears = p.applied.view.membership.quorum_value(heard).is_some();
        let gap = now.since(p.last_beat) > suspect_after() / 2;
        p.last_beat = now;
        p.hearing_since = match p.hearing_since {
            Some(since) if hears && !gap => Some(since),
            _ => hears.then_some(now),
        };
    }

    /// Stands for election. Votes are taken at once from everybody who can be reached.
    fn stand(&mut self, n: usize) {
        let candidate = &self.nodes[n];
        let Some(p) = &candidate.process else { return };
        let membership = p.appended.view.membership.clone();
        // A node that an uncommitted membership removes may be the only one that can commit it.
        let removed = !membership.is_voter(candidate.id)
            && membership.id.index as usize <= candidate.raft.commit;
        if removed || p.stopping {
            return;
        }
        let reachable = |o: &&super::Node| {
            o.id == candidate.id
                || (o.is_awake()
                    && self.network.carries(o.id, candidate.id)
                    && self.network.carries(candidate.id, o.id))
        };
        let heard: Vec<&super::Node> = self.nodes.iter().filter(reachable).collect();
        let term = 1 + heard.iter().map(|o| o.raft.term).max().unwrap_or(0);
        let votes: BTreeSet<NodeId> = heard
            .iter()
            .filter(|o| {
                let free = o.raft.heard_leader + LEADER_LEASE <= self.now && !o.raft.leader;
                o.id == candidate.id || (free && o.raft.may_vote_for(&candidate.raft))
            })
            .map(|o| o.id)
            .collect();
        if membership
            .quorum_value(|v| votes.contains(&v).then_some(()))
            .is_none()
        {
            return;
        }
        for vote in votes {
            let v = self.index(vote);
            self.nodes[v].raft.step_down(term);
        }
        self.nodes[n].raft.lead(term, self.now);
        self.note(|s| format!("node {} leads term {term}", s.nodes[n].id));
        self.publish(n);
        self.propose(n, None);
    }

    /// Appends to the leader's log, and sends it out.
    fn propose(&mut self, n: usize, command: Option<Command>) {
        if let Some(command) = command {
            self.note(|s| format!("node {} proposes {command:?}", s.nodes[n].id));
            self.nodes[n].raft.propose(command);
            self.publish(n);
        }
        let id = self.nodes[n].id;
        let Some(p) = &self.nodes[n].process else {
            return;
        };
        let membership = p.appended.view.membership.clone();
        self.nodes[n].raft.advance(id, &membership);
        self.replicate(n);
        self.commit_moved(n);
    }

    pub(super) fn replicate(&mut self, n: usize) {
        let append = self.nodes[n].raft.append(self.nodes[n].id);
        self.send_to_others(n, &Message::Append(append));
    }

    fn lead(&mut self, n: usize) {
        self.replicate(n);
        let node = &mut self.nodes[n];
        let Some(p) = node.process.as_mut() else {
            return;
        };
        let membership = p.appended.view.membership.clone();
        let committed_config = membership.id.index as usize <= node.raft.commit;
        if node.raft.lost_quorum(node.id, self.now, &membership)
            || (committed_config && !membership.is_voter(node.id))
        {
            node.raft.leader = false;
            return;
        }
        // One thing at a time: everything proposed is applied here.
        if p.applied.index as usize != node.raft.log.len() {
            return;
        }
        let command = self.next_membership(n).or_else(|| self.placement(n));
        if let Some(command) = command {
            self.propose(n, Some(command));
        }
    }

    /// The next membership, once the last one has been committed for the longest promise.
    fn next_membership(&mut self, n: usize) -> Option<Command> {
        let now = self.nodes[n].read(self.now);
        let longest = self.longest_promise();
        let term = self.nodes[n].raft.term;
        let no_wait = self.cfg.bug == Some(Bug::NoMembershipWait);
        let p = self.nodes[n].process.as_mut()?;
        let membership = p.applied.view.membership.clone();
        let seen = Some((term, membership.id));
        if p.membership_wait.seen != seen {
            // Also a new leader waits: it cannot know when the entry was committed.
            p.membership_wait = MembershipWait {
                seen,
                over_at: now + longest,
            };
        }
        if p.membership_wait.over_at > now && !no_wait {
            return None;
        }
        let command = match membership.halves.as_slice() {
            [_, new] => Command::Members(vec![new.clone()]),
            [old]
                if self
                    .wishes
                    .front()
                    .is_some_and(|w| matches!(w, Command::Members(_))) =>
            {
                let Some(Command::Members(new)) = self.wishes.pop_front() else {
                    return None;
                };
                Command::Members(vec![old.clone(), new.into_iter().next()?])
            }
            _ => return None,
        };
        self.stats.memberships += 1;
        Some(command)
    }

    /// Longest promise that any voter makes in this run.
    pub(super) fn longest_promise(&self) -> std::time::Duration {
        let longest = if self.chaos.lease_lengths {
            LEASE * 2
        } else {
            LEASE
        };
        self.longest_promise_of(longest)
    }

    /// The longest promise to any node of this run that counts `lease`.
    pub(super) fn longest_promise_of(&self, lease: std::time::Duration) -> std::time::Duration {
        let margins = self.nodes.iter().map(|n| n.gate.kind().margin());
        let margin = match self.chaos.lease_lengths {
            // A daemon may have had, or may get, another kind of gate than it has now.
            true => Kind::Timed.margin(),
            false => margins.max().unwrap_or_default(),
        };
        self.allowance.voter_length(lease + margin)
    }

    /// Moves VIPs whose owner is silent or gave them up, and does what operators wish.
    fn placement(&mut self, n: usize) -> Option<Command> {
        let now = self.nodes[n].read(self.now);
        let p = self.nodes[n].process.as_ref()?;
        // Whoever was cut off or stopped until now takes the others' silence for its own deafness.
        let may_judge = p
            .hearing_since
            .is_some_and(|since| now.since(since) > suspect_after());
        let alive: Vec<NodeId> = self
            .everybody
            .iter()
            .copied()
            .filter(|v| is_heard(p, *v, now))
            .collect();
        let orphaned: Vec<usize> = (0..self.vips)
            .filter(|v| may_judge && is_orphaned(p, &p.applied, *v, now))
            .collect();
        if self
            .wishes
            .front()
            .is_some_and(|w| !matches!(w, Command::Members(_)))
        {
            self.stats.assigns += 1;
            return self.wishes.pop_front();
        }
        if orphaned.is_empty() || alive.is_empty() {
            return None;
        }
        self.stats.assigns += 1;
        let moves = orphaned
            .iter()
            .map(|v| (*v, self.rng.pick(&alive).copied()))
            .collect();
        Some(Command::Assign(moves))
    }
}

fn is_heard(p: &Process, node: NodeId, now: Mono) -> bool {
    p.voter
        .heard(node)
        .is_some_and(|at| at + suspect_after() > now)
}

fn is_orphaned(p: &Process, state: &Fold, vip: usize, now: Mono) -> bool {
    let vip = &state.vips[vip];
    let Some((owner, epoch)) = vip.owner else {
        return true;
    };
    let gave_up = p
        .reports
        .get(&owner)
        .and_then(|r| r.gave_up.get(&vip.name))
        .copied();
    !is_heard(p, owner, now) || gave_up == Some(epoch)
}

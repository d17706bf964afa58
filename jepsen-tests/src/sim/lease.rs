//! The lease thread of a simulated daemon: the same machines and the same order of steps as the real
//! one, and it may be stopped before each step.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_core::effects::{Again, Event as StepEvent};
use buoy_core::lease::{
    Answer, HolderEffect, HolderEvent, LogView, Renew, VoterEffect, VoterEvent,
};
use buoy_core::{Epoch, Mono, NodeId, Session};

use super::bugs;
use super::check::Promises;
use super::clock::MS;
use super::config::Bug;
use super::disk::Order;
use super::node::{Input, Origin, Work};
use super::{Event, Message, Sim};

impl Sim {
    /// Gives the lease thread of node `n` something to do.
    pub(super) fn lease_input(&mut self, n: usize, input: Input) {
        if let Some(p) = self.nodes[n].process.as_mut() {
            p.inbox.push_back(input);
        }
        self.run_lease(n);
    }

    /// Runs the lease thread until it has nothing to do, or is stopped.
    pub(super) fn run_lease(&mut self, n: usize) {
        while self.checker.found.is_none() && self.nodes[n].is_awake() {
            let Some(p) = self.nodes[n].process.as_mut() else {
                return;
            };
            let next = p
                .work
                .pop_front()
                .or_else(|| p.inbox.pop_front().map(Work::stage));
            let Some(work) = next else { break };
            if self.chaos.step_pause > 0 && self.rng.chance(self.chaos.step_pause) {
                if let Some(p) = self.nodes[n].process.as_mut() {
                    p.work.push_front(work);
                }
                self.pause(n);
                return;
            }
            self.step(n, work);
        }
        if self.nodes[n].is_awake() {
            self.arm(n);
        }
    }

    /// Arms the next tick.
    fn arm(&mut self, n: usize) {
        let node = &self.nodes[n];
        let Some(p) = node.process.as_ref() else {
            return;
        };
        let due = p
            .voter
            .next_deadline()
            .into_iter()
            .chain(p.holder.next_deadline())
            .min();
        let Some(due) = due else { return };
        // One that is armed for an earlier deadline is left alone: to wake up too early does no harm.
        if p.tick.is_some_and(|armed| armed <= due) {
            return;
        }
        let late = self.rng.below(self.chaos.late_wake + 1);
        let at = node.clock.when(due).max(self.now) + 1 + late;
        let generation = node.generation;
        if let Some(p) = self.nodes[n].process.as_mut() {
            p.tick = Some(due);
        }
        self.schedule(at, Event::Tick { n, generation, due });
    }

    fn step(&mut self, n: usize, work: Work) {
        match work {
            Work::Stage { input, now, log } => self.stage(n, input, now, log),
            Work::Voter { effect, pushed } => self.voter_effect(n, effect, pushed),
            Work::Arm { until } => self.arm_gate(n, until),
            Work::Count(count) => self.count(n, count),
            Work::Renewal { to, renew } => self.send_renewal(n, to, renew),
            Work::Advance { moves, origin } => self.advance(n, moves, origin),
            Work::Holder { effect, origin } => self.holder_effect(n, effect, origin),
        }
    }

    /// Reads the clock and, for a renewal, loads the view, in either order; then acts.
    fn stage(&mut self, n: usize, input: Input, now: Option<Mono>, log: Option<Arc<LogView>>) {
        let needs_log = log.is_none() && matches!(input, Input::Renew(_) | Input::Log);
        let reading = self.nodes[n].read(self.now);
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let (now, log) = match (now, needs_log) {
            (Some(now), false) => return self.take_in(n, input, now, log),
            (None, true) if self.rng.chance(500_000) => (Some(reading), log),
            (now, true) => (now, Some(p.published.clone())),
            (None, false) => (Some(reading), log),
        };
        p.work.push_front(Work::Stage { input, now, log });
    }

    fn take_in(&mut self, n: usize, input: Input, now: Mono, log: Option<Arc<LogView>>) {
        if self.trace.is_some() {
            self.note(|s| format!("node {} at {now:?} takes in {input:?}", s.nodes[n].id));
        }
        match input {
            Input::Renew(renew) => self.renewal(n, now, renew, log.unwrap_or_default()),
            Input::Log => {
                let log = log.unwrap_or_default();
                if let Some(p) = self.nodes[n].process.as_mut() {
                    p.told = log.clone();
                    p.given = log.clone();
                }
                let log = self.seen_by_voter(n, now, log);
                self.voter(n, now, VoterEvent::Log(log), None);
            }
            Input::MaxRaised(length) => self.voter(n, now, VoterEvent::MaxRaised(length), None),
            Input::MaxLowered => self.voter(n, now, VoterEvent::MaxLowered, None),
            Input::Answer { answer, pushed } => self.answer(n, now, answer, pushed),
            Input::Manage(addresses) => self.manage(n, addresses),
            Input::Applied(view, membership) => {
                let Some(p) = self.nodes[n].process.as_mut() else {
                    return;
                };
                p.counted_under = membership;
                p.gave_up.retain(|vip, epoch| {
                    view.assignments
                        .iter()
                        .any(|w| w.vip == *vip && w.epoch == *epoch)
                });
                let view = bugs::holder_view(self.cfg.bug, &p.bugs, view, &self.everybody);
                self.holder(n, now, HolderEvent::Applied(view), false, false);
            }
            Input::Lowered(vip, epoch, kept) => {
                let again = vip.clone();
                let event = HolderEvent::Lowered { vip, epoch, kept };
                self.holder(n, now, event, false, false);
                self.forget_unwanted(n);
                if self.cfg.bug == Some(Bug::EpochAgain) {
                    let Some(p) = self.nodes[n].process.as_mut() else {
                        return;
                    };
                    p.bugs.forget_epoch(&again);
                    self.feed_applied(n);
                }
            }
            Input::GiveUp(vip, epoch) => {
                let reason = "told to".to_owned();
                self.holder(
                    n,
                    now,
                    HolderEvent::GiveUp { vip, epoch, reason },
                    false,
                    false,
                );
            }
            Input::Shut(key, addresses, again) => {
                self.shut_gate(n, &addresses);
                self.carry(n, key, &addresses, StepEvent::Shut { again });
            }
            Input::Stop => self.holder(n, now, HolderEvent::Stop, false, false),
            Input::Tick => {
                self.voter(n, now, VoterEvent::Tick, None);
                self.holder(n, now, HolderEvent::Tick, false, false);
            }
        }
    }

    fn renewal(&mut self, n: usize, now: Mono, renew: Renew, log: Arc<LogView>) {
        let bug = self.cfg.bug;
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let log = if bug == Some(Bug::StaleView) {
            p.told.clone()
        } else {
            log
        };
        p.given = log.clone();
        let mut renew = p.bugs.renew_in(bug, renew);
        if bug == Some(Bug::ConfigIgnored) {
            renew.config = log.membership.id;
        }
        let mut log = self.seen_by_voter(n, now, log);
        if bug == Some(Bug::UnheardGranted) {
            log = bugs::as_claimed(log, &renew);
        }
        let asked = (renew.session, renew.seq);
        self.voter(n, now, VoterEvent::Renew { renew, log }, Some(asked));
        let from = asked.0.node;
        let process = self.nodes[n].process.as_ref();
        if process.is_some_and(|p| from != p.session.node && p.voter.heard(from) == Some(now)) {
            self.holder(n, now, HolderEvent::Heard, false, false);
        }
    }

    fn seen_by_voter(&self, n: usize, now: Mono, log: Arc<LogView>) -> Arc<LogView> {
        match &self.nodes[n].process {
            Some(p) => bugs::voter_view(self.cfg.bug, log, &p.voter, now, &self.everybody),
            None => log,
        }
    }

    fn voter(&mut self, n: usize, now: Mono, event: VoterEvent, asked: Option<(Session, u64)>) {
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let before = Promises::of(&p.voter);
        let mut effects = Vec::new();
        p.voter.handle(now, event, &mut effects);
        self.checker
            .voter_advanced(&p.voter, &before, &p.given, self.now);
        let changed = before != Promises::of(&p.voter);
        self.checker.disk_covers(&self.nodes[n], self.now);
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        for effect in effects {
            let pushed = match &effect {
                VoterEffect::Answer(a) => asked != Some((a.session, a.seq)),
                VoterEffect::RaiseMax(_) | VoterEffect::LowerMax(_) => false,
            };
            p.work.push_back(Work::Voter { effect, pushed });
        }
        if changed {
            self.checker.voter_changed(&self.nodes, n, self.now);
        }
    }

    fn answer(&mut self, n: usize, now: Mono, answer: Answer, pushed: bool) {
        let bug = self.cfg.bug;
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let mut answer = answer;
        if bug == Some(Bug::ConfigIgnored) {
            answer.config = p.counted_under.id;
        }
        if bug == Some(Bug::EpochAgain) {
            let claimed = p.holder.status();
            let claimed: BTreeMap<IpAddr, Epoch> = claimed
                .flat_map(|v| v.addresses.iter().map(move |a| (*a, v.epoch)))
                .collect();
            answer = p.bugs.answer_in(answer, &claimed);
        }
        self.holder(n, now, HolderEvent::Answer(answer), true, pushed);
    }

    pub(super) fn holder(
        &mut self,
        n: usize,
        now: Mono,
        event: HolderEvent,
        answer: bool,
        pushed: bool,
    ) {
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let mut effects = Vec::new();
        p.holder.handle(now, event, &mut effects);
        let origin = Origin {
            now,
            answer,
            pushed,
        };
        for effect in effects {
            // Deadlines that stand together are moved together, before anything that follows them.
            let HolderEffect::Deadline { slot, at } = effect else {
                p.work.push_back(Work::Holder { effect, origin });
                continue;
            };
            match p.work.back_mut() {
                Some(Work::Advance { moves, .. }) => moves.push((slot.0, at)),
                _ => p.work.push_back(Work::Advance {
                    moves: vec![(slot.0, at)],
                    origin,
                }),
            }
        }
        self.checker.holder_advanced(&self.nodes, n, self.now, now);
    }

    fn voter_effect(&mut self, n: usize, effect: VoterEffect, pushed: bool) {
        self.note(|s| format!("node {} does {effect:?}", s.nodes[n].id));
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        match effect {
            VoterEffect::Answer(answer) => {
                let answer = p.bugs.answer_out(self.cfg.bug, answer);
                let to = answer.session.node;
                if to != p.session.node {
                    self.send(n, to, Message::Answer { answer, pushed });
                } else if answer.session == p.session {
                    p.work
                        .push_front(Work::stage(Input::Answer { answer, pushed }));
                }
            }
            VoterEffect::RaiseMax(length) => {
                if self.cfg.bug == Some(Bug::PromisesBeforeDisk) {
                    p.inbox.push_back(Input::MaxRaised(length));
                }
                self.order_disk(n, Order::Raise(length));
            }
            VoterEffect::LowerMax(length) => self.order_disk(n, Order::Lower(length)),
        }
    }

    fn holder_effect(&mut self, n: usize, effect: HolderEffect, origin: Origin) {
        self.note(|s| format!("node {} does {effect:?}", s.nodes[n].id));
        match effect {
            HolderEffect::Send { to, renew, until } => self.renew(n, to, renew, until),
            HolderEffect::Deadline { slot, at } => {
                let moves = vec![(slot.0, at)];
                self.advance(n, moves, origin);
            }
            HolderEffect::Open {
                vip,
                epoch,
                addresses,
                slot,
            } => {
                let key = (vip, epoch);
                if self.cfg.bug == Some(Bug::AddressBeforeGate) {
                    self.add_addresses(n, &key, &addresses);
                }
                if self.map(n, &key, &addresses, slot.0) {
                    self.carry(n, key, &addresses, StepEvent::Opened);
                }
            }
            HolderEffect::Remap {
                vip,
                epoch,
                addresses,
                slot,
            } => {
                self.map(n, &(vip, epoch), &addresses, slot.0);
            }
            HolderEffect::Shut {
                vip,
                epoch,
                addresses,
                reason,
            } => {
                self.stats.shuts += 1;
                let Some(p) = self.nodes[n].process.as_ref() else {
                    return;
                };
                let log = &p.published;
                let again = Again::of(log, p.session.node, epoch, &addresses, &reason);
                let shut = Input::Shut((vip.clone(), epoch), addresses, again);
                if self.cfg.bug == Some(Bug::ReleasedBeforeShut) {
                    let generation = self.nodes[n].generation;
                    let (input, at) = (shut, self.now + MS);
                    self.schedule(
                        at,
                        Event::Later {
                            n,
                            generation,
                            input,
                        },
                    );
                    let lowered = Input::Lowered(vip, epoch, Vec::new());
                    if let Some(p) = self.nodes[n].process.as_mut() {
                        p.work.push_front(Work::stage(lowered));
                    }
                } else if let Some(p) = self.nodes[n].process.as_mut() {
                    p.work.push_front(Work::stage(shut));
                }
            }
            HolderEffect::GaveUp { vip, epoch, .. } => {
                let Some(p) = self.nodes[n].process.as_mut() else {
                    return;
                };
                p.gave_up.insert(vip, bugs::true_epoch(epoch));
            }
        }
    }

    pub(super) fn send_renewal(&mut self, n: usize, to: NodeId, renew: Renew) {
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let renew = p.bugs.renew_out(renew);
        let own = to == p.session.node;
        if own {
            p.work.push_front(Work::stage(Input::Renew(renew.clone())));
        }
        self.checker.renewal_sent(&self.nodes[n], &renew, self.now);
        if !own {
            self.send(n, to, Message::Renew(renew));
        }
    }
}

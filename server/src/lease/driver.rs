//! Runs the two lease machines of this node: messages and time in, gate and messages out.
//!
//! Everything here happens on one thread. That is a rule of the protocol (docs/leases.md): a deadline
//! computed before a release must never be written after it.

mod holding;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use buoy_core::lease::holder::{Holder, HolderEffect, HolderEvent};
use buoy_core::lease::voter::{Voter, VoterEffect, VoterEvent};
use buoy_core::lease::{Answer, LogView, Renew};
use buoy_core::{Epoch, Mono, NodeId, Session, VipName};
use buoy_fence::clock::boottime;
use buoy_fence::gate::Gate;
use buoy_fence::{fault_point, plant};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use super::codec::{self, Message};
use super::link::Outlet;
use super::messages::{LeaseIn, LeaseOut, Promises};
use super::shared::LeaseShared;
use super::valve::Valve;

/// Parts that the driver is made of.
pub(super) struct Parts {
    pub me: NodeId,
    pub voter: Voter,
    pub holder: Holder,
    pub gate: Box<dyn Gate>,
    /// Silence after which a node is suspected.
    pub suspect_after: Duration,
    /// Addresses that the gate fences already.
    pub managed: BTreeSet<IpAddr>,
    pub log_view: Arc<ArcSwap<LogView>>,
    pub shared: Arc<LeaseShared>,
    pub out: UnboundedSender<LeaseOut>,
}

/// The machines and everything they act upon.
pub(super) struct Driver {
    me: NodeId,
    voter: Voter,
    pub(super) holder: Holder,
    valve: Valve,
    suspect_after: Duration,
    log_view: Arc<ArcSwap<LogView>>,
    shared: Arc<LeaseShared>,
    out: UnboundedSender<LeaseOut>,
    seen_view: Arc<LogView>,
    /// VIPs whose gate stays shut although they may be granted, and the slot that they would rest on then.
    withheld: BTreeMap<(VipName, Epoch), Option<u32>>,
    outbound: BTreeMap<NodeId, Outlet>,
    inbound: BTreeMap<NodeId, (Session, Outlet)>,
    voter_effects: Vec<VoterEffect>,
    pub(super) holder_effects: Vec<HolderEffect>,
    held_changed: bool,
    to_tell: Vec<LeaseOut>,
    /// Woken when the next deadline may have moved.
    pub(super) wake: std::rc::Rc<Notify>,
    armed: Option<Mono>,
    #[cfg(feature = "fault-points")]
    pub(super) released: Vec<super::planted::Released>,
    #[cfg(feature = "fault-points")]
    pub(super) shutting_released: bool,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let seen_view = parts.log_view.load_full();
        let mut driver = Self {
            me: parts.me,
            voter: parts.voter,
            holder: parts.holder,
            valve: Valve::new(parts.gate, parts.managed),
            suspect_after: parts.suspect_after,
            log_view: parts.log_view,
            shared: parts.shared,
            out: parts.out,
            seen_view: seen_view.clone(),
            withheld: BTreeMap::new(),
            outbound: BTreeMap::new(),
            inbound: BTreeMap::new(),
            voter_effects: Vec::new(),
            holder_effects: Vec::new(),
            held_changed: false,
            to_tell: Vec::new(),
            wake: Default::default(),
            armed: None,
            #[cfg(feature = "fault-points")]
            released: Vec::new(),
            #[cfg(feature = "fault-points")]
            shutting_released: false,
        };
        driver.voter(VoterEvent::Log(seen_view));
        driver
    }

    /// Earliest time at which one of the machines wants to run.
    pub(super) fn next_deadline(&mut self) -> Option<Mono> {
        let next = [self.voter.next_deadline(), self.holder.next_deadline()];
        self.armed = next.into_iter().flatten().min();
        self.armed
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        plant!(ReleaseBeforeShut => self.shut_released());
        fault_point!("renewal.due");
        let now = boottime();
        let late = self
            .armed
            .take()
            .map_or(Duration::ZERO, |due| now.since(due));
        self.shared.lateness.note(late, now);
        self.note_steadiness(now, late);
        self.voter(VoterEvent::Tick);
        let now = boottime();
        fault_point!("renewal.timed");
        self.holder
            .handle(now, HolderEvent::Tick, &mut self.holder_effects);
        fault_point!("renewal.decided");
        self.settle();
        fault_point!("renewal.done");
    }

    /// A thread that was held up, or a node that was cut off, has not heard others for its own sake: it
    /// must not take them for silent at once.
    fn note_steadiness(&self, now: Mono, late: Duration) {
        let limit = self.suspect_after;
        let answered = self.holder.quorum_answered_at();
        if late > limit / 2 || answered.is_none_or(|at| now.since(at) > limit) {
            self.shared.unsteady.store(now.0, Relaxed);
        }
    }

    /// The voter's log may have a newer view.
    pub(super) fn log_changed(&mut self) {
        let newest = self.log_view.load();
        if !Arc::ptr_eq(&newest, &self.seen_view) {
            let newest = arc_swap::Guard::into_inner(newest);
            self.seen_view = newest.clone();
            self.voter(VoterEvent::Log(newest));
        }
    }

    /// A message arrived over `via`.
    pub(super) fn message(&mut self, message: Message, via: Outlet) {
        match message {
            Message::Renew(renew) => self.renewal(renew, via),
            Message::Answer(answer) if via.speaks_for(answer.voter) => self.answer(answer),
            Message::Answer(answer) => {
                warn!(
                    "answer in the name of node {} from another node: ignored",
                    answer.voter
                );
            }
        }
    }

    fn renewal(&mut self, renew: Renew, via: Outlet) {
        let from = renew.session.node;
        if !via.speaks_for(from) {
            warn!("renewal in the name of node {from} under another node's certificate: ignored");
            return;
        }
        if !self.shared.peers.contains_key(&from) {
            warn!("renewal from node {from}, which no configuration lists: ignored");
            return;
        }
        let session = renew.session;
        // A copy, or a late one of an earlier run, is no sign of life, and its connection is not the way back.
        if self.judge(renew) {
            self.note_heard(session, via);
            self.holder
                .handle(boottime(), HolderEvent::Heard, &mut self.holder_effects);
        }
        self.settle();
    }

    fn note_heard(&mut self, session: Session, via: Outlet) {
        let now = boottime();
        let Some(before) = self.shared.note_heard(session, now) else {
            return;
        };
        if ends_silence(before, now, self.suspect_after) {
            self.shared.heard_again.send_replace(Some(session.node));
        }
        let newcomer = match self.inbound.insert(session.node, (session, via)) {
            Some((known, _)) => known != session,
            None => false,
        };
        if newcomer {
            // Our connection to its predecessor would only time out.
            if let Some(outlet) = self.outbound.remove(&session.node) {
                outlet.close("the peer was restarted");
            }
            self.tell(LeaseOut::PeerRestarted(session.node));
        }
        if newcomer || before == 0 {
            self.shared.tick();
        }
    }

    fn answer(&mut self, answer: Answer) {
        if !self.shared.peers.contains_key(&answer.voter) {
            warn!(
                "lease answer from node {}, which no configuration lists: ignored",
                answer.voter
            );
            return;
        }
        self.shared.answers.fetch_add(1, Relaxed);
        fault_point!("answer.decoded", answer.voter.0);
        let now = boottime();
        fault_point!("answer.timed");
        self.holder
            .handle(now, HolderEvent::Answer(answer), &mut self.holder_effects);
        fault_point!("answer.counted");
        self.settle();
        fault_point!("answer.done");
        for voter in self.holder.voters() {
            if let (Some(times), Some(at)) = (self.shared.peers.get(&voter.node), voter.answered) {
                times.answered.store(at.0, Relaxed);
                let round_trip = voter.round_trip.unwrap_or_default().as_nanos();
                times
                    .round_trip
                    .store(u64::try_from(round_trip).unwrap_or(u64::MAX), Relaxed);
            }
        }
        let quorum = self.holder.quorum_answered_at().map_or(0, |at| at.0);
        self.shared.quorum_answered.store(quorum, Relaxed);
    }

    /// A connection to a peer is there.
    pub(super) fn link_up(&mut self, peer: NodeId, outlet: Outlet) {
        self.outbound.insert(peer, outlet);
    }

    /// A connection to a peer ended.
    pub(super) fn link_down(&mut self, peer: NodeId, id: usize) {
        if self.outbound.get(&peer).is_some_and(|o| o.id() == id) {
            self.outbound.remove(&peer);
        }
    }

    /// A connection from a peer ended.
    pub(super) fn inbound_gone(&mut self, id: usize) {
        self.inbound.retain(|_, (_, outlet)| outlet.id() != id);
    }

    /// The rest of the daemon says something.
    pub(super) fn input(&mut self, input: LeaseIn) {
        // These change which claims there are.
        self.held_changed |= matches!(
            input,
            LeaseIn::Applied(_) | LeaseIn::Lowered { .. } | LeaseIn::Stop
        );
        match input {
            LeaseIn::Applied(view) => {
                self.holder(HolderEvent::Applied(view));
                self.forget_withheld();
            }
            LeaseIn::Withhold(vips) => self.withheld.extend(vips.into_iter().map(|k| (k, None))),
            LeaseIn::LetUp { vip, epoch } => self.let_up(vip, epoch),
            LeaseIn::Ended(turn) => {
                self.tell(LeaseOut::Ended(turn));
                self.settle();
            }
            LeaseIn::Lowered { vip, epoch, kept } => {
                fault_point!("release.heard");
                let lowered = HolderEvent::Lowered { vip, epoch, kept };
                self.holder
                    .handle(boottime(), lowered, &mut self.holder_effects);
                fault_point!("release.counted");
                self.settle();
                fault_point!("release.queued");
                if self.valve.has_unwanted() {
                    self.valve.forget_unwanted(&self.holder.addresses());
                }
            }
            LeaseIn::GiveUp { vip, epoch, reason } => {
                self.holder(HolderEvent::GiveUp { vip, epoch, reason });
            }
            LeaseIn::MaxRaised(length) => self.voter(VoterEvent::MaxRaised(length)),
            LeaseIn::MaxLowered => self.voter(VoterEvent::MaxLowered),
            LeaseIn::Manage(addresses) => self.valve.manage(addresses, &self.holder.addresses()),
            LeaseIn::Stop => self.holder(HolderEvent::Stop),
            LeaseIn::Look => self.shared.note_look(boottime()),
            LeaseIn::Promises(reply) => {
                // A caller that no longer waits needs no answer.
                let _ = reply.send(self.promises());
            }
            LeaseIn::Gate(job) => (job.0)(self.valve.gate()),
        }
    }

    fn promises(&self) -> Promises {
        let now = boottime();
        let live = self
            .voter
            .promises(now)
            .map(|(address, session, epoch, until)| (address, (session, epoch, until.since(now))))
            .collect();
        let quarantine = self.voter.quarantine_until();
        Promises {
            live,
            quarantine: (quarantine > now).then(|| quarantine.since(now)),
        }
    }

    /// Hands a renewal to this node's voter; says whether that took it for a new one of the node's present run.
    /// The log view is loaded here, after the renewal was received: an older one could miss a membership entry
    /// that the voter has acknowledged.
    fn judge(&mut self, renew: Renew) -> bool {
        let now = boottime();
        let (node, incarnation) = (renew.session.node, renew.session.incarnation);
        let log = self.log_view.load_full();
        self.seen_view = log.clone();
        let event = VoterEvent::Renew { renew, log };
        self.voter.handle(now, event, &mut self.voter_effects);
        self.voter.heard(node) == Some(now)
            && self.voter.heard_incarnation(node) == Some(incarnation)
    }

    fn voter(&mut self, event: VoterEvent) {
        self.voter
            .handle(boottime(), event, &mut self.voter_effects);
        self.settle();
    }

    fn holder(&mut self, event: HolderEvent) {
        self.holder
            .handle(boottime(), event, &mut self.holder_effects);
        self.settle();
    }

    /// Carries out effects until neither machine has any left; both machines may feed each other.
    pub(super) fn settle(&mut self) {
        while !(self.voter_effects.is_empty() && self.holder_effects.is_empty()) {
            let mut effects = std::mem::take(&mut self.voter_effects);
            for effect in effects.drain(..) {
                self.voter_effect(effect);
            }
            self.keep_buffer_voter(effects);
            let mut effects = std::mem::take(&mut self.holder_effects);
            self.holder_effects(effects.drain(..));
            self.keep_buffer_holder(effects);
        }
        if std::mem::take(&mut self.held_changed) {
            self.publish();
        }
        self.tell_all();
        let next = [self.voter.next_deadline(), self.holder.next_deadline()];
        if next.into_iter().flatten().min() < self.armed || self.armed.is_none() {
            self.wake.notify_one();
        }
    }

    fn keep_buffer_voter(&mut self, buffer: Vec<VoterEffect>) {
        if self.voter_effects.is_empty() {
            self.voter_effects = buffer;
        }
    }

    fn keep_buffer_holder(&mut self, buffer: Vec<HolderEffect>) {
        if self.holder_effects.is_empty() {
            self.holder_effects = buffer;
        }
    }

    fn voter_effect(&mut self, effect: VoterEffect) {
        match effect {
            VoterEffect::Answer(answer) if answer.session.node == self.me => {
                let now = boottime();
                fault_point!("own.timed");
                let effects = &mut self.holder_effects;
                self.holder
                    .handle(now, HolderEvent::Answer(answer), effects);
                fault_point!("own.counted");
            }
            VoterEffect::Answer(answer) => {
                if let Some((session, outlet)) = self.inbound.get(&answer.session.node)
                    && *session == answer.session
                {
                    outlet.send(codec::encode(&Message::Answer(answer), Vec::new()));
                }
            }
            VoterEffect::RaiseMax(length) => self.tell(LeaseOut::RaiseMax(length)),
            VoterEffect::LowerMax(length) => self.tell(LeaseOut::LowerMax(length)),
        }
    }

    /// Said after the change has been shown: who hears of a VIP finds it in the shared page.
    fn tell(&mut self, message: LeaseOut) {
        self.to_tell.push(message);
    }

    fn tell_all(&mut self) {
        for message in self.to_tell.drain(..) {
            #[cfg(feature = "fault-points")]
            let told = super::planted::what(&message);
            if self.out.send(message).is_err() {
                debug!("the daemon is stopping: nobody carries out lease decisions any more");
            }
            #[cfg(feature = "fault-points")]
            told();
        }
    }
}

/// Is a renewal that is heard `now` the first one after a silence, if the one before was heard at `before` (0: never)?
fn ends_silence(before: u64, now: Mono, silence: Duration) -> bool {
    before == 0 || now.since(Mono(before)) >= silence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_ends_with_the_first_word_after_it() {
        const SILENCE: Duration = Duration::from_millis(200);
        let ms = |ms: u64| ms * 1_000_000;
        for (before, now, ends) in [
            (0, 12, true),
            (100, 175, false),
            (100, 299, false),
            (100, 300, true),
            (100, 5_000, true),
            // A clock that is read in another order.
            (175, 100, false),
        ] {
            let now = Mono(ms(now));
            assert_eq!(
                ends_silence(ms(before), now, SILENCE),
                ends,
                "{before} {now:?}"
            );
        }
    }
}

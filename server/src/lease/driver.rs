//! Runs the two lease machines of this node: messages and time in, gate and messages out.
//!
//! Everything here happens on one thread. That is a rule of the protocol (docs/leases.md): a deadline
//! computed before a release must never be written after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use buoy_core::lease::holder::{DownReason, Holder, HolderEffect, HolderEvent, HolderView};
use buoy_core::lease::voter::{Voter, VoterEffect, VoterEvent};
use buoy_core::lease::{Answer, LogView, Renew};
use buoy_core::{Epoch, Mono, NodeId, Session, VipName};
use buoy_fence::clock::boottime;
use buoy_fence::gate::{Deadlines, Gate};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, error, info, warn};

use super::codec::{self, Message};
use super::link::Outlet;
use super::shared::{Held, LeaseShared, Phase};

/// What the lease thread asks of the rest of the daemon. At most one `Up` and one `Down` are under way
/// per VIP and epoch, so the number of VIPs bounds the queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseOut {
    /// The gate is open: add the addresses, announce them, notify.
    Up {
        /// Which VIP.
        vip: VipName,
        /// Under which epoch.
        epoch: Epoch,
        /// What to add.
        addresses: Vec<IpAddr>,
    },
    /// The gate is shut: remove the addresses, then say [`LeaseIn::Lowered`].
    Down {
        /// Which VIP.
        vip: VipName,
        /// Which epoch ended.
        epoch: Epoch,
        /// What to remove.
        addresses: Vec<IpAddr>,
        /// Why.
        reason: String,
    },
    /// This session will not claim the epoch again; the VIP needs a new one.
    GaveUp {
        /// Which VIP.
        vip: VipName,
        /// Which epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// Promises longer than ever before are asked for: write this down, then say
    /// [`LeaseIn::MaxRaised`].
    RaiseMax(Duration),
    /// A peer runs a new daemon: it lost what it knew of us.
    PeerRestarted(NodeId),
}

/// What the rest of the daemon tells the lease thread.
#[derive(Debug)]
pub enum LeaseIn {
    /// The applied state assigns this to us.
    Applied(HolderView),
    /// The addresses of a VIP that went down are gone.
    Lowered {
        /// Which VIP.
        vip: VipName,
        /// Which epoch.
        epoch: Epoch,
    },
    /// A VIP cannot be held here.
    GiveUp {
        /// Which VIP.
        vip: VipName,
        /// Which epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// The longest promise is on disk.
    MaxRaised(Duration),
    /// Addresses that the gate must know (all VIPs of the cluster).
    Manage(Vec<IpAddr>),
    /// Go down on everything.
    Stop,
    /// What has this voter promised?
    Promises(oneshot::Sender<Promises>),
    /// Run something on the gate, on the thread that writes it.
    Gate(GateJob),
}

/// Work on the gate that must not run beside a change of it.
pub struct GateJob(pub Box<GateWork>);

type GateWork = dyn FnOnce(&mut dyn Gate) + Send;

impl std::fmt::Debug for GateJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GateJob")
    }
}

/// This voter's record.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// For each address: who holds the promise, under which epoch, for how much longer.
    pub live: BTreeMap<IpAddr, (Session, Epoch, Duration)>,
    /// Time until the quarantine after start ends.
    pub quarantine: Option<Duration>,
}

/// Parts that the driver is made of.
pub(super) struct Parts {
    pub me: NodeId,
    pub voter: Voter,
    pub holder: Holder,
    pub gate: Box<dyn Gate>,
    pub deadlines: Deadlines,
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
    parts: Parts,
    seen_view: Arc<LogView>,
    outbound: BTreeMap<NodeId, Outlet>,
    inbound: BTreeMap<NodeId, (Session, Outlet)>,
    /// Addresses that the gate fences.
    managed: BTreeSet<IpAddr>,
    /// Addresses of the VIPs that exist.
    wanted: BTreeSet<IpAddr>,
    voter_effects: Vec<VoterEffect>,
    holder_effects: Vec<HolderEffect>,
    held_changed: bool,
    to_tell: Vec<LeaseOut>,
    /// Woken when the next deadline may have moved.
    pub(super) wake: std::rc::Rc<Notify>,
    armed: Option<Mono>,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let seen_view = parts.log_view.load_full();
        let parts_managed = parts.managed.clone();
        let mut driver = Self {
            parts,
            seen_view: seen_view.clone(),
            outbound: BTreeMap::new(),
            inbound: BTreeMap::new(),
            managed: parts_managed.clone(),
            wanted: parts_managed,
            voter_effects: Vec::new(),
            holder_effects: Vec::new(),
            held_changed: false,
            to_tell: Vec::new(),
            wake: Default::default(),
            armed: None,
        };
        driver.voter(VoterEvent::Log(seen_view));
        driver
    }

    /// Earliest time at which one of the machines wants to run.
    pub(super) fn next_deadline(&mut self) -> Option<Mono> {
        let next = [
            self.parts.voter.next_deadline(),
            self.parts.holder.next_deadline(),
        ];
        self.armed = next.into_iter().flatten().min();
        self.armed
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        let now = boottime();
        let late = self
            .armed
            .take()
            .map_or(Duration::ZERO, |due| now.since(due));
        self.parts.shared.note_wake(late);
        self.note_steadiness(now, late);
        self.voter(VoterEvent::Tick);
        self.holder(HolderEvent::Tick);
    }

    /// A thread that was held up, or a node that was cut off, has not heard others for its own sake: it
    /// must not take them for silent at once.
    fn note_steadiness(&self, now: Mono, late: Duration) {
        let limit = self.parts.suspect_after;
        let answered = self.parts.holder.quorum_answered_at();
        if late > limit / 2 || answered.is_none_or(|at| now.since(at) > limit) {
            self.parts.shared.unsteady.store(now.0, Relaxed);
        }
    }

    /// The voter's log may have a newer view.
    pub(super) fn log_changed(&mut self) {
        let newest = self.parts.log_view.load();
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
        let Some(times) = self.parts.shared.peers.get(&from) else {
            warn!("renewal from node {from}, which no configuration lists: ignored");
            return;
        };
        let now = boottime();
        let before = times.heard.swap(now.0, Relaxed);
        let session = renew.session;
        let newcomer = match self.inbound.insert(from, (session, via)) {
            Some((known, _)) => known != session,
            None => false,
        };
        if newcomer {
            // Our connection to its predecessor would only time out.
            if let Some(outlet) = self.outbound.remove(&from) {
                outlet.close("the peer was restarted");
            }
            self.tell(LeaseOut::PeerRestarted(from));
        }
        if newcomer || before == 0 {
            self.parts.shared.tick();
        }
        self.judge(renew);
        self.settle();
    }

    fn answer(&mut self, answer: Answer) {
        if !self.parts.shared.peers.contains_key(&answer.voter) {
            warn!(
                "lease answer from node {}, which no configuration lists: ignored",
                answer.voter
            );
            return;
        }
        self.parts.shared.answers.fetch_add(1, Relaxed);
        self.holder(HolderEvent::Answer(answer));
        for voter in self.parts.holder.voters() {
            if let (Some(times), Some(at)) =
                (self.parts.shared.peers.get(&voter.node), voter.answered)
            {
                times.answered.store(at.0, Relaxed);
                let round_trip = voter.round_trip.unwrap_or_default().as_nanos();
                times
                    .round_trip
                    .store(u64::try_from(round_trip).unwrap_or(u64::MAX), Relaxed);
            }
        }
        let quorum = self.parts.holder.quorum_answered_at().map_or(0, |at| at.0);
        self.parts.shared.quorum_answered.store(quorum, Relaxed);
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
            LeaseIn::Applied(view) => self.holder(HolderEvent::Applied(view)),
            LeaseIn::Lowered { vip, epoch } => {
                self.holder(HolderEvent::Lowered { vip, epoch });
                self.forget_unwanted();
            }
            LeaseIn::GiveUp { vip, epoch, reason } => {
                self.holder(HolderEvent::GiveUp { vip, epoch, reason });
            }
            LeaseIn::MaxRaised(length) => self.voter(VoterEvent::MaxRaised(length)),
            LeaseIn::Manage(addresses) => self.manage(addresses),
            LeaseIn::Stop => self.holder(HolderEvent::Stop),
            LeaseIn::Promises(reply) => {
                // A caller that no longer waits needs no answer.
                let _ = reply.send(self.promises());
            }
            LeaseIn::Gate(job) => (job.0)(self.parts.gate.as_mut()),
        }
    }

    fn promises(&self) -> Promises {
        let now = boottime();
        let live = self
            .parts
            .voter
            .promises(now)
            .map(|(address, session, epoch, until)| (address, (session, epoch, until.since(now))))
            .collect();
        let quarantine = self.parts.voter.quarantine_until();
        Promises {
            live,
            quarantine: (quarantine > now).then(|| quarantine.since(now)),
        }
    }

    /// The gate learns addresses before anybody can be assigned them here.
    fn manage(&mut self, addresses: Vec<IpAddr>) {
        self.wanted = addresses.into_iter().collect();
        for address in self.wanted.difference(&self.managed) {
            if let Err(e) = self.parts.gate.manage(*address) {
                error!(%address, "the packet gate does not take the address: {e}");
            }
        }
        self.managed.extend(self.wanted.iter().copied());
        self.forget_unwanted();
    }

    /// The gate forgets addresses of deleted VIPs once they are not held any more: they may then be
    /// used on this host for something else.
    fn forget_unwanted(&mut self) {
        if self.managed.len() == self.wanted.len() {
            return;
        }
        let held = self.parts.holder.addresses();
        let gate = &mut self.parts.gate;
        let wanted = &self.wanted;
        self.managed.retain(|address| {
            if wanted.contains(address) || held.contains(address) {
                return true;
            }
            let forgotten = gate.forget(*address);
            if let Err(e) = &forgotten {
                error!(%address, "the packet gate does not forget the address: {e}");
            }
            forgotten.is_err()
        });
    }

    /// Hands a renewal to this node's voter. The log view is loaded here, after the renewal was
    /// received: an older one could miss a membership entry that the voter has acknowledged.
    fn judge(&mut self, renew: Renew) {
        let log = self.parts.log_view.load_full();
        self.seen_view = log.clone();
        let event = VoterEvent::Renew { renew, log };
        self.parts
            .voter
            .handle(boottime(), event, &mut self.voter_effects);
    }

    fn voter(&mut self, event: VoterEvent) {
        self.parts
            .voter
            .handle(boottime(), event, &mut self.voter_effects);
        self.settle();
    }

    fn holder(&mut self, event: HolderEvent) {
        self.parts
            .holder
            .handle(boottime(), event, &mut self.holder_effects);
        self.settle();
    }

    /// Carries out effects until neither machine has any left; both machines may feed each other.
    fn settle(&mut self) {
        while !(self.voter_effects.is_empty() && self.holder_effects.is_empty()) {
            let mut effects = std::mem::take(&mut self.voter_effects);
            for effect in effects.drain(..) {
                self.voter_effect(effect);
            }
            self.keep_buffer_voter(effects);
            let mut effects = std::mem::take(&mut self.holder_effects);
            for effect in effects.drain(..) {
                self.holder_effect(effect);
            }
            self.keep_buffer_holder(effects);
        }
        if std::mem::take(&mut self.held_changed) {
            self.publish();
        }
        self.tell_all();
        let next = [
            self.parts.voter.next_deadline(),
            self.parts.holder.next_deadline(),
        ];
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
            VoterEffect::Answer(answer) if answer.session.node == self.parts.me => {
                let effects = &mut self.holder_effects;
                self.parts
                    .holder
                    .handle(boottime(), HolderEvent::Answer(answer), effects);
            }
            VoterEffect::Answer(answer) => {
                if let Some((session, outlet)) = self.inbound.get(&answer.session.node)
                    && *session == answer.session
                {
                    outlet.send(codec::encode(&Message::Answer(answer), Vec::new()));
                }
            }
            VoterEffect::RaiseMax(length) => self.tell(LeaseOut::RaiseMax(length)),
        }
    }

    fn holder_effect(&mut self, effect: HolderEffect) {
        match effect {
            HolderEffect::Send { to, renew } if to == self.parts.me => {
                if let Some(times) = self.parts.shared.peers.get(&to) {
                    times.heard.store(boottime().0, Relaxed);
                }
                self.judge(renew);
            }
            HolderEffect::Send { to, renew } => {
                self.parts.shared.renewals.fetch_add(1, Relaxed);
                if let Some(outlet) = self.outbound.get(&to) {
                    outlet.send(codec::encode(&Message::Renew(renew), Vec::new()));
                }
            }
            HolderEffect::Deadline { slot, at } => {
                if let Err(e) = self.parts.deadlines.store(slot.0, at) {
                    // The old deadline stands: the VIPs of the slot end early, never late.
                    error!("the deadline of lease slot {} was not stored: {e}", slot.0);
                }
            }
            HolderEffect::Open {
                vip,
                epoch,
                addresses,
                slot,
            } => {
                self.open(vip, epoch, addresses, slot.0);
            }
            HolderEffect::Remap {
                vip,
                epoch,
                addresses,
                slot,
            } => {
                self.held_changed = true;
                self.map(&vip, epoch, &addresses, slot.0);
            }
            HolderEffect::Shut {
                vip,
                epoch,
                addresses,
                reason,
            } => {
                self.shut(vip, epoch, addresses, reason);
            }
            HolderEffect::GaveUp { vip, epoch, reason } => {
                self.tell(LeaseOut::GaveUp {
                    vip,
                    epoch,
                    reason: reason.to_string(),
                });
            }
        }
    }

    fn open(&mut self, vip: VipName, epoch: Epoch, addresses: Vec<IpAddr>, slot: u32) {
        info!(%vip, %epoch, "lease granted by a quorum: going up");
        self.held_changed = true;
        if self.map(&vip, epoch, &addresses, slot) {
            self.tell(LeaseOut::Up {
                vip,
                epoch,
                addresses,
            });
        }
    }

    /// Rests the addresses on a slot of the gate; a VIP whose gate refuses is given up.
    fn map(&mut self, vip: &VipName, epoch: Epoch, addresses: &[IpAddr], slot: u32) -> bool {
        for address in addresses {
            // An edit may assign an address in the same entry that declares it.
            let managed = self
                .managed
                .insert(*address)
                .then(|| self.parts.gate.manage(*address));
            let opened = managed
                .unwrap_or(Ok(()))
                .and_then(|()| self.parts.gate.open(*address, slot));
            if let Err(e) = opened {
                let reason = format!("the packet gate did not open for {address}: {e}");
                error!(%vip, "{reason}");
                // Right here, not with the shut that follows: the deadline of the slot that an address
                // is still in may move on for others before that.
                self.shut_now(vip, addresses);
                let event = HolderEvent::GiveUp {
                    vip: vip.clone(),
                    epoch,
                    reason,
                };
                self.parts
                    .holder
                    .handle(boottime(), event, &mut self.holder_effects);
                return false;
            }
        }
        true
    }

    fn shut(&mut self, vip: VipName, epoch: Epoch, addresses: Vec<IpAddr>, reason: DownReason) {
        info!(%vip, %epoch, "going down: {reason}");
        if reason == DownReason::Expired {
            self.parts.shared.lost.fetch_add(1, Relaxed);
        }
        if !self.shut_now(&vip, &addresses) {
            // Without a word of `Down` the claim stays, and keeps others out while the gate may be open.
            return;
        }
        self.held_changed = true;
        self.tell(LeaseOut::Down {
            vip,
            epoch,
            addresses,
            reason: reason.to_string(),
        });
    }

    /// Shuts the gate over addresses, or over everything if the kernel refuses that; says whether it
    /// is shut.
    fn shut_now(&mut self, vip: &VipName, addresses: &[IpAddr]) -> bool {
        let mut all = true;
        for address in addresses {
            if let Err(e) = self.parts.gate.shut(*address) {
                error!(%vip, %address, "the packet gate did not shut: {e}");
                all = false;
            }
        }
        if all {
            return true;
        }
        let shut = self.parts.gate.shut_all();
        if let Err(e) = &shut {
            error!(%vip, "the packet gate did not shut at all: {e}");
        }
        shut.is_ok()
    }

    /// Said after the change has been shown: who hears of a VIP finds it in the shared page.
    fn tell(&mut self, message: LeaseOut) {
        self.to_tell.push(message);
    }

    fn tell_all(&mut self) {
        for message in self.to_tell.drain(..) {
            if self.parts.out.send(message).is_err() {
                debug!("the daemon is stopping: nobody carries out lease decisions any more");
            }
        }
    }

    /// Shows what is held here; only when it changed, never on the path of a plain renewal.
    fn publish(&mut self) {
        let mut held = BTreeMap::new();
        let mut slots = BTreeMap::new();
        for status in self.parts.holder.status() {
            let slot = status.slot.map(|slot| slot.0);
            if let (Phase::Active, Some(slot)) = (status.phase, slot) {
                slots.extend(status.addresses.iter().map(|address| (*address, slot)));
            }
            let claim = Held {
                phase: status.phase,
                addresses: status.addresses.to_vec(),
                slot,
            };
            held.insert((status.vip.clone(), status.epoch), claim);
        }
        self.parts.shared.slots.store(Arc::new(slots));
        self.parts.shared.held.store(Arc::new(held));
        self.parts.shared.tick();
    }
}

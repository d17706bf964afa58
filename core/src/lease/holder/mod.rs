//! The holder: renews this node's claims at every voter and says until when its gate may be open.
//!
//! This is `docs/leases.md`, "Holder rules".
//!
//! # Which clock reading
//!
//! The `now` of the call that produced a [`HolderEffect::Send`] is the send time `t` that a lease is
//! counted from: it was read before the renewal was sent, wherever the thread is stopped in between.
//! Deadlines are absolute, so writing one late extends nothing. Effects must be carried out in order, by
//! the one thread that also calls `handle`.
//!
//! # Never the same epoch twice
//!
//! A session claims an assignment when it first appears in the applied state, and never again. Epochs
//! are log indexes: an assignment that is new in a later applied state has an epoch larger than all in
//! earlier ones. So one number, the largest epoch seen, tells new assignments from those that were
//! released, denied or given up, whatever order the driver hands views over in.
//!
//! # Slots
//!
//! VIPs that the same voters grant share a deadline, which is one slot of the gate. A slot is advanced
//! only by answers of voters that grant *all* its VIPs. When a voter's answer splits the VIPs of a slot,
//! the largest group keeps it, and the others move at once ([`HolderEffect::Remap`]), before the slot is
//! advanced: a VIP never profits from an answer that does not grant it. A VIP moves to a slot whose
//! deadline is its own by right, and not earlier than before. (When all slots are taken, and only then,
//! it moves to one with an earlier deadline, or goes down.) Slots whose groups have become the same are
//! merged when their deadlines meet. A slot is used again only after every VIP that was in it has been
//! lowered.
//!
//! # Answers to the same renewal
//!
//! A pushed answer repeats the seq of an earlier answer, and the network may swap the two. A grant that
//! was ever given for a renewal holds for its whole lease, as only a later renewal can release it. So the
//! grants of all answers to one renewal add up, and every denial among them counts.

mod answers;
mod peers;
mod reason;
mod rounds;
mod slots;
#[cfg(test)]
mod tests;
mod vips;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::ids::{Epoch, NodeId, Session, VipName};
use crate::lease::messages::{Answer, Renew};
use crate::lease::quorum::{Quorum, VoterSet};
use crate::membership::{ConfigId, Membership};
use crate::time::Mono;

pub use reason::DownReason;

use peers::Peer;
use slots::Slots;
use vips::Vip;

/// First slot that a holder uses; slot 0 of the gate is never open.
pub const FIRST_SLOT: u32 = 1;
/// Last slot that a holder uses.
pub const LAST_SLOT: u32 = 63;
/// Renewals to one voter that may await an answer; answers to older ones are dropped.
pub const MAX_AWAITED: usize = 64;
/// Changes of the claims that follow each other within this time travel together.
pub const CHANGE_PACE: Duration = Duration::from_millis(1);
/// The time above grows by itself with so many claims, up to the time after which a renewal is repeated.
pub const CLAIMS_PER_PACE: usize = 512;

/// An assignment: VIP and epoch.
type Key = (VipName, Epoch);

/// A deadline slot of the packet gate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(pub u32);

/// Lengths that the holder counts with; each at least a nanosecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HolderParams {
    /// `L`: length of the lease, counted from before a renewal is sent.
    pub lease: Duration,
    /// How much longer the lease is that renewals name: what this node's gate needs beyond the guard that every
    /// voter adds. Promises get longer by it, deadlines do not.
    pub gate_margin: Duration,
    /// Time between two rounds of renewals.
    pub renew_every: Duration,
    /// Time after which a renewal that a living voter has not answered is sent again, while it matters.
    pub retry_after: Duration,
}

/// A VIP that the applied state assigns to this node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Wanted {
    /// Its name.
    pub vip: VipName,
    /// Log index of the assignment.
    pub epoch: Epoch,
    /// Its addresses, at least one.
    pub addresses: Vec<IpAddr>,
}

/// What the applied state says; membership and assignments of the *same* applied state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct HolderView {
    /// The membership.
    pub membership: Membership,
    /// Everything that is assigned to this node, in any order. An assignment that is left out now is
    /// never claimed later: what this node cannot hold is given up ([`HolderEvent::GiveUp`]) instead.
    pub assignments: Vec<Wanted>,
}

/// What happens to a holder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HolderEvent {
    /// Entries were applied.
    Applied(HolderView),
    /// An answer was received.
    Answer(Answer),
    /// After [`HolderEffect::Shut`]: the gate is shut and the addresses are gone, but for those that are kept.
    Lowered {
        /// Which VIP.
        vip: VipName,
        /// Which epoch of it.
        epoch: Epoch,
        /// Left on the interface behind the shut gate, for the next epoch of the VIP that the applied state assigns to
        /// this node. If there is none after all, [`HolderEffect::Shut`] comes once more, and then nothing may be kept.
        kept: Vec<IpAddr>,
    },
    /// This node cannot hold the VIP.
    GiveUp {
        /// Which VIP.
        vip: VipName,
        /// Which epoch of it.
        epoch: Epoch,
        /// Why, in words.
        reason: String,
    },
    /// A renewal of another node was heard. A round that is due within half an interval begins now: nodes that
    /// renew together wake each other up once in an interval, not each for each. Sending early is always safe.
    Heard,
    /// Go down on everything and claim nothing any more; renewals go on, as a sign of life.
    Stop,
    /// Time has passed.
    Tick,
}

/// What a holder wants done.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HolderEffect {
    /// Send a renewal (to the voter of this very node: hand it over).
    Send {
        /// To which voter.
        to: NodeId,
        /// The renewal.
        renew: Renew,
        /// `t + L`: the latest deadline that an answer to it may permit. A gate that counts lengths instead of
        /// reading a clock must begin to count before the renewal leaves.
        until: Mono,
    },
    /// Store the deadline of a slot into the gate.
    Deadline {
        /// Which slot.
        slot: SlotId,
        /// Absolute, on this node's clock. The gate is open while the clock reads less.
        at: Mono,
    },
    /// A quorum grants the VIP: open its gate by this slot, whose deadline has been stored before; then
    /// add the addresses, announce, notify.
    Open {
        /// Which VIP.
        vip: VipName,
        /// Under which epoch.
        epoch: Epoch,
        /// Its addresses, in order.
        addresses: Vec<IpAddr>,
        /// By which slot.
        slot: SlotId,
    },
    /// The gate of a VIP that is up follows another slot from now on. If the gate refuses, the VIP must
    /// be given up ([`HolderEvent::GiveUp`]): its old slot may go on for others.
    Remap {
        /// Which VIP.
        vip: VipName,
        /// Under which epoch.
        epoch: Epoch,
        /// Its addresses, in order.
        addresses: Vec<IpAddr>,
        /// By which slot.
        slot: SlotId,
    },
    /// Shut the gate at once, then remove the addresses, then say [`HolderEvent::Lowered`]. It must not
    /// be said while a gate is not known to be shut: the claim stays, and keeps others out, until then. A VIP
    /// that was not opened is shut too where the epoch before left addresses of it.
    Shut {
        /// Which VIP.
        vip: VipName,
        /// Which epoch of it.
        epoch: Epoch,
        /// Its addresses, in order.
        addresses: Vec<IpAddr>,
        /// Why.
        reason: DownReason,
    },
    /// This session never claims the epoch again, though it is still assigned: for the node's report.
    GaveUp {
        /// Which VIP.
        vip: VipName,
        /// Which epoch of it.
        epoch: Epoch,
        /// Why.
        reason: DownReason,
    },
}

/// How far a VIP is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// No quorum grants it yet, or an earlier holding of its addresses is not lowered yet.
    Claiming,
    /// The gate is open until the deadline.
    Active,
    /// The gate is shut, the addresses are being removed; the claim stays until then.
    Lowering,
}

/// A VIP at this node, as shown to people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VipStatus<'a> {
    /// Its name.
    pub vip: &'a VipName,
    /// Epoch of the assignment.
    pub epoch: Epoch,
    /// How far it is.
    pub phase: Phase,
    /// Its addresses, in order.
    pub addresses: &'a [IpAddr],
    /// Addresses of it may be on the interface though its gate was never open: the epoch before left them.
    pub inherits: bool,
    /// Slot of the gate, while active or lowering.
    pub slot: Option<SlotId>,
    /// Until when the gate is open, while active.
    pub deadline: Option<Mono>,
    /// Voters whose newest answer grants all its addresses.
    pub granted_by: Vec<NodeId>,
    /// Voters that make it wait, and for how long, counted from their newest answer (zero: they do not
    /// know).
    pub waits: Vec<(NodeId, Duration)>,
}

/// What the holder knows of one voter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoterStatus {
    /// Which.
    pub node: NodeId,
    /// When it last answered.
    pub answered: Option<Mono>,
    /// Round trip of the last renewal that it answered.
    pub round_trip: Option<Duration>,
}

/// The state of a holder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Holder {
    me: Session,
    params: HolderParams,
    /// Seq of the newest renewal.
    seq: u64,
    /// Revision of the claims.
    rev: u64,
    /// Largest epoch seen in any applied state.
    seen: Epoch,
    stopping: bool,
    config: ConfigId,
    quorum: Quorum,
    /// In the order of `quorum.voters()`.
    peers: Vec<Peer>,
    vips: BTreeMap<Key, Vip>,
    /// Those of `vips` that may not claim yet, because an earlier holding is not lowered.
    waiting: BTreeSet<Key>,
    /// Those of `vips` that claim and are not up; looked at with every answer.
    claiming: BTreeSet<Key>,
    /// The claims of revision `rev`: whose each address is.
    claims: BTreeMap<IpAddr, Key>,
    slots: Slots,
    /// When the last round began.
    round_began: Mono,
    /// When the next one begins; `None` before the first applied state.
    round_due: Option<Mono>,
    /// When a change of the claims was last sent.
    change_sent: Mono,
    /// A change of the claims waits to be sent.
    change_waits: bool,
}

impl Holder {
    /// A holder that has heard of no applied state yet.
    pub fn new(me: Session, params: HolderParams) -> Self {
        let at_least = |d: Duration| d.max(Duration::from_nanos(1));
        let params = HolderParams {
            lease: at_least(params.lease),
            gate_margin: params.gate_margin,
            renew_every: at_least(params.renew_every),
            retry_after: at_least(params.retry_after),
        };
        Self {
            me,
            params,
            seq: 0,
            // Zero is what a voter that acknowledged nothing has.
            rev: 1,
            seen: Epoch(0),
            stopping: false,
            config: ConfigId::default(),
            quorum: Quorum::default(),
            peers: Vec::new(),
            vips: BTreeMap::new(),
            waiting: BTreeSet::new(),
            claiming: BTreeSet::new(),
            claims: BTreeMap::new(),
            slots: Slots::default(),
            round_began: Mono::ZERO,
            round_due: None,
            change_sent: Mono::ZERO,
            change_waits: false,
        }
    }

    /// Advances the machine. `now`: a reading of the node's clock, taken after the event happened and
    /// before any effect is carried out. Effects are appended.
    pub fn handle(&mut self, now: Mono, event: HolderEvent, effects: &mut Vec<HolderEffect>) {
        // First of all: an answer must not revive a lease that is over.
        self.end_leases(now, effects);
        match event {
            HolderEvent::Applied(view) => self.applied(now, view, effects),
            HolderEvent::Answer(answer) => self.answered(now, answer, effects),
            HolderEvent::Lowered { vip, epoch, kept } => {
                self.lowered(&(vip, epoch), &kept, effects)
            }
            HolderEvent::GiveUp { vip, epoch, reason } => {
                self.go_down(&(vip, epoch), DownReason::GivenUp(reason), effects);
            }
            HolderEvent::Heard => self.join_round(now),
            HolderEvent::Stop => self.stop(effects),
            HolderEvent::Tick => {}
        }
        self.start_claims(effects);
        self.send_what_is_due(now, effects);
    }

    /// When `handle` wants to be called at the latest.
    pub fn next_deadline(&self) -> Option<Mono> {
        let leases = self.slots.next_deadline();
        leases.into_iter().chain(self.next_send()).min()
    }

    /// Every VIP that this session claims or waits to claim, in order of name and epoch. A name stands
    /// twice while its new epoch waits for the old one to be lowered.
    pub fn status(&self) -> impl Iterator<Item = VipStatus<'_>> {
        self.vips.iter().map(|((vip, epoch), v)| VipStatus {
            vip,
            epoch: *epoch,
            phase: v.phase(),
            addresses: &v.addresses,
            inherits: v.inherits,
            slot: v.slot(),
            deadline: v.active_slot().and_then(|s| self.slots.deadline(s)),
            granted_by: self.quorum.nodes(v.granted).collect(),
            waits: self.waits(v),
        })
    }

    fn waits(&self, vip: &Vip) -> Vec<(NodeId, Duration)> {
        let wait = |p: &Peer| {
            let grants = p.grants()?;
            vip.addresses
                .iter()
                .filter_map(|a| grants.missing.get(a).copied())
                .max()
        };
        self.peers
            .iter()
            .filter_map(|p| Some((p.node, wait(p)?)))
            .collect()
    }

    /// Addresses that this session claims, waits for, or has not lowered yet.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.vips
            .values()
            .flat_map(|v| v.addresses.iter().copied())
            .collect()
    }

    /// Nothing is claimed any more, nor is anything up.
    pub fn is_idle(&self) -> bool {
        self.vips.is_empty()
    }

    /// The latest time since which a majority (of each half) has answered, whatever it answered.
    pub fn quorum_answered_at(&self) -> Option<Mono> {
        self.quorum
            .reached(VoterSet::MAX, |i| self.peers[i].answered)
    }

    /// What is known of each voter.
    pub fn voters(&self) -> impl Iterator<Item = VoterStatus> + '_ {
        self.peers.iter().map(|p| VoterStatus {
            node: p.node,
            answered: p.answered,
            round_trip: p.round_trip,
        })
    }

    /// This run of the daemon.
    pub fn session(&self) -> Session {
        self.me
    }
}

//! One simulated machine: its disk, its kernel, and the daemon that may run on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use buoy_core::effects::{Again, Steps};
use buoy_core::lease::{
    Holder, HolderEffect, HolderParams, HolderView, LogView, Renew, Voter, VoterEffect,
};
use buoy_core::{ConfigId, Epoch, Membership, Mono, NodeId, Session, VipName};

use super::bugs::BugState;
use super::carrier::{Key, Netlink};
use super::clock::{Clock, True};
use super::config::Bug;
use super::disk::Orders;
use super::gate::{Count, Gate, Kind};
use super::log::{Entry, Fold};
use super::net::Message;
use super::raft::Raft;

/// A machine.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its clock; begins anew when the machine does.
    pub clock: Clock,
    /// Its Raft part; log and term are on disk.
    pub raft: Raft,
    /// On disk: the longest promise that its voter may ever have made.
    pub durable_max: Duration,
    /// In its kernel.
    pub gate: Gate,
    /// Whom each address was opened for, which no kernel knows.
    pub opened_for: BTreeMap<IpAddr, Holding>,
    /// In its kernel: addresses that are there.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses that it tells its neighbours of.
    pub announced: BTreeSet<IpAddr>,
    /// Its daemon, if it runs.
    pub process: Option<Process>,
    /// Number of daemons started; events of earlier ones are void.
    pub generation: u64,
}

/// A running daemon.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its session.
    pub session: Session,
    /// The length it counts with.
    pub lease: Duration,
    /// Its voter.
    pub voter: Voter,
    /// Its holder.
    pub holder: Holder,
    /// What the lease thread has not looked at.
    pub inbox: VecDeque<Input>,
    /// What the lease thread is in the middle of.
    pub work: VecDeque<Work>,
    /// What the voter wants on disk.
    pub disk: Orders,
    /// VIPs on their way up or down, or up.
    pub steps: BTreeMap<Key, Steps>,
    /// Of these it is not known yet what their next epoch keeps.
    pub undecided: BTreeSet<Key>,
    /// What the kernel was asked for and has not done.
    pub netlink: VecDeque<Netlink>,
    /// Stopped (SIGSTOP) until then.
    pub paused_until: Option<True>,
    /// Messages that came meanwhile.
    pub held: Vec<Message>,
    /// The log that `appended` was made of.
    pub appended_log: Rc<Vec<Entry>>,
    /// What the whole log says.
    pub appended: Fold,
    /// The same, as published to the lease thread before an append is acknowledged.
    pub published: Arc<LogView>,
    /// What the lease thread was last told of.
    pub told: Arc<LogView>,
    /// What its voter was last given: told, or loaded for a renewal.
    pub given: Arc<LogView>,
    /// What is applied.
    pub applied: Fold,
    /// Nothing is applied until then.
    pub apply_stalled_until: True,
    /// True membership that the holder counts under.
    pub counted_under: Membership,
    /// The deadline that a tick is armed for.
    pub tick: Option<Mono>,
    /// What its holder gave up.
    pub gave_up: BTreeMap<VipName, Epoch>,
    /// Addresses that its gate fences, and those of the VIPs that exist.
    pub managed: BTreeSet<IpAddr>,
    /// See above.
    pub wanted: BTreeSet<IpAddr>,
    /// The renewals for which its gate was last told to count, or to try.
    pub armed: Option<Mono>,
    /// Deadlines of slots as they were last moved; none where the gate refused to.
    pub advanced: BTreeMap<u32, Mono>,
    /// Number of its last report.
    pub report: u64,
    /// The newest report of each node.
    pub reports: BTreeMap<NodeId, Report>,
    /// The daemon is stopping.
    pub stopping: bool,
    /// As leader: since when a membership may be proposed, on its own clock.
    pub membership_wait: MembershipWait,
    /// When Raft and the planner last ran.
    pub last_beat: Mono,
    /// Since when it has heard a majority of the voters without a gap.
    pub hearing_since: Option<Mono>,
    /// State of planted bugs.
    pub bugs: BugState,
}

/// What a node says to have given up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Number of its daemon, and of the report; an older report is ignored.
    pub number: (u64, u64),
    /// VIPs, and the epochs that it will not claim again.
    pub gave_up: BTreeMap<VipName, Epoch>,
}

/// The leader's wait between two memberships.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MembershipWait {
    /// Which membership was seen committed, in which term of leadership.
    pub seen: Option<(u64, ConfigId)>,
    /// The next may be proposed from then on.
    pub over_at: Mono,
}

/// Something for the lease thread.
#[derive(Clone, Debug)]
pub enum Input {
    /// A renewal came.
    Renew(Renew),
    /// An answer came.
    Answer {
        /// The answer.
        answer: buoy_core::lease::Answer,
        /// Whether it was pushed.
        pushed: bool,
    },
    /// The published view changed.
    Log,
    /// The addresses of all VIPs that the applied state knows.
    Manage(BTreeSet<IpAddr>),
    /// Entries were applied; with the true membership.
    Applied(HolderView, Membership),
    /// The gate is to be shut for these; whether the node may have the VIP again.
    Shut(Key, Vec<IpAddr>, Again),
    /// A VIP that was shut is lowered, but for these addresses.
    Lowered(VipName, Epoch, Vec<IpAddr>),
    /// A VIP cannot be held.
    GiveUp(VipName, Epoch),
    /// The disk has it.
    MaxRaised(Duration),
    /// The disk is done with the order to lower it.
    MaxLowered,
    /// The daemon stops.
    Stop,
    /// A deadline came.
    Tick,
}

/// Where an effect comes from; the planted bugs need to know.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Clock reading that the machine was given.
    pub now: Mono,
    /// It was an answer.
    pub answer: bool,
    /// It was a pushed answer.
    pub pushed: bool,
}

/// A step of the lease thread; it may be stopped before each.
#[derive(Clone, Debug)]
pub enum Work {
    /// An input on its way into a machine: the clock is to be read, and for a renewal the view loaded.
    Stage {
        /// The input.
        input: Input,
        /// The reading, once taken.
        now: Option<Mono>,
        /// The view, once loaded.
        log: Option<Arc<LogView>>,
    },
    /// An effect of the voter to be carried out.
    Voter {
        /// The effect.
        effect: VoterEffect,
        /// Whether an answer in it is pushed.
        pushed: bool,
    },
    /// The gate is to be armed for a renewal: the clock is to be read.
    Arm {
        /// Latest deadline that an answer permits.
        until: Mono,
    },
    /// The kernel is to begin to count.
    Count(Count),
    /// A renewal is to leave.
    Renewal {
        /// To which voter.
        to: NodeId,
        /// The renewal.
        renew: Renew,
    },
    /// Deadlines are to be moved.
    Advance {
        /// Slots and deadlines.
        moves: Vec<(u32, Mono)>,
        /// Where they come from.
        origin: Origin,
    },
    /// An effect of the holder to be carried out.
    Holder {
        /// The effect.
        effect: HolderEffect,
        /// Where it comes from.
        origin: Origin,
    },
}

/// A session's VIP under one epoch.
pub type Holding = (Session, VipName, Epoch);

/// An address that rests on a slot of the gate.
#[derive(Clone, Copy, Debug)]
pub struct Resting<'a> {
    /// Which.
    pub address: IpAddr,
    /// On which slot.
    pub slot: u32,
    /// When the kernel really shuts it, on the node's clock.
    pub end: Mono,
    /// Whom it was opened for.
    pub holding: &'a Holding,
}

impl Work {
    /// An input about to be taken in.
    pub fn stage(input: Input) -> Self {
        Work::Stage {
            input,
            now: None,
            log: None,
        }
    }
}

impl Node {
    /// Its reading at a true time.
    pub fn read(&self, at: True) -> Mono {
        self.clock.read(at)
    }

    /// What rests on a slot of its gate, open or over.
    pub fn resting(&self) -> impl Iterator<Item = Resting<'_>> {
        self.gate.mapped().filter_map(|(address, slot, end)| {
            let holding = self.opened_for.get(&address)?;
            Some(Resting {
                address,
                slot,
                end,
                holding,
            })
        })
    }

    /// Do packets of an address pass here? An address that is not fenced is answered for where it is on the interface.
    pub fn answers(&self, address: IpAddr, at: True) -> bool {
        let here = self.gate.manages(address) || self.addresses.contains(&address);
        here && self.gate.passes(address, self.read(at))
    }

    /// Does it run, and is it not stopped?
    pub fn is_awake(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|p| p.paused_until.is_none())
    }
}

impl Process {
    /// Lengths for a lease of this length behind such a gate.
    pub fn params(lease: Duration, gate: Kind, bug: Option<Bug>) -> HolderParams {
        HolderParams {
            lease,
            gate_margin: match bug {
                Some(Bug::GateMarginUnnamed) => Duration::ZERO,
                _ => gate.margin(),
            },
            renew_every: lease / 4,
            retry_after: lease / 12,
        }
    }

    /// Brings `appended` up to date with the log; true when the view changed.
    pub fn publish(&mut self, vips: usize, log: &Rc<Vec<Entry>>) -> bool {
        let old = self.appended_log.len();
        let extends = log.len() >= old && log.get(old - 1) == self.appended_log.last();
        if extends {
            log[old..].iter().for_each(|e| self.appended.apply(e));
        } else {
            self.appended = Fold::of(vips, log);
        }
        self.appended_log = log.clone();
        if *self.published == self.appended.view {
            return false;
        }
        self.published = Arc::new(self.appended.view.clone());
        true
    }
}

//! What the lease thread shows to the rest of the daemon, without being waited for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use arc_swap::ArcSwap;
use buoy_core::{Epoch, Incarnation, Mono, NodeId, Session, VipName};
use tokio::sync::watch;

use super::lateness::LatenessCounts;

pub use buoy_core::lease::holder::Phase;

/// A VIP that this node claims.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// How far it is.
    pub phase: Phase,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Addresses of it may be on the interface though it was never up: the epoch before left them.
    pub inherits: bool,
    /// Lease slot in the gate; its deadline is read from the gate itself.
    pub slot: Option<u32>,
}

/// What the thread last knew of one node; all atomics, written on the renewal path.
#[derive(Debug, Default)]
pub struct PeerTimes {
    /// When this voter last heard a renewal of the node (nanoseconds of CLOCK_BOOTTIME; 0: never).
    pub heard: AtomicU64,
    /// The run of the node that those renewals came from.
    pub incarnation: AtomicU64,
    /// When the node last answered a renewal of ours (0: never).
    pub answered: AtomicU64,
    /// Round trip of that answer in nanoseconds.
    pub round_trip: AtomicU64,
}

/// Shown by the lease thread.
#[derive(Debug)]
pub struct LeaseShared {
    /// Every node of the cluster.
    pub peers: BTreeMap<NodeId, PeerTimes>,
    /// When a quorum last answered this node (0: never).
    pub quorum_answered: AtomicU64,
    /// When this node last could not judge others: its lease thread was held up, or no quorum answered.
    pub unsteady: AtomicU64,
    /// VIPs claimed here by name and epoch (an edited VIP stands twice until its old epoch is down);
    /// replaced when something about them changes.
    pub held: ArcSwap<BTreeMap<(VipName, Epoch), Held>>,
    /// Lease slots of the addresses that are up; replaced with `held`.
    pub slots: ArcSwap<BTreeMap<IpAddr, u32>>,
    /// Ticks when `held` was replaced or a node was heard for the first time or anew.
    pub changed: watch::Sender<u64>,
    /// The node that was heard last after a silence.
    pub heard_again: watch::Sender<Option<NodeId>>,
    /// Renewals sent, answers received, leases lost since start.
    pub renewals: AtomicU64,
    /// Answers received.
    pub answers: AtomicU64,
    /// Leases that ended without being given up.
    pub lost: AtomicU64,
    /// How late the thread woke up.
    pub lateness: LatenessCounts,
    /// When the thread last answered [`LeaseIn::Look`](super::LeaseIn::Look) (0: never). What is shown above was true then.
    looked: AtomicU64,
}

impl LeaseShared {
    /// Nothing heard yet.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            peers: nodes
                .into_iter()
                .map(|n| (n, PeerTimes::default()))
                .collect(),
            quorum_answered: AtomicU64::new(0),
            unsteady: AtomicU64::new(0),
            held: ArcSwap::default(),
            slots: ArcSwap::default(),
            changed: watch::Sender::new(0),
            heard_again: watch::Sender::new(None),
            renewals: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            lateness: LatenessCounts::default(),
            looked: AtomicU64::new(0),
        }
    }

    /// When a renewal of `node` was last heard here.
    pub fn heard(&self, node: NodeId) -> Option<Mono> {
        read(&self.peers.get(&node)?.heard)
    }

    /// The run of `node` that was heard last.
    pub fn heard_run(&self, node: NodeId) -> Option<Incarnation> {
        let peer = self.peers.get(&node)?;
        // Written before the time.
        read(&peer.heard).map(|_| Incarnation(peer.incarnation.load(Acquire)))
    }

    /// When `node` last answered this node, and the round trip.
    pub fn answered(&self, node: NodeId) -> Option<(Mono, Duration)> {
        let peer = self.peers.get(&node)?;
        Some((
            read(&peer.answered)?,
            Duration::from_nanos(peer.round_trip.load(Relaxed)),
        ))
    }

    /// When a quorum last answered this node.
    pub fn quorum_answered(&self) -> Option<Mono> {
        read(&self.quorum_answered)
    }

    /// Since when this node may judge the silence of others.
    pub fn steady_since(&self) -> Mono {
        Mono(self.unsteady.load(Relaxed))
    }

    /// When the thread last answered a look.
    pub fn looked(&self) -> Option<Mono> {
        read(&self.looked)
    }

    pub(crate) fn note_look(&self, now: Mono) {
        self.looked.store(now.0, Release);
    }

    /// A renewal of a session is heard `now`; returns when the node's one before was (0: never).
    pub(super) fn note_heard(&self, session: Session, now: Mono) -> Option<u64> {
        let peer = self.peers.get(&session.node)?;
        peer.incarnation.store(session.incarnation.0, Release);
        Some(peer.heard.swap(now.0, Release))
    }

    pub(super) fn tick(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

fn read(cell: &AtomicU64) -> Option<Mono> {
    match cell.load(Acquire) {
        0 => None,
        at => Some(Mono(at)),
    }
}

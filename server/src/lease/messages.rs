//! What the lease thread and the rest of the daemon say to each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::effects::Again;
use buoy_core::lease::holder::HolderView;
use buoy_core::{Epoch, NodeId, Session, VipName};
use buoy_fence::gate::Gate;
use tokio::sync::oneshot;

/// What the lease thread asks of the rest of the daemon. Of the `Up` and the `Down`s of a VIP and epoch each is under
/// way once at most, so the number of VIPs bounds the queue.
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
    /// A quorum grants the VIP, and the gate is shut: it is withheld ([`LeaseIn::Withhold`]).
    Granted {
        /// Which VIP.
        vip: VipName,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// The gate is shut: remove the addresses, then say [`LeaseIn::Lowered`]. Said again where addresses were kept
    /// that nobody claims: then none may be.
    Down {
        /// Which VIP.
        vip: VipName,
        /// Which epoch ended.
        epoch: Epoch,
        /// What to remove.
        addresses: Vec<IpAddr>,
        /// Whether this node may have the VIP again: what the newer epoch has unchanged can stay behind the gate.
        again: Again,
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
    /// This node cannot hold the VIP, and a new epoch would not change that: the others must know.
    Unable {
        /// Which VIP.
        vip: VipName,
        /// Why.
        reason: String,
    },
    /// Promises longer than ever before are asked for: write this down, then say
    /// [`LeaseIn::MaxRaised`].
    RaiseMax(Duration),
    /// No promise is longer than this any more: write this down after all that was asked for before, then
    /// say [`LeaseIn::MaxLowered`].
    LowerMax(Duration),
    /// Everything that was asked for before [`LeaseIn::Ended`] of this turn has been said.
    Ended(u64),
    /// A peer runs a new daemon: it lost what it knew of us.
    PeerRestarted(NodeId),
}

/// What the rest of the daemon tells the lease thread.
#[derive(Debug)]
pub enum LeaseIn {
    /// The applied state assigns this to us.
    Applied(HolderView),
    /// The view before this ended epochs: to be passed on behind all that was asked for until then, so that
    /// nothing of theirs comes after it that was not on its way up or down already.
    Ended(u64),
    /// The addresses of a VIP that went down are gone, but for those that are kept.
    Lowered {
        /// Which VIP.
        vip: VipName,
        /// Which epoch.
        epoch: Epoch,
        /// Still there, behind the shut gate, for the newer epoch that is applied here.
        kept: Vec<IpAddr>,
    },
    /// These are not to be opened yet when they are granted, though their leases are renewed. Said before the view
    /// that assigns them.
    Withhold(Vec<(VipName, Epoch)>),
    /// A VIP is not withheld any more.
    LetUp {
        /// Which VIP.
        vip: VipName,
        /// Under which epoch.
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
    /// The disk is done with the last [`LeaseOut::LowerMax`], whatever came of it.
    MaxLowered,
    /// Addresses that the gate must know (all VIPs of the cluster).
    Manage(Vec<IpAddr>),
    /// Go down on everything.
    Stop,
    /// Show that this thread runs ([`LeaseShared::looked`](super::LeaseShared::looked)).
    Look,
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

//! Tells neighbours where active VIPs are, and hears when somebody else claims to have one.

mod actor;
mod frames;
mod listen;
mod pace;
mod schedule;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use crate::addr::LeaseCheck;

pub use frames::{ARP_FRAME, ArpForm, NA_FRAME, gratuitous_arp, unsolicited_na};
pub use pace::{Bursts, Pace};
pub use schedule::{
    BURST, CONFLICT_GAP, CONFLICT_QUIET, Effect, Event, FIRST_FRAMES_PER_SECOND, FRAMES_PER_SECOND,
    OFFSETS, Part, REFRESH, Schedule, frames,
};

/// Events that wait for the server at most; more of them are dropped, and counted all the same.
pub const EVENT_QUEUE: usize = 256;
/// Orders that may wait for the announcer.
const ORDER_QUEUE: usize = 256;

/// An address to be announced, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The address.
    pub ip: IpAddr,
    /// Index of the interface that carries it.
    pub ifindex: u32,
    /// Name of that interface.
    pub interface: String,
    /// Hardware address at which neighbours find it.
    pub mac: [u8; 6],
    /// How often it is announced.
    pub pace: Pace,
}

/// Why neighbours may have been told otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// Another router was master until now.
    Takeover,
    /// A router of lower priority took itself for master.
    LowerPriority,
}

/// What the server should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnnounceEvent {
    /// Somebody else claims to have an address that is active here. It is announced again; told at
    /// most once a second for each address.
    Conflict {
        /// The address.
        ip: IpAddr,
        /// The hardware address that claims it.
        mac: [u8; 6],
        /// Interface on which it was heard.
        ifindex: u32,
    },
    /// An address cannot be announced; told once until it can.
    Failed {
        /// The address.
        ip: IpAddr,
        /// Name of the interface.
        interface: String,
        /// What the kernel says.
        error: String,
    },
    /// Conflicts on an interface cannot be heard; announcements are sent all the same.
    Deaf {
        /// Name of the interface.
        interface: String,
        /// What the kernel says.
        error: String,
    },
}

/// What was done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Frames sent.
    pub sent: u64,
    /// Frames that the packet gate stopped (or, rarely, a full queue): never sent again.
    pub fenced: u64,
    /// Announcements left out because the lease was not live at that moment.
    pub withheld: u64,
    /// Frames that the interface refused.
    pub failed: u64,
    /// Conflicts heard.
    pub conflicts: u64,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    fenced: AtomicU64,
    withheld: AtomicU64,
    failed: AtomicU64,
    conflicts: AtomicU64,
}

/// What is announced now. The lock is held while an announcement is sent, so that none leaves after
/// [`Announcer::down`] has returned.
#[derive(Default)]
struct Targets(RwLock<BTreeMap<IpAddr, Target>>);

impl Targets {
    /// Hardware address and interface of an address.
    fn place(&self, ip: IpAddr) -> Option<([u8; 6], u32)> {
        self.with(ip, |target| (target.mac, target.ifindex))
    }

    fn with<T>(&self, ip: IpAddr, f: impl FnOnce(&Target) -> T) -> Option<T> {
        let targets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        targets.get(&ip).map(f)
    }

    fn change<T>(&self, f: impl FnOnce(&mut BTreeMap<IpAddr, Target>) -> T) -> T {
        f(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

enum Order {
    Up(Vec<IpAddr>),
    LowerPriority(Vec<IpAddr>),
    Down(Vec<IpAddr>),
}

/// Handle to the announcer: a thread of its own, because the kernel may hold up whoever closes packet sockets. It ends
/// with the last handle.
#[derive(Clone)]
pub struct Announcer {
    targets: Arc<Targets>,
    counters: Arc<Counters>,
    orders: mpsc::Sender<Order>,
}

impl Announcer {
    /// Starts the announcer in the network namespace of the calling thread. `live` is asked at the very moment of
    /// sending.
    ///
    /// # Errors
    /// When the kernel gives no thread or netlink socket.
    pub fn start(live: LeaseCheck) -> io::Result<(Announcer, mpsc::Receiver<AnnounceEvent>)> {
        let targets = Arc::new(Targets::default());
        let counters = Arc::new(Counters::default());
        let (orders, taken) = mpsc::channel(ORDER_QUEUE);
        let (events, told) = mpsc::channel(EVENT_QUEUE);
        let actor = actor::Actor::open(
            Arc::clone(&targets),
            Arc::clone(&counters),
            live,
            taken,
            events,
        )?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        std::thread::Builder::new()
            .name("buoy-announce".to_owned())
            .spawn(move || runtime.block_on(actor.run()))?;
        Ok((
            Announcer {
                targets,
                counters,
                orders,
            },
            told,
        ))
    }

    /// Begins to announce addresses: they are active here now. For one that is announced already the
    /// series begins anew, with the place given now (after a link came up or changed its address).
    pub async fn up(&self, targets: Vec<Target>) {
        let ips = targets.iter().map(|target| target.ip).collect();
        self.targets
            .change(|all| all.extend(targets.into_iter().map(|t| (t.ip, t))));
        // Without an announcer there is nobody left to tell; the runtime is going down.
        let _ = self.orders.send(Order::Up(ips)).await;
    }

    /// Ends announcements. None of these addresses is announced after this has returned.
    pub fn down(&self, ips: &[IpAddr]) {
        self.targets
            .change(|all| ips.iter().for_each(|ip| drop(all.remove(ip))));
        // If the queue is full, the announcer finds them gone when their next announcement is due.
        let _ = self.orders.try_send(Order::Down(ips.to_vec()));
    }

    /// Announces these anew, where they are announced: neighbours may have been told otherwise meanwhile.
    pub fn repeat(&self, ips: &[IpAddr], doubt: Doubt) {
        let known = |ip: &&IpAddr| self.targets.place(**ip).is_some();
        let ips = ips.iter().filter(known).copied().collect();
        let order = match doubt {
            Doubt::Takeover => Order::Up(ips),
            Doubt::LowerPriority => Order::LowerPriority(ips),
        };
        // A full queue means that much is announced anyhow.
        let _ = self.orders.try_send(order);
    }

    /// Announces everything on an interface anew, from hardware address `mac`: neighbours or switches
    /// may have forgotten it. To be called on `LinkUp` and `LinkMacChanged`.
    pub async fn announce_again(&self, ifindex: u32, mac: [u8; 6]) {
        let ips = self.targets.change(|all| {
            let here = all.values_mut().filter(|target| target.ifindex == ifindex);
            let moved = here.map(|target| {
                target.mac = mac;
                target.ip
            });
            moved.collect()
        });
        let _ = self.orders.send(Order::Up(ips)).await;
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.counters.sent),
            fenced: read(&self.counters.fenced),
            withheld: read(&self.counters.withheld),
            failed: read(&self.counters.failed),
            conflicts: read(&self.counters.conflicts),
        }
    }
}

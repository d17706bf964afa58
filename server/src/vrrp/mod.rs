//! The VRRP face: what this node says and hears for VIPs that have one (docs/vrrp.md).
//!
//! Every member listens for every router; the one that holds the VIP advertises, from a thread of its own, and asks
//! the kernel's deadline at each packet. What is heard of routers outside goes to the leader in this node's report;
//! whether the group yields is decided there.

mod actor;
mod book;
mod plan;
mod planner;
mod port;
mod router;
mod sockets;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use buoy_core::health::Hearing;
use buoy_core::lease::holder::HolderView;
use buoy_core::spec::NodeSpec;
use buoy_core::state::State;
use buoy_core::{Epoch, VipName};
use buoy_fence::addr::LeaseCheck;
use buoy_fence::announce::Announcer;
use buoy_fence::link::Links;
use buoy_storage::StateReader;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::health::HealthKeeper;
use crate::holds::Holds;
use crate::reporter::Reporter;
use crate::tasks::{Tasks, run_forever};

pub use book::RouterView;

type Key = (VipName, Epoch);

/// Tells the VRRP thread what happens to VIPs; clones share it. The thread ends with the last one.
#[derive(Clone)]
pub struct Faces {
    shared: Arc<Shared>,
    questions: mpsc::UnboundedSender<oneshot::Sender<Vec<RouterView>>>,
}

/// What the thread and the rest of the daemon both see.
#[derive(Default)]
struct Shared {
    /// VIPs that are up here. Locked while an advertisement is sent, so that none leaves after [`Faces::down`].
    up: RwLock<BTreeMap<VipName, Epoch>>,
    /// What is heard of routers outside.
    hearing: Mutex<BTreeMap<VipName, Hearing>>,
    /// VIPs assigned here that wait until nobody outside can be master.
    waiting: Mutex<BTreeMap<VipName, Epoch>>,
    /// VIPs that this node cannot speak for.
    problems: Mutex<BTreeMap<VipName, String>>,
    stopping: AtomicBool,
    /// The interfaces are to be looked at anew.
    look: Arc<Notify>,
    wake: Notify,
}

impl Shared {
    fn up(&self) -> RwLockReadGuard<'_, BTreeMap<VipName, Epoch>> {
        self.up.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread works with.
pub struct Setup {
    /// This node.
    pub me: NodeSpec,
    /// The applied state.
    pub reader: StateReader,
    /// May an address be used at this instant?
    pub live: LeaseCheck,
    /// Tells the neighbours again.
    pub announcer: Announcer,
    /// Tells the leader.
    pub reporter: Reporter,
    /// What other members say.
    pub health: Arc<HealthKeeper>,
    /// Lets VIPs up that waited.
    pub holds: Holds,
    /// Woken when what this node cannot speak for has changed.
    pub problems_changed: Arc<Notify>,
}

impl Faces {
    /// Starts the thread in the network namespace of the calling one.
    ///
    /// # Errors
    /// The kernel gives no thread or netlink socket.
    pub fn start(setup: Setup, tasks: &mut Tasks) -> io::Result<Faces> {
        let shared = Arc::new(Shared::default());
        let (questions, asked) = mpsc::unbounded_channel();
        let (plans, planned) = watch::channel(Arc::default());
        let follow = planner::follow(
            setup.me.clone(),
            setup.reader.clone(),
            (Links::open()?, shared.look.clone()),
            plans,
        );
        run_forever(tasks, "the plan of VRRP routers", follow);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let actor = actor::Actor::new(setup, shared.clone(), planned, asked);
        std::thread::Builder::new()
            .name("buoy-vrrp".to_owned())
            .spawn(move || {
                if let Err(e) = crate::sys::realtime(crate::sys::VRRP_PRIORITY) {
                    tracing::debug!("VRRP runs without realtime scheduling: {e}");
                }
                runtime.block_on(actor.run());
            })?;
        Ok(Faces { shared, questions })
    }

    /// An interface was made for a virtual MAC, or removed.
    pub fn look(&self) {
        self.shared.look.notify_one();
    }

    /// These are up here, and announced.
    pub fn up(&self, vips: &[Key]) {
        self.change(|up| up.extend(vips.iter().cloned()));
    }

    /// These are on their way down. None of them is advertised after this has returned, but that the group gives it up.
    pub fn down(&self, vips: &[Key]) {
        self.change(|up| {
            for (vip, epoch) in vips {
                // Its next epoch may be up already.
                if up.get(vip) == Some(epoch) {
                    up.remove(vip);
                }
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<VipName, Epoch>)) {
        change(
            &mut self
                .shared
                .up
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.shared.wake.notify_one();
    }

    /// The state assigns these to this node. Returns those that must not come up yet, as a router outside may be
    /// master: for [`Faces::wait`] when they are held back.
    pub fn assigned(&self, state: &State, view: &HolderView) -> Vec<Key> {
        let mut waiting = lock(&self.shared.waiting);
        let hearing = lock(&self.shared.hearing);
        let mine: BTreeMap<VipName, Epoch> = view
            .assignments
            .iter()
            .map(|w| (w.vip.clone(), w.epoch))
            .collect();
        waiting.retain(|vip, epoch| mine.get(vip) == Some(epoch));
        let up = self.shared.up();
        let mut must_wait = Vec::new();
        for (vip, epoch) in mine {
            let faced = state.vips.get(&vip).is_some_and(|v| v.spec.vrrp.is_some());
            // One that is up here is advertised: a new epoch of it interrupts nothing.
            let clear = hearing.get(&vip) == Some(&Hearing::Clear) || up.contains_key(&vip);
            if faced && !clear && !waiting.contains_key(&vip) {
                must_wait.push((vip, epoch));
            }
        }
        must_wait
    }

    /// The lease thread was told to hold these back: they are let up as soon as no router outside can be master.
    pub fn wait(&self, vips: Vec<Key>) {
        lock(&self.shared.waiting).extend(vips);
        self.shared.wake.notify_one();
    }

    /// The daemon stops: what is still assigned here when it goes down is given up by the group.
    pub fn stopping(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// VIPs that this node cannot hold because it cannot speak for them, and why.
    pub fn problems(&self) -> BTreeMap<VipName, String> {
        lock(&self.shared.problems).clone()
    }

    /// What each router does and hears, in order of VIP and family; empty when the daemon stops.
    pub async fn view(&self) -> Vec<RouterView> {
        let (answer, answered) = oneshot::channel();
        if self.questions.send(answer).is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }
}

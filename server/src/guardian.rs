//! Keeps the packet gate where VIPs may be, and says which VIPs this node cannot hold.
//!
//! A VIP's interface must carry the gate before the VIP may come here; an interface that loses it and
//! cannot get it back loses its VIPs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use buoy_core::spec::{NodeSpec, Role};
use buoy_core::state::State;
use buoy_core::{Mono, VipName};
use buoy_fence::clock::boottime;
use buoy_fence::gate::{Gate, GateError, Sentry};
use buoy_fence::link::{Links, Snapshot};
use buoy_storage::StateReader;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot};
use tracing::{error, info, warn};

use crate::faults::{Gates, LinkHistory, vip_faults};
use crate::gated::Gated;
use crate::lease::{GateJob, LeaseIn, LeaseShared, Phase};
use crate::reporter::Reporter;

/// The gate is verified and the interfaces are looked at this often, whatever the kernel announced.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A VIP whose address the kernel refused stays away from this node for so long.
const COOL_DOWN: Duration = Duration::from_secs(5);
/// Name of the interface that local clients of a VIP come through.
pub const LOOPBACK: &str = "lo";

/// What the guardian works with.
pub struct Guardian {
    /// This node.
    pub me: NodeSpec,
    /// The applied state.
    pub reader: StateReader,
    /// Tells the cluster.
    pub reporter: Reporter,
    /// What is held here.
    pub shared: Arc<LeaseShared>,
    /// Where the gate is.
    pub lease: UnboundedSender<LeaseIn>,
    /// The kernel's interfaces.
    pub links: Links,
    /// Something about interfaces or filters changed.
    pub kernel_changed: Arc<Notify>,
    /// Watches the gate; taken while it does.
    pub sentry: Option<Box<dyn Sentry>>,
    /// Interfaces that carry the gate.
    pub gated: Gated,
    /// Interfaces that should carry the gate and do not, and why.
    pub broken: BTreeMap<String, String>,
    /// VIPs whose addresses the kernel refused.
    pub refusals: Refusals,
    /// Which interfaces went down lately.
    pub links_lately: LinkHistory,
}

/// VIPs whose addresses the kernel refused a short while ago: they do not come back at once, or they
/// would go round in circles.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<VipName, (String, Mono)>>>);

impl Refusals {
    /// The kernel refused an address of `vip`.
    pub fn note(&self, vip: &VipName, why: String, now: Mono) {
        self.map().insert(vip.clone(), (why, now));
    }

    fn recent(&self, now: Mono) -> BTreeMap<VipName, String> {
        let mut map = self.map();
        map.retain(|_, (_, at)| now.since(*at) < COOL_DOWN);
        map.iter()
            .map(|(vip, (why, _))| (vip.clone(), why.clone()))
            .collect()
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<VipName, (String, Mono)>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Guardian {
    /// Runs for ever.
    pub async fn run(mut self) {
        let mut applied = self.reader.subscribe();
        let mut held = self.shared.changed.subscribe();
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut verify = true;
        loop {
            applied.borrow_and_update();
            held.borrow_and_update();
            self.look(verify).await;
            verify = tokio::select! {
                r = applied.changed() => if r.is_err() { return } else { false },
                r = held.changed() => if r.is_err() { return } else { false },
                () = self.kernel_changed.notified() => true,
                _ = every.tick() => true,
                () = until(self.links_lately.next_deadline()) => false,
            };
        }
    }

    /// `verify`: also read back whether the gate is still where it was put. That takes the lease thread
    /// a few netlink round trips, so it is not done on each change of a lease.
    async fn look(&mut self, verify: bool) {
        let snapshot = match tokio::task::block_in_place(|| self.links.snapshot()) {
            Ok(snapshot) => snapshot,
            Err(e) => {
                // Without sight of the interfaces nothing is said about them; the next look tries again.
                error!("cannot list the interfaces: {e}");
                return;
            }
        };
        let now = boottime();
        self.links_lately.seen(&snapshot, now);
        let gates = self.guard(&snapshot, verify).await;
        let mut faults = match self.me.role {
            Role::Witness => BTreeMap::new(),
            Role::Member => vip_faults(
                &self.reader.read(),
                &snapshot,
                &Gates {
                    gated: &self.gated,
                    broken: &gates,
                },
                &self.links_lately,
                now,
            ),
        };
        for (vip, fault) in self.refusals.recent(now) {
            faults.entry(vip).or_insert(fault);
        }
        self.give_up(&faults);
        self.report(faults);
    }

    /// Sees to it that the gate is on every interface of a VIP that exists here; returns, by interface
    /// name, why one has none.
    async fn guard(&mut self, snapshot: &Snapshot, verify: bool) -> BTreeMap<String, String> {
        let names = interfaces(&self.reader.read());
        self.gated.keep(&snapshot.links);
        self.broken.retain(|name, _| names.contains(name));
        for name in names {
            let Some(index) = snapshot.link(&name).map(|l| l.index) else {
                continue;
            };
            let known = self.gated.contains(index);
            if known && !verify {
                continue;
            }
            let ensured = match known {
                true => self.watched(index).await,
                false => on_gate(self.lease.clone(), move |gate| install(gate, index)).await,
            };
            match ensured {
                Some(Ok(Ensured::There)) => {}
                Some(Ok(Ensured::Attached)) => info!(interface = %name, "packet gate attached"),
                Some(Ok(Ensured::Repaired)) => {
                    warn!(interface = %name, "somebody removed the packet gate: put back");
                }
                Some(Err(e)) => {
                    error!(interface = %name, "no packet gate: {e}");
                    self.gated.remove(index);
                    self.broken.insert(name, no_gate(&e));
                    continue;
                }
                None => return self.broken.clone(),
            }
            self.gated.insert(index);
            self.broken.remove(&name);
        }
        self.broken.clone()
    }

    /// Looks at a gate that was attached before, and repairs it: netlink may wait for the kernel's locks
    /// for longer than a lease lasts, so this is not done on the lease thread.
    async fn watched(&mut self, index: u32) -> Option<Result<Ensured, String>> {
        let mut sentry = self.sentry.take()?;
        let look = tokio::task::spawn_blocking(move || {
            let ensured = watch(sentry.as_mut(), index);
            (sentry, ensured)
        });
        let (sentry, ensured) = look.await.ok()?;
        self.sentry = Some(sentry);
        Some(ensured)
    }

    /// VIPs that are up here and must not be.
    fn give_up(&self, faults: &BTreeMap<VipName, String>) {
        for ((vip, epoch), held) in self.shared.held.load().iter() {
            if let (Some(reason), Phase::Active) = (faults.get(vip), held.phase) {
                let (vip, epoch, reason) = (vip.clone(), *epoch, reason.clone());
                // The receiver is gone only when the daemon stops, which brings everything down.
                let _ = self.lease.send(LeaseIn::GiveUp { vip, epoch, reason });
            }
        }
    }

    fn report(&self, faults: BTreeMap<VipName, String>) {
        let active = self
            .shared
            .held
            .load()
            .iter()
            .filter(|(_, h)| h.phase == Phase::Active)
            .map(|((vip, epoch), _)| (vip.clone(), *epoch))
            .collect();
        let state = self.reader.read();
        self.reporter.update(|r| {
            r.vip_faults = faults;
            r.active = active;
            r.given_up.retain(|vip, (epoch, _)| {
                let assignment = state.vips.get(vip).and_then(|v| v.assignment.as_ref());
                assignment.is_some_and(|a| a.epoch <= *epoch)
            });
        });
    }
}

/// Waits until then; for ever if there is no such time.
async fn until(at: Option<Mono>) {
    match at {
        Some(at) => tokio::time::sleep(at.since(boottime())).await,
        None => std::future::pending().await,
    }
}

/// Runs `job` on the lease thread, which owns the gate; `None` when that is gone. Only an interface that
/// the gate has never been on needs it.
pub(crate) async fn on_gate<T: Send + 'static>(
    lease: UnboundedSender<LeaseIn>,
    job: impl FnOnce(&mut dyn Gate) -> T + Send + 'static,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let job = GateJob(Box::new(move |gate| {
        // A guardian that no longer waits is being stopped.
        let _ = reply.send(job(gate));
    }));
    lease.send(LeaseIn::Gate(job)).ok()?;
    answer.await.ok()
}

/// What was done about the gate on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ensured {
    /// It is in force.
    There,
    /// It was put there for the first time.
    Attached,
    /// It had been removed and is back.
    Repaired,
}

/// Why an interface can hold no VIP, in words.
pub fn no_gate(why: &str) -> String {
    format!("no packet gate on its interface: {why}")
}

/// Puts the gate on an interface for the first time.
///
/// # Errors
/// It is not in force, in words.
pub fn install(gate: &mut dyn Gate, index: u32) -> Result<Ensured, String> {
    gate.attach(index).map_err(|e| e.to_string())?;
    in_force(gate.verify(index)).map(|()| Ensured::Attached)
}

/// Makes sure that the gate is still in force on an interface.
fn watch(sentry: &mut dyn Sentry, index: u32) -> Result<Ensured, String> {
    if sentry.verify(index).map_err(|e| e.to_string())? {
        return Ok(Ensured::There);
    }
    sentry.repair(index).map_err(|e| e.to_string())?;
    in_force(sentry.verify(index)).map(|()| Ensured::Repaired)
}

fn in_force(verified: Result<bool, GateError>) -> Result<(), String> {
    match verified {
        Ok(true) => Ok(()),
        Ok(false) => Err("it is not in force after it was put there".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// Every interface that a VIP may be on, and the loopback interface.
pub fn interfaces(state: &State) -> BTreeSet<String> {
    let names = state.vips.values().map(|v| v.spec.interface.clone());
    names.chain([LOOPBACK.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_forgotten_after_a_while() {
        let refusals = Refusals::default();
        let vip: VipName = "web".parse().unwrap();
        refusals.note(&vip, "no".to_owned(), Mono::from_millis(10));
        assert_eq!(refusals.recent(Mono::from_millis(4_000)).len(), 1);
        assert!(refusals.recent(Mono::from_millis(6_000)).is_empty());
    }
}

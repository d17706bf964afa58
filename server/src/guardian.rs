//! Says which VIPs this node cannot hold, and gives up those that are up.
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
use buoy_fence::link::Links;
use buoy_storage::StateReader;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tracing::error;

use crate::faults::{Gates, LinkHistory, vip_faults};
use crate::gatekeeper::Gatekeeper;
use crate::lease::{LeaseIn, LeaseShared, Phase};
use crate::reporter::Reporter;
use crate::vmac::{self, Vmacs};
use crate::vrrp::Faces;

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
    /// Shuts the gate over what is given up.
    pub lease: UnboundedSender<LeaseIn>,
    /// The kernel's interfaces.
    pub links: Links,
    /// Something about interfaces or filters changed.
    pub kernel_changed: Arc<Notify>,
    /// Puts the gate on interfaces, and keeps it there.
    pub gatekeeper: Gatekeeper,
    /// VIPs whose addresses the kernel refused.
    pub refusals: Refusals,
    /// Which interfaces went down lately.
    pub links_lately: LinkHistory,
    /// VIPs that this node cannot speak VRRP for.
    pub faces: Faces,
    /// Interfaces for virtual MACs.
    pub vmacs: Vmacs,
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

    /// `verify`: also read back whether the gate is still where it was put. That takes a few netlink round trips, so it is
    /// not done on each change of a lease.
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
        let (names, virtual_links) = {
            let state = self.reader.read();
            (interfaces(&state), vmac::wanted(&self.me, &state))
        };
        let gated = self.gatekeeper.gated.clone();
        let (vmacs, links) = (&mut self.vmacs, &self.links);
        let snapshot = match tokio::task::block_in_place(|| {
            vmacs.settle(&virtual_links, snapshot, links, &gated)
        }) {
            Ok((snapshot, changed)) => {
                if changed {
                    self.faces.look();
                }
                snapshot
            }
            Err(e) => {
                error!("cannot list the interfaces: {e}");
                return;
            }
        };
        let gates = self.gatekeeper.guard(names, &snapshot, verify, now).await;
        let mut faults = match self.me.role {
            Role::Witness => BTreeMap::new(),
            Role::Member => vip_faults(
                &self.reader.read(),
                &snapshot,
                &Gates {
                    gated: &self.gatekeeper.gated,
                    broken: &gates,
                    vmacs: &self.vmacs.faults,
                },
                &self.links_lately,
                now,
            ),
        };
        for (vip, fault) in self.refusals.recent(now) {
            faults.entry(vip).or_insert(fault);
        }
        for (vip, problem) in self.faces.problems() {
            faults.entry(vip).or_insert(problem);
        }
        self.give_up(&faults);
        self.give_up(&self.torn());
        self.report(faults);
    }

    /// VIPs whose interface somebody removed under them. It is there again, but its addresses were gone, and nobody was
    /// told of them anew: they come back under a new epoch.
    fn torn(&self) -> BTreeMap<VipName, String> {
        if self.vmacs.remade.is_empty() {
            return BTreeMap::new();
        }
        let state = self.reader.read();
        let torn = state.vips.iter().filter_map(|(name, vip)| {
            let mut links = vip.spec.virtual_links().into_iter();
            let link = links.find(|link| self.vmacs.remade.contains(&link.name))?;
            let why = format!("its interface {} was removed, and is made anew", link.name);
            Some((name.clone(), why))
        });
        torn.collect()
    }

    /// VIPs that are up here, or of which something is left here, and must not be.
    fn give_up(&self, faults: &BTreeMap<VipName, String>) {
        for ((vip, epoch), held) in self.shared.held.load().iter() {
            let here = held.phase == Phase::Active || held.inherits;
            if let Some(reason) = faults.get(vip).filter(|_| here) {
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
pub(crate) async fn until(at: Option<Mono>) {
    match at {
        Some(at) => tokio::time::sleep(at.since(boottime())).await,
        None => std::future::pending().await,
    }
}

/// Every interface that a VIP may be on, and the loopback interface.
pub fn interfaces(state: &State) -> BTreeSet<String> {
    let names = state.vips.values().flat_map(|v| v.spec.interfaces());
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

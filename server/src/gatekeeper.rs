//! Puts the packet gate on the interfaces that VIPs name, and keeps it there.
//!
//! The lease thread owns the gate's tables and nothing more of it here: whatever goes through netlink may wait for the
//! kernel's locks for longer than a lease lasts, so it is done on threads for such work. The lease thread is asked only
//! where a predecessor's addresses must be fenced first, which is a store for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use buoy_core::Mono;
use buoy_fence::gate::{Gate, GateError, Sentry};
use buoy_fence::link::Snapshot;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::attempts::Attempts;
use crate::gated::Gated;
use crate::lease::{GateJob, LeaseIn};

/// Keeps the gate on interfaces.
pub struct Gatekeeper {
    sentry: Arc<Mutex<Box<dyn Sentry>>>,
    /// Interfaces that carry the gate.
    pub gated: Gated,
    /// Interfaces that should carry it and do not, and why, by name.
    broken: BTreeMap<String, String>,
    /// When those are tried again.
    pub attempts: Attempts,
    lease: UnboundedSender<LeaseIn>,
}

impl Gatekeeper {
    /// `lease`: where the gate is. `broken`: what refused the gate at the start.
    pub fn new(
        sentry: Box<dyn Sentry>,
        gated: Gated,
        broken: BTreeMap<String, String>,
        lease: UnboundedSender<LeaseIn>,
    ) -> Self {
        Self {
            sentry: Arc::new(Mutex::new(sentry)),
            gated,
            broken,
            attempts: Attempts::default(),
            lease,
        }
    }

    /// Sees to it that the gate is on every interface of `names` that exists here; returns, by interface name, why one
    /// has none. `verify`: also read back whether it still is where it was put.
    pub async fn guard(
        &mut self,
        names: BTreeSet<String>,
        snapshot: &Snapshot,
        verify: bool,
        now: Mono,
    ) -> BTreeMap<String, String> {
        self.gated.keep(&snapshot.links);
        self.attempts
            .keep(|index| snapshot.links.contains_key(&index));
        self.broken.retain(|name, _| names.contains(name));
        for name in names {
            let Some(index) = snapshot.link(&name).map(|l| l.index) else {
                continue;
            };
            let known = self.gated.contains(index);
            if known && !verify || !known && !self.attempts.due(index, now) {
                continue;
            }
            let ensured = match known {
                true => self.beside(move |sentry| watch(sentry, index)).await,
                false => match self.attach(index).await {
                    Some(ensured) => ensured,
                    // The lease thread is gone; that ends the daemon.
                    None => break,
                },
            };
            match ensured {
                Ok(Ensured::There) => {}
                Ok(Ensured::Attached) => info!(interface = %name, "packet gate attached"),
                Ok(Ensured::Repaired) => {
                    warn!(interface = %name, "somebody removed the packet gate: put back");
                }
                Err(e) => {
                    self.gated.remove(index);
                    if self.attempts.failed(index, now, &e) {
                        error!(interface = %name, "no packet gate: {e}; tried again, less and less often");
                    }
                    self.broken.insert(name, no_gate(&e));
                    continue;
                }
            }
            self.gated.insert(index);
            self.attempts.succeeded(index);
            self.broken.remove(&name);
        }
        self.broken.clone()
    }

    /// Puts the gate on an interface for the first time: what a predecessor fenced there is fenced by this gate before
    /// that takes the predecessor's place. `None` when the lease thread is gone.
    async fn attach(&self, index: u32) -> Option<Result<Ensured, String>> {
        let inheritance = self.beside(move |sentry| sentry.inheritance(index)).await;
        let fenced = match inheritance {
            Ok(addresses) if addresses.is_empty() => Ok(()),
            Ok(addresses) => on_gate(&self.lease, move |gate| gate.inherit(&addresses)).await?,
            Err(e) => Err(e),
        };
        if let Err(e) = fenced {
            return Some(Err(e.to_string()));
        }
        let attached = self.beside(move |sentry| {
            sentry.attach(index).map_err(|e| e.to_string())?;
            in_force(sentry.verify(index)).map(|()| Ensured::Attached)
        });
        Some(attached.await)
    }

    /// Runs `job` beside the threads that must not wait.
    ///
    /// # Panics
    /// When `job` does: a gate that nobody watches must end the daemon.
    async fn beside<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Sentry) -> T + Send + 'static,
    ) -> T {
        let sentry = self.sentry.clone();
        let done = tokio::task::spawn_blocking(move || {
            // After a panic nobody comes here again: it ends the daemon.
            let mut sentry = sentry.lock().unwrap_or_else(|e| e.into_inner());
            job(sentry.as_mut())
        });
        match done.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(result) => result,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, and this task with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

/// Runs `job` on the lease thread, which owns the gate; `None` when that is gone.
pub async fn on_gate<T: Send + 'static>(
    lease: &UnboundedSender<LeaseIn>,
    job: impl FnOnce(&mut dyn Gate) -> T + Send + 'static,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let job = GateJob(Box::new(move |gate| {
        // Who no longer waits is being stopped.
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

/// Puts the gate on an interface before there is a lease thread.
///
/// # Errors
/// It is not in force, in words.
pub fn install(gate: &mut dyn Gate, index: u32) -> Result<(), String> {
    gate.attach(index).map_err(|e| e.to_string())?;
    in_force(gate.verify(index))
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::thread::ThreadId;

    use buoy_fence::link::Link;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// What a sentry does, and what it did; shared with the test.
    #[derive(Default)]
    struct Deeds {
        refuses: bool,
        panics: bool,
        inheritance: Vec<IpAddr>,
        attached: bool,
        attempts: Vec<ThreadId>,
    }

    struct Moody(Arc<Mutex<Deeds>>);

    impl Sentry for Moody {
        fn verify(&mut self, _: u32) -> Result<bool, GateError> {
            let deeds = self.0.lock().unwrap();
            if deeds.panics {
                panic!("the sentry's end");
            }
            Ok(deeds.attached)
        }
        fn repair(&mut self, ifindex: u32) -> Result<(), GateError> {
            self.attach(ifindex)
        }
        fn inheritance(&mut self, _: u32) -> Result<Vec<IpAddr>, GateError> {
            Ok(self.0.lock().unwrap().inheritance.clone())
        }
        fn attach(&mut self, ifindex: u32) -> Result<(), GateError> {
            let mut deeds = self.0.lock().unwrap();
            deeds.attempts.push(std::thread::current().id());
            if deeds.refuses {
                return Err(GateError::NotAttached { ifindex });
            }
            deeds.attached = true;
            Ok(())
        }
    }

    fn keeper() -> (Gatekeeper, Arc<Mutex<Deeds>>, UnboundedReceiver<LeaseIn>) {
        let deeds = Arc::<Mutex<Deeds>>::default();
        let (lease, jobs) = unbounded_channel();
        let sentry = Box::new(Moody(deeds.clone()));
        let keeper = Gatekeeper::new(sentry, Gated::default(), BTreeMap::new(), lease);
        (keeper, deeds, jobs)
    }

    fn eth0() -> Snapshot {
        let link = Link {
            index: 2,
            name: "eth0".to_owned(),
            mac: None,
            up: true,
            carrier: true,
            mtu: 1_500,
            arphrd: 1,
            xdp: false,
        };
        Snapshot {
            links: BTreeMap::from([(2, link)]),
            addresses: Vec::new(),
        }
    }

    async fn guard(keeper: &mut Gatekeeper, ms: u64) -> BTreeMap<String, String> {
        let names = BTreeSet::from(["eth0".to_owned()]);
        let now = Mono::from_millis(ms);
        keeper.guard(names, &eth0(), true, now).await
    }

    #[tokio::test]
    async fn the_lease_thread_does_not_wait_for_an_interface_that_refuses_the_gate() {
        let (mut keeper, deeds, mut jobs) = keeper();
        deeds.lock().unwrap().refuses = true;
        for ms in [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000] {
            let broken = guard(&mut keeper, ms).await;
            assert!(broken["eth0"].contains("no packet gate"), "{broken:?}");
        }
        let attempts = deeds.lock().unwrap().attempts.clone();
        assert_eq!(attempts.len(), 3, "at 0, 1 and 3 s");
        assert!(attempts.iter().all(|id| *id != std::thread::current().id()));
        // Nothing was asked of the lease thread, which does not run here.
        assert!(jobs.try_recv().is_err());

        deeds.lock().unwrap().refuses = false;
        assert_eq!(guard(&mut keeper, 6_999).await.len(), 1);
        assert!(guard(&mut keeper, 7_000).await.is_empty());
        assert!(keeper.gated.contains(2));
        // One that was removed and refuses again is tried again after a second.
        {
            let mut deeds = deeds.lock().unwrap();
            (deeds.attached, deeds.refuses) = (false, true);
        }
        assert_eq!(guard(&mut keeper, 8_000).await.len(), 1);
        assert!(!keeper.gated.contains(2));
        deeds.lock().unwrap().refuses = false;
        assert!(guard(&mut keeper, 9_000).await.is_empty());
    }

    #[tokio::test]
    async fn what_a_predecessor_fenced_is_fenced_before_its_gate_is_replaced() {
        let (mut keeper, deeds, mut jobs) = keeper();
        deeds.lock().unwrap().inheritance = vec![[192, 0, 2, 1].into()];
        let asked = async {
            let Some(LeaseIn::Gate(job)) = jobs.recv().await else {
                panic!("something else was asked for");
            };
            assert!(deeds.lock().unwrap().attempts.is_empty());
            (job.0)(&mut buoy_fence::gate::UserspaceGate::new());
        };
        let (broken, ()) = tokio::join!(guard(&mut keeper, 0), asked);
        assert!(broken.is_empty() && keeper.gated.contains(2));
    }

    #[tokio::test]
    async fn the_end_of_the_watch_on_the_gate_is_the_end_of_the_daemon() {
        let (mut keeper, deeds, _jobs) = keeper();
        deeds.lock().unwrap().panics = true;
        let mut tasks = crate::tasks::Tasks::new();
        crate::tasks::run_forever(&mut tasks, "the guardian", async move {
            loop {
                guard(&mut keeper, 0).await;
            }
        });
        // What the daemon stops upon.
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), "the guardian");
    }
}

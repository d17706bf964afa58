//! Carries out what the lease thread decides: addresses come and go, and are announced while they are
//! here. The order of the steps of each VIP is decided by [`buoy_core::effects`].

mod edits;

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_core::effects::{Change, Effect, Event, Phase, Steps};
use buoy_core::health::UNFENCED;
use buoy_core::spec::VipSpec;
use buoy_core::spec::timing::Timing;
use buoy_core::{Epoch, Mono, VipName};
use buoy_fence::addr::{AddressError, AddressSpec, Addresses};
use buoy_fence::announce::{Announcer, Pace, Target};
use buoy_fence::clock::boottime;
use buoy_fence::fault_point;
use buoy_fence::link::{ARPHRD_LOOPBACK, Links};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, error, info, warn};

use crate::applied::Specs;
use crate::external::External;
use crate::gated::Gated;
use crate::guardian::{Refusals, until};
use crate::lease::{LeaseIn, LeaseOut};
use crate::longest::LongestPromise;
use crate::lowering::{self, Lowering};
use crate::reporter::Reporter;
use crate::vrrp::Faces;

/// Messages handled together at most: many VIPs of one crashed node come up in one go.
const BATCH: usize = 1_024;

/// What the carrier works with.
pub struct Carrier {
    /// This host's addresses.
    pub addresses: Addresses,
    /// Tells the neighbours.
    pub announcer: Announcer,
    /// Where interfaces are.
    pub links: Links,
    /// Interfaces that carry the packet gate.
    pub gated: Gated,
    /// How long an edit may take to be applied here rests on these.
    pub timing: Timing,
    /// What each epoch is.
    pub specs: Specs,
    /// Tells the cluster.
    pub reporter: Reporter,
    /// VIPs that the kernel refused.
    pub refusals: Refusals,
    /// Speaks VRRP for VIPs that have a face.
    pub faces: Faces,
    /// Fences silent nodes from outside; `None`: nothing is configured.
    pub external: Option<External>,
    /// Writes down what the voter may promise.
    pub longest: LongestPromise,
    /// The lease thread.
    pub lease: UnboundedSender<LeaseIn>,
}

type Key = (VipName, Epoch);

/// Steps of VIPs that are to be carried out, in order for each VIP.
type Due = Vec<(Key, Effect)>;

/// VIPs on their way up or down, or up.
struct Underway {
    steps: BTreeMap<Key, Steps>,
    /// VIPs of which it is not known yet what their next epoch keeps, and until when that may be waited for.
    undecided: BTreeMap<Key, Mono>,
    /// Takes VIPs whose addresses the kernel did not remove at once, when they have none left.
    late: UnboundedSender<Lowering>,
}

impl Underway {
    /// Something happened to a VIP; what follows from it is appended.
    fn handle(&mut self, key: &Key, addresses: &[IpAddr], event: Event, due: &mut Due) {
        let now = boottime();
        let steps = self.steps.entry(key.clone());
        let steps = steps.or_insert_with(|| Steps::new(now, addresses.to_vec()));
        let mut effects = Vec::new();
        steps.handle(now, event, &mut effects);
        if steps.phase() == Phase::Down {
            self.steps.remove(key);
        }
        due.extend(effects.into_iter().map(|effect| (key.clone(), effect)));
    }
}

impl Carrier {
    /// Runs until the lease thread is gone.
    pub async fn run(self, mut orders: UnboundedReceiver<LeaseOut>) {
        let mut batch = Vec::with_capacity(BATCH);
        let (late, mut gone) = unbounded_channel();
        let mut vips = Underway {
            steps: BTreeMap::new(),
            undecided: BTreeMap::new(),
            late,
        };
        let mut assigned = self.specs.assigned();
        loop {
            let patience = vips.undecided.values().min().copied();
            tokio::select! {
                biased;
                count = orders.recv_many(&mut batch, BATCH) => if count == 0 { return },
                Ok(()) = assigned.changed(), if patience.is_some() => {}
                () = until(patience), if patience.is_some() => {}
                Some(lowering) = gone.recv() => {
                    self.take_steps(&mut vips, &Event::Removed, &mut vec![lowering]).await;
                }
            }
            self.obey(&mut vips, batch.drain(..)).await;
            let now_assigned = assigned.borrow_and_update().clone();
            let due = self.decide(&mut vips, &now_assigned);
            self.carry_out_all(&mut vips, due).await;
        }
    }

    /// Runs of the same kind travel together; their order is kept.
    async fn obey(&self, vips: &mut Underway, orders: impl Iterator<Item = LeaseOut>) {
        let mut run: Vec<(Key, Vec<IpAddr>)> = Vec::new();
        let mut kind = Event::Opened;
        for order in orders {
            let (key, addresses, event) = match order {
                LeaseOut::Up {
                    vip,
                    epoch,
                    addresses,
                } => {
                    let key = (vip, epoch);
                    self.tell_external(|external| external.granted(&key));
                    (key, addresses, Event::Opened)
                }
                LeaseOut::Down {
                    vip,
                    epoch,
                    addresses,
                    again,
                    ..
                } => {
                    let key = (vip, epoch);
                    self.tell_external(|external| external.ended(&key));
                    (key, addresses, Event::Shut { again })
                }
                LeaseOut::Ended(turn) => {
                    // What was opened or shut before it is carried from now on.
                    self.take_steps(vips, &kind, &mut run).await;
                    self.specs
                        .forget_ended(turn, |key| vips.steps.contains_key(key));
                    continue;
                }
                other => {
                    self.other(other);
                    continue;
                }
            };
            if event != kind {
                self.take_steps(vips, &kind, &mut run).await;
                kind = event;
            }
            run.push((key, addresses));
        }
        self.take_steps(vips, &kind, &mut run).await;
    }

    /// The gates of these VIPs were opened or shut, or their addresses are gone at last: everything that follows.
    async fn take_steps(
        &self,
        vips: &mut Underway,
        event: &Event,
        run: &mut Vec<(Key, Vec<IpAddr>)>,
    ) {
        let mut due = Due::new();
        for (key, addresses) in run.drain(..) {
            vips.handle(&key, &addresses, event.clone(), &mut due);
        }
        self.carry_out_all(vips, due).await;
    }

    /// Carries out steps, and those that follow from them.
    async fn carry_out_all(&self, vips: &mut Underway, mut due: Due) {
        while !due.is_empty() {
            due = self.carry_out(vips, due).await;
        }
    }

    /// Carries out steps of many VIPs, each kind for all of them in one go; that keeps the order of the
    /// steps of one VIP. Returns the steps that follow.
    async fn carry_out(&self, vips: &mut Underway, due: Due) -> Due {
        let (mut add, mut announce, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        let (mut quiet, mut silent) = (Vec::new(), Vec::new());
        for (key, effect) in &due {
            match effect {
                Effect::Add(addresses) => add.push((key.clone(), addresses.clone())),
                Effect::Announce(_) => announce.push(key.clone()),
                Effect::StopAnnouncing(addresses) => {
                    fault_point!("down.silencing");
                    quiet.extend(addresses.iter().copied());
                    silent.push(key.clone());
                }
                Effect::Decide(again) => {
                    let Timing {
                        lease,
                        raft_heartbeat,
                        ..
                    } = self.timing;
                    let until = boottime() + again.patience(lease, raft_heartbeat);
                    vips.undecided.insert(key.clone(), until);
                }
                Effect::Remove(addresses) => remove.push((key.clone(), addresses.clone())),
                // Said below, after the kernel's part.
                Effect::GiveUp { .. } | Effect::Lowered { .. } | Effect::Notify(_) => {}
            }
        }
        let mut next = Due::new();
        self.announcer.down(&quiet);
        self.faces.down(&silent);
        for (key, addresses) in self.remove(remove, &vips.late).await {
            vips.handle(&key, &addresses, Event::Removed, &mut next);
        }
        for (key, addresses, failed) in self.add(add).await {
            vips.handle(&key, &addresses, Event::Added { failed }, &mut next);
        }
        self.announce(&announce).await;
        for (key, effect) in due {
            self.say_of(key, effect);
        }
        next
    }

    /// Adds the addresses of VIPs whose gate is open; says for each VIP which were not added, and why.
    async fn add(
        &self,
        vips: Vec<(Key, Vec<IpAddr>)>,
    ) -> Vec<(Key, Vec<IpAddr>, BTreeMap<IpAddr, String>)> {
        let mut specs: Vec<AddressSpec> = Vec::new();
        let mut done = Vec::new();
        let mut owners: Vec<usize> = Vec::new();
        let mut virtual_links = Vec::new();
        for (key, addresses) in vips {
            let mut failed = BTreeMap::new();
            let spec = self.specs.get(&key.0, key.1);
            virtual_links.push(spec.as_ref().is_some_and(|s| !s.virtual_links().is_empty()));
            match spec {
                Some(spec) => {
                    specs.extend(address_specs(&spec));
                    owners.resize(specs.len(), done.len());
                }
                None => {
                    let why = "its declaration is not known here any more";
                    failed.extend(addresses.iter().map(|ip| (*ip, why.to_owned())));
                }
            }
            done.push((key, addresses, failed));
        }
        if specs.is_empty() {
            return done;
        }
        let ips: Vec<IpAddr> = specs.iter().map(|s| s.ip).collect();
        fault_point!("up.adding");
        let results = self.addresses.add(specs).await;
        fault_point!("up.added");
        for ((owner, ip), result) in owners.into_iter().zip(ips).zip(results) {
            let ((vip, _), _, failed) = &mut done[owner];
            if let Err(e) = result {
                error!(%vip, "address {ip} was not added: {e}");
                // A gate that is on its way, or an interface of our own, is there for the next assignment: nothing to
                // wait out.
                let passing = matches!(e, AddressError::NoGate { .. })
                    || virtual_links[owner] && matches!(e, AddressError::NoInterface { .. });
                if failed.is_empty() && !passing {
                    self.refusals
                        .note(vip, format!("the kernel refused {ip}: {e}"), boottime());
                }
                failed.insert(ip, e.to_string());
            }
        }
        done
    }

    /// Tells the neighbours where the addresses are.
    async fn announce(&self, vips: &[Key]) {
        if vips.is_empty() {
            return;
        }
        let snapshot = match tokio::task::block_in_place(|| self.links.snapshot()) {
            Ok(snapshot) => snapshot,
            Err(e) => {
                error!(
                    "neighbours are not told of new addresses, the interfaces cannot be listed: {e}"
                );
                return;
            }
        };
        let mut targets = Vec::new();
        for spec in vips.iter().filter_map(|k| self.specs.get(&k.0, k.1)) {
            targets.extend(spec.addresses.iter().filter_map(|address| {
                let link = snapshot.link(&spec.carrier_of(address.ip))?;
                let mac = link.mac.filter(|_| link.arphrd != ARPHRD_LOOPBACK)?;
                Some(Target {
                    ip: address.ip,
                    ifindex: link.index,
                    interface: link.name.clone(),
                    mac,
                    pace: spec
                        .vrrp
                        .as_ref()
                        .map_or_else(Pace::default, |face| Pace::new(&face.garp, address.ip)),
                })
            }));
        }
        fault_point!("up.announcing");
        self.announcer.up(targets).await;
        self.faces.up(vips);
        fault_point!("up.announced");
    }

    /// Removes the addresses of VIPs whose gate is shut; those that have none left. The others are told of later.
    async fn remove(
        &self,
        vips: Vec<Lowering>,
        later: &UnboundedSender<Lowering>,
    ) -> Vec<Lowering> {
        let ips: Vec<IpAddr> = vips.iter().flat_map(|(_, a)| a.iter().copied()).collect();
        if ips.is_empty() {
            return vips;
        }
        fault_point!("down.quiet");
        let (gone, left) = lowering::sort(vips, self.addresses.remove(&ips).await);
        fault_point!("down.removed");
        if !left.is_empty() {
            let addresses = self.addresses.clone();
            let remove = move |ips: Vec<IpAddr>| addresses.remove(&ips);
            tokio::spawn(lowering::until_gone(left, remove, later.clone()));
        }
        gone
    }

    /// What is only said, to the lease thread or to people.
    fn say_of(&self, (vip, epoch): Key, effect: Effect) {
        match effect {
            Effect::GiveUp { reason } => self.say(LeaseIn::GiveUp { vip, epoch, reason }),
            Effect::Lowered { kept } => {
                self.specs.forget(&vip, epoch);
                self.say(LeaseIn::Lowered { vip, epoch, kept });
                fault_point!("down.lowered");
            }
            Effect::Notify(Change::Up) => {
                info!(%vip, %epoch, "up");
                fault_point!("up.reported");
            }
            Effect::Notify(Change::Down) => {
                info!(%vip, %epoch, "down");
                fault_point!("down.reported");
            }
            // The kernel's part is done.
            Effect::Add(_)
            | Effect::Announce(_)
            | Effect::StopAnnouncing(_)
            | Effect::Decide(_)
            | Effect::Remove(_) => {}
        }
    }

    fn other(&self, order: LeaseOut) {
        match order {
            LeaseOut::Granted { vip, epoch } => {
                self.tell_external(|external| external.granted(&(vip, epoch)));
            }
            LeaseOut::GaveUp { vip, epoch, reason } => {
                let reason = self.with_debts(&vip, epoch, reason);
                warn!(%vip, %epoch, "given up: {reason}");
                self.reporter.update(|r| {
                    r.given_up.insert(vip, (epoch, reason));
                });
            }
            LeaseOut::Unable { vip, reason } => self.refusals.note(&vip, reason, boottime()),
            LeaseOut::RaiseMax(length) => self.longest.raise(length),
            LeaseOut::LowerMax(length) => self.longest.lower(length),
            LeaseOut::PeerRestarted(node) => {
                debug!(%node, "peer was restarted: telling it again");
                self.reporter.again();
            }
            // Taken care of in the order of steps.
            LeaseOut::Up { .. } | LeaseOut::Down { .. } | LeaseOut::Ended(_) => {}
        }
    }

    fn tell_external(&self, what: impl FnOnce(&External)) {
        if let Some(external) = &self.external {
            what(external);
        }
    }

    /// Why an epoch was given up; it says so if a node that it was taken from is still to be fenced.
    fn with_debts(&self, vip: &VipName, epoch: Epoch, reason: String) -> String {
        let key = (vip.clone(), epoch);
        let owed = self.external.as_ref().and_then(|e| e.owed(&key));
        match owed {
            Some(victim) if !reason.starts_with(UNFENCED) => {
                format!("{UNFENCED} of {victim} is not over: {reason}")
            }
            _ => reason,
        }
    }

    fn say(&self, message: LeaseIn) {
        if self.lease.send(message).is_err() {
            debug!("the lease thread is gone");
        }
    }
}

fn address_specs(spec: &VipSpec) -> impl Iterator<Item = AddressSpec> + '_ {
    spec.addresses.iter().map(|address| AddressSpec {
        ip: address.ip,
        prefix: address.prefix,
        interface: spec.carrier_of(address.ip),
        label: spec.label.clone(),
        scope: spec.scope,
    })
}

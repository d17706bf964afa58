//! Carries out what the lease thread decides: addresses come and go, and are announced while they are
//! here. The gate was opened before, and shut before: order up and down is kept for each VIP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_core::spec::VipSpec;
use buoy_core::{Epoch, VipName};
use buoy_fence::addr::{AddressSpec, Addresses};
use buoy_fence::announce::{Announcer, Target};
use buoy_fence::clock::boottime;
use buoy_fence::link::{ARPHRD_LOOPBACK, Links};
use buoy_storage::Meta;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tracing::{debug, error, info, warn};

use crate::applied::Specs;
use crate::guardian::Refusals;
use crate::lease::{LeaseIn, LeaseOut};
use crate::reporter::Reporter;

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
    /// What each epoch is.
    pub specs: Specs,
    /// Tells the cluster.
    pub reporter: Reporter,
    /// VIPs that the kernel refused.
    pub refusals: Refusals,
    /// Durable values.
    pub meta: Meta,
    /// The lease thread.
    pub lease: UnboundedSender<LeaseIn>,
}

type Key = (VipName, Epoch);

impl Carrier {
    /// Runs until the lease thread is gone.
    pub async fn run(self, mut orders: UnboundedReceiver<LeaseOut>) {
        let mut batch = Vec::with_capacity(BATCH);
        while orders.recv_many(&mut batch, BATCH).await > 0 {
            // Runs of the same kind travel together; their order is kept.
            let mut up = Vec::new();
            let mut down = Vec::new();
            for order in batch.drain(..) {
                match order {
                    LeaseOut::Up { vip, epoch, .. } => {
                        self.lower(&mut down).await;
                        up.push((vip, epoch));
                    }
                    LeaseOut::Down {
                        vip,
                        epoch,
                        addresses,
                        ..
                    } => {
                        self.raise(&mut up).await;
                        down.push(((vip, epoch), addresses));
                    }
                    other => self.other(other),
                }
            }
            self.lower(&mut down).await;
            self.raise(&mut up).await;
        }
    }

    /// Adds the addresses of VIPs whose gate is open, then announces them.
    async fn raise(&self, up: &mut Vec<Key>) {
        let mut specs: Vec<AddressSpec> = Vec::new();
        let mut owners: Vec<Key> = Vec::new();
        let mut vips: BTreeMap<Key, Arc<VipSpec>> = BTreeMap::new();
        for key in up.drain(..) {
            let Some(spec) = self.specs.get(&key.0, key.1) else {
                let why = "its declaration is not known here any more".to_owned();
                self.give_up(&key, why);
                continue;
            };
            for address in address_specs(&spec) {
                specs.push(address);
                owners.push(key.clone());
            }
            vips.insert(key, spec);
        }
        if specs.is_empty() {
            return;
        }
        let ips: Vec<IpAddr> = specs.iter().map(|s| s.ip).collect();
        let results = self.addresses.add(specs).await;
        for ((key, ip), result) in owners.iter().zip(&ips).zip(results) {
            if let Err(e) = result {
                error!(vip = %key.0, "address {ip} was not added: {e}");
                if vips.remove(key).is_some() {
                    self.refusals
                        .note(&key.0, format!("the kernel refused {ip}: {e}"), boottime());
                    self.give_up(key, format!("address {ip} was not added: {e}"));
                }
            }
        }
        for ((vip, epoch), spec) in &vips {
            info!(%vip, %epoch, interface = %spec.interface, "up");
        }
        self.announce(vips.values()).await;
    }

    /// Tells the neighbours where the addresses are.
    async fn announce(&self, vips: impl Iterator<Item = &Arc<VipSpec>>) {
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
        for spec in vips {
            let Some(link) = snapshot.link(&spec.interface) else {
                continue;
            };
            let Some(mac) = link.mac.filter(|_| link.arphrd != ARPHRD_LOOPBACK) else {
                continue;
            };
            targets.extend(spec.addresses.iter().map(|address| Target {
                ip: address.ip,
                ifindex: link.index,
                interface: link.name.clone(),
                mac,
            }));
        }
        self.announcer.up(targets).await;
    }

    /// Removes the addresses of VIPs whose gate is shut; then they may be released.
    async fn lower(&self, down: &mut Vec<(Key, Vec<IpAddr>)>) {
        if down.is_empty() {
            return;
        }
        let ips: Vec<IpAddr> = down.iter().flat_map(|(_, a)| a.iter().copied()).collect();
        self.announcer.down(&ips);
        let results = self.addresses.remove(&ips).await;
        for (ip, result) in ips.iter().zip(results) {
            if let Err(e) = result {
                // The gate is shut over it; its lifetime takes it away.
                error!("address {ip} was not removed: {e}");
            }
        }
        for ((vip, epoch), _) in down.drain(..) {
            info!(%vip, %epoch, "down");
            self.specs.forget(&vip, epoch);
            self.say(LeaseIn::Lowered { vip, epoch });
        }
    }

    fn other(&self, order: LeaseOut) {
        match order {
            LeaseOut::GaveUp { vip, epoch, reason } => {
                warn!(%vip, %epoch, "given up: {reason}");
                self.reporter.update(|r| {
                    r.given_up.insert(vip, (epoch, reason));
                });
            }
            LeaseOut::RaiseMax(length) => self.raise_max(length),
            LeaseOut::PeerRestarted(node) => {
                debug!(%node, "peer was restarted: telling it again");
                self.reporter.again();
            }
            LeaseOut::Up { .. } | LeaseOut::Down { .. } => {}
        }
    }

    /// Writes the longest promise down beside everything else: a slow disk must not hold up a VIP
    /// that goes down.
    fn raise_max(&self, length: std::time::Duration) {
        let (meta, lease) = (self.meta.clone(), self.lease.clone());
        tokio::spawn(async move {
            match meta.raise_max_promise(length).await {
                // The receiver is gone only when the daemon stops.
                Ok(()) => drop(lease.send(LeaseIn::MaxRaised(length))),
                Err(e) => {
                    error!("this voter promises nothing: its longest promise is not on disk: {e}")
                }
            }
        });
    }

    fn give_up(&self, key: &Key, reason: String) {
        let (vip, epoch) = key.clone();
        self.say(LeaseIn::GiveUp { vip, epoch, reason });
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
        interface: spec.interface.clone(),
        label: spec.label.clone(),
        scope: spec.scope,
    })
}

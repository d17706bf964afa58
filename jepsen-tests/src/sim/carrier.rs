//! The part of a simulated daemon that adds, announces and removes addresses, by the steps that the core
//! decides. The kernel is slow, and does one thing after the other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::effects::{Effect, Event as StepEvent, Steps};
use buoy_core::{Epoch, VipName};

use super::clock::{MS, True};
use super::config::Bug;
use super::node::Input;
use super::{Event, HEARTBEAT, Sim};

/// A VIP under one epoch.
pub type Key = (VipName, Epoch);

/// Something asked of the kernel.
#[derive(Clone, Debug)]
pub enum Netlink {
    /// Add addresses.
    Add(Key, Vec<IpAddr>),
    /// Remove addresses.
    Remove(Key, Vec<IpAddr>),
}

impl Sim {
    /// Something happened to a VIP at node `n`.
    pub(super) fn carry(&mut self, n: usize, key: Key, addresses: &[IpAddr], event: StepEvent) {
        let now = self.nodes[n].read(self.now);
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let mut effects = Vec::new();
        let steps = p.steps.entry(key.clone());
        steps
            .or_insert_with(|| Steps::new(now, addresses.to_vec()))
            .handle(now, event, &mut effects);
        for effect in effects {
            self.note(|s| format!("node {}: {} {effect:?}", s.nodes[n].id, key.0));
            match effect {
                Effect::Add(addresses) => {
                    if self.cfg.bug == Some(Bug::AnnounceBeforeAddress) {
                        self.announce(n, &addresses);
                    }
                    self.ask_kernel(n, Netlink::Add(key.clone(), addresses));
                }
                Effect::Remove(addresses) => {
                    self.ask_kernel(n, Netlink::Remove(key.clone(), addresses));
                }
                Effect::Announce(addresses) => self.announce(n, &addresses),
                Effect::StopAnnouncing(addresses) => {
                    let node = &mut self.nodes[n];
                    node.announced.retain(|a| !addresses.contains(a));
                }
                Effect::GiveUp { .. } => self.later(n, Input::GiveUp(key.0.clone(), key.1)),
                Effect::Decide(again) => {
                    let generation = self.nodes[n].generation;
                    let Some(p) = self.nodes[n].process.as_mut() else {
                        return;
                    };
                    p.undecided.insert(key.clone());
                    let patience = again.patience(p.lease, Duration::from_nanos(HEARTBEAT));
                    let at = self.now + patience.as_nanos() as True;
                    let over = Event::DecideAtLast {
                        n,
                        generation,
                        key: key.clone(),
                    };
                    self.schedule(at, over);
                    self.decide(n);
                }
                Effect::Lowered { mut kept } => {
                    let now = self.now;
                    let here = &self.nodes[n];
                    self.checker.lowered(here, addresses, &kept, key.1, now);
                    self.stats.kept += kept.len() as u64;
                    if let Some(p) = self.nodes[n].process.as_mut() {
                        p.steps.remove(&key);
                    }
                    if self.cfg.bug == Some(Bug::KeptUnsaid) {
                        kept.clear();
                    }
                    self.later(n, Input::Lowered(key.0.clone(), key.1, kept));
                }
                Effect::Notify(_) => {}
            }
        }
    }

    /// Decides what stays of the VIPs whose next epoch is applied.
    pub(super) fn decide(&mut self, n: usize) {
        let Some(p) = self.nodes[n].process.as_ref() else {
            return;
        };
        let assigned = p.applied.holder_view(self.nodes[n].id).assignments;
        for key in p.undecided.clone() {
            let next = assigned.iter().find(|w| w.vip == key.0);
            if next.is_none_or(|w| w.epoch != key.1) {
                let next = next.filter(|w| w.epoch > key.1);
                let kept = next.map_or_else(Vec::new, |w| w.addresses.clone());
                self.decided(n, key, kept);
            }
        }
    }

    /// The next epoch of a VIP was waited for long enough.
    pub(super) fn decide_at_last(&mut self, n: usize, key: Key) {
        let Some(p) = self.nodes[n].process.as_ref() else {
            return;
        };
        if let Some(until) = p.paused_until {
            let generation = self.nodes[n].generation;
            let over = Event::DecideAtLast { n, generation, key };
            self.schedule(until + 1, over);
            return;
        }
        self.decided(n, key, Vec::new());
    }

    fn decided(&mut self, n: usize, key: Key, kept: Vec<IpAddr>) {
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        if p.undecided.remove(&key) {
            let addresses = p.steps.get(&key).map(Steps::addresses);
            let addresses = addresses.unwrap_or_default().to_vec();
            self.carry(n, key, &addresses, StepEvent::Decided { kept });
        }
    }

    fn announce(&mut self, n: usize, addresses: &[IpAddr]) {
        self.checker.announced(&self.nodes[n], addresses, self.now);
        self.nodes[n].announced.extend(addresses);
    }

    /// Another thread of the daemon tells the lease thread.
    fn later(&mut self, n: usize, input: Input) {
        let generation = self.nodes[n].generation;
        let at = self.now + self.rng.within(MS / 100..=MS / 10);
        self.schedule(
            at,
            Event::Later {
                n,
                generation,
                input,
            },
        );
    }

    fn ask_kernel(&mut self, n: usize, what: Netlink) {
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        p.netlink.push_back(what);
        if p.netlink.len() == 1 {
            self.kernel_soon(n);
        }
    }

    fn kernel_soon(&mut self, n: usize) {
        let generation = self.nodes[n].generation;
        let at = self.now + self.rng.within(MS / 10..=self.chaos.slow_netlink);
        self.schedule(at, Event::Netlink { n, generation });
    }

    /// The kernel does the next thing that it was asked for, and the daemon hears of it.
    pub(super) fn netlink(&mut self, n: usize) {
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        if let Some(until) = p.paused_until {
            let generation = self.nodes[n].generation;
            self.schedule(until + 1, Event::Netlink { n, generation });
            return;
        }
        let Some(what) = p.netlink.pop_front() else {
            return;
        };
        if !p.netlink.is_empty() {
            self.kernel_soon(n);
        }
        match what {
            Netlink::Add(key, addresses) => {
                let failed = self.add_addresses(n, &key, &addresses);
                self.carry(n, key, &addresses, StepEvent::Added { failed });
            }
            Netlink::Remove(key, addresses) => {
                self.checker
                    .removing(&self.nodes[n], &addresses, key.1, self.now);
                let node = &mut self.nodes[n];
                node.addresses.retain(|a| !addresses.contains(a));
                self.carry(n, key, &addresses, StepEvent::Removed);
            }
        }
    }

    /// Adds addresses; now and then the kernel refuses one. Says which.
    pub(super) fn add_addresses(
        &mut self,
        n: usize,
        key: &Key,
        addresses: &[IpAddr],
    ) -> BTreeMap<IpAddr, String> {
        let mut failed = BTreeMap::new();
        for address in addresses {
            if self.chaos.refused_address > 0 && self.rng.chance(self.chaos.refused_address) {
                failed.insert(*address, "the kernel refused it".to_owned());
                continue;
            }
            self.checker
                .adding(&self.nodes[n], *address, key.1, self.now);
            self.nodes[n].addresses.insert(*address);
        }
        failed
    }
}

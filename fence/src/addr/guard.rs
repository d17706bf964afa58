//! The guard: what is held is put back, what is managed but not held is thrown out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use buoy_core::Mono;
use tokio::time::Instant;

use crate::clock::boottime;
use crate::link::FoundAddress;
use crate::watch::{KernelEvent, Notice};

use super::REPAIR_GAP;
use super::absent::{RETRY_EVERY, Refused};
use super::actor::{Entry, Keeper};
use super::error::{Action, AddressError};
use super::kernel::Write;
use super::repairs::Report;

impl Keeper {
    /// Acts on what the kernel told.
    pub(super) fn noticed(&mut self, notices: Vec<Notice>) {
        let (mut gone, mut appeared, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for notice in notices {
            match notice {
                Notice::Link(link) => self.links.noticed(link, &mut events),
                Notice::LinkGone(ifindex) => self.links.gone(ifindex, &mut events),
                Notice::Tc(ifindex) => events.push(KernelEvent::TcChanged { ifindex }),
                Notice::AddressNew(a) if self.is_foreign(&a) => appeared.push(a),
                Notice::AddressGone(a) if self.is_entry(&a) => gone.push(a.ip),
                Notice::AddressNew(_) | Notice::AddressGone(_) => {}
                Notice::Overrun => {
                    events.push(KernelEvent::Overrun);
                    self.next_resync = Instant::now();
                }
            }
        }
        self.pass_on(events);
        self.restore(gone, true);
        self.expel(appeared);
    }

    /// Passes events on; an interface that comes up needs a look at its addresses.
    fn pass_on(&mut self, events: Vec<KernelEvent>) {
        let mut told_tc = BTreeSet::new();
        for event in events {
            match event {
                KernelEvent::LinkUp { .. } => self.next_resync = Instant::now(),
                // One change of a filter makes several notices.
                KernelEvent::TcChanged { ifindex } if !told_tc.insert(ifindex) => continue,
                _ => {}
            }
            self.sink.emit(event);
        }
    }

    /// Compares everything with what should be.
    pub(super) fn resync(&mut self) {
        let snapshot = match self.kernel.snapshot() {
            Ok(snapshot) => snapshot,
            Err(e) => {
                tracing::warn!(error = %e, "cannot read the host's addresses; trying again");
                self.next_resync = Instant::now() + REPAIR_GAP;
                // Those that are known to be missing need no look.
                self.restore(self.absent.all(), false);
                return;
            }
        };
        self.repairs.forget_old(boottime());
        let mut events = Vec::new();
        self.links.replace(snapshot.links, &mut events);
        events.into_iter().for_each(|event| self.sink.emit(event));
        self.move_to_new_interfaces();

        let found = snapshot.addresses;
        let there: BTreeSet<_> = found.iter().map(|a| (a.ip, a.prefix, a.ifindex)).collect();
        let missing = |(ip, e): (&IpAddr, &Entry)| {
            (!there.contains(&(*ip, e.spec.prefix, e.ifindex))).then_some(*ip)
        };
        // In order, as the entries are.
        let missing: Vec<_> = self.entries.iter().filter_map(missing).collect();
        for ip in self.absent.all() {
            if missing.binary_search(&ip).is_err() {
                self.absent.settled(ip);
            }
        }
        self.restore(missing, false);
        let foreign = found.into_iter().filter(|a| self.is_foreign(a)).collect();
        self.expel(foreign);
    }

    /// Looks at the interfaces when a notice may be on its way.
    pub(super) fn look_at_links(&mut self) {
        match self.kernel.links() {
            Ok(links) => {
                let mut events = Vec::new();
                self.links.replace(links, &mut events);
                self.pass_on(events);
            }
            Err(e) => tracing::warn!(error = %e, "cannot read the host's interfaces"),
        }
    }

    /// An interface that was made anew under its old name has another index, and at first no gate.
    fn move_to_new_interfaces(&mut self) {
        for entry in self.entries.values_mut() {
            if self.links.get(entry.ifindex).is_none()
                && let Some(link) = self.links.named(&entry.spec.interface)
            {
                if (self.shared.gated)(link.index) {
                    entry.ifindex = link.index;
                } else {
                    let soon = Instant::now() + REPAIR_GAP;
                    self.next_resync = self.next_resync.min(soon);
                }
            }
        }
    }

    /// Whether an address is one that we have added (perhaps about to be removed).
    fn is_entry(&self, a: &FoundAddress) -> bool {
        let entry = self.entries.get(&a.ip);
        entry.is_some_and(|e| e.ifindex == a.ifindex && e.spec.prefix == a.prefix)
    }

    /// Whether an address should not be where it is.
    pub(super) fn is_foreign(&self, a: &FoundAddress) -> bool {
        let ours = self.entries.contains_key(&a.ip) || self.shared.is_managed(a.ip);
        ours && !self.is_entry(a)
    }

    /// Whether the interface of an entry can carry it: not without the gate. The kernel takes IPv6 addresses off an
    /// interface that goes down: they wait until it is up again.
    pub(super) fn can_carry(&self, entry: &Entry) -> bool {
        if !(self.shared.gated)(entry.ifindex) {
            return false;
        }
        let up = self.links.get(entry.ifindex).is_some_and(|link| link.up);
        up || entry.spec.ip.is_ipv4()
    }

    /// Whether a repair may be done now; if not, a look at everything is due when it may.
    fn is_due(&mut self, ip: IpAddr, now: Mono) -> bool {
        let at = self.repairs.not_before(ip, now);
        if at > now {
            self.next_resync = self.next_resync.min(Instant::now() + at.since(now));
        }
        at <= now
    }

    /// Counts a repair, and says it unless too much is being said already.
    fn report(&mut self, ip: IpAddr, ifindex: u32, now: Mono, event: KernelEvent) {
        let event = match self.repairs.count(ip, now) {
            Report::Repaired => event,
            Report::Contended(repairs, within) => KernelEvent::Contended {
                ip,
                ifindex,
                repairs,
                within,
            },
            Report::Nothing => return,
        };
        self.sink.emit(event);
    }

    /// Puts held addresses back.
    fn restore(&mut self, gone: Vec<IpAddr>, noticed: bool) {
        let now = boottime();
        let mut wanted = Vec::new();
        for ip in gone {
            let entry = self.entries.get(&ip).filter(|_| self.shared.may_keep(ip));
            let Some(entry) = entry.cloned() else {
                self.absent.settled(ip);
                continue;
            };
            if !self.can_carry(&entry) {
                self.absent.settled(ip);
                if noticed {
                    let ifindex = entry.ifindex;
                    self.sink.emit(KernelEvent::AddressRemoved {
                        ip,
                        ifindex,
                        repaired: false,
                    });
                }
            } else if self.is_due(ip, now) {
                wanted.push(entry);
            }
        }
        let answers = self
            .kernel
            .write(Write::New, wanted.iter().map(|e| (&e.spec, e.ifindex)));
        for (entry, answer) in wanted.iter().zip(answers) {
            let (ip, ifindex) = (entry.spec.ip, entry.ifindex);
            match answer {
                // It is there: the notice was older than our last order.
                Err(told) if told.is_there() => {
                    self.absent.settled(ip);
                    continue;
                }
                Err(told) => {
                    self.refused(entry, &told.error(Action::Add, &entry.spec), now);
                    continue;
                }
                Ok(()) => self.absent.settled(ip),
            }
            let event = KernelEvent::AddressRemoved {
                ip,
                ifindex,
                repaired: true,
            };
            self.report(ip, ifindex, now, event);
        }
    }

    /// The kernel does not take a held address back: it is tried again soon, and told to be lost when that goes on. Not
    /// a repair: nobody fights for it.
    fn refused(&mut self, entry: &Entry, error: &AddressError, now: Mono) {
        let (ip, ifindex) = (entry.spec.ip, entry.ifindex);
        let soon = Instant::now() + RETRY_EVERY;
        self.next_resync = self.next_resync.min(soon);
        match self.absent.refused(ip, now) {
            Refused::First => {
                tracing::warn!(%error, "a held address is gone and cannot be put back; trying again");
                self.sink.emit(KernelEvent::AddressRemoved {
                    ip,
                    ifindex,
                    repaired: false,
                });
            }
            Refused::Again => {}
            Refused::Lost(refused_for) => self.sink.emit(KernelEvent::AddressLost {
                ip,
                refused_for,
                why: error.to_string(),
            }),
        }
    }

    /// Removes addresses that should not be there.
    fn expel(&mut self, mut foreign: Vec<FoundAddress>) {
        let now = boottime();
        foreign.retain(|a| self.is_due(a.ip, now));
        let answers = self.kernel.delete_found(foreign.iter());
        self.put_back_secondaries(foreign.iter().map(|a| (a.ip, a.prefix, a.ifindex)));
        for (a, answer) in foreign.iter().zip(answers) {
            let (ip, ifindex) = (a.ip, a.ifindex);
            let repaired = match answer {
                Err(told) if told.is_absent() => continue,
                Err(told) => {
                    let link = self.links.get(ifindex);
                    let interface = link.map_or_else(String::new, |link| link.name.clone());
                    let error = told.error_for(Action::Remove, ip, a.prefix, interface);
                    tracing::warn!(%error, "a managed address is where it should not be");
                    false
                }
                Ok(()) => true,
            };
            let event = KernelEvent::AddressAppeared {
                ip,
                ifindex,
                repaired,
            };
            self.report(ip, ifindex, now, event);
        }
    }

    /// Says which held addresses could not be refreshed: they go with their lifetimes.
    pub(super) fn refresh_failed(&mut self, failed: Vec<(IpAddr, AddressError)>) {
        let now = boottime();
        for (ip, error) in failed {
            if self.absent.contains(ip) {
                // It is not there: putting it back is under way, and has said so.
                continue;
            }
            tracing::warn!(%error, "a held address could not be refreshed");
            let ifindex = self.entries.get(&ip).map_or(0, |e| e.ifindex);
            let event = KernelEvent::AddressRemoved {
                ip,
                ifindex,
                repaired: false,
            };
            self.report(ip, ifindex, now, event);
        }
    }
}

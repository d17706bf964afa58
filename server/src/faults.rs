//! Which VIPs this node cannot hold because of their interfaces, and why.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use buoy_core::health::{FlapEvent, Flaps};
use buoy_core::spec::VipSpec;
use buoy_core::state::State;
use buoy_core::{Mono, VipName};
use buoy_fence::clock::boottime;
use buoy_fence::link::{LinkFault, Snapshot};
use buoy_fence::watch::KernelEvent;

use crate::gated::Gated;
use crate::guardian::LOOPBACK;

/// The interfaces that went down lately; shared by the watch on the kernel and the guardian.
#[derive(Clone, Default)]
pub struct LinkHistory(Arc<Mutex<Flaps>>);

impl LinkHistory {
    /// Something happened in the kernel; only what links do counts.
    pub fn note(&self, event: &KernelEvent) {
        let (name, event) = match event {
            KernelEvent::LinkDown {
                name,
                usable_before: true,
                ..
            }
            | KernelEvent::LinkGone { name, .. } => (name, FlapEvent::Down),
            KernelEvent::LinkUp { name, .. } => (name, FlapEvent::Up),
            _ => return,
        };
        self.flaps().handle(boottime(), name, event);
    }

    /// What is up now: an event may have been lost.
    pub fn seen(&self, snapshot: &Snapshot, now: Mono) {
        let mut flaps = self.flaps();
        let usable = |name: &&str| snapshot.link(name).is_some_and(|link| link.usable());
        let up: Vec<String> = flaps.down().filter(usable).map(str::to_owned).collect();
        for name in up {
            flaps.handle(now, &name, FlapEvent::Up);
        }
    }

    /// When the next fault ends, if nothing happens until then.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.flaps().next_deadline()
    }

    fn fault(&self, now: Mono, interface: &str) -> Option<String> {
        self.flaps().fault(now, interface)
    }

    fn flaps(&self) -> MutexGuard<'_, Flaps> {
        // Times of events are only data: a panic elsewhere does not make them wrong.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// What is known of the packet gate.
pub struct Gates<'a> {
    /// Interfaces that carry it.
    pub gated: &'a Gated,
    /// Why others do not, by name.
    pub broken: &'a BTreeMap<String, String>,
    /// Why there are no interfaces for some virtual MACs, by name.
    pub vmacs: &'a BTreeMap<String, String>,
}

impl Gates<'_> {
    /// Why an interface cannot hold VIPs.
    fn fault(&self, name: &str, index: u32) -> Option<String> {
        let broken = self.broken.get(name).or_else(|| self.broken.get(LOOPBACK));
        match broken {
            Some(why) => Some(why.clone()),
            None if self.gated.contains(index) => None,
            None => Some(format!("interface {name} carries no packet gate yet")),
        }
    }

    /// Why a VIP whose own interface is fine cannot be on those of its virtual MACs.
    fn virtual_fault(&self, vip: &VipSpec, snapshot: &Snapshot) -> Option<String> {
        vip.virtual_links().into_iter().find_map(|link| {
            let name = &link.name;
            if let Some(why) = self.vmacs.get(name) {
                return Some(format!("no virtual MAC on {}: {why}", link.base));
            }
            match snapshot.check_link(name) {
                Ok(found) => self.fault(name, found.index),
                Err(LinkFault::Missing { .. }) => Some(format!(
                    "interface {name} for the virtual MAC is not there yet"
                )),
                Err(fault) => Some(fault.to_string()),
            }
        })
    }
}

/// VIPs that cannot be here: their interface is missing, down or flapping, or has no packet gate.
pub fn vip_faults(
    state: &State,
    snapshot: &Snapshot,
    gates: &Gates<'_>,
    links: &LinkHistory,
    now: Mono,
) -> BTreeMap<VipName, String> {
    let mut faults = BTreeMap::new();
    for (name, vip) in &state.vips {
        let addresses: Vec<IpAddr> = vip.spec.addresses.iter().map(|a| a.ip).collect();
        let interface = &vip.spec.interface;
        let fault = match snapshot.check(interface, &addresses) {
            Err(fault) => Some(fault.to_string()),
            Ok(()) => snapshot
                .link(interface)
                .and_then(|link| gates.fault(interface, link.index))
                .or_else(|| gates.virtual_fault(&vip.spec, snapshot))
                .or_else(|| links.fault(now, interface)),
        };
        if let Some(fault) = fault {
            faults.insert(name.clone(), fault);
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_interface_that_was_usable_goes_down() {
        let history = LinkHistory::default();
        let name = || "eth0".to_owned();
        let down = |usable_before| KernelEvent::LinkDown {
            ifindex: 2,
            name: name(),
            up: true,
            usable_before,
        };
        let up = KernelEvent::LinkUp {
            ifindex: 2,
            name: name(),
        };
        let cycle = |usable_before| {
            history.note(&down(usable_before));
            history.note(&up);
        };
        // Made anew, and set up without a carrier first: nothing was lost.
        (0..5).for_each(|_| cycle(false));
        assert_eq!(history.fault(boottime(), "eth0"), None);
        (0..3).for_each(|_| cycle(true));
        let fault = history.fault(boottime(), "eth0").unwrap();
        assert!(fault.contains("eth0 is flapping"), "{fault}");
        assert!(history.next_deadline() > Some(boottime()));
    }

    #[test]
    fn an_interface_without_a_gate_holds_nothing() {
        let (gated, mut broken) = (Gated::default(), BTreeMap::new());
        let fault = |broken: &BTreeMap<String, String>| {
            let gates = Gates {
                gated: &gated,
                broken,
                vmacs: &BTreeMap::new(),
            };
            gates.fault("eth0", 2)
        };
        let none_yet = fault(&broken).unwrap();
        assert!(
            none_yet.contains("eth0 carries no packet gate"),
            "{none_yet}"
        );
        gated.insert(2);
        assert_eq!(fault(&broken), None);
        broken.insert(LOOPBACK.to_owned(), "not on lo".to_owned());
        assert_eq!(fault(&broken).as_deref(), Some("not on lo"));
        broken.insert("eth0".to_owned(), "not here".to_owned());
        assert_eq!(fault(&broken).as_deref(), Some("not here"));
    }
}

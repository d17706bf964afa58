//! What an edit leaves on the interface: the addresses that the next epoch has unchanged at this very node.

use std::cell::LazyCell;
use std::net::IpAddr;

use buoy_core::effects::{Event, unchanged};
use buoy_fence::clock::boottime;
use buoy_fence::link::Snapshot;
use tracing::{debug, error};

use super::{Carrier, Due, Key, Underway};
use crate::applied::Assigned;

impl Carrier {
    /// Decides what stays of the VIPs that wait for that: as soon as the applied state says which epoch comes next, or
    /// nothing if it takes too long to. Returns the steps that follow.
    pub(super) fn decide(&self, vips: &mut Underway, assigned: &Assigned) -> Due {
        let mut due = Due::new();
        let now = boottime();
        let links = LazyCell::new(|| self.interfaces());
        for (key, until) in std::mem::take(&mut vips.undecided) {
            let next = assigned.get(&key.0).copied();
            if next == Some(key.1) && now < until {
                vips.undecided.insert(key, until);
                continue;
            }
            let kept = match next {
                Some(next) if next > key.1 => self.kept(&key, &(key.0.clone(), next), &links),
                _ => Vec::new(),
            };
            debug!(vip = %key.0, epoch = %key.1, "stays for the next epoch: {kept:?}");
            vips.handle(&key, &[], Event::Decided { kept }, &mut due);
        }
        due
    }

    fn kept(
        &self,
        before: &Key,
        next: &Key,
        links: &LazyCell<Option<Snapshot>, impl FnOnce() -> Option<Snapshot>>,
    ) -> Vec<IpAddr> {
        let spec = |key: &Key| self.specs.get(&key.0, key.1);
        let (Some(before), Some(next)) = (spec(before), spec(next)) else {
            return Vec::new();
        };
        let mut kept = unchanged(&before, &next);
        if !kept.is_empty() {
            // Without the packet gate nothing may stay that has no lease.
            kept.retain(|ip| {
                let link = links.as_ref().and_then(|l| l.link(&before.carrier_of(*ip)));
                link.is_some_and(|link| self.gated.guards(link.index))
            });
        }
        kept
    }

    fn interfaces(&self) -> Option<Snapshot> {
        let snapshot = tokio::task::block_in_place(|| self.links.snapshot());
        let failed = |e| {
            error!(
                "edited VIPs lose their unchanged addresses until they are up again, the interfaces cannot be listed: {e}"
            );
        };
        snapshot.map_err(failed).ok()
    }
}

//! Interfaces for virtual MACs: which of them this node must have, and that it has them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use buoy_core::spec::{NodeSpec, Role, VirtualLink};
use buoy_core::state::State;
use buoy_fence::link::{Links, Snapshot};
use buoy_fence::vmac::{Settled, VirtualLinks};
use tracing::{error, info, warn};

use crate::gated::Gated;

/// Every interface that the state asks of a node: a member has them all, whichever VIPs it holds.
pub fn wanted(me: &NodeSpec, state: &State) -> BTreeSet<VirtualLink> {
    if me.role == Role::Witness {
        return BTreeSet::new();
    }
    let specs = state.vips.values().map(|v| &v.spec);
    specs.flat_map(|spec| spec.virtual_links()).collect()
}

/// Makes and removes them. Whatever carries an address stays: it goes when the address has gone.
pub struct Vmacs {
    kernel: VirtualLinks,
    /// Why some cannot be had, by name.
    pub faults: BTreeMap<String, String>,
    /// Those that somebody else removed and that were made anew, since the last look.
    pub remade: BTreeSet<String>,
    /// Some were there when it was looked last.
    some: bool,
}

impl Vmacs {
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> io::Result<Vmacs> {
        Ok(Vmacs {
            kernel: VirtualLinks::open()?,
            faults: BTreeMap::new(),
            remade: BTreeSet::new(),
            // A predecessor's may be there.
            some: true,
        })
    }

    /// Sees to it that those of `wanted` are there, and no others; the interfaces as they are then, and whether that is
    /// our doing.
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub fn settle(
        &mut self,
        wanted: &BTreeSet<VirtualLink>,
        snapshot: Snapshot,
        links: &Links,
        gated: &Gated,
    ) -> io::Result<(Snapshot, bool)> {
        self.remade.clear();
        if wanted.is_empty() && !self.some {
            self.faults.clear();
            return Ok((snapshot, false));
        }
        let carries = |index| snapshot.addresses.iter().any(|a| a.ifindex == index);
        let settled = self.kernel.settle(wanted, carries)?;
        self.say(&settled);
        // An interface carries a VIP only if the one below it has the gate as well.
        self.some = !settled.pairs.is_empty();
        gated.stand_on(settled.pairs);
        self.remade = settled.remade;
        self.faults = settled.faults;
        match settled.changed {
            true => links.snapshot().map(|snapshot| (snapshot, true)),
            false => Ok((snapshot, false)),
        }
    }

    fn say(&self, settled: &Settled) {
        for interface in &settled.made {
            match settled.remade.contains(interface) {
                true => {
                    warn!(%interface, "somebody removed the interface of a virtual MAC: made anew")
                }
                false => info!(%interface, "made for a virtual MAC"),
            }
        }
        for interface in &settled.removed {
            info!(%interface, "no VIP has this virtual MAC any more: removed");
        }
        for (name, why) in &settled.faults {
            if self.faults.get(name) != Some(why) {
                error!("no virtual MAC: {why}");
            }
        }
    }
}

/// Removes all that a daemon of this host made, except where an address is; their names.
///
/// # Errors
/// The kernel cannot be asked.
pub fn remove_all() -> io::Result<BTreeSet<String>> {
    let snapshot = Links::open()?.snapshot()?;
    let carries = |index| snapshot.addresses.iter().any(|a| a.ifindex == index);
    VirtualLinks::open()?.remove_all(carries)
}

//! The replicated log of the simulation, reduced to what leases depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use buoy_core::lease::{HolderView, LogView, Wanted};
use buoy_core::{ConfigId, Epoch, Membership, NodeId, VipName};

/// Removals that a view remembers; fewer than a run makes, so that forgetting is tried too.
const REMEMBERED: usize = 2;

/// What an entry does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Nothing: the first entry of a leader.
    Blank,
    /// A membership.
    Members(Vec<BTreeSet<NodeId>>),
    /// Assignments of VIPs (by number); `None`: to nobody.
    Assign(Vec<(usize, Option<NodeId>)>),
    /// The last addresses of two VIPs change places; both keep their owners, under a new epoch.
    Swap(usize, usize),
    /// The VIP loses its second address, or gets it back, under a new epoch.
    Resize(usize),
}

/// An entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// What it does.
    pub command: Command,
}

/// A VIP after some entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vip {
    /// Its name.
    pub name: VipName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Taken away by a resize, to come back with the next.
    pub spare: Option<IpAddr>,
    /// Who is assigned, under which epoch.
    pub owner: Option<(NodeId, Epoch)>,
}

/// What a prefix of the log says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fold {
    /// Number of entries.
    pub index: u64,
    /// As the leases see it.
    pub view: LogView,
    /// The VIPs.
    pub vips: Vec<Vip>,
}

impl Fold {
    /// The empty log: VIP `i` has two addresses and no owner.
    pub fn new(vips: usize) -> Self {
        let address = |i: usize, k: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, i as u8 * 10 + k));
        let vip = |i| Vip {
            name: format!("v{i}").parse().expect("a valid name"),
            addresses: vec![address(i, 1), address(i, 2)],
            spare: None,
            owner: None,
        };
        Self {
            index: 0,
            view: LogView::default(),
            vips: (0..vips).map(vip).collect(),
        }
    }

    /// What a log says.
    pub fn of(vips: usize, log: &[Entry]) -> Self {
        let mut fold = Self::new(vips);
        for entry in log {
            fold.apply(entry);
        }
        fold
    }

    /// Adds the next entry.
    pub fn apply(&mut self, entry: &Entry) {
        self.index += 1;
        match &entry.command {
            Command::Blank => {}
            Command::Members(halves) => {
                let id = ConfigId {
                    term: entry.term,
                    index: self.index,
                };
                self.view.membership = Membership {
                    id,
                    halves: halves.clone(),
                };
            }
            Command::Assign(moves) => {
                for (vip, node) in moves {
                    self.vips[*vip].owner = node.map(|n| (n, Epoch(self.index)));
                }
            }
            Command::Swap(a, b) => {
                let (x, y) = (self.vips[*a].addresses.pop(), self.vips[*b].addresses.pop());
                self.vips[*a].addresses.extend(y);
                self.vips[*b].addresses.extend(x);
                self.renew_epoch(*a);
                self.renew_epoch(*b);
            }
            Command::Resize(v) => {
                let vip = &mut self.vips[*v];
                match vip.spare.take() {
                    Some(address) => vip.addresses.push(address),
                    None => vip.spare = vip.addresses.pop(),
                }
                self.renew_epoch(*v);
            }
        }
        self.index_addresses();
    }

    fn renew_epoch(&mut self, vip: usize) {
        let epoch = Epoch(self.index);
        let owner = &mut self.vips[vip].owner;
        *owner = owner.map(|(node, _)| (node, epoch));
    }

    /// Derives `assigned`, `removed` and `forgotten` from the VIPs.
    fn index_addresses(&mut self) {
        let owned = self.vips.iter().filter_map(|v| v.owner.map(|o| (v, o)));
        let assigned: BTreeMap<IpAddr, (NodeId, Epoch)> = owned
            .flat_map(|(v, o)| v.addresses.iter().map(move |a| (*a, o)))
            .collect();
        let view = &mut self.view;
        for address in view.assigned.keys().filter(|a| !assigned.contains_key(a)) {
            view.removed.insert(*address, Epoch(self.index));
        }
        view.removed.retain(|a, _| !assigned.contains_key(a));
        while view.removed.len() > REMEMBERED {
            let oldest = view
                .removed
                .iter()
                .min_by_key(|(_, e)| **e)
                .map(|(a, e)| (*a, *e));
            if let Some((address, at)) = oldest {
                view.removed.remove(&address);
                view.forgotten = view.forgotten.max(at);
            }
        }
        view.assigned = assigned;
    }

    /// What a holder sees of it.
    pub fn holder_view(&self, node: NodeId) -> HolderView {
        let mine = self.vips.iter().filter_map(|v| {
            let (_, epoch) = v.owner.filter(|(n, _)| *n == node)?;
            Some(Wanted {
                vip: v.name.clone(),
                epoch,
                addresses: v.addresses.clone(),
            })
        });
        HolderView {
            membership: self.view.membership.clone(),
            assignments: mine.collect(),
        }
    }
}

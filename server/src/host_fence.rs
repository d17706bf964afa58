//! The fence of this host as the kernel has it, whether or not a daemon is there to tell: for `buoy fence`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_core::Mono;
pub use buoy_fence::addr::Leftover;
use buoy_fence::addr::{Addresses, Cleanup};
use buoy_fence::clock::boottime;
pub use buoy_fence::gate::GateKind;
use buoy_fence::gate::{self, Direction, Fenced, GateError, NftLeftover};
use buoy_fence::link::{Links, Snapshot};

use crate::checks::{in_charge, take_charge};
use crate::vmac;

/// What the kernel of this network namespace holds.
#[derive(Debug)]
pub struct HostFence {
    /// A daemon runs here.
    pub daemon: bool,
    /// When it was looked at, on CLOCK_BOOTTIME.
    pub now: Mono,
    /// Gates: one, unless a predecessor's is still somewhere.
    pub gates: Vec<HostGate>,
    /// Filters of ours whose tables cannot be read, each with its interface and why.
    pub unreadable: Vec<(String, String)>,
}

/// A gate, and what it fences.
#[derive(Debug)]
pub struct HostGate {
    /// What it is made of.
    pub kind: GateKind,
    /// Interfaces on which it is in force both ways, by name.
    pub interfaces: BTreeSet<String>,
    /// Interfaces on which one direction is missing.
    pub torn: BTreeSet<String>,
    /// Its addresses, in order.
    pub addresses: Vec<HostAddress>,
}

/// A fenced address.
#[derive(Debug)]
pub struct HostAddress {
    /// As the gate holds it.
    pub fenced: Fenced,
    /// Interfaces that carry it, with the seconds that the kernel keeps it (`u32::MAX`: for ever).
    pub carried: Vec<(String, u32)>,
    /// It is carried by an interface where this gate is not in force.
    pub exposed: bool,
}

/// Where tables of ours stand that cannot be read, in place of an interface.
const NFT_TABLES: &str = "every interface (nftables)";

/// Reads the gates and addresses of this network namespace.
///
/// # Errors
/// The kernel cannot be asked.
pub fn look() -> Result<HostFence, HostFenceError> {
    let asked = |e| HostFenceError::System("list the interfaces", e);
    let links = Links::open().map_err(asked)?;
    let snapshot = links.snapshot().map_err(asked)?;
    let mut filters = Filters::default();
    for link in snapshot.links.values() {
        for filter in gate::leftovers(link.index)? {
            filters.note(&link.name, filter);
        }
    }
    let nft = match gate::nft_leftover() {
        Ok(nft) => nft,
        // Where there is no nf_tables, nobody left anything in it.
        Err(GateError::Unavailable { .. }) => None,
        Err(e) => {
            filters
                .unreadable
                .push((NFT_TABLES.to_owned(), e.to_string()));
            None
        }
    };
    // Read after the gates: what is carried was carried under these rows or newer ones.
    let snapshot = links.snapshot().map_err(asked)?;
    Ok(HostFence {
        daemon: in_charge().map_err(|e| HostFenceError::System("look for a running daemon", e))?,
        now: boottime(),
        gates: filters
            .gates(&snapshot)
            .into_iter()
            .chain(nft.map(|left| nft_gate(left, &snapshot)))
            .collect(),
        unreadable: filters.unreadable,
    })
}

#[derive(Default)]
struct Filters {
    /// By the id of their table of addresses.
    found: BTreeMap<u32, Seen>,
    unreadable: Vec<(String, String)>,
}

#[derive(Default)]
struct Seen {
    places: BTreeMap<String, Vec<Direction>>,
    rows: Vec<Fenced>,
}

impl Filters {
    fn note(&mut self, interface: &str, filter: gate::Leftover) {
        match (filter.gate, filter.fenced) {
            (Some(id), Ok(fenced)) => {
                let seen = self.found.entry(id).or_default();
                let place = seen.places.entry(interface.to_owned()).or_default();
                place.push(filter.direction);
                seen.rows = fenced;
            }
            (_, Err(why)) => self.unreadable.push((interface.to_owned(), why)),
            (None, Ok(_)) => {}
        }
    }

    fn gates(&self, snapshot: &Snapshot) -> Vec<HostGate> {
        let gate = |Seen { places, rows }: &Seen| {
            let both = |name: &&String| Direction::BOTH.iter().all(|d| places[*name].contains(d));
            let (whole, torn): (BTreeSet<&String>, _) = places.keys().partition(both);
            let whole = whole.into_iter().cloned().collect();
            let torn = torn.into_iter().cloned().collect();
            host_gate(GateKind::Ebpf, whole, torn, rows, snapshot)
        };
        self.found.values().map(gate).collect()
    }
}

fn nft_gate(left: NftLeftover, snapshot: &Snapshot) -> HostGate {
    // An interface that is gone carries nothing.
    let there = left
        .devices
        .iter()
        .filter(|i| snapshot.links.contains_key(i));
    let interfaces = there.map(|index| snapshot.name(*index)).collect();
    let torn = BTreeSet::new();
    host_gate(GateKind::Nft, interfaces, torn, &left.fenced, snapshot)
}

fn host_gate(
    kind: GateKind,
    interfaces: BTreeSet<String>,
    torn: BTreeSet<String>,
    rows: &[Fenced],
    snapshot: &Snapshot,
) -> HostGate {
    let address = |fenced: &Fenced| {
        let found = snapshot.addresses.iter().filter(|a| a.ip == fenced.address);
        let carried: Vec<_> = found.map(|a| (snapshot.name(a.ifindex), a.valid)).collect();
        HostAddress {
            fenced: *fenced,
            exposed: carried.iter().any(|(name, _)| !interfaces.contains(name)),
            carried,
        }
    };
    HostGate {
        kind,
        addresses: rows.iter().map(address).collect(),
        interfaces,
        torn,
    }
}

/// What was taken away.
#[derive(Debug)]
pub struct Removed {
    /// Addresses.
    pub addresses: Cleanup,
    /// Interfaces whose filters are gone.
    pub interfaces: Vec<String>,
}

/// Why the fence of this host was not shown or removed.
#[derive(Debug, thiserror::Error)]
pub enum HostFenceError {
    /// This is for what a dead daemon left.
    #[error(
        "a daemon runs on this host and needs its fence: stop it first (systemctl stop buoy), which also removes the fence"
    )]
    DaemonRuns,
    /// Addresses that nobody can name may be on this host.
    #[error(
        "the gate on {interface} cannot be read ({why}), so it is not known which addresses must go before it: remove the VIPs from this host by hand (ip addr del), and then say --force"
    )]
    Unreadable {
        /// Where.
        interface: String,
        /// Why.
        why: String,
    },
    /// An unfenced VIP would answer beside its owner.
    #[error("the gate stays, because an address that it fences does: {0}")]
    AddressStays(String),
    /// The kernel refuses something about the filters.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The system refuses something else.
    #[error("cannot {0}: {1}")]
    System(&'static str, io::Error),
}

/// Removes what a dead daemon left: first the addresses that its gates fence, then the gates. No daemon can
/// start meanwhile. `force`: also gates whose addresses cannot be read.
///
/// # Errors
/// A daemon runs, or the kernel refuses: what is still there is still fenced.
pub async fn remove(force: bool) -> Result<Removed, HostFenceError> {
    let look = look()?;
    if look.daemon {
        return Err(HostFenceError::DaemonRuns);
    }
    let _charge = take_charge().map_err(|_| HostFenceError::DaemonRuns)?;
    if let (false, Some((interface, why))) = (force, look.unreadable.first()) {
        return Err(HostFenceError::Unreadable {
            interface: interface.clone(),
            why: why.clone(),
        });
    }
    let fenced: BTreeSet<IpAddr> = look
        .gates
        .iter()
        .flat_map(|gate| gate.addresses.iter().map(|a| a.fenced.address))
        .collect();
    let fenced: Vec<IpAddr> = fenced.into_iter().collect();
    let cleanup = take_down(&fenced).await?;
    if let Some(failed) = cleanup.failed.first() {
        return Err(HostFenceError::AddressStays(failed.to_string()));
    }
    let mut gone = Vec::new();
    let snapshot = Links::open().and_then(|links| links.snapshot());
    let snapshot = snapshot.map_err(|e| HostFenceError::System("list the interfaces", e))?;
    if let Some(stays) = snapshot.addresses.iter().find(|a| fenced.contains(&a.ip)) {
        let name = snapshot.name(stays.ifindex);
        let words = format!("{} is on {name} again", stays.ip);
        return Err(HostFenceError::AddressStays(words));
    }
    for link in snapshot.links.values() {
        if gate::remove(link.index)? {
            gone.push(link.name.clone());
        }
    }
    let nft = look.gates.iter().filter(|gate| gate.kind == GateKind::Nft);
    let nft: Vec<String> = nft.flat_map(|gate| gate.interfaces.clone()).collect();
    let unreadable = look.unreadable.iter().any(|(place, _)| place == NFT_TABLES);
    if (unreadable || look.gates.iter().any(|gate| gate.kind == GateKind::Nft))
        && gate::remove_nft()?
    {
        gone.extend(nft);
    }
    // Nothing is left that could come or go through them.
    vmac::remove_all()
        .map_err(|e| HostFenceError::System("remove the interfaces of virtual MACs", e))?;
    gone.sort_unstable();
    gone.dedup();
    Ok(Removed {
        addresses: cleanup,
        interfaces: gone,
    })
}

async fn take_down(fenced: &[IpAddr]) -> Result<Cleanup, HostFenceError> {
    if fenced.is_empty() {
        return Ok(Cleanup::default());
    }
    let (keeper, _events) = Addresses::start(Arc::new(|_| false), Arc::new(|_| false))
        .map_err(|e| HostFenceError::System("remove addresses", io::Error::other(e)))?;
    Ok(keeper.remove_leftovers(fenced).await)
}

//! The kernel's side of the start: the packet gate stands and old addresses are gone before anything
//! else may happen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use buoy_core::spec::VirtualLink;
use buoy_core::{Epoch, Mono, VipName};
use buoy_fence::addr::{Addresses, LeaseCheck};
use buoy_fence::announce::{AnnounceEvent, Announcer};
use buoy_fence::clock::boottime;
use buoy_fence::gate::{
    Deadlines, Gate, GateError, GateKind, Sentry, TableNotices, carriers, supersede,
};
use buoy_fence::link::{Links, Snapshot};
use buoy_fence::watch::KernelEvent;
use buoy_storage::StateReader;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use crate::attempts::Attempts;
use crate::config::Config;
use crate::faults::LinkHistory;
use crate::gated::Gated;
use crate::gatekeeper::{install, no_gate, on_gate};
use crate::guardian::{LOOPBACK, Refusals, interfaces};
use crate::lease::{Held, LeaseIn, LeaseShared, Phase};
use crate::start::StartError;
use crate::vmac::{self, Vmacs};

/// How long the gate may take to go when the daemon stops.
const LEAVE: Duration = Duration::from_secs(2);

/// The kernel, ready for leases.
pub struct Fencing {
    /// The gate, to be given to the lease thread.
    pub gate: Box<dyn Gate>,
    /// Watches it.
    pub sentry: Box<dyn Sentry>,
    /// Tells of what others do to it, where they can and `events` do not.
    pub tables: Option<TableNotices>,
    /// Interfaces that carry it.
    pub gated: Gated,
    /// Why interfaces that exist do not, by name.
    pub broken: BTreeMap<String, String>,
    /// Addresses that only a predecessor's gate knew; shut.
    pub inherited: BTreeSet<IpAddr>,
    /// Looks interfaces up.
    pub links: Links,
    /// Interfaces for virtual MACs.
    pub vmacs: Vmacs,
    /// Keeps addresses.
    pub addresses: Addresses,
    /// What happens in the kernel.
    pub events: mpsc::Receiver<KernelEvent>,
}

/// Every interface that a VIP may be on, and every address that may be on this host from an earlier
/// run: those of the configuration and those of the state on disk.
pub fn known(config: &Config, reader: &StateReader) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let state = reader.read();
    let mut interfaces = interfaces(&state);
    interfaces.extend(config.vips.iter().flat_map(|v| v.interfaces()));
    let configured = config
        .vips
        .iter()
        .flat_map(|v| v.addresses.iter().map(|a| a.ip));
    (
        interfaces,
        configured.chain(state.addresses.keys().copied()).collect(),
    )
}

/// May this host use an address at this instant? By the kernel's own deadline.
pub fn lease_check(shared: Arc<LeaseShared>, deadlines: Deadlines) -> LeaseCheck {
    Arc::new(move |ip| {
        let slot = shared.slots.load().get(&ip).copied();
        slot.map_or(Mono::ZERO, |slot| deadlines.load(slot)) > boottime()
    })
}

impl Fencing {
    /// Tries the gate, puts it on the loopback interface and on those of `interfaces` that exist, and
    /// then removes what a dead predecessor left of `known` addresses.
    ///
    /// # Errors
    /// The gate cannot be installed, or the kernel's addresses cannot be managed.
    pub async fn begin(
        mut gate: Box<dyn Gate>,
        interfaces: &BTreeSet<String>,
        virtual_links: &BTreeSet<VirtualLink>,
        known: &BTreeSet<IpAddr>,
        live: LeaseCheck,
    ) -> Result<Fencing, StartError> {
        gate.self_test()?;
        for address in known {
            gate.manage(*address)?;
        }
        let system = |what| move |e| StartError::System(what, e);
        let links = Links::open().map_err(system("ask the kernel for interfaces"))?;
        let snapshot = links.snapshot().map_err(system("list the interfaces"))?;
        let gated = Gated::default();
        let mut vmacs = Vmacs::open().map_err(system("make interfaces"))?;
        let snapshot =
            tokio::task::block_in_place(|| vmacs.settle(virtual_links, snapshot, &links, &gated));
        let (snapshot, _) = snapshot.map_err(system("list the interfaces"))?;
        let mut broken = BTreeMap::new();
        for name in interfaces {
            let Some(link) = snapshot.link(name) else {
                warn!(interface = %name, "not there yet: the packet gate waits for it");
                continue;
            };
            match install(gate.as_mut(), link.index) {
                Ok(()) => gated.insert(link.index),
                // Without the loopback's gate, local clients would reach a VIP that is not ours.
                Err(e) if name == LOOPBACK => return Err(StartError::NoGate(name.clone(), e)),
                Err(e) => {
                    error!(interface = %name, "no packet gate, so no VIP: {e}");
                    broken.insert(name.clone(), no_gate(&e));
                }
            }
        }
        adopt(gate.as_mut(), &snapshot, &gated);
        // A predecessor's gate of another kind would stay shut over what this one opens.
        tokio::task::block_in_place(|| supersede(gate.as_mut()))?;
        info!(gate = %gate.kind(), interfaces = gated.count(), "packet gate in force");

        let (addresses, events) = Addresses::start(live, gated.check())
            .map_err(|e| StartError::System("manage addresses", std::io::Error::other(e)))?;
        let known: Vec<IpAddr> = known.iter().copied().collect();
        let cleanup = addresses.remove_leftovers(&known).await;
        for left in &cleanup.removed {
            warn!(
                "{}/{} was left on {} by an earlier process: removed",
                left.ip, left.prefix, left.interface
            );
        }
        for failed in &cleanup.failed {
            // The gate is shut over it, so it does no harm on the wire.
            error!("an address of an earlier process stays: {failed}");
        }
        let rows = gate.list()?.into_iter().filter(|row| row.inherited);
        let sentry = gate.sentry()?;
        Ok(Fencing {
            inherited: rows.map(|row| row.address).collect(),
            tables: sentry.notices()?,
            sentry,
            gate,
            gated,
            broken,
            links,
            vmacs,
            addresses,
            events,
        })
    }
}

/// Takes over what a predecessor left on interfaces that no VIP names any more: the deadlines there stand still, so that
/// no packet of any VIP would ever pass them again.
fn adopt(gate: &mut dyn Gate, snapshot: &Snapshot, gated: &Gated) {
    if gate.kind() == GateKind::UserspaceOnly {
        return;
    }
    let others = snapshot.links.keys().copied();
    let (found, unknown) = carriers(others.filter(|index| !gated.contains(*index)));
    let found = found.into_iter().map(|index| (index, install(gate, index)));
    let unknown = unknown
        .into_iter()
        .map(|(index, e)| (index, Err(e.to_string())));
    for (index, adopted) in found.chain(unknown) {
        let interface = snapshot.name(index);
        match adopted {
            Ok(()) => {
                info!(%interface, "took over the packet gate of an earlier run");
                gated.insert(index);
            }
            Err(e) => error!(
                %interface,
                "the packet gate of an earlier run may stand here and drop packets of every VIP: {e}"
            ),
        }
    }
}

/// Why the gate stays when the daemon stops.
#[derive(Debug, thiserror::Error)]
enum Stays {
    #[error("{0} is still on {1}")]
    Address(IpAddr, String),
    #[error("the interfaces cannot be listed: {0}")]
    Links(std::io::Error),
    #[error(transparent)]
    Gate(#[from] GateError),
}

/// The last step of a stop: takes the gate away if no address that it fences is on this host any more, so that they may be
/// used for something else, and then the interfaces of virtual MACs. Otherwise it stays in force, shut, and so do they.
pub async fn leave(lease: &UnboundedSender<LeaseIn>) {
    let gone = on_gate(lease, |gate| -> Result<(), Stays> {
        let fenced: BTreeSet<IpAddr> = gate.list()?.iter().map(|row| row.address).collect();
        let snapshot = Links::open().and_then(|links| links.snapshot());
        let snapshot = snapshot.map_err(Stays::Links)?;
        if let Some(left) = snapshot.addresses.iter().find(|a| fenced.contains(&a.ip)) {
            return Err(Stays::Address(left.ip, snapshot.name(left.ifindex)));
        }
        Ok(gate.remove()?)
    });
    match timeout(LEAVE, gone).await {
        Ok(Some(Ok(()))) => {
            info!("packet gate removed");
            match tokio::task::block_in_place(vmac::remove_all) {
                Ok(gone) if gone.is_empty() => {}
                Ok(gone) => info!("interfaces of virtual MACs removed: {gone:?}"),
                Err(e) => warn!("interfaces of virtual MACs may be left: {e}"),
            }
        }
        Ok(Some(Err(why))) => warn!(
            "the packet gate stays in force, because {why}: until the next start, or `buoy fence remove`"
        ),
        // The lease thread is gone, and with it the gate's owner; or it hangs.
        Ok(None) | Err(_) => {
            warn!("the packet gate stays in force until the next start, or `buoy fence remove`");
        }
    }
}

/// Says what happens in the kernel, remembers which interfaces went down, wakes the guardian, and has VIPs announced again where neighbours
/// may have forgotten them. Runs for ever.
pub async fn watch(
    mut events: mpsc::Receiver<KernelEvent>,
    links_lately: LinkHistory,
    (changed, gated, attempts): (Arc<Notify>, Gated, Attempts),
    (shared, refusals): (Arc<LeaseShared>, Refusals),
    announcer: Announcer,
) {
    let links = Links::open()
        .map_err(|e| error!("cannot ask the kernel for interfaces: {e}"))
        .ok();
    while let Some(event) = events.recv().await {
        say(&event);
        links_lately.note(&event);
        if let KernelEvent::LinkGone { ifindex, .. } = event {
            gated.remove(ifindex);
        }
        attempts.note(&event, boottime());
        lost(&event, &shared, &refusals);
        changed.notify_one();
        if let KernelEvent::LinkUp { ifindex, .. } | KernelEvent::LinkMacChanged { ifindex, .. } =
            event
        {
            let snapshot = links
                .as_ref()
                .and_then(|l| tokio::task::block_in_place(|| l.snapshot()).ok());
            let link = snapshot.as_ref().and_then(|s| s.links.get(&ifindex));
            if let Some(mac) = link.and_then(|l| l.mac) {
                announcer.announce_again(ifindex, mac).await;
            }
        }
    }
}

/// Wakes the guardian when somebody else changed the tables of the gate. Runs for ever.
pub async fn watch_tables(notices: Option<TableNotices>, changed: Arc<Notify>) {
    let Some(mut notices) = notices else {
        return std::future::pending().await;
    };
    loop {
        match notices.changed().await {
            Ok(()) => {
                debug!("somebody changed the tables of the packet gate");
                changed.notify_one();
            }
            Err(e) => {
                error!(
                    "cannot hear of changes to the packet gate; it is looked at every second: {e}"
                );
                return std::future::pending().await;
            }
        }
    }
}

/// A VIP without one of its addresses is dark however good its lease is: the guardian gives it up, and it stays away for
/// as long as one that the kernel refused from the beginning.
fn lost(event: &KernelEvent, shared: &LeaseShared, refusals: &Refusals) {
    let KernelEvent::AddressLost {
        ip,
        refused_for,
        why,
    } = event
    else {
        return;
    };
    let held = shared.held.load();
    let here = |(_, held): &(&(VipName, Epoch), &Held)| {
        held.phase == Phase::Active && held.addresses.contains(ip)
    };
    if let Some(((vip, _), _)) = held.iter().find(here) {
        let why = format!(
            "its address {ip} is gone from this node and could not be put back for {refused_for:.1?}: {why}"
        );
        refusals.note(vip, why, boottime());
    }
}

fn say(event: &KernelEvent) {
    match event {
        KernelEvent::AddressRemoved { ip, repaired, .. } => {
            warn!("somebody removed {ip}, which is held here (put back: {repaired})");
        }
        KernelEvent::AddressAppeared { ip, repaired, .. } => {
            warn!("{ip}, which is not held here, appeared on this host (removed: {repaired})");
        }
        // Told once by the keeper when it begins, and here by what is given up for it.
        KernelEvent::AddressLost { .. } => {}
        KernelEvent::Contended {
            ip,
            repairs,
            within,
            ..
        } => {
            error!("another program fights for {ip}: {repairs} repairs in {within:.1?}");
        }
        KernelEvent::LinkDown { name, .. } => warn!(interface = %name, "went down"),
        KernelEvent::LinkGone { name, .. } => warn!(interface = %name, "is gone"),
        KernelEvent::LinkUp { name, .. } => info!(interface = %name, "is up"),
        other => debug!("{other:?}"),
    }
}

/// Says what the announcer hears. Runs for ever.
pub async fn listen(mut events: mpsc::Receiver<AnnounceEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            AnnounceEvent::Conflict { ip, mac, ifindex } => {
                let mac = mac.map(|b| format!("{b:02x}")).join(":");
                warn!(
                    "{mac} on interface {ifindex} claims {ip}, which is held here: announced again"
                );
            }
            AnnounceEvent::Failed {
                ip,
                interface,
                error,
            } => {
                error!("{ip} cannot be announced on {interface}: {error}");
            }
            AnnounceEvent::Deaf { interface, error } => {
                error!("conflicting claims cannot be heard on {interface}: {error}");
            }
        }
    }
}

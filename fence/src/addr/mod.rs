//! Keeps the addresses of active VIPs on their interfaces, and managed addresses off everything else.
//!
//! Every address is added with a valid lifetime of [`VALID_LIFETIME`] and refreshed every
//! [`REFRESH_EVERY`]: whatever happens to this process, the kernel takes it away (docs/kernel-fence.md).

mod absent;
mod actor;
mod error;
mod guard;
mod kernel;
#[cfg(test)]
mod leaving_tests;
mod orders;
mod repairs;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use buoy_core::spec::Scope;
use tokio::sync::{mpsc, oneshot};

use crate::watch::KernelEvent;

pub use absent::{LOST_AFTER, RETRY_EVERY};
pub use error::{Action, AddressError, Refusal, StartError};
pub use repairs::{REPAIR_GAP, REPAIR_WINDOW, REPAIRS_REPORTED};

/// Valid lifetime of an address, in seconds; the kernel is up to half a second late.
pub const VALID_LIFETIME: u32 = 3;
/// How often lifetimes are begun anew.
pub const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often all addresses of the host are compared with what should be, whatever was noticed.
pub const RESYNC_EVERY: Duration = Duration::from_secs(5);
/// Longest IPv4 label, in bytes.
pub const LABEL_MAX: usize = 15;
/// Orders that may wait for the keeper.
const COMMAND_QUEUE: usize = 256;

/// Asked at the last moment: may this host use the address now (is its lease live)? It is called
/// often, from several threads, and must not block.
pub type LeaseCheck = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Whether an interface, by its index, carries the packet gate.
pub type GateCheck = Arc<dyn Fn(u32) -> bool + Send + Sync>;

/// An address as it shall be added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressSpec {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length, 1 to 32 or 1 to 128.
    pub prefix: u8,
    /// Name of the interface.
    pub interface: String,
    /// IPv4 label, at most [`LABEL_MAX`] bytes; `None`: the interface's name. Ignored for IPv6.
    pub label: Option<String>,
    /// Scope of the address.
    pub scope: Scope,
}

/// A managed address that was found and removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leftover {
    /// The address.
    pub ip: IpAddr,
    /// The prefix length it had.
    pub prefix: u8,
    /// Name of the interface that carried it.
    pub interface: String,
}

/// What came of looking for leftovers.
#[derive(Debug, Default)]
pub struct Cleanup {
    /// What was found and removed.
    pub removed: Vec<Leftover>,
    /// What was found and is still there.
    pub failed: Vec<AddressError>,
}

enum Command {
    Add(
        Vec<AddressSpec>,
        oneshot::Sender<Vec<Result<(), AddressError>>>,
    ),
    Remove(Vec<IpAddr>, oneshot::Sender<Vec<Result<(), AddressError>>>),
    RefreshAll(oneshot::Sender<Vec<AddressError>>),
    Cleanup(oneshot::Sender<Cleanup>),
    Resync,
}

/// What callers and the keeper both look at.
struct Shared {
    held: RwLock<BTreeSet<IpAddr>>,
    managed: RwLock<BTreeSet<IpAddr>>,
    live: LeaseCheck,
    gated: GateCheck,
}

impl Shared {
    fn hold(&self, ip: IpAddr) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.insert(ip);
    }

    fn release(&self, ip: IpAddr) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.remove(&ip);
    }

    fn is_held(&self, ip: IpAddr) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.contains(&ip)
    }

    /// Held, and the lease is live.
    fn may_keep(&self, ip: IpAddr) -> bool {
        self.is_held(ip) && (self.live)(ip)
    }

    fn is_managed(&self, ip: IpAddr) -> bool {
        let managed = self.managed.read().unwrap_or_else(PoisonError::into_inner);
        managed.contains(&ip)
    }
}

/// Handle to the keeper of addresses: a thread of its own, so that neither a busy runtime nor the
/// kernel's locks come between a lifetime and its refresh. The thread ends with the last handle;
/// addresses then go with their lifetimes.
#[derive(Clone)]
pub struct Addresses {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Addresses {
    /// Starts the keeper in the network namespace of the calling thread. `live` is asked before each
    /// refresh and repair: an address whose lease has ended is left to its lifetime. `gated` is asked before each of
    /// these and before an address is added or moves to an interface that was made anew.
    ///
    /// The events also tell of interfaces and traffic control. When they end, the keeper has ended.
    ///
    /// # Errors
    /// When the kernel gives no thread or netlink socket.
    pub fn start(
        live: LeaseCheck,
        gated: GateCheck,
    ) -> Result<(Addresses, mpsc::Receiver<KernelEvent>), StartError> {
        let shared = Arc::new(Shared {
            held: RwLock::default(),
            managed: RwLock::default(),
            live,
            gated,
        });
        let (commands, orders) = mpsc::channel(COMMAND_QUEUE);
        let events = actor::spawn(Arc::clone(&shared), orders)?;
        Ok((Addresses { shared, commands }, events))
    }

    /// Adds addresses, or changes how they are there; an address that is there as asked for is
    /// refreshed. The results are in the order of the specs; an address that failed is not held.
    ///
    /// The addresses count as held from the call on. Dropping the future undoes nothing: what was begun
    /// may still be done, until [`Addresses::remove`].
    ///
    /// # Errors
    /// Each address has its own result.
    pub fn add(
        &self,
        specs: Vec<AddressSpec>,
    ) -> impl Future<Output = Vec<Result<(), AddressError>>> + Send + use<> {
        let ips: Vec<_> = specs.iter().map(|spec| spec.ip).collect();
        ips.iter().for_each(|ip| self.shared.hold(*ip));
        let this = self.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            let results = this.ask(Command::Add(specs, reply), answer).await;
            let results = results.unwrap_or_else(|| stopped(ips.len()));
            for (ip, _) in ips
                .iter()
                .zip(&results)
                .filter(|(_, result)| result.is_err())
            {
                this.shared.release(*ip);
            }
            results
        }
    }

    /// Removes addresses. One that is not held, or gone already, is fine.
    ///
    /// From the call on (not only when the future runs) no refresh and no repair brings them back.
    ///
    /// # Errors
    /// Each address has its own result, in order.
    pub fn remove(
        &self,
        ips: &[IpAddr],
    ) -> impl Future<Output = Vec<Result<(), AddressError>>> + Send + use<> {
        self.release(ips);
        let (this, ips) = (self.clone(), ips.to_vec());
        async move {
            let count = ips.len();
            let (reply, answer) = oneshot::channel();
            let results = this.ask(Command::Remove(ips, reply), answer).await;
            results.unwrap_or_else(|| stopped(count))
        }
    }

    /// Stops refreshing and repairing addresses, at once and without the kernel: what a caller does
    /// first when a lease has ended. [`Addresses::remove`] has to follow.
    pub fn release(&self, ips: &[IpAddr]) {
        ips.iter().for_each(|ip| self.shared.release(*ip));
    }

    /// Begins all lifetimes anew, now; the keeper does so by itself every [`REFRESH_EVERY`].
    ///
    /// # Errors
    /// One for each address that could not be refreshed.
    pub async fn refresh_all(&self) -> Result<(), Vec<AddressError>> {
        let (reply, answer) = oneshot::channel();
        match self.ask(Command::RefreshAll(reply), answer).await {
            Some(errors) if errors.is_empty() => Ok(()),
            Some(errors) => Err(errors),
            None => Err(vec![AddressError::Stopped]),
        }
    }

    /// The addresses held now.
    pub fn mine(&self) -> BTreeSet<IpAddr> {
        let held = self.shared.held.read();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says which addresses are the cluster's, on whichever node: those of them that are not held are
    /// removed wherever they appear on this host.
    pub fn set_managed(&self, managed: BTreeSet<IpAddr>) {
        let lock = self.shared.managed.write();
        *lock.unwrap_or_else(PoisonError::into_inner) = managed;
        // A full queue has a resync coming up anyway, within RESYNC_EVERY.
        let _ = self.commands.try_send(Command::Resync);
    }

    /// At start: removes what a predecessor left, that is each managed address that is not held, from
    /// every interface and with whatever prefix. Implies [`Addresses::set_managed`].
    ///
    /// # Errors
    /// In [`Cleanup::failed`].
    pub async fn remove_leftovers(&self, managed: &[IpAddr]) -> Cleanup {
        let all = managed.iter().copied().collect();
        *self
            .shared
            .managed
            .write()
            .unwrap_or_else(PoisonError::into_inner) = all;
        let (reply, answer) = oneshot::channel();
        let cleanup = self.ask(Command::Cleanup(reply), answer).await;
        cleanup.unwrap_or_else(|| Cleanup {
            removed: vec![],
            failed: vec![AddressError::Stopped],
        })
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Option<T> {
        self.commands.send(command).await.ok()?;
        answer.await.ok()
    }
}

fn stopped(count: usize) -> Vec<Result<(), AddressError>> {
    (0..count).map(|_| Err(AddressError::Stopped)).collect()
}

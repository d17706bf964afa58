//! One host with addresses to keep, and what its kernel says it has.
#![allow(
    dead_code,
    reason = "every test file compiles its own copy and uses a part of it"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::spec::Scope;
use buoy_fence::addr::{AddressSpec, Addresses};
use buoy_fence::link::{FoundAddress, Links, Snapshot};
use buoy_fence::watch::KernelEvent;
use tokio::sync::mpsc;

use crate::common::NetNs;

/// How long a test waits for what should come.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A namespace with `eth0`, 10.0.0.1/24 and fd00::1/64, on a cable to `peer`.
pub struct Host {
    pub ns: NetNs,
    pub peer: NetNs,
}

impl Host {
    pub fn new(prefix: &str) -> Host {
        let ns = NetNs::new(prefix);
        let peer = NetNs::new(&format!("{prefix}-peer"));
        ns.veth("eth0", &peer, "eth0");
        ns.ip("addr add 10.0.0.1/24 dev eth0");
        ns.ip("addr add fd00::1/64 dev eth0 nodad");
        peer.ip("addr add 10.0.0.2/24 dev eth0");
        peer.ip("addr add fd00::2/64 dev eth0 nodad");
        Host { ns, peer }
    }

    /// Runs a future inside, on a runtime with one more thread for what it spawns.
    pub fn run<F: Future>(&self, f: impl FnOnce() -> F + Send) -> F::Output
    where
        F::Output: Send,
    {
        self.ns.run(|| {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(1).enable_all().build();
            runtime.expect("a runtime").block_on(f())
        })
    }

    pub fn links(&self) -> Links {
        self.ns.run(|| Links::open().expect("a socket"))
    }

    /// A keeper for which every lease is live.
    pub fn keeper(&self) -> (Addresses, mpsc::Receiver<KernelEvent>) {
        self.ns
            .run(|| Addresses::start(Arc::new(|_| true), Arc::new(|_| true)).expect("a keeper"))
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A host address on eth0.
pub fn vip(text: &str) -> AddressSpec {
    let ip = ip(text);
    AddressSpec {
        ip,
        prefix: if ip.is_ipv4() { 32 } else { 128 },
        interface: "eth0".to_owned(),
        label: None,
        scope: Scope::Global,
    }
}

/// Adds addresses as [`vip`] describes them; each must be taken.
pub async fn add(addresses: &Addresses, all: &[&str]) {
    let results = addresses
        .add(all.iter().map(|text| vip(text)).collect())
        .await;
    results
        .into_iter()
        .for_each(|result| result.expect("it is added"));
}

/// These are the addresses of the cluster's VIPs.
pub fn manage(addresses: &Addresses, all: &[&str]) {
    addresses.set_managed(all.iter().map(|text| ip(text)).collect::<BTreeSet<_>>());
}

/// Where and how an address is.
pub fn find(snapshot: &Snapshot, ip: IpAddr) -> Vec<FoundAddress> {
    let found = snapshot.addresses.iter().filter(|a| a.ip == ip);
    found.cloned().collect()
}

pub fn is_there(links: &Links, ip: IpAddr) -> bool {
    !find(&links.snapshot().expect("a snapshot"), ip).is_empty()
}

/// Waits, asleep between looks, and says how long it took.
pub async fn until(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> bool,
) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < patience,
            "waited {patience:?} in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

/// The next event that is wanted; others are passed over.
pub async fn event<E: std::fmt::Debug>(
    events: &mut mpsc::Receiver<E>,
    what: &str,
    mut wanted: impl FnMut(&E) -> bool,
) -> E {
    let mut others = Vec::new();
    let next = async {
        loop {
            let event = events.recv().await.expect("the source of events lives");
            if wanted(&event) {
                return event;
            }
            others.push(event);
        }
    };
    let found = tokio::time::timeout(PATIENCE, next).await;
    found.unwrap_or_else(|_| panic!("no event: {what}; there were {others:?}"))
}

//! The lease thread: a thread of its own, realtime where allowed, that renews this node's leases,
//! answers the renewals of others, and writes the deadlines into the kernel's gate.
//!
//! Nothing else of the daemon (disk, Raft, gRPC, netlink) runs on it, and it waits for nothing.

mod codec;
mod driver;
mod lateness;
mod link;
mod messages;
#[cfg(feature = "fault-points")]
mod planted;
pub mod shared;
#[cfg(test)]
mod stubborn;
mod valve;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use buoy_core::lease::LogView;
use buoy_core::lease::holder::{Holder, HolderParams};
use buoy_core::lease::voter::Voter;
use buoy_core::spec::timing::{MAX_LEASE, NFT_MARGIN, Timing};
use buoy_core::{Mono, NodeId, NodeName, Session};
use buoy_fence::clock::boottime;
use buoy_fence::gate::{Gate, GateKind};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, oneshot, watch};

pub use lateness::Lateness;
pub use messages::{GateJob, LeaseIn, LeaseOut, Promises};
pub use shared::{Held, LeaseShared, Phase};

use driver::{Driver, Parts};
use link::Peer;

/// Everything the thread needs to begin.
pub struct Setup {
    /// This run of the daemon.
    pub session: Session,
    /// UDP address to serve renewals on and to send from.
    pub listen: SocketAddr,
    /// The other nodes.
    pub peers: Vec<(NodeId, NodeName, SocketAddr)>,
    /// Timings of this node.
    pub timing: Timing,
    /// Longest promise that this voter may have made, as it is on disk.
    pub max_promise: Duration,
    /// The voter's own log, as appended.
    pub log_view: Arc<ArcSwap<LogView>>,
    /// Ticks when `log_view` was replaced.
    pub log_view_changed: watch::Receiver<u64>,
    /// The packet gate, already installed.
    pub gate: Box<dyn Gate>,
    /// QUIC configuration for peers that renew here.
    pub quic_server: quinn::ServerConfig,
    /// QUIC configuration to renew at peers.
    pub quic_client: quinn::ClientConfig,
    /// There is no TLS: certificates say nothing about who speaks.
    pub insecure: bool,
    /// Addresses that the gate fences already.
    pub managed: BTreeSet<IpAddr>,
    /// Where the thread shows what it does.
    pub shared: Arc<LeaseShared>,
}

/// The running thread.
pub struct LeaseThread {
    /// Says things to it.
    pub input: UnboundedSender<LeaseIn>,
    /// What it asks for.
    pub output: UnboundedReceiver<LeaseOut>,
    /// Why realtime scheduling was refused, if it was.
    pub realtime_refused: Option<String>,
    ended: oneshot::Receiver<()>,
}

impl LeaseThread {
    /// Starts the thread; returns once it listens.
    ///
    /// # Errors
    /// The UDP address cannot be bound, or no thread can be had.
    pub fn spawn(setup: Setup) -> io::Result<LeaseThread> {
        let (input, input_rx) = mpsc::unbounded_channel();
        let (output_tx, output) = mpsc::unbounded_channel();
        let (ready_tx, ready) = std::sync::mpsc::channel();
        let (alive, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("buoy-lease".to_owned())
            .spawn(move || {
                // Dropped when the thread ends, however it does.
                let _alive = alive;
                let refused = crate::sys::realtime(crate::sys::LEASE_PRIORITY)
                    .err()
                    .map(|e| e.to_string());
                let runtime = match tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                {
                    Ok(runtime) => runtime,
                    Err(e) => {
                        let _ = ready_tx.send(Err(e));
                        return;
                    }
                };
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, async move {
                    match begin(setup, output_tx) {
                        Ok((driver, log_view_changed)) => {
                            let _ = ready_tx.send(Ok(refused));
                            run(driver, input_rx, log_view_changed).await;
                        }
                        Err(e) => {
                            let _ = ready_tx.send(Err(e));
                        }
                    }
                });
            })?;
        let realtime_refused = ready
            .recv()
            .map_err(|_| io::Error::other("the lease thread ended at its start"))??;
        Ok(LeaseThread {
            input,
            output,
            realtime_refused,
            ended,
        })
    }

    /// Takes the ends of the thread apart.
    pub fn split(
        self,
    ) -> (
        UnboundedSender<LeaseIn>,
        UnboundedReceiver<LeaseOut>,
        LeaseGuard,
    ) {
        (self.input, self.output, LeaseGuard(self.ended))
    }
}

/// Tells when the thread ends.
pub struct LeaseGuard(oneshot::Receiver<()>);

impl LeaseGuard {
    /// Waits until the thread has ended: it does once every sender to it is gone, and by itself only
    /// through a fault.
    pub async fn ended(self) {
        // Nothing is ever sent: the sender is dropped.
        let _ = self.0.await;
    }
}

/// Asks the voter for its record.
///
/// # Errors
/// The lease thread is gone.
pub async fn promises(input: &UnboundedSender<LeaseIn>) -> io::Result<Promises> {
    let gone = || io::Error::other("the lease thread has ended");
    let (reply, answer) = oneshot::channel();
    input.send(LeaseIn::Promises(reply)).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
}

/// Largest UDP payload that is sent: fits every path with the IPv6 minimum MTU.
const MAX_UDP_PAYLOAD: u16 = 1200;
/// Round trip assumed before the first one is measured: short, so that a lost handshake packet is
/// sent again within a lease.
const INITIAL_RTT: Duration = Duration::from_millis(10);

/// A peer that says nothing for one lease is given up.
fn transport(timing: &Timing) -> Arc<quinn::TransportConfig> {
    let mut t = quinn::TransportConfig::default();
    // An acknowledgement that nothing carries along is sent at once: a later one would wake both ends once more.
    let mut acknowledge = quinn::AckFrequencyConfig::default();
    acknowledge.ack_eliciting_threshold(0u8.into());
    t.ack_frequency_config(Some(acknowledge));
    t.max_idle_timeout(timing.lease.try_into().ok())
        // Without claims and members there is nothing to say, and the connection should still be there.
        .keep_alive_interval(Some(timing.lease / 3))
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MAX_UDP_PAYLOAD)
        .mtu_discovery_config(None)
        .datagram_receive_buffer_size(Some(1 << 16))
        .datagram_send_buffer_size(1 << 16)
        .max_concurrent_uni_streams(16u8.into())
        .max_concurrent_bidi_streams(0u8.into());
    Arc::new(t)
}

type Begun = (Rc<RefCell<Driver>>, watch::Receiver<u64>);

fn begin(setup: Setup, out: UnboundedSender<LeaseOut>) -> io::Result<Begun> {
    let Setup {
        session,
        timing,
        mut quic_server,
        mut quic_client,
        ..
    } = setup;
    quic_server.transport_config(transport(&timing));
    quic_client.transport_config(transport(&timing));
    let endpoint = quinn::Endpoint::server(quic_server, setup.listen)?;

    let now = boottime();
    let me = session.node;
    let params = holder_params(&timing, setup.gate.kind());
    let parts = Parts {
        me,
        voter: Voter::new(
            me,
            timing.allowance(),
            now,
            setup.max_promise,
            named_lease(&params),
        ),
        holder: Holder::new(session, params),
        gate: setup.gate,
        suspect_after: timing.suspect_after,
        managed: setup.managed,
        log_view: setup.log_view,
        shared: setup.shared,
        out,
    };
    let driver = Rc::new(RefCell::new(Driver::new(parts)));
    let peers = setup
        .peers
        .iter()
        .map(|(id, name, _)| (name.clone(), *id))
        .collect();
    let names = Rc::new(link::Names {
        peers,
        insecure: setup.insecure,
    });
    for (id, name, address) in setup.peers {
        let peer = Peer { id, name, address };
        let task = link::dial(
            driver.clone(),
            endpoint.clone(),
            quic_client.clone(),
            peer,
            timing.lease,
        );
        tokio::task::spawn_local(task);
    }
    tokio::task::spawn_local(link::accept(driver.clone(), endpoint, names));
    Ok((driver, setup.log_view_changed))
}

/// What a kind of gate needs beyond the guard that every voter adds. It is named in this node's own renewals: no
/// other node has to know or to agree.
fn gate_margin(gate: GateKind) -> Duration {
    match gate {
        GateKind::Nft => NFT_MARGIN,
        GateKind::Ebpf | GateKind::UserspaceOnly => Duration::ZERO,
    }
}

/// The longest promise that a node with these timings and this gate asks for.
pub fn longest_promise(timing: &Timing, gate: GateKind) -> Duration {
    let named = named_lease(&holder_params(timing, gate));
    timing.allowance().voter_length(named)
}

/// The longest promise that any node with these timings asks for, whatever its gate.
pub fn longest_promise_to_any(timing: &Timing) -> Duration {
    let gates = [GateKind::Ebpf, GateKind::Nft, GateKind::UserspaceOnly];
    let longest = gates.map(|gate| longest_promise(timing, gate)).into_iter();
    longest.max().unwrap_or_default()
}

/// The lease that a node names in its renewals, which is what voters count with.
fn named_lease(params: &HolderParams) -> Duration {
    params.lease.saturating_add(params.gate_margin)
}

fn holder_params(timing: &Timing, gate: GateKind) -> HolderParams {
    let margin = gate_margin(gate);
    HolderParams {
        // Voters refuse renewals that name more than the longest lease.
        lease: timing.lease.min(MAX_LEASE.saturating_sub(margin)),
        gate_margin: margin,
        renew_every: timing.renew,
        retry_after: timing.retry,
    }
}

/// Runs until nobody can say anything to the thread any more.
async fn run(
    driver: Rc<RefCell<Driver>>,
    mut input: UnboundedReceiver<LeaseIn>,
    mut log_view_changed: watch::Receiver<u64>,
) {
    let wake: Rc<Notify> = driver.borrow().wake.clone();
    loop {
        let next = driver.borrow_mut().next_deadline();
        tokio::select! {
            // What time demands comes first, however much is asked for.
            biased;
            () = sleep_until(next) => driver.borrow_mut().tick(),
            command = input.recv() => match command {
                Some(command) => driver.borrow_mut().input(command),
                None => return,
            },
            changed = log_view_changed.changed() => {
                if changed.is_err() {
                    return;
                }
                driver.borrow_mut().log_changed();
            }
            () = wake.notified() => {}
        }
    }
}

async fn sleep_until(at: Option<Mono>) {
    match at {
        Some(at) => {
            let now = boottime();
            if at > now {
                tokio::time::sleep(at.since(now)).await;
            }
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

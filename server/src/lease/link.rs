//! Connections to and from peers: QUIC datagrams for steady renewals, a stream for messages that do
//! not fit one. Each peer has its own connection and task, so a dead one delays nobody.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use buoy_core::{NodeId, NodeName};
use buoy_fence::fault_point;
use quinn::{Connection, Endpoint};
use rustls::pki_types::CertificateDer;
use tokio::task::spawn_local;
use tracing::{debug, info, warn};

use super::codec::{self, MAX_MESSAGE};
use super::driver::Driver;
use crate::tls::dns_names;

/// Shortest and longest wait between two attempts to connect.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(50);

/// A peer to renew at.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its Raft id.
    pub id: NodeId,
    /// Its name, which its certificate carries.
    pub name: NodeName,
    /// Where it listens for renewals (UDP).
    pub address: SocketAddr,
}

/// Where messages for a peer leave.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    connection: Connection,
    /// When the oldest message left to which nothing came back.
    unanswered: Rc<Cell<Option<Instant>>>,
    /// How long a message may be without an answer; `None` where none is expected.
    patience: Option<Duration>,
    /// Nodes that the other end's certificate names; `None`: nobody checked.
    identity: Option<Rc<BTreeSet<NodeId>>>,
}

impl Outlet {
    /// Which connection this is, to tell it from a later one.
    pub(super) fn id(&self) -> usize {
        self.connection.stable_id()
    }

    fn new(
        connection: &Connection,
        identity: Option<BTreeSet<NodeId>>,
        patience: Option<Duration>,
    ) -> Self {
        Self {
            connection: connection.clone(),
            unanswered: Rc::default(),
            patience,
            identity: identity.map(Rc::new),
        }
    }

    /// May the other end say something in the name of `node`?
    pub(super) fn speaks_for(&self, node: NodeId) -> bool {
        self.identity
            .as_ref()
            .is_none_or(|names| names.contains(&node))
    }

    /// Sends without waiting: a datagram, or a stream of its own where the message is too long. A peer that
    /// answers nothing is given up even while the transport would still wait: it hears every renewal, so this
    /// is looked at often enough.
    pub(super) fn send(&self, bytes: Vec<u8>) {
        if let Some(patience) = self.patience {
            let now = Instant::now();
            match self.unanswered.get() {
                None => self.unanswered.set(Some(now)),
                Some(since) if now.duration_since(since) >= patience => {
                    return self.close(&format!("no answer for {patience:?}"));
                }
                Some(_) => {}
            }
        }
        let fits = self
            .connection
            .max_datagram_size()
            .is_some_and(|max| bytes.len() <= max);
        if fits {
            // Failure means that the connection is closing; its task notices and connects anew.
            if let Err(e) = self.connection.send_datagram(bytes.into()) {
                debug!(peer = %self.connection.remote_address(), "renewal not sent: {e}");
            }
            return;
        }
        let connection = self.connection.clone();
        spawn_local(async move {
            let sent = async {
                let mut stream = connection.open_uni().await?;
                stream.write_all(&bytes).await?;
                stream.finish()?;
                Ok::<(), Box<dyn std::error::Error>>(())
            };
            if let Err(e) = sent.await {
                debug!(peer = %connection.remote_address(), "claims not sent: {e}");
            }
        });
    }

    /// Gives the connection up.
    pub(super) fn close(&self, why: &str) {
        self.connection.close(0u32.into(), why.as_bytes());
    }
}

/// Keeps one connection to `peer`, for ever. It is given up after `patience` (one lease) without a
/// word from the peer.
pub(super) async fn dial(
    driver: Rc<RefCell<Driver>>,
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    peer: Peer,
    patience: Duration,
) {
    let mut wait = RETRY_MIN;
    let mut complained = false;
    loop {
        let attempt = async {
            endpoint
                .connect_with(config.clone(), peer.address, peer.name.as_str())
                .map_err(|e| e.to_string())?
                .await
                .map_err(|e| e.to_string())
        };
        let failure = match tokio::time::timeout(patience, attempt).await {
            Ok(Ok(connection)) => {
                debug!(peer = %peer.name, "renewal connection up");
                (wait, complained) = (RETRY_MIN, false);
                // The handshake checked that the peer's certificate carries its name, where there is TLS.
                let outlet = Outlet::new(&connection, Some([peer.id].into()), Some(patience));
                driver.borrow_mut().link_up(peer.id, outlet.clone());
                let why = read(&driver, &outlet).await;
                driver.borrow_mut().link_down(peer.id, outlet.id());
                outlet.close(&why);
                why
            }
            Ok(Err(e)) => e,
            Err(_) => format!("no answer within {patience:?}"),
        };
        if !complained {
            info!(peer = %peer.name, address = %peer.address, "no renewal connection: {failure}");
            complained = true;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX).min(patience);
    }
}

/// Which nodes a certificate speaks for.
pub(super) struct Names {
    /// Names of all peers.
    pub peers: Vec<(NodeName, NodeId)>,
    /// Without TLS nobody can be told from anybody.
    pub insecure: bool,
}

impl Names {
    fn of(&self, connection: &Connection) -> Option<BTreeSet<NodeId>> {
        if self.insecure {
            return None;
        }
        let chain = connection
            .peer_identity()?
            .downcast::<Vec<CertificateDer<'static>>>();
        let names = chain
            .ok()
            .and_then(|c| dns_names(c.first()?))
            .unwrap_or_default();
        let speaks = |peer: &NodeName| names.iter().any(|n| n.eq_ignore_ascii_case(peer.as_str()));
        Some(
            self.peers
                .iter()
                .filter(|(name, _)| speaks(name))
                .map(|(_, id)| *id)
                .collect(),
        )
    }
}

/// Accepts the connections of peers that renew here.
pub(super) async fn accept(driver: Rc<RefCell<Driver>>, endpoint: Endpoint, names: Rc<Names>) {
    while let Some(incoming) = endpoint.accept().await {
        let (driver, names) = (driver.clone(), names.clone());
        spawn_local(async move {
            let from = incoming.remote_address();
            match incoming.await {
                Ok(connection) => {
                    // Answers are not answered: only the transport tells whether the peer is there.
                    let outlet = Outlet::new(&connection, names.of(&connection), None);
                    let why = read(&driver, &outlet).await;
                    driver.borrow_mut().inbound_gone(outlet.id());
                    debug!(%from, "renewal connection from peer ended: {why}");
                }
                Err(e) if is_refusal(&e) => warn!(%from, "renewal connection refused: {e}"),
                // An attempt that the peer gave up meanwhile, or that arrived too late.
                Err(e) => debug!(%from, "no renewal connection: {e}"),
            }
        });
    }
}

/// Did one side refuse the other's certificate? TLS alerts travel as codes 0x100 to 0x1ff (RFC 9001
/// section 4.8).
fn is_refusal(error: &quinn::ConnectionError) -> bool {
    let code = match error {
        quinn::ConnectionError::TransportError(e) => u64::from(e.code),
        quinn::ConnectionError::ConnectionClosed(e) => u64::from(e.error_code),
        _ => return false,
    };
    (0x100..0x200).contains(&code)
}

/// Hands everything that arrives to the driver; returns why the connection ended.
async fn read(driver: &Rc<RefCell<Driver>>, outlet: &Outlet) -> String {
    let connection = &outlet.connection;
    loop {
        tokio::select! {
            datagram = connection.read_datagram() => match datagram {
                Ok(bytes) => deliver(driver, outlet, &bytes),
                Err(e) => return e.to_string(),
            },
            stream = connection.accept_uni() => match stream {
                Ok(mut stream) => {
                    let (driver, outlet) = (driver.clone(), outlet.clone());
                    spawn_local(async move {
                        match stream.read_to_end(MAX_MESSAGE).await {
                            Ok(bytes) => deliver(&driver, &outlet, &bytes),
                            Err(e) => debug!("lease message cut short: {e}"),
                        }
                    });
                }
                Err(e) => return e.to_string(),
            },
        }
    }
}

fn deliver(driver: &Rc<RefCell<Driver>>, outlet: &Outlet, bytes: &[u8]) {
    fault_point!("answer.arrived");
    outlet.unanswered.set(None);
    match codec::decode(bytes) {
        Ok(message) => driver.borrow_mut().message(message, outlet.clone()),
        Err(e) => warn!(from = %outlet.connection.remote_address(), "{e}"),
    }
}

//! Connections to the other nodes: one for each peer and purpose, made when first used and kept.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buoy_core::NodeId;
use buoy_core::spec::NodeSpec;
use buoy_core::spec::timing::Timing;
use buoy_proto::peer::peer_client::PeerClient;
use buoy_storage::PeerNode;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::MAX_PEER_MESSAGE;
use super::list::NodeList;
use super::stamp::Stamp;
use crate::tls::Tls;

/// What a connection is for. Each purpose has its own, so that a long message on one does not hold up
/// a short one on another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// Replication of the log, and votes.
    Raft,
    /// Raft heartbeats.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Reports, and calls passed on to the leader or an owner.
    Control,
}

/// A client of a peer's internal service.
pub type Client = PeerClient<InterceptedService<Channel, Stamp>>;

/// A node that the configuration does not list.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("node {0} is in no configuration that this node knows")]
pub struct UnknownPeer(pub NodeId);

/// How long to wait for what, all from the timing profile: a peer that is cut off is given up, and
/// reached again, within one election.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between two HTTP/2 pings, while a call waits for its answer.
    pub ping_every: Duration,
    /// For a ping's answer.
    pub ping_answer: Duration,
    /// For a TCP connection and its handshakes.
    pub connect: Duration,
    /// For a request on an open replication stream.
    pub stream: Duration,
    /// Before a peer that was unreachable is tried again.
    pub backoff: Duration,
    /// A node that was not heard for this long is not trusted with VIPs.
    pub suspect_after: Duration,
}

/// A request on a replication stream waits for the peer's disk, which may be slow for a moment without
/// being gone: never given up sooner than this.
const STREAM_PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Between two pings and for an answer where pings are not what finds a peer gone: while a snapshot is on its way a ping
/// waits behind what fills a slow link, and heartbeats tell by themselves.
const PATIENT_PINGS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

impl Patience {
    fn new(timing: &Timing) -> Self {
        let election = timing.election_max;
        Self {
            // Together less than a lease: so long may a connection to a cut-off peer last.
            ping_every: timing.lease / 2,
            ping_answer: timing.lease / 3,
            connect: election * 2 / 3,
            stream: (election * 4).max(STREAM_PATIENCE_MIN),
            backoff: election / 3,
            suspect_after: timing.suspect_after,
        }
    }
}

/// Connections to all peers; clones share them.
#[derive(Clone)]
pub struct PeerPool(Arc<Inner>);

struct Inner {
    cluster: String,
    me: NodeId,
    list: NodeList,
    /// Calls leave from the node's own address, never from a VIP that happens to be on this host.
    local: Option<IpAddr>,
    tls: Tls,
    patience: Patience,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
}

struct Peer {
    node: PeerNode,
    /// The configuration lists it.
    listed: bool,
    version: String,
    channels: BTreeMap<Purpose, Channel>,
}

impl Peer {
    fn new(node: &PeerNode, listed: bool) -> Self {
        Self {
            node: node.clone(),
            listed,
            version: String::new(),
            channels: BTreeMap::new(),
        }
    }
}

impl PeerPool {
    /// A pool for node `me` of `cluster`; `nodes` are all nodes that the configuration lists.
    pub fn new(cluster: &str, me: NodeId, nodes: &[NodeSpec], tls: Tls, timing: &Timing) -> Self {
        let local = nodes
            .iter()
            .find(|n| n.id == me)
            .map(|n| n.address.ip())
            .filter(|ip| !ip.is_unspecified());
        let pool = Self(Arc::new(Inner {
            cluster: cluster.to_owned(),
            me,
            list: NodeList::new(nodes),
            local,
            tls,
            patience: Patience::new(timing),
            peers: Mutex::default(),
        }));
        for node in nodes {
            let peer = PeerNode {
                name: node.name.to_string(),
                address: node.address.to_string(),
            };
            pool.peers().insert(node.id, Peer::new(&peer, true));
        }
        pool
    }

    /// Name of the cluster.
    pub fn cluster(&self) -> &str {
        &self.0.cluster
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.0.me
    }

    /// The nodes that the configuration lists.
    pub(super) fn list(&self) -> &NodeList {
        &self.0.list
    }

    /// How connections are secured.
    pub fn tls(&self) -> &Tls {
        &self.0.tls
    }

    /// A node that was not heard for this long is not trusted with VIPs.
    pub fn suspect_after(&self) -> Duration {
        self.0.patience.suspect_after
    }

    pub(super) fn patience(&self) -> Patience {
        self.0.patience
    }

    /// Only short look-ups happen under the lock, and none can panic half-way.
    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Peer>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers where a node is that the membership names. For a node that the configuration lists, the
    /// address in the configuration counts: the one in the log is from the day the cluster was formed.
    pub fn learn(&self, id: NodeId, node: &PeerNode) {
        let mut peers = self.peers();
        let known = peers.get(&id);
        if known.is_none_or(|peer| !peer.listed && peer.node != *node) {
            peers.insert(id, Peer::new(node, false));
        }
    }

    /// Name of a node.
    pub fn name(&self, id: NodeId) -> Option<String> {
        self.peers().get(&id).map(|p| p.node.name.clone())
    }

    /// All nodes but this one.
    pub fn others(&self) -> Vec<NodeId> {
        self.peers()
            .keys()
            .copied()
            .filter(|id| *id != self.0.me)
            .collect()
    }

    /// Version of Buoy that a node named in its last report; empty: none yet.
    pub fn version(&self, id: NodeId) -> String {
        self.peers()
            .get(&id)
            .map(|p| p.version.clone())
            .unwrap_or_default()
    }

    pub(super) fn note_version(&self, id: NodeId, version: &str) {
        if let Some(peer) = self.peers().get_mut(&id)
            && peer.version != version
        {
            peer.version = version.to_owned();
        }
    }

    /// A client for `peer`. Makes no connection yet; must be called within the tokio runtime.
    ///
    /// # Errors
    /// Nobody has told this pool about the peer.
    pub(crate) fn client(&self, peer: NodeId, purpose: Purpose) -> Result<Client, UnknownPeer> {
        let mut peers = self.peers();
        let entry = peers.get_mut(&peer).ok_or(UnknownPeer(peer))?;
        let channel = match entry.channels.get(&purpose) {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = self.endpoint(&entry.node, purpose).inspect_err(|e| {
                    tracing::error!(node = %peer, address = entry.node.address, "not an address: {e}");
                });
                let channel = endpoint.map_err(|_| UnknownPeer(peer))?.connect_lazy();
                entry.channels.insert(purpose, channel.clone());
                channel
            }
        };
        let stamp = Stamp::new(&self.0.cluster, &self.0.list, self.0.me, peer);
        Ok(PeerClient::with_interceptor(channel, stamp)
            .max_decoding_message_size(MAX_PEER_MESSAGE)
            .max_encoding_message_size(MAX_PEER_MESSAGE))
    }

    /// Gives up a connection on which nothing is answered; the next call makes a new one.
    pub(super) fn discard(&self, peer: NodeId, purpose: Purpose) {
        if let Some(entry) = self.peers().get_mut(&peer) {
            entry.channels.remove(&purpose);
        }
    }

    /// Pings go out while an answer is awaited, so also on the stream of a leader's replication. On all connections they
    /// would cost more than everything that is said there; Raft's calls find a dead one by themselves ([`PeerPool::discard`]).
    fn endpoint(
        &self,
        node: &PeerNode,
        purpose: Purpose,
    ) -> Result<Endpoint, tonic::transport::Error> {
        let Patience {
            ping_every,
            ping_answer,
            connect,
            ..
        } = self.0.patience;
        let (ping_every, ping_answer) = match purpose {
            // Heartbeats are answered or not; a ping would say nothing new.
            Purpose::Snapshot | Purpose::Heartbeat => PATIENT_PINGS,
            Purpose::Raft | Purpose::Control => (ping_every, ping_answer),
        };
        let tls = self.0.tls.client_config(&node.name);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", node.address))?
            .connect_timeout(connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(ping_every)
            .keep_alive_timeout(ping_answer)
            .keep_alive_while_idle(false)
            .local_address(self.0.local);
        match tls {
            Some(tls) => endpoint.tls_config(tls),
            None => Ok(endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use buoy_core::spec::Role;
    use buoy_core::spec::timing::Profile;

    use super::*;

    #[test]
    fn the_address_in_the_configuration_wins() {
        let spec = NodeSpec {
            id: NodeId(2),
            name: "n2".parse().unwrap(),
            address: "192.0.2.2:7400".parse().unwrap(),
            role: Role::Member,
        };
        let tls = Tls::insecure("test").unwrap();
        let timing = Timing::for_profile(Profile::Lan);
        let pool = PeerPool::new("test", NodeId(1), &[spec], tls, &timing);
        let at = |address: &str| PeerNode {
            name: "n2".into(),
            address: address.into(),
        };
        let address = |id| pool.peers()[&NodeId(id)].node.address.clone();
        pool.learn(NodeId(2), &at("192.0.2.99:7400"));
        assert_eq!(address(2), "192.0.2.2:7400");
        // One that only the log names is where the log says.
        for newer in ["192.0.2.7:7400", "192.0.2.8:7400"] {
            pool.learn(NodeId(7), &at(newer));
            assert_eq!(address(7), newer);
        }
    }
}

//! A cluster in one process: real storage, real Raft, real gRPC on loopback; no lease layer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buoy_core::NodeId;
use buoy_core::health::NodeReport;
use buoy_core::spec::timing::{Profile, Timing};
use buoy_core::spec::{NodeSpec, Role};
use buoy_core::state::Command;
use buoy_proto::v1::VipSpec;
use buoy_proto::v1::cluster_client::ClusterClient;
use buoy_proto::v1::ownership_client::OwnershipClient;
use buoy_storage::{Identity, PeerNode, Raft};
use openraft::{Config, SnapshotPolicy};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;

use super::doubles::{FakeLease, health};
use crate::api::{ApiContext, Listener, router};
use crate::peer::{Admission, PeerPool, Proposed, RaftNetwork, leader, raft_config};
use crate::tls::Tls;

/// Longest time that a condition may take, on a machine that does other things too.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// What serves a unix socket, until it is aborted.
pub(super) type UnixServer = tokio::task::JoinHandle<Result<(), tonic::transport::Error>>;

/// Slower than the default profile: several tests and builds share the machine.
pub(super) fn timing() -> Timing {
    Timing {
        raft_heartbeat: Duration::from_millis(60),
        election_min: Duration::from_millis(200),
        election_max: Duration::from_millis(400),
        ..Timing::for_profile(Profile::Wan)
    }
}

/// Waits until `condition` gives a value.
pub(super) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    match tokio::time::timeout(SOON, wait).await {
        Ok(value) => value,
        Err(_) => panic!("not within {SOON:?}: {what}"),
    }
}

/// As [`until`], for conditions that are themselves waited for; `None`: never within [`SOON`].
async fn until_async<T>(mut condition: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let wait = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.ok()
}

/// Binds an address that the node's last run may still be letting go of.
pub(super) async fn listen(address: SocketAddr) -> TcpListener {
    let bound = until_async(async || TcpListener::bind(address).await.ok()).await;
    bound.unwrap_or_else(|| panic!("{address} stays in use"))
}

/// A running node.
pub(super) struct Node {
    pub(super) context: ApiContext,
    pub(super) lease: Arc<FakeLease>,
    pub(super) reports: Arc<Mutex<BTreeMap<NodeId, NodeReport>>>,
    stop: watch::Sender<bool>,
    /// Everything of the node runs here, so that it can be ended as a whole.
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    pub(super) fn raft(&self) -> &Raft {
        &self.context.raft
    }
}

/// The nodes, and what they are made from.
pub(super) struct Cluster {
    dir: tempfile::TempDir,
    pub(super) specs: Vec<NodeSpec>,
    listeners: BTreeMap<NodeId, TcpListener>,
    tls: BTreeMap<NodeId, Tls>,
    config: Arc<Config>,
    silent: Arc<Mutex<BTreeSet<NodeId>>>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
}

impl Cluster {
    /// `count` nodes named n1, n2, ...; the last of three or more is a witness.
    pub(super) async fn start(count: u64) -> Cluster {
        let mut cluster = Self::prepare(count, |_| Tls::insecure("test").unwrap()).await;
        cluster.start_all().await;
        cluster
    }

    pub(super) async fn prepare(count: u64, tls: impl Fn(&NodeSpec) -> Tls) -> Cluster {
        let mut specs = Vec::new();
        let mut listeners = BTreeMap::new();
        for id in 1..=count {
            let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = TcpListener::bind(here).await.unwrap();
            let role = if count > 2 && id == count {
                Role::Witness
            } else {
                Role::Member
            };
            specs.push(NodeSpec {
                id: NodeId(id),
                name: format!("n{id}").parse().unwrap(),
                address: listener.local_addr().unwrap(),
                role,
            });
            listeners.insert(NodeId(id), listener);
        }
        let mut config = (*raft_config(&timing()).unwrap()).clone();
        config.snapshot_policy = SnapshotPolicy::LogsSinceLast(100);
        config.max_in_snapshot_log_to_keep = 10;
        config.replication_lag_threshold = 100;
        Cluster {
            dir: tempfile::tempdir().unwrap(),
            tls: specs.iter().map(|s| (s.id, tls(s))).collect(),
            specs,
            listeners,
            config: Arc::new(config),
            silent: Arc::default(),
            nodes: BTreeMap::new(),
        }
    }

    pub(super) async fn start_all(&mut self) {
        let ids: Vec<NodeId> = self.specs.iter().map(|s| s.id).collect();
        for id in &ids {
            self.start_node(*id).await;
        }
        let members: BTreeMap<u64, PeerNode> = self
            .specs
            .iter()
            .map(|s| {
                let node = PeerNode {
                    name: s.name.to_string(),
                    address: s.address.to_string(),
                };
                (s.id.0, node)
            })
            .collect();
        for node in self.nodes.values() {
            // Every node knows the members; whoever is elected first has initialized the others.
            if let Err(e) = node.raft().initialize(members.clone()).await {
                assert!(node.raft().is_initialized().await.unwrap(), "{e}");
            }
        }
    }

    fn spec(&self, id: NodeId) -> NodeSpec {
        self.specs.iter().find(|s| s.id == id).unwrap().clone()
    }

    pub(super) async fn start_node(&mut self, id: NodeId) {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let spec = self.spec(id);
        let opened = self.open(&spec).await;
        let pool = PeerPool::new("test", id, &self.specs, self.tls[&id].clone(), &timing());
        let network = RaftNetwork::new(pool.clone());
        let (config, reader) = (self.config.clone(), opened.reader);
        let raft = runtime
            .spawn(Raft::new(id.0, config, network, opened.log, opened.machine))
            .await
            .unwrap()
            .unwrap();
        let lease = Arc::new(FakeLease {
            me: id,
            reader: reader.clone(),
            silent: self.silent.clone(),
            refused: Mutex::new(false),
        });
        let reports: Arc<Mutex<BTreeMap<NodeId, NodeReport>>> = Arc::default();
        let (stop, stopping) = watch::channel(false);
        let context = ApiContext {
            raft,
            health: health(id, reader.clone(), reports.clone()),
            reader,
            me: id,
            pool,
            admission: Admission::new(true),
            reports: {
                let reports = reports.clone();
                Arc::new(move |report| {
                    reports.lock().unwrap().insert(report.node, report);
                })
            },
            lease: lease.clone(),
            vrrp: Arc::new(|| Box::pin(std::future::ready(Vec::new()))),
            watchers: crate::api::watcher_places(),
            version: "test".into(),
            stopping,
        };
        let listener = match self.listeners.remove(&id) {
            Some(listener) => listener,
            None => listen(spec.address).await,
        };
        let serving = {
            let _entered = runtime.enter();
            router(&context, Listener::Tcp).unwrap()
        };
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        runtime.spawn(async move { serving.serve_with_incoming(incoming).await.unwrap() });
        let runtime = Some(runtime);
        self.nodes.insert(
            id,
            Node {
                context,
                lease,
                reports,
                stop,
                runtime,
            },
        );
    }

    /// Opens a node's storage; its last run may still be letting go of it.
    async fn open(&self, spec: &NodeSpec) -> buoy_storage::Opened {
        let identity = Identity {
            cluster: "test".into(),
            node: spec.name.clone(),
            id: spec.id,
        };
        let path = self.dir.path().join(spec.name.as_str());
        std::fs::create_dir_all(&path).unwrap();
        let mut last = None;
        until_async(async || {
            let (path, identity) = (path.clone(), identity.clone());
            let open = tokio::task::spawn_blocking(move || buoy_storage::open(&path, &identity));
            open.await.unwrap().map_err(|e| last = Some(e)).ok()
        })
        .await
        .unwrap_or_else(|| panic!("{last:?}"))
    }

    /// Stops a node as if its machine were gone.
    pub(super) fn stop_node(&mut self, id: NodeId) {
        self.silent.lock().unwrap().insert(id);
        self.nodes.remove(&id);
    }

    /// Returns when calls from `here` to the stopped node `gone` are refused: one that was under way when
    /// it stopped has an unknown outcome, and rightly so.
    pub(super) async fn noticed(&self, here: NodeId, gone: NodeId) {
        let pool = &self.nodes[&here].context.pool;
        let refused = until_async(async || {
            let error = pool.read_index(gone, SOON).await.err()?;
            error.to_string().contains("refused").then_some(())
        });
        refused.await.expect("calls to a stopped node are refused");
    }

    /// Starts a stopped node again on its old disk and address.
    pub(super) async fn restart_node(&mut self, id: NodeId) {
        self.start_node(id).await;
        self.silent.lock().unwrap().remove(&id);
    }

    /// The leader that every running node agrees on.
    pub(super) async fn leader(&self) -> NodeId {
        until("all nodes follow one leader", || {
            let seen: BTreeSet<_> = self.nodes.values().map(|n| leader(n.raft())).collect();
            let agreed = seen.first().copied().flatten().filter(|_| seen.len() == 1);
            agreed.filter(|l| self.nodes.contains_key(l))
        })
        .await
    }

    /// A running node that does not lead.
    pub(super) async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }

    /// Writes through node `id`, as the services do.
    pub(super) async fn write(&self, id: NodeId, command: Command) -> Proposed {
        crate::api::propose(&self.nodes[&id].context, command)
            .await
            .unwrap()
    }

    /// The first entry of a new cluster.
    pub(super) async fn bootstrap(&self) {
        let leader = self.leader().await;
        self.write(
            leader,
            Command::Bootstrap {
                history_id: 7,
                nodes: self.specs.clone(),
                vips: vec![],
            },
        )
        .await;
    }

    async fn channel(&self, id: NodeId) -> Channel {
        let target = format!("http://{}", self.spec(id).address);
        buoy_proto::client::connect(&target, None, SOON)
            .await
            .unwrap()
    }

    pub(super) async fn cluster(&self, id: NodeId) -> ClusterClient<Channel> {
        buoy_proto::client::cluster(self.channel(id).await)
    }

    /// Connections of a node to its peers, without TLS.
    pub(super) fn pool(&self, me: NodeId) -> PeerPool {
        let tls = Tls::insecure("test").unwrap();
        PeerPool::new("test", me, &self.specs, tls, &timing())
    }

    /// A node's unix socket, in `dir`, and a connection to it.
    pub(super) async fn unix_socket(&self, node: NodeId, dir: &Path) -> (Channel, UnixServer) {
        let path = dir.join("buoy.sock");
        let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
        let serving = router(&self.nodes[&node].context, Listener::Unix).unwrap();
        let server = tokio::spawn(serving.serve_with_incoming(incoming));
        let target = format!("unix://{}", path.display());
        let channel = buoy_proto::client::connect(&target, None, SOON).await;
        (channel.unwrap(), server)
    }

    pub(super) async fn ownership(&self, id: NodeId) -> OwnershipClient<Channel> {
        buoy_proto::client::ownership(self.channel(id).await)
    }
}

/// A VIP with one address in a network for documentation.
pub(super) fn vip(name: &str, last_byte: u8) -> VipSpec {
    VipSpec {
        name: name.into(),
        addresses: vec![format!("192.0.2.{last_byte}")],
        interface: "eth0".into(),
        ..VipSpec::default()
    }
}

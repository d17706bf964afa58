//! Three Raft nodes in one process on this storage: purging, snapshots, restarts, and a disk that fails.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buoy_core::NodeId;
use buoy_core::state::{Command, Entry};
use buoy_storage::memory::MemoryDisk;
use buoy_storage::{
    Identity, Opened, PeerNode, Raft, Snapshot, SnapshotData, StateReader, Threading, TypeConfig,
    ViewReader, Vote, open, open_with_engine,
};
use common::{assign, bootstrap, vip};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{Config, OptionalSend, SnapshotPolicy};

const PATIENCE: Duration = Duration::from_secs(20);

/// Which nodes can be reached, and who they are.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<BTreeMap<u64, Raft>>>);

impl Wire {
    fn to(&self, target: u64) -> Result<Raft, Unreachable<TypeConfig>> {
        let raft = self.0.lock().unwrap().get(&target).cloned();
        raft.ok_or_else(|| Unreachable::new(&io::Error::other("not connected")))
    }
}

struct Link {
    wire: Wire,
    from: u64,
    target: u64,
}

impl Link {
    /// The target, unless one of the two ends is cut off.
    fn target(&self) -> Result<Raft, Unreachable<TypeConfig>> {
        self.wire.to(self.from)?;
        self.wire.to(self.target)
    }
}

fn failed<E: std::error::Error + 'static>(e: E) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&e))
}

struct Links {
    wire: Wire,
    from: u64,
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &PeerNode) -> Link {
        Link {
            wire: self.wire.clone(),
            from: self.from,
            target,
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.target()?.append_entries(request).await.map_err(failed)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.target()?.vote(request).await.map_err(failed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let target = self.target().map_err(StreamingError::Unreachable)?;
        let sent = target.install_full_snapshot(vote, snapshot).await;
        sent.map_err(|e| StreamingError::Unreachable(Unreachable::new(&e)))
    }
}

fn config() -> Arc<Config> {
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 300,
        election_timeout_max: 600,
        install_snapshot_timeout: 5000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(40),
        max_in_snapshot_log_to_keep: 5,
        replication_lag_threshold: 50,
        ..Config::default()
    };
    Arc::new(config.validate().unwrap())
}

struct Node {
    raft: Raft,
    reader: StateReader,
    views: ViewReader,
}

async fn start(id: u64, wire: &Wire, opened: Opened) -> Node {
    let links = Links {
        wire: wire.clone(),
        from: id,
    };
    let raft = Raft::new(id, config(), links, opened.log, opened.machine)
        .await
        .unwrap();
    wire.0.lock().unwrap().insert(id, raft.clone());
    Node {
        raft,
        reader: opened.reader,
        views: opened.views,
    }
}

fn open_node(base: &Path, id: u64) -> Opened {
    let identity = Identity {
        cluster: "test".into(),
        node: format!("n{id}").parse().unwrap(),
        id: NodeId(id),
    };
    open(&base.join(id.to_string()), &identity).unwrap()
}

fn peers(ids: &[u64]) -> BTreeMap<u64, PeerNode> {
    ids.iter()
        .map(|id| {
            (
                *id,
                PeerNode {
                    name: format!("n{id}"),
                    address: format!("192.0.2.{id}:7400"),
                },
            )
        })
        .collect()
}

async fn write(raft: &Raft, command: Command) -> u64 {
    raft.client_write(Entry {
        at_unix_ms: 1,
        command,
    })
    .await
    .unwrap()
    .log_id
    .index
}

/// Moves the VIP `n` times, from owner to owner; returns the last epoch.
async fn moves(node: &Node, n: u64) -> u64 {
    let mut epoch = 0;
    for _ in 0..n {
        let now = node
            .reader
            .read()
            .vips
            .values()
            .next()
            .and_then(|v| v.assignment.clone());
        let (owner, expected) = now.map_or((0, 0), |a| (a.node.0, a.epoch.0));
        epoch = write(&node.raft, assign("web", expected, 1 + owner % 3)).await;
        let seen = node
            .reader
            .read()
            .vips
            .values()
            .next()
            .unwrap()
            .assignment
            .clone()
            .unwrap();
        assert_eq!(
            seen.epoch.0, epoch,
            "who was answered sees what was answered"
        );
        assert!(*node.reader.subscribe().borrow() >= epoch);
    }
    epoch
}

async fn applied(node: &Node, index: u64) {
    let mut progress = node.reader.subscribe();
    let reached = progress.wait_for(|applied| *applied >= index);
    tokio::time::timeout(PATIENCE, reached)
        .await
        .expect("applied in time")
        .unwrap();
}

async fn leads(node: &Node) {
    let wait = node.raft.wait(Some(PATIENCE));
    wait.metrics(|m| m.current_leader == Some(m.id), "it leads")
        .await
        .unwrap();
}

/// Starts node 1 alone, as the leader, then takes in the others.
async fn cluster(base: &Path, wire: &Wire) -> Vec<Node> {
    let mut nodes = vec![start(1, wire, open_node(base, 1)).await];
    nodes[0].raft.initialize(peers(&[1])).await.unwrap();
    leads(&nodes[0]).await;
    for id in [2, 3] {
        nodes.push(start(id, wire, open_node(base, id)).await);
        let peer = peers(&[id])[&id].clone();
        nodes[0].raft.add_learner(id, peer, true).await.unwrap();
    }
    nodes[0]
        .raft
        .change_membership(BTreeSet::from([1, 2, 3]), false)
        .await
        .unwrap();
    write(&nodes[0].raft, bootstrap(vec![vip("web", "198.51.100.1")])).await;
    nodes
}

async fn stop(nodes: Vec<Node>, wire: &Wire) {
    wire.0.lock().unwrap().clear();
    for node in nodes {
        node.raft.shutdown().await.unwrap();
    }
}

/// Opens a directory that a node has just left: its last task may still be letting go.
async fn reopen(base: &Path, id: u64) -> Opened {
    let identity = Identity {
        cluster: "test".into(),
        node: format!("n{id}").parse().unwrap(),
        id: NodeId(id),
    };
    let tries = async {
        loop {
            match open(&base.join(id.to_string()), &identity) {
                Ok(opened) => return opened,
                Err(buoy_storage::OpenError::Locked { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
                Err(e) => panic!("{e}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, tries)
        .await
        .expect("the node lets go of its directory")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_catches_up_by_snapshot_and_all_restart() {
    let base = tempfile::tempdir().unwrap();
    let wire = Wire::default();
    let nodes = cluster(base.path(), &wire).await;
    moves(&nodes[0], 3).await;
    let third = wire.0.lock().unwrap().remove(&3).unwrap();
    let epoch = moves(&nodes[0], 150).await;
    let purged = nodes[0].raft.wait(Some(PATIENCE));
    purged
        .metrics(
            |m| m.purged.is_some_and(|id| id.index > 60),
            "the log is purged",
        )
        .await
        .unwrap();
    assert!(nodes[2].reader.read().applied < 60);
    wire.0.lock().unwrap().insert(3, third.clone());
    applied(&nodes[2], epoch).await;
    let installed = third.wait(Some(PATIENCE));
    let by_snapshot =
        |m: &openraft::RaftMetrics<TypeConfig>| m.snapshot.is_some_and(|id| id.index > 60);
    installed
        .metrics(by_snapshot, "it came by snapshot")
        .await
        .unwrap();
    let epoch = moves(&nodes[0], 5).await;
    let expected = nodes[0].reader.read().clone();
    for node in &nodes {
        applied(node, epoch).await;
        assert_eq!(*node.reader.read(), expected);
        let view = node.views.load();
        assert_eq!(
            *view,
            expected.log_view(&node.reader.applied_membership()),
            "all that is appended is applied"
        );
        assert_eq!(
            view.assigned.values().map(|a| a.1.0).collect::<Vec<_>>(),
            [epoch]
        );
    }
    stop(nodes, &wire).await;

    let mut nodes = Vec::new();
    for id in 1..=3 {
        let opened = reopen(base.path(), id).await;
        let assigned = opened.views.load().assigned.values().map(|a| a.1.0).max();
        assert_eq!(
            assigned,
            Some(epoch),
            "node {id} knows before it has talked to anybody"
        );
        nodes.push(start(id, &wire, opened).await);
    }
    for node in &nodes {
        applied(node, epoch).await;
        assert_eq!(node.reader.read().history, expected.history);
        assert_eq!(node.reader.applied_membership().voters().len(), 3);
    }
    stop(nodes, &wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_stops_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let opened = open_with_engine(Box::new(disk.engine()), dir.path(), Threading::Thread).unwrap();
    let node = start(1, &Wire::default(), opened).await;
    node.raft.initialize(peers(&[1])).await.unwrap();
    leads(&node).await;
    write(&node.raft, bootstrap(vec![vip("web", "198.51.100.1")])).await;
    disk.fail_after(0);
    let entry = Entry {
        at_unix_ms: 1,
        command: assign("web", 0, 1),
    };
    let answer = tokio::time::timeout(PATIENCE, node.raft.client_write(entry)).await;
    answer
        .expect("an answer in time")
        .expect_err("an entry that is not durable is not acknowledged");
    let state = node.raft.metrics().borrow_watched().running_state.clone();
    let text = state.expect_err("the node has stopped").to_string();
    assert!(text.contains("told to fail"), "{text}");
    assert_eq!(
        node.reader.read().vips.values().next().unwrap().assignment,
        None
    );
}

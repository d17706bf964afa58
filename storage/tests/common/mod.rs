//! What the storage tests share: identities, entries, and waiting for durability.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use buoy_core::spec::{PlacementSpec, Scope, VipAddress, VipSpec};
use buoy_core::state::{Cause, Command, Entry, Move};
use buoy_core::{Epoch, NodeId};
use buoy_storage::{
    Identity, LogEntry, LogId, Opened, PeerNode, RaftMembership, TypeConfig, Vote, open,
};
use openraft::RaftLogReader;
use openraft::entry::RaftEntry;
use openraft::storage::RaftLogStorageExt;
use openraft::vote::leader_id_std::CommittedLeaderId;

pub fn identity() -> Identity {
    Identity {
        cluster: "test".into(),
        node: "n1".parse().unwrap(),
        id: NodeId(1),
    }
}

pub fn open_dir(dir: &Path) -> Opened {
    open(dir, &identity()).unwrap()
}

pub fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

pub fn blank(term: u64, index: u64) -> LogEntry {
    LogEntry::new_blank(id(term, index))
}

pub fn command(term: u64, index: u64, command: Command) -> LogEntry {
    LogEntry::new_normal(
        id(term, index),
        Entry {
            at_unix_ms: 1_700_000_000_000 + index,
            command,
        },
    )
}

pub fn membership(halves: &[&[u64]]) -> RaftMembership {
    let halves: Vec<BTreeSet<u64>> = halves.iter().map(|h| h.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, PeerNode> = halves
        .iter()
        .flatten()
        .map(|id| {
            (
                *id,
                PeerNode {
                    name: format!("n{id}"),
                    address: format!("192.0.2.{id}:7400"),
                },
            )
        })
        .collect();
    RaftMembership::new(halves, nodes).unwrap()
}

pub fn members(term: u64, index: u64, halves: &[&[u64]]) -> LogEntry {
    LogEntry::new_membership(id(term, index), membership(halves))
}

pub fn vip(name: &str, ip: &str) -> VipSpec {
    VipSpec {
        name: name.parse().unwrap(),
        addresses: vec![VipAddress {
            ip: ip.parse().unwrap(),
            prefix: 32,
        }],
        interface: "eth0".into(),
        label: None,
        scope: Scope::Global,
        placement: PlacementSpec::default(),
        vrrp: None,
    }
}

/// Assigns a VIP; `expected` is the epoch that it has.
pub fn assign(name: &str, expected: u64, to: u64) -> Command {
    Command::Assign(vec![Move {
        vip: name.parse().unwrap(),
        expected: Epoch(expected),
        to: Some(NodeId(to)),
        cause: Cause::Operator,
        evidence: "a test".into(),
        pin: None,
    }])
}

/// Nodes 1 to 3, in the words of the first command of a cluster.
pub fn bootstrap(vips: Vec<VipSpec>) -> Command {
    let nodes = (1..=3).map(|id| buoy_core::spec::NodeSpec {
        id: NodeId(id),
        name: format!("n{id}").parse().unwrap(),
        address: format!("192.0.2.{id}:7400").parse().unwrap(),
        role: Default::default(),
    });
    Command::Bootstrap {
        history_id: 7,
        nodes: nodes.collect(),
        vips,
    }
}

/// Appends and waits until the entries are durable.
pub async fn append(opened: &mut Opened, entries: Vec<LogEntry>) {
    opened.log.blocking_append(entries).await.unwrap();
}

pub async fn entries(opened: &mut Opened) -> Vec<LogEntry> {
    opened.log.try_get_log_entries(..).await.unwrap()
}

/// Applies entries as openraft does on a follower.
pub async fn apply(opened: &mut Opened, entries: Vec<LogEntry>) {
    use openraft::storage::RaftStateMachine;
    let stream = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
    opened.machine.apply(stream).await.unwrap();
}

/// Everything that a restart must bring back.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    pub entries: Vec<LogEntry>,
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub max_promise: std::time::Duration,
    pub applied: Option<LogId>,
    pub state: buoy_core::state::State,
    pub view: buoy_core::lease::LogView,
}

pub async fn stored(opened: &mut Opened) -> Stored {
    use openraft::storage::RaftLogStorage;
    let state = RaftLogStorage::<TypeConfig>::get_log_state(&mut opened.log)
        .await
        .unwrap();
    Stored {
        entries: entries(opened).await,
        vote: opened.log.read_vote().await.unwrap(),
        purged: state.last_purged_log_id,
        max_promise: opened.meta.max_promise(),
        applied: opened.reader.read().log_id(),
        state: opened.reader.read().clone(),
        view: (*opened.views.load()).clone(),
    }
}

//! The log view: what is appended counts before anybody can be told of it, and what is gone is gone.

mod common;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use buoy_core::lease::{Claim, LogView};
use buoy_core::{ConfigId, Epoch, NodeId};
use buoy_storage::memory::MemoryDisk;
use buoy_storage::{Opened, Snapshot, Threading, TypeConfig, open_with_engine};
use common::*;
use openraft::RaftSnapshotBuilder;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;

const ADDRESS: &str = "198.51.100.1";

fn address() -> IpAddr {
    ADDRESS.parse().unwrap()
}

/// Who has the address, as the view says: node and epoch.
fn owner(opened: &Opened) -> Option<(u64, u64)> {
    opened
        .views
        .load()
        .assigned
        .get(&address())
        .map(|(node, epoch)| (node.0, epoch.0))
}

fn config(opened: &Opened) -> (u64, u64) {
    let ConfigId { term, index } = opened.views.load().membership.id;
    (term, index)
}

fn claim(epoch: u64) -> Claim {
    Claim {
        address: address(),
        epoch: Epoch(epoch),
    }
}

/// Membership, nodes, and one VIP: entries 0 to 2.
fn beginning() -> Vec<buoy_storage::LogEntry> {
    vec![
        members(0, 0, &[&[1, 2, 3]]),
        blank(1, 1),
        command(1, 2, bootstrap(vec![vip("web", ADDRESS)])),
    ]
}

async fn begun(dir: &Path) -> Opened {
    let mut opened = open_dir(dir);
    append(&mut opened, beginning()).await;
    opened
}

#[tokio::test]
async fn an_assignment_is_published_before_it_can_be_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let mut opened =
        open_with_engine(Box::new(disk.engine()), dir.path(), Threading::Thread).unwrap();
    append(&mut opened, beginning()).await;
    append(&mut opened, vec![command(1, 3, assign("web", 0, 1))]).await;
    assert_eq!(owner(&opened), Some((1, 3)));
    assert!(opened.views.load().assigns(&claim(3), NodeId(1)));

    disk.set_sync_time(Duration::from_millis(300));
    let syncs = disk.syncs();
    let (flushed, mut answer) = TypeConfig::oneshot();
    opened
        .log
        .append(
            vec![command(1, 4, assign("web", 3, 2))],
            IOFlushed::signal(flushed),
        )
        .await
        .unwrap();
    // The sync takes much longer than this look: the entry is neither durable nor acknowledged.
    assert_eq!(owner(&opened), Some((2, 4)));
    assert!(opened.views.load().supersedes(&claim(3)));
    assert!(
        answer.try_recv().is_err() && disk.syncs() == syncs,
        "not acknowledged yet"
    );
    answer.await.unwrap().unwrap();
    assert_eq!(
        opened.reader.read().vips.len(),
        0,
        "nothing has been applied"
    );
}

#[tokio::test]
async fn the_membership_is_the_last_appended_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = begun(dir.path()).await;
    assert_eq!(config(&opened), (0, 0));
    append(&mut opened, vec![members(3, 3, &[&[1, 2, 3], &[3, 4, 5]])]).await;
    assert_eq!(config(&opened), (3, 3));
    let halves = opened.views.load().membership.halves.clone();
    assert_eq!(
        halves,
        [[1, 2, 3], [3, 4, 5]].map(|h| h.into_iter().map(NodeId).collect())
    );
    opened.log.truncate_after(Some(id(1, 2))).await.unwrap();
    assert_eq!(config(&opened), (0, 0));
    assert!(!opened.views.load().membership.is_voter(NodeId(5)));
}

#[tokio::test]
async fn truncation_takes_back_what_it_removes_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = begun(dir.path()).await;
    append(&mut opened, vec![command(1, 3, assign("web", 0, 1))]).await;
    apply(&mut opened, beginning()).await;
    append(
        &mut opened,
        vec![
            command(1, 4, assign("web", 3, 2)),
            command(1, 5, assign("web", 4, 3)),
        ],
    )
    .await;
    assert_eq!(owner(&opened), Some((3, 5)));
    opened.log.truncate_after(Some(id(1, 4))).await.unwrap();
    assert_eq!(owner(&opened), Some((2, 4)));
    opened.log.truncate_after(Some(id(1, 3))).await.unwrap();
    assert_eq!(owner(&opened), Some((1, 3)));
    append(&mut opened, vec![command(2, 4, assign("web", 3, 3))]).await;
    assert_eq!(owner(&opened), Some((3, 4)));
    let view = opened.views.load();
    drop(opened);
    assert_eq!(open_dir(dir.path()).views.load(), view);
}

#[tokio::test]
async fn applied_entries_are_not_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = begun(dir.path()).await;
    apply(&mut opened, beginning()).await;
    let error = opened.log.truncate_after(Some(id(1, 1))).await.unwrap_err();
    assert!(error.to_string().contains("entry 2 is applied"), "{error}");
    assert_eq!(entries(&mut opened).await.len(), 3);
}

#[tokio::test]
async fn a_restart_counts_entries_that_were_never_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = begun(dir.path()).await;
    append(
        &mut opened,
        vec![
            command(1, 3, assign("web", 0, 1)),
            members(1, 4, &[&[1, 2]]),
        ],
    )
    .await;
    let view = opened.views.load();
    drop(opened);
    let opened = open_dir(dir.path());
    assert_eq!(opened.views.load(), view);
    assert_eq!((owner(&opened), config(&opened)), (Some((1, 3)), (1, 4)));
    assert_eq!(opened.reader.read().log_id(), None);
}

#[tokio::test]
async fn a_restart_from_a_snapshot_and_a_purged_log_gives_the_same_view() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = begun(dir.path()).await;
    let assigned = command(1, 3, assign("web", 0, 1));
    append(
        &mut opened,
        vec![assigned.clone(), command(1, 4, assign("web", 3, 2))],
    )
    .await;
    apply(&mut opened, beginning()).await;
    apply(&mut opened, vec![assigned]).await;
    opened
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    opened.log.purge(id(1, 3)).await.unwrap();
    // Purged entries leave the disk with the next ones.
    append(&mut opened, vec![blank(1, 5)]).await;
    let before = stored(&mut opened).await;
    assert_eq!(owner(&opened), Some((2, 4)));
    drop(opened);
    let mut opened = open_dir(dir.path());
    assert_eq!(stored(&mut opened).await, before);
    opened.log.truncate_after(Some(id(1, 3))).await.unwrap();
    assert_eq!(
        owner(&opened),
        Some((1, 3)),
        "what is below comes from the snapshot"
    );
}

/// A snapshot of a node that has applied `upto` assignments of the VIP, one an entry from index 3 on.
async fn snapshot_of_a_peer(upto: u64) -> (Snapshot, LogView) {
    let dir = tempfile::tempdir().unwrap();
    let mut peer = begun(dir.path()).await;
    let moves: Vec<_> = (0..upto)
        .map(|n| {
            command(
                1,
                3 + n,
                assign("web", if n == 0 { 0 } else { 2 + n }, 1 + n % 3),
            )
        })
        .collect();
    append(&mut peer, moves.clone()).await;
    apply(&mut peer, beginning()).await;
    apply(&mut peer, moves).await;
    let snapshot = peer
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    (snapshot, (*peer.views.load()).clone())
}

#[tokio::test]
async fn an_installed_snapshot_replaces_the_view() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = begun(dir.path()).await;
    let overtaken = vec![
        command(1, 3, assign("web", 0, 3)),
        members(1, 4, &[&[3, 4]]),
    ];
    append(&mut opened, overtaken).await;
    let (snapshot, view) = snapshot_of_a_peer(50).await;
    let changes = opened.views.subscribe();
    opened
        .machine
        .install_snapshot(&snapshot.meta, snapshot.snapshot.clone())
        .await
        .unwrap();
    assert_eq!(*opened.views.load(), view);
    assert!(changes.has_changed().unwrap());
    // A crash before openraft has purged the old log: its entries must not be applied on top.
    drop(opened);
    let mut opened = open_dir(dir.path());
    assert_eq!(*opened.views.load(), view);
    opened.log.purge(id(1, 52)).await.unwrap();
    append(&mut opened, vec![command(1, 53, assign("web", 52, 3))]).await;
    assert_eq!(owner(&opened), Some((3, 53)));
}

#[tokio::test]
async fn entries_after_an_installed_snapshot_still_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = begun(dir.path()).await;
    append(
        &mut opened,
        vec![
            command(1, 3, assign("web", 0, 1)),
            command(1, 4, assign("web", 3, 2)),
        ],
    )
    .await;
    append(&mut opened, vec![command(1, 5, assign("web", 4, 3))]).await;
    let (snapshot, _) = snapshot_of_a_peer(1).await;
    opened
        .machine
        .install_snapshot(&snapshot.meta, snapshot.snapshot)
        .await
        .unwrap();
    assert_eq!(opened.reader.read().log_id(), Some(id(1, 3)));
    assert_eq!(owner(&opened), Some((3, 5)));
}

#[tokio::test]
async fn blank_entries_and_refused_commands_publish_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = begun(dir.path()).await;
    append(&mut opened, vec![command(1, 3, assign("web", 0, 1))]).await;
    let before = opened.views.load();
    let changes = opened.views.subscribe();
    append(
        &mut opened,
        vec![
            blank(1, 4),
            command(1, 5, assign("web", 999, 2)),
            blank(2, 6),
        ],
    )
    .await;
    assert!(!changes.has_changed().unwrap());
    assert!(std::sync::Arc::ptr_eq(&before, &opened.views.load()));
    append(&mut opened, vec![command(2, 7, assign("web", 3, 2))]).await;
    assert!(changes.has_changed().unwrap());
}

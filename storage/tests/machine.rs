//! The state machine: readers see what was answered, snapshots are whole or refused.

mod common;

use std::fs;
use std::path::Path;

use buoy_storage::{LogEntry, Opened, SnapshotData};
use common::*;
use openraft::storage::RaftStateMachine;
use openraft::{RaftSnapshotBuilder, StoredMembership};

fn some_entries() -> Vec<LogEntry> {
    let mut all = vec![
        members(0, 0, &[&[1, 2, 3]]),
        command(1, 1, bootstrap(vec![vip("web", "198.51.100.1")])),
    ];
    all.extend((2..200).map(|n| {
        command(
            1,
            n,
            assign("web", if n == 2 { 0 } else { n - 1 }, 1 + n % 3),
        )
    }));
    all
}

async fn filled(dir: &Path) -> Opened {
    let mut opened = open_dir(dir);
    append(&mut opened, some_entries()).await;
    apply(&mut opened, some_entries()).await;
    opened
}

fn snapshot_files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir.join("snapshots")).unwrap();
    names
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn readers_see_what_was_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_dir(dir.path());
    let mut progress = opened.reader.subscribe();
    append(&mut opened, some_entries()).await;
    assert!(!progress.has_changed().unwrap());
    apply(&mut opened, some_entries()).await;
    assert_eq!(*progress.borrow_and_update(), 199);
    let look = opened.reader.read();
    let assignment = look
        .vips
        .values()
        .next()
        .unwrap()
        .assignment
        .clone()
        .unwrap();
    assert_eq!((assignment.epoch.0, look.applied), (199, 199));
    assert_eq!(look.log_id(), Some(id(1, 199)));
    assert_eq!(look.membership(), opened.views.load().membership);
    assert_eq!(
        *look.stored_membership(),
        StoredMembership::new(Some(id(0, 0)), membership(&[&[1, 2, 3]]))
    );
    assert!(!look.history.is_empty());
}

#[tokio::test]
async fn snapshots_travel_in_chunks_and_bring_everything() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = filled(from.path()).await;
    let snapshot = sender
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    let chunks: Vec<SnapshotData> = (0..snapshot.snapshot.len())
        .step_by(1000)
        .map(|at| {
            snapshot
                .snapshot
                .slice(at..snapshot.snapshot.len().min(at + 1000))
        })
        .collect();
    assert!(chunks.len() > 1);
    let mut receiver = open_dir(to.path());
    receiver
        .machine
        .install_snapshot(&snapshot.meta, chunks.concat().into())
        .await
        .unwrap();
    assert_eq!(*receiver.reader.read(), *sender.reader.read());
    assert_eq!(*receiver.reader.subscribe().borrow(), 199);
    let kept = receiver
        .machine
        .get_current_snapshot()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (kept.meta, kept.snapshot),
        (snapshot.meta, snapshot.snapshot)
    );
    drop(receiver);
    let receiver = open_dir(to.path());
    assert_eq!(*receiver.reader.read(), *sender.reader.read());
}

#[tokio::test]
async fn a_snapshot_that_was_changed_on_the_way_is_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = filled(from.path()).await;
    let snapshot = sender
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    let mut receiver = open_dir(to.path());
    let whole = snapshot.snapshot.to_vec();
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        assert!(
            receiver
                .machine
                .install_snapshot(&snapshot.meta, bytes.into())
                .await
                .is_err(),
            "byte {at}"
        );
    }
    let short = snapshot.snapshot.slice(..whole.len() - 1);
    assert!(
        receiver
            .machine
            .install_snapshot(&snapshot.meta, short)
            .await
            .is_err()
    );
    let mut other = snapshot.meta.clone();
    other.last_log_id = Some(id(1, 198));
    let error = receiver
        .machine
        .install_snapshot(&other, snapshot.snapshot)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("was announced as"), "{error}");
    assert_eq!(receiver.reader.read().log_id(), None);
    assert!(snapshot_files(to.path()).is_empty());
}

#[tokio::test]
async fn one_snapshot_is_kept_and_leftovers_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = filled(dir.path()).await;
    let older = opened.machine.get_snapshot_builder().await;
    append(&mut opened, vec![blank(2, 200)]).await;
    apply(&mut opened, vec![blank(2, 200)]).await;
    let newer = opened
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    let name = vec![format!("{:020}-{:020}.snap", 200, 2)];
    assert_eq!(snapshot_files(dir.path()), name);
    // One that was begun earlier and ends later must not replace the newer one.
    let mut older = older;
    assert_eq!(
        older.build_snapshot().await.unwrap().meta.last_log_id,
        Some(id(1, 199))
    );
    assert_eq!(snapshot_files(dir.path()), name);
    drop(opened);
    let snapshots = dir.path().join("snapshots");
    fs::write(
        snapshots.join("00000000000000000900-00000000000000000002.tmp"),
        b"half",
    )
    .unwrap();
    fs::copy(
        snapshots.join(&name[0]),
        snapshots.join(format!("{:020}-{:020}.snap", 7, 1)),
    )
    .unwrap();
    let mut opened = open_dir(dir.path());
    assert_eq!(snapshot_files(dir.path()), name);
    assert_eq!(
        opened
            .machine
            .get_current_snapshot()
            .await
            .unwrap()
            .unwrap()
            .meta,
        newer.meta
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_shows_the_state_of_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = filled(dir.path()).await;
    let mut builder = opened.machine.get_snapshot_builder().await;
    append(&mut opened, vec![blank(1, 200)]).await;
    apply(&mut opened, vec![blank(1, 200)]).await;
    let snapshot = builder.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(id(1, 199)));
    assert_eq!(opened.reader.read().log_id(), Some(id(1, 200)));
}

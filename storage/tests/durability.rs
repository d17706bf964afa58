//! What is acknowledged is durable, what fails is reported, and a sync serves many.

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use buoy_storage::memory::MemoryDisk;
use buoy_storage::{MAX_READ_BYTES, Opened, Threading, TypeConfig, Vote, open_with_engine};
use common::*;
use futures::future::join_all;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::{RaftLogReader, RaftSnapshotBuilder};

fn on_disk(disk: &MemoryDisk, dir: &Path) -> Opened {
    open_with_engine(Box::new(disk.engine()), dir, Threading::Thread).unwrap()
}

#[tokio::test]
async fn everything_acknowledged_survives_a_power_failure() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let mut opened = on_disk(&disk, dir.path());
    append(
        &mut opened,
        vec![
            members(0, 0, &[&[1]]),
            blank(1, 1),
            blank(1, 2),
            blank(1, 3),
        ],
    )
    .await;
    opened.log.save_vote(&Vote::new(7, 2)).await.unwrap();
    opened.log.truncate_after(Some(id(1, 2))).await.unwrap();
    opened
        .meta
        .raise_max_promise(Duration::from_millis(323))
        .await
        .unwrap();
    let before = stored(&mut opened).await;
    drop(opened);
    disk.power_failure(false);
    let mut opened = on_disk(&disk, dir.path());
    assert_eq!(stored(&mut opened).await, before);
    assert_eq!(before.entries.len(), 3);
    assert_eq!(before.vote, Some(Vote::new(7, 2)));
}

#[tokio::test]
async fn a_failed_sync_is_reported_and_nothing_is_written_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let mut opened = on_disk(&disk, dir.path());
    append(&mut opened, vec![blank(1, 0)]).await;
    disk.fail_after(0);
    let error = opened
        .log
        .blocking_append(vec![blank(1, 1)])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("told to fail"), "{error}");
    // The disk works again; who asks must still be told that the log cannot be trusted.
    disk.fail_after(1000);
    let syncs = disk.syncs();
    let errors: Vec<io::Error> = vec![
        opened.log.save_vote(&Vote::new(2, 1)).await.unwrap_err(),
        opened.log.truncate_after(Some(id(1, 0))).await.unwrap_err(),
        opened
            .meta
            .raise_max_promise(Duration::from_secs(1))
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert!(
            error.to_string().contains("cannot be written any more"),
            "{error}"
        );
    }
    assert_eq!(
        opened.log.read_vote().await.unwrap(),
        None,
        "a vote that is not durable is not given"
    );
    assert_eq!(opened.meta.max_promise(), Duration::ZERO);
    drop(opened);
    assert_eq!(disk.syncs(), syncs);
    disk.power_failure(false);
    let mut opened = on_disk(&disk, dir.path());
    assert_eq!(entries(&mut opened).await.len(), 1);
}

#[tokio::test]
async fn a_write_whose_sync_failed_may_turn_up_whole() {
    let dir = tempfile::tempdir().unwrap();
    for (kept, expected) in [(true, 4), (false, 1)] {
        let disk = MemoryDisk::default();
        let mut opened = on_disk(&disk, dir.path());
        append(&mut opened, vec![blank(1, 0)]).await;
        disk.fail_after(0);
        opened
            .log
            .blocking_append(vec![blank(1, 1), blank(1, 2), blank(1, 3)])
            .await
            .unwrap_err();
        drop(opened);
        disk.power_failure(kept);
        let mut opened = on_disk(&disk, dir.path());
        assert_eq!(
            entries(&mut opened).await.len(),
            expected,
            "all of it or nothing"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sync_serves_many_appends() {
    const APPENDS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let mut opened = on_disk(&disk, dir.path());
    append(&mut opened, vec![blank(1, 0)]).await;
    disk.set_sync_time(Duration::from_millis(5));
    let before = disk.syncs();
    let mut waiting = Vec::new();
    for index in 1..=APPENDS {
        let (flushed, answer) = TypeConfig::oneshot();
        opened
            .log
            .append(vec![blank(1, index)], IOFlushed::signal(flushed))
            .await
            .unwrap();
        waiting.push(answer);
    }
    for answer in join_all(waiting).await {
        answer.unwrap().unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!(syncs * 10 <= APPENDS, "{syncs} syncs for {APPENDS} appends");
    drop(opened);
    let mut opened = on_disk(&disk, dir.path());
    assert_eq!(entries(&mut opened).await.len() as u64, APPENDS + 1);
}

#[tokio::test]
async fn the_committed_pointer_costs_no_sync_and_is_written_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let mut opened = on_disk(&disk, dir.path());
    append(&mut opened, vec![blank(1, 0), blank(1, 1)]).await;
    let before = disk.syncs();
    for _ in 0..10 {
        opened.log.save_committed(Some(id(1, 0))).await.unwrap();
    }
    append(&mut opened, vec![blank(1, 2)]).await;
    assert_eq!(disk.syncs(), before + 1);
    opened.log.save_committed(Some(id(1, 2))).await.unwrap();
    assert_eq!(opened.log.read_committed().await.unwrap(), Some(id(1, 2)));
    drop(opened);
    let mut opened = on_disk(&disk, dir.path());
    assert_eq!(
        opened.log.read_committed().await.unwrap(),
        Some(id(1, 2)),
        "closing writes what is left"
    );
}

#[tokio::test]
async fn holes_and_oversized_entries_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_dir(dir.path());
    append(&mut opened, vec![blank(1, 0), blank(1, 1)]).await;
    let error = opened
        .log
        .append(vec![blank(1, 3)], IOFlushed::noop())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("entry 3 cannot follow entry 1"),
        "{error}"
    );
    let mut big = vip("big", "198.51.100.1");
    big.interface = "x".repeat(buoy_storage::MAX_ENTRY_BYTES);
    let big = command(1, 2, buoy_core::state::Command::PutVip(big));
    let error = opened
        .log
        .append(vec![big], IOFlushed::noop())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("more than the"), "{error}");
    assert_eq!(entries(&mut opened).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_promise_only_grows_unless_told() {
    let dir = tempfile::tempdir().unwrap();
    let ms = Duration::from_millis;
    let opened = open_dir(dir.path());
    let meta = Arc::new(opened.meta.clone());
    let raises = [300, 900, 100, 500].map(|n| {
        let meta = meta.clone();
        tokio::spawn(async move { meta.raise_max_promise(ms(n)).await })
    });
    join_all(raises)
        .await
        .into_iter()
        .for_each(|r| r.unwrap().unwrap());
    assert_eq!(opened.meta.max_promise(), ms(900));
    let blocking = meta.clone();
    tokio::task::spawn_blocking(move || blocking.raise_max_promise_blocking(ms(950)).unwrap())
        .await
        .unwrap();
    drop((opened, meta));
    let opened = open_dir(dir.path());
    assert_eq!(opened.meta.max_promise(), ms(950));
    opened
        .meta
        .lower_max_promise_after_quarantine(ms(2000))
        .await
        .unwrap();
    assert_eq!(opened.meta.max_promise(), ms(950));
    opened
        .meta
        .lower_max_promise_after_quarantine(ms(320))
        .await
        .unwrap();
    drop(opened);
    assert_eq!(open_dir(dir.path()).meta.max_promise(), ms(320));
}

#[tokio::test]
async fn a_purge_waits_for_no_disk_and_leaves_it_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let mut opened = on_disk(&disk, dir.path());
    let mut all = vec![members(0, 0, &[&[1, 2, 3]])];
    all.extend((1..400).map(|index| blank(1, index)));
    append(&mut opened, all.clone()).await;
    apply(&mut opened, all[..300].to_vec()).await;
    let mut builder = opened.machine.get_snapshot_builder().await;
    builder.build_snapshot().await.unwrap();
    let syncs = disk.syncs();
    opened.log.purge(id(1, 299)).await.unwrap();
    assert_eq!(disk.syncs(), syncs, "the purge waited for the disk");
    assert_eq!(entries(&mut opened).await.len(), 100);

    let mut purged = Vec::new();
    for next in 400..404 {
        append(&mut opened, vec![blank(1, next)]).await;
        // What a crash right now leaves is a log that begins after what it says is purged.
        drop(opened);
        disk.power_failure(false);
        opened = on_disk(&disk, dir.path());
        let found = stored(&mut opened).await;
        let at = found.purged.map(|id| id.index);
        assert_eq!(found.entries[0].log_id.index, at.unwrap() + 1);
        assert_eq!(found.entries.last().unwrap().log_id.index, next);
        purged.push(at);
        // openraft asks again at its next snapshot; what it asks for then goes on where this ended.
        opened.log.purge(id(1, 299)).await.unwrap();
    }
    assert_eq!(purged, [Some(127), Some(255), Some(299), Some(299)]);
}

#[tokio::test]
async fn a_message_to_a_follower_has_a_bounded_size() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let mut opened = on_disk(&disk, dir.path());
    let large = |index: u64| {
        let mut many = vec![vip("web", "198.51.100.1")];
        many[0].interface = "x".repeat(MAX_READ_BYTES / 3);
        command(1, index, bootstrap(many))
    };
    let mut all = vec![members(0, 0, &[&[1, 2, 3]])];
    all.extend((1..10).map(large));
    let mut huge = vec![vip("web", "198.51.100.1")];
    huge[0].interface = "x".repeat(MAX_READ_BYTES * 2);
    all.push(command(1, 10, bootstrap(huge)));
    append(&mut opened, all).await;
    let mut counts = Vec::new();
    let mut next = 0;
    while next < 11 {
        let found = opened.log.limited_get_log_entries(next, 11).await.unwrap();
        assert_eq!(found[0].log_id.index, next);
        next += found.len() as u64;
        counts.push(found.len());
    }
    assert_eq!(counts, [3, 2, 2, 2, 1, 1]);
}

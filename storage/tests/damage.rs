//! Damaged files: the directory opens with exactly what was stored, or it does not open.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use buoy_storage::{OpenError, open};
use common::*;
use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftStateMachine};

/// A directory in which everything occurs: a snapshot, purged entries, an entry in several parts, replaced
/// entries, a vote, a promise.
async fn fill(dir: &Path) -> Stored {
    let mut opened = open_dir(dir);
    let vote = buoy_storage::Vote::new(1, 1);
    opened.log.save_vote(&vote).await.unwrap();
    let vips = (0..200)
        .map(|n| vip(&format!("v{n}"), &format!("198.51.100.{n}")))
        .collect();
    let first = vec![
        members(0, 0, &[&[1, 2, 3]]),
        blank(1, 1),
        command(1, 2, bootstrap(vips)),
    ];
    append(&mut opened, first.clone()).await;
    let assigned = (3..40)
        .map(|n| command(1, n, assign(&format!("v{n}"), 0, 2)))
        .collect::<Vec<_>>();
    for entry in &assigned {
        append(&mut opened, vec![entry.clone()]).await;
    }
    apply(&mut opened, first).await;
    apply(&mut opened, assigned[..17].to_vec()).await;
    opened
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    opened.log.purge(id(1, 10)).await.unwrap();
    opened.log.truncate_after(Some(id(1, 30))).await.unwrap();
    let second = (31..70)
        .map(|n| command(2, n, assign(&format!("v{n}"), 0, 3)))
        .collect();
    append(&mut opened, second).await;
    opened
        .log
        .save_vote(&buoy_storage::Vote::new_committed(2, 3))
        .await
        .unwrap();
    opened.log.save_committed(Some(id(2, 50))).await.unwrap();
    opened
        .meta
        .raise_max_promise(Duration::from_millis(323))
        .await
        .unwrap();
    stored(&mut opened).await
}

fn files_in(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_in(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Counts what became of the trials.
#[derive(Default, Debug)]
struct Tally {
    refused: usize,
    whole: usize,
}

/// One trial: damages a copy and opens it.
async fn trial(
    original: &Path,
    expected: &Stored,
    what: &str,
    tally: &mut Tally,
    damage: impl FnOnce(&Path),
) {
    let dir = tempfile::tempdir().unwrap();
    let copied = dir.path().join("data");
    copy(original, &copied);
    damage(&copied);
    match open(&copied, &identity()) {
        Ok(mut opened) => {
            assert_eq!(
                &stored(&mut opened).await,
                expected,
                "{what}: opened with something else"
            );
            tally.whole += 1;
        }
        Err(e) => {
            let text = e.to_string();
            let clear = matches!(
                e,
                OpenError::Damaged { .. }
                    | OpenError::NewerFormat { .. }
                    | OpenError::OtherIdentity { .. }
            );
            assert!(clear, "{what}: {text}");
            tally.refused += 1;
        }
    }
}

/// Offsets spread over a file: all of a small one, and of a large one those that hold something.
fn offsets(bytes: &[u8], at_most: usize) -> Vec<usize> {
    let used: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes.len() < 4096 || bytes[*at] != 0)
        .collect();
    let step = used.len().div_ceil(at_most).max(1);
    used.into_iter().step_by(step).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_refused_or_make_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("data");
    let expected = fill(&original).await;
    assert_eq!(expected.entries.len(), 59);
    let mut none = Tally::default();
    trial(&original, &expected, "no damage", &mut none, |_| {}).await;
    assert_eq!(none.whole, 1);

    let mut files = Vec::new();
    files_in(&original, &mut files);
    let mut flips = Tally::default();
    let mut cuts = Tally::default();
    let mut holes = Tally::default();
    for file in files.iter().filter(|f| !f.ends_with("lock")) {
        let name = file.strip_prefix(&original).unwrap();
        let bytes = fs::read(file).unwrap();
        let many = if name.ends_with("db") { 800 } else { 60 };
        for at in offsets(&bytes, many) {
            let what = format!("{} with byte {at} flipped", name.display());
            trial(&original, &expected, &what, &mut flips, |copy| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 0x41;
                fs::write(copy.join(name), bytes).unwrap();
            })
            .await;
        }
        for at in offsets(&bytes, many / 8) {
            let what = format!("{} cut to {at} bytes", name.display());
            trial(&original, &expected, &what, &mut cuts, |copy| {
                fs::write(copy.join(name), &bytes[..at]).unwrap()
            })
            .await;
            let what = format!("{} with zeros from {at}", name.display());
            trial(&original, &expected, &what, &mut holes, |copy| {
                let mut bytes = bytes.clone();
                let end = bytes.len().min(at + 512);
                bytes[at..end].fill(0);
                fs::write(copy.join(name), bytes).unwrap();
            })
            .await;
        }
        let what = format!("{} removed", name.display());
        trial(&original, &expected, &what, &mut cuts, |copy| {
            fs::remove_file(copy.join(name)).unwrap()
        })
        .await;
    }
    println!("flipped {flips:?}, cut {cuts:?}, zeroed {holes:?}");
    assert!(
        flips.refused > 20 && cuts.refused > 10 && holes.refused > 5,
        "{flips:?} {cuts:?} {holes:?}"
    );
}

#[tokio::test]
async fn an_older_copy_of_the_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut opened = open_dir(&data);
    append(&mut opened, vec![blank(1, 0), blank(1, 1)]).await;
    drop(opened);
    copy(&data.join("log"), &dir.path().join("old"));
    let mut opened = open_dir(&data);
    append(&mut opened, vec![blank(1, 2)]).await;
    drop(opened);
    copy(&dir.path().join("old"), &data.join("log"));
    let text = open(&data, &identity()).err().unwrap().to_string();
    assert!(
        text.contains("had been made durable") && text.contains(buoy_storage::LOST_DATA_ADVICE),
        "{text}"
    );
}

#[tokio::test]
async fn a_log_without_the_snapshot_that_it_continues_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fill(&data).await;
    fs::remove_dir_all(data.join("snapshots")).unwrap();
    let text = open(&data, &identity()).err().unwrap().to_string();
    assert!(
        text.contains("begins at entry 11") && text.contains("no snapshot holds"),
        "{text}"
    );
}

#[tokio::test]
async fn a_directory_that_lost_its_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fill(&data).await;
    fs::remove_dir_all(data.join("log")).unwrap();
    let text = open(&data, &identity()).err().unwrap().to_string();
    assert!(text.contains("the Raft log is gone"), "{text}");
    assert!(!data.join("log").exists(), "no new log is begun");
}

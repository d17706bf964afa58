//! Whose directory it is, who has it open, and which formats are read.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use buoy_core::NodeId;
use buoy_storage::{Identity, OpenError, SNAPSHOT_FORMAT, measure_fsync, open};
use common::*;
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;

#[test]
fn a_new_directory_is_private_and_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/er");
    for _ in 0..3 {
        let opened = open_dir(&data);
        assert_eq!(opened.meta.max_promise(), Duration::ZERO);
        assert!(opened.views.load().membership.halves.is_empty());
    }
    assert_eq!(
        fs::metadata(&data).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn another_identity_is_refused_with_both() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_dir(dir.path()));
    let others = [
        Identity {
            cluster: "other".into(),
            ..identity()
        },
        Identity {
            node: "n9".parse().unwrap(),
            ..identity()
        },
        Identity {
            id: NodeId(9),
            ..identity()
        },
    ];
    for other in others {
        let error = open(dir.path(), &other).err().unwrap();
        assert!(matches!(error, OpenError::OtherIdentity { .. }));
        let text = error.to_string();
        let both = [
            "node n1 (id 1) of cluster \"test\"".to_owned(),
            format!(
                "node {} (id {}) of cluster {:?}",
                other.node, other.id, other.cluster
            ),
            "another data directory".to_owned(),
        ];
        assert!(both.iter().all(|part| text.contains(part)), "{text}");
    }
    drop(open_dir(dir.path()));
}

#[test]
fn a_newer_format_is_refused_whatever_else_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_dir(dir.path()));
    fs::write(
        dir.path().join("identity.json"),
        r#"{"format": 2, "quorum": "unheard of"}"#,
    )
    .unwrap();
    let text = open(dir.path(), &identity()).err().unwrap().to_string();
    assert!(
        text.contains("format 2") && text.contains("up to 1") && text.contains("newer"),
        "{text}"
    );
}

#[tokio::test]
async fn a_newer_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_dir(dir.path());
    append(&mut opened, vec![blank(1, 0)]).await;
    apply(&mut opened, vec![blank(1, 0)]).await;
    opened
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    drop(opened);
    let file = fs::read_dir(dir.path().join("snapshots"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 7;
    fs::write(&file, bytes).unwrap();
    let text = open(dir.path(), &identity()).err().unwrap().to_string();
    let known = format!("up to {SNAPSHOT_FORMAT}:");
    assert!(text.contains("format 7") && text.contains(&known), "{text}");
}

#[tokio::test]
async fn a_log_without_an_identity_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_dir(dir.path());
    append(&mut opened, vec![blank(1, 0)]).await;
    drop(opened);
    fs::remove_file(dir.path().join("identity.json")).unwrap();
    let text = open(dir.path(), &identity()).err().unwrap().to_string();
    assert!(text.contains("identity.json"), "{text}");
}

#[test]
fn an_interrupted_first_start_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_dir(dir.path()));
    for leftover in [&["identity.json"][..], &["identity.json", "seal"]] {
        leftover
            .iter()
            .for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
        drop(open_dir(dir.path()));
    }
}

#[test]
fn a_second_open_names_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let held = open_dir(dir.path());
    let error = open(dir.path(), &identity()).err().unwrap();
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(
        error.to_string().contains("stop that process first"),
        "{error}"
    );
    drop(held);
    drop(open_dir(dir.path()));
}

const CHILD_DIR: &str = "BUOY_STORAGE_LOCK_TEST_DIR";

/// Ends the child when the test panics as well.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn another_process_holds_the_lock_until_it_dies() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let spawned = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lock_holder", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Child(spawned.unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains("opened")),
        "the child opened it"
    );
    let error = open(dir.path(), &identity()).err().unwrap();
    assert!(
        matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == child.0.id()),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", child.0.id())),
        "{error}"
    );
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    drop(open_dir(dir.path()));
}

#[test]
#[ignore = "the other process of another_process_holds_the_lock_until_it_dies"]
fn lock_holder() {
    let dir = std::env::var(CHILD_DIR).expect("started by the test");
    let _held = open_dir(dir.as_ref());
    println!("opened");
    // Until the parent kills this process or goes away.
    let _ = std::io::read_to_string(std::io::stdin());
}

#[test]
fn fsync_is_measured_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let took = measure_fsync(dir.path(), 5).unwrap();
    assert_eq!(took.len(), 5);
    assert!(took.iter().all(|d| !d.is_zero()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(measure_fsync(&dir.path().join("missing"), 1).is_err());
}

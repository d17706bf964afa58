//! Durable appends a second, one at a time and with 32 in flight, on the disk of the directory given (default:
//! the system's temporary directory): `cargo bench -p buoy-storage [-- DIR]`.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use buoy_core::NodeId;
use buoy_core::state::{Command, Entry, Settings};
use buoy_storage::{Identity, LogEntry, LogId, LogStore, TypeConfig, measure_fsync, open};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::vote::leader_id_std::CommittedLeaderId;

const RUN: Duration = Duration::from_secs(3);

fn entry(index: u64) -> LogEntry {
    let command = Command::Settings(Settings {
        frozen: index.is_multiple_of(2),
    });
    LogEntry::new_normal(
        LogId::new(CommittedLeaderId::new(1), index),
        Entry {
            at_unix_ms: index,
            command,
        },
    )
}

/// Appends for a while with so many in flight; gives what each append took, sorted.
async fn run(log: &mut LogStore, next: &mut u64, in_flight: usize) -> Vec<Duration> {
    let begin = Instant::now();
    let mut took = Vec::new();
    let mut waiting = VecDeque::new();
    while begin.elapsed() < RUN || !waiting.is_empty() {
        if begin.elapsed() < RUN && waiting.len() < in_flight {
            let (flushed, answer) = TypeConfig::oneshot();
            waiting.push_back((Instant::now(), answer));
            log.append([entry(*next)], IOFlushed::signal(flushed))
                .await
                .expect("the log can be written");
            *next += 1;
        } else if let Some((sent, answer)) = waiting.pop_front() {
            answer.await.expect("an answer").expect("durable");
            took.push(sent.elapsed());
        }
    }
    took.sort_unstable();
    took
}

fn report(what: &str, took: &[Duration], over: Option<Duration>) {
    let at = |permille: usize| took[(took.len() - 1) * permille / 1000];
    let rate = over.map_or_else(String::new, |over| {
        format!("{:>8.0}/s  ", took.len() as f64 / over.as_secs_f64())
    });
    println!(
        "{what:<22}{rate}p50 {:?}  p99 {:?}  max {:?}",
        at(500),
        at(990),
        at(1000)
    );
}

fn main() {
    let base = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(&base).expect("a directory to write in");
    let mut fsync = measure_fsync(dir.path(), 200).expect("fsync can be measured");
    fsync.sort_unstable();
    report("fdatasync", &fsync, None);
    let identity = Identity {
        cluster: "bench".into(),
        node: "n1".parse().expect("a name"),
        id: NodeId(1),
    };
    let mut opened = open(&dir.path().join("data"), &identity).expect("a new directory opens");
    TypeConfig::run(async move {
        let mut next = 0;
        for in_flight in [1, 32] {
            let took = run(&mut opened.log, &mut next, in_flight).await;
            report(&format!("append, {in_flight} in flight"), &took, Some(RUN));
        }
    });
}

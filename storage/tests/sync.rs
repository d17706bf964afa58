//! Nothing is acknowledged before the disk has confirmed it: each commit on the real database ends with
//! `fdatasync`, and fails with it.
//!
//! The kernel is told to refuse that system call to this process, for good; so this file holds one test.
//! sled alone would not notice: it asks for the writing of its pages (`sync_file_range`), which does not
//! empty the cache of the disk.

mod common;

use std::io;
use std::time::Duration;

use buoy_storage::{Opened, Vote};
use common::{append, blank, entries, members, open_dir};
use openraft::RaftLogReader;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};

/// Lets `fdatasync` fail with EIO in all threads of this process.
fn refuse_fdatasync() -> io::Result<()> {
    let syscall = u32::try_from(libc::SYS_fdatasync).expect("numbers are small");
    let eio = u32::try_from(libc::EIO).expect("numbers are small");
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt,
        jf,
        k,
    };
    // The number of the system call is the first word of what the filter is given.
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, syscall),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | eio,
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: prctl with these arguments reads no memory.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the filter and its program live until the call returns; the kernel copies them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const filter,
        )
    };
    match result {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        thread => Err(io::Error::other(format!("thread {thread} takes no filter"))),
    }
}

/// A log with one entry, a vote, and a longest promise, all acknowledged.
async fn working(dir: &tempfile::TempDir) -> Opened {
    let mut opened = open_dir(dir.path());
    append(&mut opened, vec![members(0, 0, &[&[1]]), blank(1, 1)]).await;
    opened.log.save_vote(&Vote::new(1, 1)).await.unwrap();
    opened
        .meta
        .raise_max_promise(Duration::from_millis(323))
        .await
        .unwrap();
    opened
}

fn text(result: io::Result<()>) -> Result<(), String> {
    result.map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_disk_has_not_confirmed_is_not_acknowledged() {
    // Each in a log of its own: after its first failure one refuses everything.
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let mut logs = Vec::new();
    for dir in &dirs {
        logs.push(working(dir).await);
    }
    let [append, vote, truncate, raise, lower] = &mut logs[..] else {
        unreachable!("there are five");
    };
    refuse_fdatasync().expect("the kernel lets a process restrict itself");
    let long = Duration::from_secs(1);
    let entry = append.log.blocking_append(vec![blank(1, 2)]).await;
    let refused = [
        ("an entry", entry.map_err(|e| e.to_string())),
        ("a vote", text(vote.log.save_vote(&Vote::new(2, 1)).await)),
        (
            "a truncation",
            text(truncate.log.truncate_after(None).await),
        ),
        (
            "a longer promise",
            text(raise.meta.raise_max_promise(long).await),
        ),
        (
            "a shorter promise",
            text(
                lower
                    .meta
                    .lower_max_promise_after_quarantine(Duration::ZERO)
                    .await,
            ),
        ),
    ];
    let eio = io::Error::from_raw_os_error(libc::EIO).to_string();
    for (what, result) in refused {
        let error = result.expect_err(what);
        assert!(error.contains(&eio), "{what}: {error}");
    }
    // What was acknowledged before is there.
    assert_eq!(entries(vote).await.len(), 2);
    assert_eq!(vote.log.read_vote().await.unwrap(), Some(Vote::new(1, 1)));
}

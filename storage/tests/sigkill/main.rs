//! A writer is killed with SIGKILL at random points: nothing that it had acknowledged is lost.
//!
//! The writer is this test executable, started again. It writes a line to its standard output *after*
//! something has become durable (a capital letter), and *before* it takes entries away (`t`). The test
//! reads the lines up to the kill, opens the directory, and compares.

#[path = "../common/mod.rs"]
mod common;
mod writer;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use buoy_storage::LogId;
use common::{Stored, open_dir, stored};
use openraft::EntryPayload;
use writer::Random;

const KILLS: u64 = 80;
const DIR: &str = "BUOY_STORAGE_KILL_TEST_DIR";
const SEED: &str = "BUOY_STORAGE_KILL_TEST_SEED";
const ADDRESS: &str = "198.51.100.1";

#[test]
#[ignore = "the process that the test kills"]
fn writer() {
    let dir = std::env::var(DIR).expect("started by the test");
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(writer::run(dir.as_ref(), seed));
}

/// What must be found: built from what was found last time and the lines since.
#[derive(Default, Debug)]
struct Expected {
    /// Acknowledged entries that nothing has taken away: index and, where a line named it, term.
    entries: BTreeMap<u64, Option<u64>>,
    /// A truncation has begun: entries after this one may be gone.
    maybe_cut: Option<u64>,
    vote: u64,
    /// What was purged on the disk before; what is asked for later may be lost.
    purged: Option<u64>,
    snapshot: Option<u64>,
    promise: u64,
}

impl Expected {
    /// The last entry that must be there.
    fn last(&self) -> Option<u64> {
        self.entries
            .last_key_value()
            .map(|(index, _)| *index)
            .max(self.purged)
    }

    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let what = words.next();
        // The test harness writes lines of its own; "O" stands behind one of them.
        let Ok(numbers) = words.map(str::parse).collect::<Result<Vec<u64>, _>>() else {
            return;
        };
        match (what, numbers.as_slice()) {
            (Some("A"), [index, term]) => {
                let first = self
                    .entries
                    .last_key_value()
                    .map_or(0, |(last, _)| last + 1);
                self.entries.extend((first..*index).map(|i| (i, None)));
                self.entries.insert(*index, Some(*term));
            }
            (Some("V"), [term]) => self.vote = *term,
            (Some("t"), [keep]) => self.maybe_cut = Some(*keep),
            (Some("T"), [keep]) => {
                self.entries.split_off(&(keep + 1));
                self.maybe_cut = None;
            }
            (Some("S"), [index]) => self.snapshot = Some(*index),
            // A purge need not be on the disk yet ("P" says only that it was asked for).
            (Some("M"), [length]) => self.promise = *length,
            _ => {}
        }
    }

    fn check(&self, found: &Stored) {
        let purged = found.purged.map(|id| id.index);
        assert!(purged >= self.purged, "purged {purged:?}");
        assert!(
            found.applied.map(|id| id.index) >= self.snapshot.max(purged),
            "the snapshot covers what was purged"
        );
        let indexes: Vec<u64> = found.entries.iter().map(|e| e.log_id.index).collect();
        let first = purged.map_or(0, |index| index + 1);
        assert_eq!(
            indexes,
            (first..first + indexes.len() as u64).collect::<Vec<_>>(),
            "without holes"
        );
        let terms: BTreeMap<u64, u64> = found
            .entries
            .iter()
            .map(|e| (e.log_id.index, e.log_id.leader_id.term))
            .collect();
        for (index, term) in &self.entries {
            let may_be_gone = self.maybe_cut.is_some_and(|keep| *index > keep);
            match terms.get(index) {
                Some(found) => assert!(
                    term.is_none_or(|term| term == *found),
                    "entry {index}: term {found}, not {term:?}"
                ),
                None => assert!(
                    may_be_gone || purged >= Some(*index),
                    "acknowledged entry {index} is lost"
                ),
            }
        }
        let vote = found.vote.map_or(0, |v| v.leader_id.term);
        assert!(vote >= self.vote, "vote {vote}, acknowledged {}", self.vote);
        assert!(found.max_promise >= Duration::from_millis(self.promise));
        let assigned = found.entries.iter().rev().find_map(|e| match &e.payload {
            EntryPayload::Normal(command)
                if !matches!(command.command, buoy_core::state::Command::Bootstrap { .. }) =>
            {
                Some(e.log_id.index)
            }
            _ => None,
        });
        if let Some(index) = assigned {
            let view = found.view.assigned.get(&ADDRESS.parse().unwrap());
            assert_eq!(
                view.map(|v| v.1.0),
                Some(index),
                "the view says what the log says last"
            );
        }
    }

    fn from_found(found: &Stored) -> Expected {
        Expected {
            entries: found
                .entries
                .iter()
                .map(|e| (e.log_id.index, Some(e.log_id.leader_id.term)))
                .collect(),
            maybe_cut: None,
            vote: found.vote.map_or(0, |v| v.leader_id.term),
            purged: found.purged.map(|id: LogId| id.index),
            snapshot: found.applied.map(|id| id.index),
            promise: found.max_promise.as_millis() as u64,
        }
    }
}

/// Killed also when the test panics.
struct Victim(Child);

impl Victim {
    fn start(dir: &Path, seed: u64) -> Victim {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .spawn();
        Victim(child.unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a writer until it has written `lines` lines (0: kill it somewhere in its start), kills it, and
/// hears all that it had written.
fn round(dir: &Path, seed: u64, lines: u64, expected: &mut Expected) -> usize {
    let mut victim = Victim::start(dir, seed);
    let mut out = BufReader::new(victim.0.stdout.take().unwrap());
    let mut heard = 0;
    let mut line = String::new();
    if lines == 0 {
        // Any moment of the start will do, the sooner the better.
        std::thread::sleep(Duration::from_micros(seed * 97 % 20_000));
        victim.kill();
    }
    let mut killed = lines == 0;
    while out.read_line(&mut line).unwrap() > 0 {
        if line.ends_with('\n') {
            expected.hear(line.trim_end());
            heard += 1;
        }
        line.clear();
        if !killed && heard as u64 >= lines {
            victim.kill();
            killed = true;
        }
    }
    assert!(killed, "the writer ended by itself (seed {seed})");
    heard
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_to_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(u64::from(std::process::id()));
    let mut expected = Expected::default();
    let mut before = None;
    let (mut heard, mut purges, mut unheard) = (0, 0, 0);
    for kill in 0..KILLS {
        let seed = random.below(1 << 30);
        let lines = if kill % 8 == 7 {
            0
        } else {
            4 + random.below(400)
        };
        heard += round(dir.path(), seed, lines, &mut expected);
        let mut opened = open_dir(dir.path());
        let found = stored(&mut opened).await;
        println!(
            "kill {kill}, seed {seed}: {} entries, purged {:?}",
            found.entries.len(),
            found.purged
        );
        expected.check(&found);
        let now = Expected::from_found(&found);
        purges += u64::from(now.purged > before);
        unheard += u64::from(now.last() > expected.last());
        before = now.purged;
        expected = now;
    }
    println!(
        "{KILLS} kills, {heard} lines heard, {purges} rounds with a purge, {unheard} with entries unheard of"
    );
    assert!(
        heard > 2000,
        "{heard} lines: the writers were killed before they did much"
    );
    assert!(
        expected.last() > Some(1000) && purges > 5,
        "{purges} purges"
    );
    assert!(
        unheard > 5,
        "{unheard} kills came between the disk and the acknowledgement"
    );
}

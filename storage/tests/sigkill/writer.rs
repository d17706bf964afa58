//! The process that is killed: writes, and says on its standard output what has become durable.

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use buoy_storage::{LogEntry, Opened, TypeConfig, Vote};
use openraft::RaftSnapshotBuilder;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;

use crate::ADDRESS;
use crate::common::*;

/// A small generator (xorshift64*), so that a seed repeats what a writer does.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Opens the directory and writes until it is killed.
pub async fn run(dir: &Path, seed: u64) {
    let mut opened = open_dir(dir);
    let found = stored(&mut opened).await;
    say("O".to_owned());
    let last = found.entries.last().map(|e| e.log_id).or(found.purged);
    let term = found.vote.map_or(1, |v| v.leader_id.term);
    let next = last.map_or(0, |id| id.index + 1);
    let random = Random::new(seed);
    Writer {
        opened,
        random,
        term,
        next,
        in_flight: VecDeque::new(),
    }
    .run()
    .await;
}

fn say(line: String) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush())
        .unwrap();
}

type Flushed =
    <<TypeConfig as openraft::RaftTypeConfig>::AsyncRuntime as openraft::AsyncRuntime>::Oneshot;
type Answer = <Flushed as openraft::async_runtime::Oneshot>::Receiver<Result<(), std::io::Error>>;

struct Writer {
    opened: Opened,
    random: Random,
    term: u64,
    next: u64,
    in_flight: VecDeque<(u64, u64, Answer)>,
}

impl Writer {
    async fn append(&mut self) {
        let owner = self
            .opened
            .views
            .load()
            .assigned
            .get(&ADDRESS.parse().unwrap())
            .copied();
        let (node, epoch) = owner.map_or((0, 0), |(node, epoch)| (node.0, epoch.0));
        let mut entries = vec![command(
            self.term,
            self.next,
            assign("web", epoch, 1 + node % 3),
        )];
        entries.extend((1..=self.random.below(4)).map(|n| blank(self.term, self.next + n)));
        self.send(entries).await;
    }

    async fn send(&mut self, entries: Vec<LogEntry>) {
        self.next += entries.len() as u64;
        // The first membership entry is of term 0, whatever term the writer is in.
        let term = entries
            .last()
            .map_or(self.term, |e| e.log_id.leader_id.term);
        let (flushed, answer) = TypeConfig::oneshot();
        self.opened
            .log
            .append(entries, IOFlushed::signal(flushed))
            .await
            .unwrap();
        self.in_flight.push_back((self.next - 1, term, answer));
    }

    async fn acknowledge(&mut self, leave: usize) {
        while self.in_flight.len() > leave {
            let (index, term, answer) = self.in_flight.pop_front().unwrap();
            answer.await.unwrap().unwrap();
            say(format!("A {index} {term}"));
        }
    }

    async fn vote(&mut self) {
        self.opened
            .log
            .save_vote(&Vote::new(self.term + 1, 1))
            .await
            .unwrap();
        self.term += 1;
        say(format!("V {}", self.term));
    }

    async fn truncate(&mut self) {
        self.acknowledge(0).await;
        let applied = self
            .opened
            .reader
            .read()
            .log_id()
            .map_or(2, |id| id.index.max(2));
        let keep = (self.next - 1)
            .saturating_sub(1 + self.random.below(9))
            .max(applied);
        let term = entries(&mut self.opened)
            .await
            .iter()
            .find(|e| e.log_id.index == keep)
            .map(|e| e.log_id.leader_id.term);
        let Some(term) = term else { return };
        say(format!("t {keep}"));
        self.opened
            .log
            .truncate_after(Some(id(term, keep)))
            .await
            .unwrap();
        say(format!("T {keep}"));
        self.next = keep + 1;
        self.vote().await;
    }

    async fn compact(&mut self) {
        self.acknowledge(0).await;
        let all = entries(&mut self.opened).await;
        let applied = self.opened.reader.read().log_id();
        let todo: Vec<_> = all
            .into_iter()
            .filter(|e| Some(e.log_id) > applied)
            .collect();
        let upto = todo.len() / 2;
        apply(&mut self.opened, todo.into_iter().take(upto).collect()).await;
        let Some(last) = self.opened.reader.read().log_id() else {
            return;
        };
        self.opened
            .machine
            .get_snapshot_builder()
            .await
            .build_snapshot()
            .await
            .unwrap();
        say(format!("S {}", last.index));
        self.opened.log.purge(last).await.unwrap();
        say(format!("P {}", last.index));
    }

    async fn promise(&mut self) {
        let length = self.opened.meta.max_promise() + Duration::from_millis(1);
        self.opened.meta.raise_max_promise(length).await.unwrap();
        say(format!("M {}", length.as_millis()));
    }

    async fn run(mut self) {
        if self.next == 0 {
            self.send(vec![members(0, 0, &[&[1, 2, 3]])]).await;
            self.send(vec![blank(self.term, 1)]).await;
            self.send(vec![command(
                self.term,
                2,
                bootstrap(vec![vip("web", ADDRESS)]),
            )])
            .await;
        }
        loop {
            match self.random.below(100) {
                0..90 => self.append().await,
                90..94 => self.vote().await,
                94..97 => self.truncate().await,
                97 => self.compact().await,
                _ => self.promise().await,
            }
            self.acknowledge(16).await;
        }
    }
}

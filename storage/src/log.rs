//! openraft's log and vote: a mirror in memory to read from, and the journal behind it.
//!
//! `append` returns when the entries are in the mirror and in the log view (see `view` for why in this
//! order); openraft is told that they are durable when the writer has synced them. Votes and truncations
//! are durable before they return. Purged entries leave the disk bit by bit, together with later writes:
//! a purge that is lost in a crash only leaves a longer log. A failed write is reported to openraft, which stops the
//! node; nothing is written after it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::OpenError;
use crate::journal::{Change, Contents};
use crate::record::{Key, Value};
use crate::state::{AppliedState, Shared};
use crate::types::{LogEntry, LogId, MAX_ENTRY_BYTES, TypeConfig, Vote, core_membership};
use crate::view::{ViewPublisher, ViewReader};
use crate::writer::{Done, Writer};

/// Most bytes of entries that one message to a follower carries, unless a single entry has more.
pub const MAX_READ_BYTES: usize = 1 << 20;

/// Purged entries that leave the disk together with one write.
const PURGE_STEP: usize = 128;

/// The log in memory.
pub(crate) struct Mirror {
    entries: BTreeMap<u64, LogEntry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// Purged entries that are on the disk still, the oldest first.
    leaving: VecDeque<LogId>,
    view: ViewPublisher,
}

/// The mirror, shared by the log, its readers, and the state machine (which resets the view).
#[derive(Clone)]
pub(crate) struct SharedLog(Arc<Mutex<Mirror>>);

impl SharedLog {
    /// Makes the mirror of what the journal holds; `applied` is what the snapshot holds.
    pub(crate) fn load(
        contents: &Contents,
        applied: &AppliedState,
        path: &Path,
    ) -> Result<SharedLog, OpenError> {
        let purged = value(contents, Value::Purged, path)?;
        let entries = load_entries(contents, purged, path)?;
        check_cover(purged, applied, path)?;
        let mirror = Mirror {
            view: ViewPublisher::new(
                applied.state.without_history(),
                core_membership(&applied.membership),
                after(&entries, applied.last),
            ),
            entries,
            vote: value(contents, Value::Vote, path)?,
            committed: value(contents, Value::Committed, path)?,
            purged,
            leaving: VecDeque::new(),
        };
        Ok(SharedLog(Arc::new(Mutex::new(mirror))))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Mirror> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn views(&self) -> ViewReader {
        self.lock().view.reader()
    }
}

/// Entries after a log id.
fn after(
    entries: &BTreeMap<u64, LogEntry>,
    last: Option<LogId>,
) -> impl Iterator<Item = &LogEntry> {
    entries.range(next_index(last)..).map(|(_, entry)| entry)
}

fn next_index(last: Option<LogId>) -> u64 {
    last.map_or(0, |id| id.index.saturating_add(1))
}

impl Mirror {
    /// Makes the view from a state and the entries after it.
    pub(crate) fn restart_view(&mut self, applied: &AppliedState) {
        let base = applied.state.without_history();
        self.view.reset(
            base,
            core_membership(&applied.membership),
            after(&self.entries, applied.last),
        );
    }

    fn last(&self) -> Option<LogId> {
        self.entries
            .last_key_value()
            .map(|(_, entry)| entry.log_id)
            .or(self.purged)
    }

    /// Takes the next purged entries off the disk. Each step leaves a log that begins right after what it
    /// says is purged.
    fn purge_step(&mut self) -> io::Result<Vec<Change>> {
        let count = self.leaving.len().min(PURGE_STEP);
        match self.leaving.drain(..count).next_back() {
            Some(upto) => purge_changes(upto),
            None => Ok(Vec::new()),
        }
    }

    /// openraft writes without holes; an entry that would make one must not be written.
    fn check_next(&self, first: u64) -> io::Result<()> {
        let last = self.last();
        if last.is_none() || first == next_index(last) {
            return Ok(());
        }
        Err(invalid(format!(
            "log entry {first} cannot follow entry {}",
            next_index(last).saturating_sub(1)
        )))
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn value<T: DeserializeOwned>(
    contents: &Contents,
    which: Value,
    path: &Path,
) -> Result<Option<T>, OpenError> {
    let Some(bytes) = contents.values.get(&which) else {
        return Ok(None);
    };
    let damaged = |e| {
        OpenError::damaged(
            path,
            format!("{} cannot be decoded ({e})", Key::Value(which)),
        )
    };
    postcard::from_bytes(bytes).map(Some).map_err(damaged)
}

fn load_entries(
    contents: &Contents,
    purged: Option<LogId>,
    path: &Path,
) -> Result<BTreeMap<u64, LogEntry>, OpenError> {
    let damaged = |text: String| OpenError::damaged(path, text);
    let mut entries = BTreeMap::new();
    let mut expected = next_index(purged);
    for (index, bytes) in &contents.entries {
        if *index != expected {
            return Err(damaged(format!(
                "log entry {expected} is missing (the next one is {index})"
            )));
        }
        let entry: LogEntry = postcard::from_bytes(bytes)
            .map_err(|e| damaged(format!("log entry {index} cannot be decoded ({e})")))?;
        if entry.log_id.index != *index {
            return Err(damaged(format!(
                "log entry {index} calls itself {}",
                entry.log_id
            )));
        }
        entries.insert(*index, entry);
        expected = index.saturating_add(1);
    }
    Ok(entries)
}

/// What has been purged must be in the snapshot.
fn check_cover(
    purged: Option<LogId>,
    applied: &AppliedState,
    path: &Path,
) -> Result<(), OpenError> {
    if purged <= applied.last {
        return Ok(());
    }
    let covered = applied.last.map_or_else(
        || "there is none".to_owned(),
        |id| format!("the newest ends at {}", id.index),
    );
    Err(OpenError::damaged(
        path,
        format!(
            "the log begins at entry {}, and no snapshot holds what was before ({covered})",
            next_index(purged)
        ),
    ))
}

/// openraft's log and vote on this node; clones share them.
#[derive(Clone)]
pub struct LogStore {
    mirror: SharedLog,
    applied: Shared,
    writer: Writer,
}

impl LogStore {
    pub(crate) fn new(mirror: SharedLog, applied: Shared, writer: Writer) -> LogStore {
        LogStore {
            mirror,
            applied,
            writer,
        }
    }
}

fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

fn put<T: Serialize>(which: Value, value: &T) -> io::Result<Change> {
    Ok(Change::Put(Key::Value(which), encode(value)?))
}

fn purge_changes(upto: LogId) -> io::Result<Vec<Change>> {
    let purged = put(Value::Purged, &upto)?;
    Ok(vec![purged, Change::RemoveThrough(upto.index)])
}

/// One entry as a change.
fn put_entry(entry: &LogEntry) -> io::Result<Change> {
    let bytes = encode(entry)?;
    if bytes.len() > MAX_ENTRY_BYTES {
        let (id, len) = (entry.log_id, bytes.len());
        return Err(invalid(format!(
            "log entry {id} has {len} bytes, more than the {MAX_ENTRY_BYTES} allowed"
        )));
    }
    Ok(Change::Put(Key::Entry(entry.log_id.index), bytes))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let mirror = self.mirror.lock();
        let entries = mirror
            .entries
            .range(start..)
            .take_while(|(index, _)| range.contains(index));
        Ok(entries.map(|(_, entry)| entry.clone()).collect())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let mirror = self.mirror.lock();
        let mut found = Vec::new();
        let mut bytes = 0;
        for (_, entry) in mirror.entries.range(start..end.max(start)) {
            bytes += postcard::experimental::serialized_size(entry).map_err(io::Error::other)?;
            if bytes > MAX_READ_BYTES && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.mirror.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let mirror = self.mirror.lock();
        Ok(LogState {
            last_purged_log_id: mirror.purged,
            last_log_id: mirror.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.writer.durable(vec![put(Value::Vote, vote)?]).await?;
        self.mirror.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else {
            return Ok(());
        };
        let change = put(Value::Committed, &committed)?;
        self.mirror.lock().committed = Some(committed);
        self.writer.submit(vec![change], Done::Lazy).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.mirror.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let mut changes = entries
            .iter()
            .map(put_entry)
            .collect::<io::Result<Vec<_>>>()?;
        {
            let mut mirror = self.mirror.lock();
            if let Some(first) = entries.first() {
                mirror.check_next(first.log_id.index)?;
            }
            changes.extend(mirror.purge_step()?);
            mirror.view.append(&entries);
            mirror
                .entries
                .extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        }
        self.writer.submit(changes, Done::Flushed(callback)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = next_index(last);
        {
            let mut mirror = self.mirror.lock();
            let applied = self.applied.read();
            if next_index(applied.last) > from {
                let at = next_index(applied.last) - 1;
                return Err(invalid(format!(
                    "entry {at} is applied: the log cannot be truncated at {from}"
                )));
            }
            mirror.entries.split_off(&from);
            mirror.restart_view(&applied);
        }
        self.writer.durable(vec![Change::RemoveFrom(from)]).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        {
            let mut mirror = self.mirror.lock();
            if mirror.purged >= Some(upto) {
                return Ok(());
            }
            let follows = mirror.last() >= Some(upto);
            let kept = mirror.entries.split_off(&next_index(Some(upto)));
            let gone = std::mem::replace(&mut mirror.entries, kept);
            mirror.purged = Some(upto);
            if follows {
                let gone = gone.into_values().map(|entry| entry.log_id);
                mirror.leaving.extend(gone);
                return Ok(());
            }
            mirror.leaving.clear();
        }
        // A snapshot ahead of the log: what is appended next does not follow what is on the disk.
        self.writer.durable(purge_changes(upto)?).await
    }
}

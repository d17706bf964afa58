//! Records on an engine, with proof that they are all there.
//!
//! A checksum in each record finds a record that was changed. It does not find one that is gone, or one
//! that has gone back to what it was a while ago; a damaged database does both without a word. So each
//! commit also writes the *tip*: the number of the commit, the number of records, and the sum of their
//! checksums. At open the records must add up to the tip, and the tip must not be older than the seal
//! (see `seal`). What passes is exactly what the newest durable commit left; anything else is refused.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Op};
use crate::error::OpenError;
use crate::record::{self, Key, Value};
use crate::seal::Seal;

/// A change to the records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Insert or replace a record.
    Put(Key, Vec<u8>),
    /// Remove the log entries from this index on.
    RemoveFrom(u64),
    /// Remove the log entries up to this index, inclusive.
    RemoveThrough(u64),
}

/// What the tip says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Tip {
    /// Number of the commit, from 1.
    commit: u64,
    /// How many records there are, the tip not counted.
    records: u64,
    /// Sum of their parts' checksums.
    sum: u64,
}

/// What the journal remembers of a record.
#[derive(Clone, Copy)]
struct Live {
    parts: u16,
    sum: u64,
}

/// What was stored, as found at open.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Log entries in order of index.
    pub(crate) entries: Vec<(u64, Vec<u8>)>,
    /// Small values.
    pub(crate) values: BTreeMap<Value, Vec<u8>>,
}

/// Records on an engine.
pub(crate) struct Journal {
    engine: Box<dyn Engine>,
    /// `None` on engines that live in memory.
    seal: Option<Seal>,
    live: BTreeMap<Key, Live>,
    tip: Tip,
    /// Why nothing can be written any more.
    failed: Option<(io::ErrorKind, String)>,
}

impl Journal {
    /// Reads and checks everything. `path` is named in errors.
    pub(crate) fn open(
        mut engine: Box<dyn Engine>,
        path: &Path,
    ) -> Result<(Journal, Contents), OpenError> {
        let damaged = |what: String| OpenError::damaged(path, what);
        let mut contents = Contents::default();
        let mut live = BTreeMap::new();
        let mut stored = None;
        for record in record::join(engine.load()?).map_err(damaged)? {
            if record.key == Key::Value(Value::Tip) {
                let tip = postcard::from_bytes::<Tip>(&record.bytes);
                stored =
                    Some(tip.map_err(|e| damaged(format!("the tip cannot be decoded ({e})")))?);
                continue;
            }
            live.insert(
                record.key,
                Live {
                    parts: record.parts,
                    sum: record.sum,
                },
            );
            match record.key {
                Key::Value(value) => drop(contents.values.insert(value, record.bytes)),
                Key::Entry(index) => contents.entries.push((index, record.bytes)),
            }
        }
        let tip = stored.unwrap_or_default();
        let sum = live.values().fold(0u64, |sum, l| sum.wrapping_add(l.sum));
        if (tip.records, tip.sum) != (live.len() as u64, sum) {
            return Err(damaged(format!(
                "its {} records are not those that commit {} left ({} records)",
                live.len(),
                tip.commit,
                tip.records
            )));
        }
        Ok((
            Journal {
                engine,
                seal: None,
                live,
                tip,
                failed: None,
            },
            contents,
        ))
    }

    /// Has nothing ever been stored?
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Starts a journal in a directory that has never been used: first commit, then the seal.
    pub(crate) fn establish(&mut self, seal: &Path) -> Result<(), OpenError> {
        self.commit(&[])
            .map_err(OpenError::io("write to", seal.parent().unwrap_or(seal)))?;
        self.seal = Some(Seal::create(seal, self.tip.commit)?);
        Ok(())
    }

    /// Compares with the seal of an existing directory, and keeps it up to date from now on.
    pub(crate) fn check_seal(&mut self, seal: &Path, path: &Path) -> Result<(), OpenError> {
        let (seal, sealed) = Seal::open(seal)?;
        if self.tip.commit < sealed {
            return Err(OpenError::damaged(
                path,
                format!(
                    "it ends with commit {}, but commit {sealed} had been made durable",
                    self.tip.commit
                ),
            ));
        }
        self.seal = Some(seal);
        Ok(())
    }

    /// Makes the changes, in order and all together; durable when it returns `Ok`. After the first error
    /// every call fails: a failed fsync leaves unknown what is on disk, and must not be tried again.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        if let Some((kind, text)) = &self.failed {
            return Err(io::Error::new(*kind, text.clone()));
        }
        self.try_commit(changes).inspect_err(|e| {
            self.failed = Some((e.kind(), format!("the log cannot be written any more: {e}")));
        })
    }

    fn try_commit(&mut self, changes: &[Change]) -> io::Result<()> {
        let mut ops = Vec::with_capacity(changes.len() + 1);
        for change in changes {
            match change {
                Change::Put(key, bytes) => self.put(*key, bytes, &mut ops),
                Change::RemoveFrom(index) => self.remove(*index..=u64::MAX, &mut ops),
                Change::RemoveThrough(index) => self.remove(0..=*index, &mut ops),
            }
        }
        self.tip.commit += 1;
        self.tip.records = self.live.len() as u64;
        let tip = postcard::to_stdvec(&self.tip).map_err(io::Error::other)?;
        ops.extend(
            record::split(Key::Value(Value::Tip), &tip)
                .into_iter()
                .map(|p| Op::Put(p.key, p.value)),
        );
        self.engine.commit(ops)?;
        self.seal
            .as_ref()
            .map_or(Ok(()), |seal| seal.write(self.tip.commit))
    }

    fn put(&mut self, key: Key, bytes: &[u8], ops: &mut Vec<Op>) {
        let parts = record::split(key, bytes);
        let sum = parts
            .iter()
            .fold(0u64, |sum, part| sum.wrapping_add(u64::from(part.crc)));
        let live = Live {
            parts: parts.len() as u16,
            sum,
        };
        ops.extend(parts.into_iter().map(|part| Op::Put(part.key, part.value)));
        self.tip.sum = self.tip.sum.wrapping_add(sum);
        if let Some(old) = self.live.insert(key, live) {
            self.tip.sum = self.tip.sum.wrapping_sub(old.sum);
            ops.extend((live.parts..old.parts).map(|part| Op::Remove(key.part(part))));
        }
    }

    fn remove(&mut self, indexes: std::ops::RangeInclusive<u64>, ops: &mut Vec<Op>) {
        let range = Key::Entry(*indexes.start())..=Key::Entry(*indexes.end());
        let gone: Vec<_> = self
            .live
            .range(range)
            .map(|(key, live)| (*key, *live))
            .collect();
        for (key, live) in gone {
            self.live.remove(&key);
            self.tip.sum = self.tip.sum.wrapping_sub(live.sum);
            ops.extend((0..live.parts).map(|part| Op::Remove(key.part(part))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Pairs;
    use crate::memory::{MemoryDisk, MemoryEngine};

    const VOTE: Key = Key::Value(Value::Vote);

    /// An engine that holds what a test has put there.
    struct Tampered(Pairs);

    impl Engine for Tampered {
        fn load(&mut self) -> Result<Pairs, OpenError> {
            Ok(self.0.clone())
        }

        fn commit(&mut self, _: Vec<Op>) -> io::Result<()> {
            Err(io::Error::other("only to be read"))
        }
    }

    fn open(engine: impl Engine) -> Result<(Journal, Contents), OpenError> {
        Journal::open(Box::new(engine), Path::new("test"))
    }

    fn put(index: u64, text: &str) -> Change {
        Change::Put(Key::Entry(index), text.as_bytes().to_vec())
    }

    fn pairs(disk: &MemoryDisk) -> Pairs {
        MemoryEngine::load(&mut disk.engine()).unwrap()
    }

    /// A disk after two commits: the pairs after the first and after the second.
    fn two_commits() -> (Pairs, Pairs) {
        let disk = MemoryDisk::default();
        let (mut journal, _) = open(disk.engine()).unwrap();
        let vote = |text: &str| Change::Put(VOTE, text.as_bytes().to_vec());
        journal
            .commit(&[put(1, "a"), put(2, "b"), vote("one")])
            .unwrap();
        let first = pairs(&disk);
        journal
            .commit(&[Change::RemoveFrom(2), put(2, "c"), put(3, "d"), vote("two")])
            .unwrap();
        (first, pairs(&disk))
    }

    #[test]
    fn what_was_committed_is_found() {
        let (_, second) = two_commits();
        let (journal, contents) = open(Tampered(second)).unwrap();
        let entries = [(1, b"a".to_vec()), (2, b"c".to_vec()), (3, b"d".to_vec())];
        assert_eq!(contents.entries, entries);
        assert_eq!(
            contents.values,
            BTreeMap::from([(Value::Vote, b"two".to_vec())])
        );
        assert_eq!(journal.tip.commit, 2);
    }

    #[test]
    fn a_record_that_is_gone_is_noticed_wherever_it_was() {
        let (_, whole) = two_commits();
        for n in 0..whole.len() {
            let mut less = whole.clone();
            let (key, _) = less.remove(n);
            let error = open(Tampered(less)).err().expect("refused").to_string();
            assert!(
                error.contains("are not those that commit"),
                "without {key:?}: {error}"
            );
        }
    }

    #[test]
    fn a_record_that_went_back_in_time_is_noticed() {
        let (first, second) = two_commits();
        let mut tried = 0;
        for (n, (key, value)) in second.iter().enumerate() {
            let Some((_, old)) = first.iter().find(|(k, v)| k == key && v != value) else {
                continue;
            };
            let mut mixed = second.clone();
            mixed[n].1 = old.clone();
            assert!(open(Tampered(mixed)).is_err(), "{key:?}");
            tried += 1;
        }
        assert_eq!(tried, 3, "the tip, the vote, and entry 2");
    }

    #[test]
    fn records_in_several_parts_leave_nothing_behind() {
        let disk = MemoryDisk::default();
        let (mut journal, _) = open(disk.engine()).unwrap();
        let long = "x".repeat(3 * record::PART_BYTES);
        journal
            .commit(&[put(1, &long), put(2, &long), put(3, &long)])
            .unwrap();
        assert_eq!(pairs(&disk).len(), 1 + 9);
        journal
            .commit(&[
                put(1, "short"),
                Change::RemoveThrough(0),
                Change::RemoveFrom(3),
            ])
            .unwrap();
        assert_eq!(pairs(&disk).len(), 1 + 1 + 3);
        journal.commit(&[Change::RemoveThrough(2)]).unwrap();
        assert_eq!(pairs(&disk).len(), 1);
        assert!(open(disk.engine()).unwrap().0.is_empty());
    }
}

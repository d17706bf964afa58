//! What is kept of external fencing in the data directory, so that a restart of the daemon neither fences a node anew
//! nor lets a VIP up that still waits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use buoy_core::Epoch;

use super::book::Record;

const NAME: &str = "external-fence";
/// Longer than any that is written.
const MAX_LENGTH: u64 = 1 << 20;

/// The file.
#[derive(Clone)]
pub struct RecordFile(PathBuf);

impl RecordFile {
    /// That of a data directory.
    pub fn of(data_dir: &Path) -> RecordFile {
        RecordFile(data_dir.join(NAME))
    }

    /// What was written last; `None`: nothing ever.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn read(&self) -> io::Result<Option<Record>> {
        let mut text = String::new();
        match File::open(&self.0) {
            Ok(file) => file.take(MAX_LENGTH).read_to_string(&mut text)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        parse(&text).map(Some).ok_or_else(|| {
            io::Error::other(format!(
                "{} holds no record of external fencing; remove it, and no takeover up to now is looked at again",
                self.0.display()
            ))
        })
    }

    /// Replaces it; on disk when it returns `Ok`.
    ///
    /// # Errors
    /// The disk's. The record is as before then.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let new = self.0.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(show(record).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.0)?;
        match self.0.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn show(record: &Record) -> String {
    let open: String = record.unsettled.iter().map(|e| format!(" {e}")).collect();
    format!("seen {}\nunsettled{open}\n", record.seen)
}

fn parse(text: &str) -> Option<Record> {
    let (first, rest) = text.split_once('\n')?;
    let epoch = |word: &str| Some(Epoch(word.parse().ok()?));
    let seen = epoch(first.strip_prefix("seen ")?)?;
    let open = rest.strip_suffix('\n')?.strip_prefix("unsettled")?;
    let unsettled: Option<_> = open.split_ascii_whitespace().map(epoch).collect();
    Some(Record {
        seen,
        unsettled: unsettled?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::of(dir.path());
        assert_eq!(file.read().unwrap(), None);
        for open in [vec![], vec![Epoch(3)], vec![Epoch(3), Epoch(90)]] {
            let record = Record {
                seen: Epoch(91),
                unsettled: open.into_iter().collect(),
            };
            file.write(&record).unwrap();
            assert_eq!(file.read().unwrap(), Some(record));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn anything_else_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::of(dir.path());
        for text in [
            "",
            "seen 3",
            "seen x\nunsettled\n",
            "seen 3\nunsettled 4 y\n",
            "seen 3\nunsettled 4",
        ] {
            std::fs::write(dir.path().join(NAME), text).unwrap();
            let e = file.read().unwrap_err().to_string();
            assert!(e.contains("external-fence"), "{text:?}: {e}");
        }
    }
}

//! The key-value database under the log: one small trait, and sled behind it.
//!
//! sled reports as flushed what Linux has only been asked to write (`sync_file_range`), and takes damage
//! at the end of its own log for a torn write. So each commit here ends with `fdatasync`, and everything
//! that is read back is checked by the layers above (`record`, `journal`, `seal`).

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::dir::sync_dir;
use crate::error::OpenError;

/// Bytes of sled's page cache: the log is read from it once, at open.
const CACHE_BYTES: u64 = 2 << 20;

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Insert or replace.
    Put(Vec<u8>, Vec<u8>),
    /// Remove; a key that is not there is no error.
    Remove(Vec<u8>),
}

/// Keys with their values.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A key-value database with atomic, durable commits. It has one user, the journal.
pub trait Engine: Send + 'static {
    /// All pairs in order of key. Called once, before the first commit.
    fn load(&mut self) -> Result<Pairs, OpenError>;

    /// Makes all changes, in order, or none. When it returns `Ok` they survive a power failure. After
    /// an error nobody knows what is on disk, and the engine is not used again.
    fn commit(&mut self, ops: Vec<Op>) -> io::Result<()>;
}

/// sled in a directory.
pub struct SledEngine {
    path: PathBuf,
    /// `None` only while it is being dropped.
    db: Option<sled::Db>,
    /// sled's data file, for `fdatasync`.
    file: File,
}

impl SledEngine {
    /// Opens the database, or creates it.
    pub fn open(path: &Path) -> Result<SledEngine, OpenError> {
        let config = sled::Config::new()
            .path(path)
            .flush_every_ms(None)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace);
        let db = guarded(|| config.open()).map_err(|e| e.into_open_error(path))?;
        let data = data_file(path);
        let file = File::open(&data).map_err(OpenError::io("open", &data))?;
        // sled syncs its files, but not that they are there.
        sync_dir(path).map_err(OpenError::io("sync", path))?;
        Ok(SledEngine {
            path: path.to_owned(),
            db: Some(db),
            file,
        })
    }

    /// Is there a database in the directory?
    pub fn exists(path: &Path) -> bool {
        data_file(path).exists()
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("present until drop")
    }
}

fn data_file(path: &Path) -> PathBuf {
    path.join("db")
}

impl Engine for SledEngine {
    fn load(&mut self) -> Result<Pairs, OpenError> {
        let all = || {
            self.db()
                .iter()
                .map(|pair| pair.map(|(k, v)| (k.to_vec(), v.to_vec())))
                .collect()
        };
        guarded(all).map_err(|e| e.into_open_error(&self.path))
    }

    fn commit(&mut self, ops: Vec<Op>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for op in ops {
            match op {
                Op::Put(key, value) => batch.insert(key, value),
                Op::Remove(key) => batch.remove(key),
            }
        }
        let db = self.db();
        guarded(|| db.apply_batch(batch).and_then(|()| db.flush()))
            .map_err(SledFailure::into_io)?;
        self.file.sync_data()
    }
}

impl Drop for SledEngine {
    fn drop(&mut self) {
        let db = self.db.take();
        // Closing writes, and on a damaged file that can panic as well; nothing durable depends on it.
        if let Err(e) = guarded(|| {
            drop(db);
            Ok(())
        }) {
            tracing::warn!(path = %self.path.display(), error = %e.text(), "closing the log's database failed");
        }
    }
}

/// How a call into sled failed.
enum SledFailure {
    Error(sled::Error),
    Panic(String),
}

/// Calls into sled: on damaged files it panics where it should return an error.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, SledFailure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(SledFailure::Error),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(SledFailure::Panic(
                text.unwrap_or_else(|| "no message".to_owned()),
            ))
        }
    }
}

impl SledFailure {
    fn text(&self) -> String {
        match self {
            SledFailure::Error(e) => e.to_string(),
            SledFailure::Panic(text) => format!("sled panicked: {text}"),
        }
    }

    fn into_io(self) -> io::Error {
        match self {
            SledFailure::Error(sled::Error::Io(e)) => e,
            other => io::Error::other(other.text()),
        }
    }

    fn into_open_error(self, path: &Path) -> OpenError {
        use io::ErrorKind::{InvalidData, InvalidInput, NotFound, Other, UnexpectedEof};
        match self {
            SledFailure::Error(sled::Error::Io(source))
                if ![InvalidData, InvalidInput, NotFound, Other, UnexpectedEof]
                    .contains(&source.kind()) =>
            {
                OpenError::Io {
                    what: "open",
                    path: path.to_owned(),
                    source,
                }
            }
            other => OpenError::damaged(
                path,
                format!("the database cannot be read ({})", other.text()),
            ),
        }
    }
}

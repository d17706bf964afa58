//! The data directory: who may open it, whose it is, and what lies in it.
//!
//! ```text
//! DIR/                 mode 0700
//!   lock               locked (flock) while a process has the directory open; holds its pid
//!   identity.json      format, cluster, node, id; written last, when all the rest has been made
//!   log/               the Raft log, the vote and small values (sled)
//!   seal               number of the newest commit to log/, kept apart from it (see `seal`)
//!   snapshots/         INDEX-TERM.snap: snapshots of the replicated state (see `snapshot`)
//! ```
//!
//! Because `identity.json` is written last, its presence says that a log was once there: a directory that
//! has an identity and no log has lost it, and is refused. Without that rule a voter could come back
//! with an empty log under its old id.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use buoy_core::{NodeId, NodeName};
use serde::{Deserialize, Serialize};

use crate::error::OpenError;

/// Format of the data directory that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Longest `identity.json` that is read, in bytes.
const MAX_IDENTITY_BYTES: u64 = 4096;

/// Whose data it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Name of the cluster, as the configuration gives it.
    pub cluster: String,
    /// Name of the node.
    pub node: NodeName,
    /// Raft identity of the node.
    pub id: NodeId,
}

/// `identity.json`. The names are plain text, so that a name that a later version allows can be shown.
#[derive(Serialize, Deserialize)]
struct IdentityRecord {
    format: u32,
    cluster: String,
    node: String,
    id: u64,
}

/// Only this, to tell a newer format from nonsense.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// A data directory that this process holds locked.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// The lock ends when this is closed, also by a crash.
    _lock: File,
    /// The directory has an identity: a log and a seal must be there.
    established: bool,
}

impl DataDir {
    /// Creates the directory where it is missing, locks it, and compares its identity.
    pub(crate) fn open(path: &Path, identity: &Identity) -> Result<DataDir, OpenError> {
        create_dir(path)?;
        let lock = take_lock(path)?;
        let established = check_identity(path, identity)?;
        let dir = DataDir {
            path: path.to_owned(),
            _lock: lock,
            established,
        };
        create_dir(&dir.snapshots())?;
        Ok(dir)
    }

    /// Has the directory been completely made by an earlier open?
    pub(crate) fn established(&self) -> bool {
        self.established
    }

    /// Writes the identity; everything else in the directory must be durable by now.
    pub(crate) fn establish(&mut self, identity: &Identity) -> Result<(), OpenError> {
        let record = IdentityRecord {
            format: FORMAT,
            cluster: identity.cluster.clone(),
            node: identity.node.to_string(),
            id: identity.id.0,
        };
        let path = identity_path(&self.path);
        let text = serde_json::to_vec_pretty(&record).map_err(io::Error::other);
        text.and_then(|text| write_durably(&path, &text))
            .map_err(OpenError::io("write", &path))?;
        self.established = true;
        Ok(())
    }

    /// Directory of the log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The seal's file.
    pub(crate) fn seal(&self) -> PathBuf {
        self.path.join("seal")
    }

    /// Directory of the snapshots.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }
}

fn identity_path(dir: &Path) -> PathBuf {
    dir.join("identity.json")
}

fn create_dir(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(OpenError::io("create", path))?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        sync_dir(parent).map_err(OpenError::io("sync", parent))?;
    }
    Ok(())
}

fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(OpenError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The number is a courtesy: without it the message is shorter.
            let read = Read::by_ref(&mut file).take(32).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::Locked {
                dir: dir.to_owned(),
                pid,
            });
        }
        Err(TryLockError::Error(source)) => {
            return Err(OpenError::Io {
                what: "lock",
                path,
                source,
            });
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(OpenError::io("write", &path))?;
    Ok(file)
}

/// `Ok(false)`: the directory has no identity yet.
fn check_identity(dir: &Path, expected: &Identity) -> Result<bool, OpenError> {
    let path = identity_path(dir);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => {
            return Err(OpenError::Io {
                what: "open",
                path,
                source,
            });
        }
    };
    let mut text = Vec::new();
    file.take(MAX_IDENTITY_BYTES)
        .read_to_end(&mut text)
        .map_err(OpenError::io("read", &path))?;
    let unreadable = |e: serde_json::Error| {
        OpenError::damaged(&path, format!("it is not an identity record ({e})"))
    };
    let format = serde_json::from_slice::<FormatOnly>(&text)
        .map_err(unreadable)?
        .format;
    if format > FORMAT {
        return Err(OpenError::NewerFormat {
            path,
            found: format,
            known: FORMAT,
        });
    }
    let found: IdentityRecord = serde_json::from_slice(&text).map_err(unreadable)?;
    let same = found.cluster == expected.cluster
        && found.node == expected.node.as_str()
        && found.id == expected.id.0;
    if same {
        return Ok(true);
    }
    let words = |node: &str, id: u64, cluster: &str| {
        format!("node {node} (id {id}) of cluster {cluster:?}")
    };
    Err(OpenError::OtherIdentity {
        dir: dir.to_owned(),
        found: words(&found.node, found.id, &found.cluster),
        configured: words(expected.node.as_str(), expected.id.0, &expected.cluster),
    })
}

/// Replaces a file so that after a crash it holds either the old bytes or the new ones.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let tmp = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&tmp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&tmp, path)?;
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}

/// Makes creations, renames and removals in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

//! The seal: the number of the newest commit, kept outside the database that it vouches for.
//!
//! A database that finds the end of its own log damaged takes it for a write that was torn by a crash
//! and forgets it: it opens without complaint, with fewer entries. The seal makes that visible. Each
//! commit carries a number; when it is durable the number is written here, before anybody is told. So
//! the database never holds less than the seal says, and one that does has lost commits.
//!
//! The file is not synced at each commit, which would double the cost of one. After a crash of the
//! process it is exact. After a power failure it may be a few seconds behind, never ahead, since it is
//! written after the commit has reached the disk; then it catches only older losses.
//!
//! ```text
//! slot 0: offset 0, slot 1: offset 512; commits write them in turn, so that one is always whole
//!   0  magic "BUOYSEAL"    8  commit number, u64 LE    16  CRC32 of bytes 0..16, u32 LE
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::dir::sync_dir;
use crate::error::OpenError;

const MAGIC: &[u8; 8] = b"BUOYSEAL";
const SLOT_BYTES: usize = 20;
const SLOT_STRIDE: u64 = 512;

/// The open seal file.
#[derive(Debug)]
pub(crate) struct Seal {
    file: File,
}

impl Seal {
    /// Creates the file with commit number `commit`, durably.
    pub(crate) fn create(path: &Path, commit: u64) -> Result<Seal, OpenError> {
        let write = || -> io::Result<Seal> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?;
            // Written, not only extended: a later commit must not fail for want of a block here.
            file.write_all_at(&[0; 2 * SLOT_STRIDE as usize], 0)?;
            let seal = Seal { file };
            seal.write(commit)?;
            seal.file.sync_all()?;
            path.parent().map_or(Ok(()), sync_dir)?;
            Ok(seal)
        };
        write().map_err(OpenError::io("create", path))
    }

    /// Opens the file and reads the newest commit number in it.
    pub(crate) fn open(path: &Path) -> Result<(Seal, u64), OpenError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => OpenError::damaged(path, "the file is missing"),
                _ => OpenError::Io {
                    what: "open",
                    path: path.to_owned(),
                    source,
                },
            })?;
        let newest = [0, SLOT_STRIDE]
            .into_iter()
            .filter_map(|offset| read_slot(&file, offset))
            .max();
        match newest {
            Some(commit) => Ok((Seal { file }, commit)),
            None => Err(OpenError::damaged(
                path,
                "neither of its two slots can be read",
            )),
        }
    }

    /// Records that `commit` is durable.
    pub(crate) fn write(&self, commit: u64) -> io::Result<()> {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(MAGIC);
        slot[8..16].copy_from_slice(&commit.to_le_bytes());
        let crc = crc32fast::hash(&slot[..16]);
        slot[16..].copy_from_slice(&crc.to_le_bytes());
        self.file.write_all_at(&slot, (commit % 2) * SLOT_STRIDE)
    }
}

/// `None` for a slot that is damaged or was never written.
fn read_slot(file: &File, offset: u64) -> Option<u64> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(&mut slot, offset).ok()?;
    let (body, crc) = slot.split_at(16);
    let whole = &body[..8] == MAGIC && crc32fast::hash(body).to_le_bytes() == *crc;
    whole
        .then(|| body[8..].try_into().map(u64::from_le_bytes).ok())
        .flatten()
}

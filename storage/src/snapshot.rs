//! Snapshots of the replicated state: their bytes, and the files that hold them.
//!
//! ```text
//!   0  magic "BUOYSNAP"    8  format, u32 LE    12  CRC32 of what follows, u32 LE
//!  16  postcard of (SnapshotMeta, core State, VRRP faces by VIP name)
//! ```
//!
//! Formats 1 and 2 end earlier, and are written where nothing is lost by it, so that nodes that know no other
//! can still take them: format 2 before the faces, format 1 before the last field of the state, the id of its
//! history.
//!
//! The same bytes lie in the file and travel to other nodes, so that a receiver checks what the disk of
//! the sender held. A file is written under another name, synced, and renamed; the one before it is
//! removed only then. Leftovers of an interrupted write are removed at open.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use buoy_core::VipName;
use buoy_core::spec::vrrp::StoredFace;
use buoy_core::state::State;

use crate::dir::{sync_dir, write_durably};
use crate::error::OpenError;
use crate::types::{MAX_SNAPSHOT_BYTES, Snapshot, SnapshotData, SnapshotMeta};

/// The newest format of snapshots that this version writes and reads.
pub const SNAPSHOT_FORMAT: u32 = 3;

/// The format of a state whose VIPs have no VRRP face.
const WITHOUT_FACES: u32 = 2;
/// How postcard writes that there are none.
const NO_FACES: u8 = 0;

/// The format of a history without an id.
const WITHOUT_ID: u32 = 1;
/// How postcard writes the id 0 at the end of the state.
const NO_ID: u8 = 0;

const MAGIC: &[u8; 8] = b"BUOYSNAP";
const HEADER_BYTES: usize = 16;
const SUFFIX: &str = "snap";

/// Why bytes are no snapshot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("the snapshot has {0} bytes, more than the {MAX_SNAPSHOT_BYTES} that are allowed")]
    TooLarge(usize),
    #[error("it does not begin like a snapshot of buoy")]
    Foreign,
    #[error(
        "the snapshot is written in format {0}, and this version of buoy knows formats up to {SNAPSHOT_FORMAT}"
    )]
    Newer(u32),
    #[error("the snapshot's checksum is wrong")]
    Checksum,
    #[error("the snapshot cannot be encoded or decoded ({0})")]
    Codec(#[from] postcard::Error),
}

impl From<SnapshotError> for io::Error {
    fn from(e: SnapshotError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, e)
    }
}

/// VRRP faces by VIP: they are no part of a spec's stored form ([`buoy_core::spec::VipSpec::vrrp`]).
type Faces = BTreeMap<VipName, StoredFace>;

/// The bytes of a snapshot.
pub(crate) fn encode(meta: &SnapshotMeta, state: &State) -> Result<SnapshotData, SnapshotError> {
    let faces: Faces = state
        .vips
        .iter()
        .filter_map(|(name, vip)| Some((name.clone(), StoredFace(*vip.spec.vrrp.clone()?))))
        .collect();
    let mut bytes = postcard::to_extend(&(meta, state, &faces), vec![0; HEADER_BYTES])?;
    if bytes.len() > MAX_SNAPSHOT_BYTES {
        return Err(SnapshotError::TooLarge(bytes.len()));
    }
    let mut format = SNAPSHOT_FORMAT;
    if faces.is_empty() {
        bytes.pop();
        format = WITHOUT_FACES;
        if state.history_id == 0 {
            bytes.pop();
            format = WITHOUT_ID;
        }
    }
    let crc = crc32fast::hash(&bytes[HEADER_BYTES..]);
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&format.to_le_bytes());
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes.into())
}

/// Checks and decodes the bytes of a snapshot.
pub(crate) fn decode(bytes: &[u8]) -> Result<(SnapshotMeta, State), SnapshotError> {
    if bytes.len() > MAX_SNAPSHOT_BYTES {
        return Err(SnapshotError::TooLarge(bytes.len()));
    }
    let (header, body) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(SnapshotError::Foreign)?;
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if &header[..8] != MAGIC {
        return Err(SnapshotError::Foreign);
    }
    if word(8) > SNAPSHOT_FORMAT {
        return Err(SnapshotError::Newer(word(8)));
    }
    if word(12) != crc32fast::hash(body) {
        return Err(SnapshotError::Checksum);
    }
    let rest: &[u8] = match word(8) {
        WITHOUT_ID => &[NO_ID, NO_FACES],
        WITHOUT_FACES => &[NO_FACES],
        _ => &[],
    };
    let body = match rest {
        [] => Cow::Borrowed(body),
        rest => Cow::Owned([body, rest].concat()),
    };
    let (meta, mut state, faces): (SnapshotMeta, State, Faces) = postcard::from_bytes(&body)?;
    for (name, face) in faces {
        if let Some(vip) = state.vips.get_mut(&name) {
            vip.spec.vrrp = Some(Box::new(face.0));
        }
    }
    Ok((meta, state))
}

/// The snapshot files. All methods block on the disk.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    dir: PathBuf,
    /// What the newest file covers. Locked also while files are read or written.
    newest: Mutex<Option<SnapshotMeta>>,
}

impl SnapshotStore {
    /// Reads the newest snapshot, and removes what is left of others.
    pub(crate) fn open(
        dir: &Path,
    ) -> Result<(SnapshotStore, Option<(SnapshotMeta, State)>), OpenError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(OpenError::io("list", dir))? {
            let path = entry.map_err(OpenError::io("list", dir))?.path();
            if path.extension().is_some_and(|e| e == SUFFIX) {
                files.push(path);
            } else if path.extension().is_some_and(|e| e == "tmp") {
                fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
            }
        }
        // Names sort like the log ids that they begin with.
        files.sort();
        let newest = match files.pop() {
            Some(path) => Some(load(&path)?),
            None => None,
        };
        for old in files {
            fs::remove_file(&old).map_err(OpenError::io("remove", &old))?;
        }
        let meta = newest.as_ref().map(|(meta, _)| meta.clone());
        Ok((
            SnapshotStore {
                dir: dir.to_owned(),
                newest: Mutex::new(meta),
            },
            newest,
        ))
    }

    /// Makes a snapshot durable, then removes the one before it. One that is older than what is there is
    /// not needed and not written.
    pub(crate) fn save(&self, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
        let mut newest = self.lock();
        if newest
            .as_ref()
            .is_some_and(|n| n.last_log_id > meta.last_log_id)
        {
            return Ok(());
        }
        let path = self.path_of(meta);
        write_durably(&path, bytes)?;
        let old = newest
            .replace(meta.clone())
            .map(|old| self.path_of(&old))
            .filter(|old| *old != path);
        if let Some(old) = old {
            // The new one stands. One that is left over is removed at the next open.
            if let Err(e) = fs::remove_file(&old).and_then(|()| sync_dir(&self.dir)) {
                tracing::warn!("old snapshot {} was not removed: {e}", old.display());
            }
        }
        Ok(())
    }

    /// The newest snapshot, read from its file.
    pub(crate) fn newest(&self) -> io::Result<Option<Snapshot>> {
        let newest = self.lock();
        let Some(meta) = newest.as_ref() else {
            return Ok(None);
        };
        let bytes = read_bounded(&self.path_of(meta))?;
        let (found, _) = decode(&bytes)?;
        if found != *meta {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the snapshot file covers something else",
            ));
        }
        Ok(Some(Snapshot {
            meta: found,
            snapshot: bytes.into(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Option<SnapshotMeta>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, meta: &SnapshotMeta) -> PathBuf {
        let (index, term) = meta
            .last_log_id
            .map_or((0, 0), |id| (id.index, id.leader_id.term));
        self.dir.join(format!("{index:020}-{term:020}.{SUFFIX}"))
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_SNAPSHOT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn load(path: &Path) -> Result<(SnapshotMeta, State), OpenError> {
    let bytes = read_bounded(path).map_err(OpenError::io("read", path))?;
    decode(&bytes).map_err(|e| match e {
        SnapshotError::Newer(found) => OpenError::NewerFormat {
            path: path.to_owned(),
            found,
            known: SNAPSHOT_FORMAT,
        },
        other => OpenError::damaged(path, other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use buoy_core::NodeId;
    use buoy_core::spec::{NodeSpec, PlacementSpec, Scope, VipAddress, VipSpec, VrrpSpec};
    use buoy_core::state::{Command, Entry};

    use super::*;

    /// An entry of a log, and the snapshot after it was applied at index 5, both without a history id.
    const ENTRY: [u8; 16] = [7, 0, 1, 1, 2, 110, 49, 0, 192, 0, 2, 1, 232, 57, 0, 0];
    const SNAPSHOT: [u8; 91] = [
        66, 85, 79, 89, 83, 78, 65, 80, 1, 0, 0, 0, 39, 93, 59, 155, 0, 0, 0, 0, 0, 5, 1, 0, 1, 1,
        1, 2, 110, 49, 0, 192, 0, 2, 1, 232, 57, 0, 0, 0, 0, 0, 0, 0, 1, 1, 5, 7, 7, 0, 1, 2, 110,
        49, 0, 0, 0, 0, 31, 100, 101, 99, 108, 97, 114, 101, 100, 58, 32, 49, 57, 50, 46, 48, 46,
        50, 46, 49, 58, 55, 52, 48, 48, 32, 77, 101, 109, 98, 101, 114, 1,
    ];

    fn formed(command: Command) -> State {
        let mut state = State::default();
        let entry = Entry {
            at_unix_ms: 7,
            command,
        };
        assert_eq!(state.apply(5, &entry).rejected, None);
        state
    }

    fn nodes() -> Vec<NodeSpec> {
        vec![NodeSpec {
            id: NodeId(1),
            name: "n1".parse().unwrap(),
            address: "192.0.2.1:7400".parse().unwrap(),
            role: Default::default(),
        }]
    }

    #[test]
    fn a_history_without_an_id_is_read_and_written_as_before() {
        let entry: Entry = postcard::from_bytes(&ENTRY).unwrap();
        let state = formed(entry.command);
        assert_eq!((state.history_id, state.nodes.len()), (0, 1));
        let (meta, found) = decode(&SNAPSHOT).unwrap();
        assert_eq!(found, state);
        assert_eq!(*encode(&meta, &state).unwrap(), SNAPSHOT);
    }

    #[test]
    fn the_id_of_a_history_is_in_its_snapshots() {
        let state = formed(Command::Bootstrap {
            history_id: u64::MAX - 7,
            nodes: nodes(),
            vips: vec![],
        });
        assert_eq!(state.history_id, u64::MAX - 7);
        let bytes = encode(&SnapshotMeta::default(), &state).unwrap();
        assert_eq!(bytes[8..12], WITHOUT_FACES.to_le_bytes());
        assert_eq!(decode(&bytes).unwrap().1, state);
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn vrrp_faces_are_in_snapshots() {
        let address = VipAddress {
            ip: "192.0.2.10".parse().unwrap(),
            prefix: 24,
        };
        let spec = |face| VipSpec {
            name: "web".parse().unwrap(),
            addresses: vec![address],
            interface: "eth0".to_owned(),
            label: None,
            scope: Scope::Global,
            placement: PlacementSpec::default(),
            vrrp: face,
        };
        for history_id in [0, 7] {
            let face = Some(Box::new(VrrpSpec::new(51)));
            let with = |face| formed(Command::bootstrap(history_id, nodes(), vec![spec(face)]));
            let state = with(face);
            let bytes = encode(&SnapshotMeta::default(), &state).unwrap();
            assert_eq!(bytes[8..12], SNAPSHOT_FORMAT.to_le_bytes());
            assert_eq!(decode(&bytes).unwrap().1, state);
            assert_ne!(state, with(None));
        }
    }
}

//! Opening: from a data directory to the parts that the server is built from.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::dir::{DataDir, Identity};
use crate::engine::{Engine, SledEngine};
use crate::error::OpenError;
use crate::journal::{Contents, Journal};
use crate::log::{LogStore, SharedLog};
use crate::machine::Machine;
use crate::meta::Meta;
use crate::record::{Key, Value};
use crate::snapshot::SnapshotStore;
use crate::state::{AppliedState, Shared, StateReader};
use crate::view::ViewReader;
use crate::writer::{Keep, Writer};

/// What an open data directory gives.
pub struct Opened {
    /// openraft's log storage.
    pub log: LogStore,
    /// openraft's state machine.
    pub machine: Machine,
    /// The applied state.
    pub reader: StateReader,
    /// What this voter's own log says.
    pub views: ViewReader,
    /// Small durable values.
    pub meta: Meta,
}

/// Who writes the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threading {
    /// A thread of its own, "buoy-log", which commits in groups.
    Thread,
    /// Whoever calls, within the call: for deterministic simulations.
    Inline,
}

/// Opens a data directory, or makes one (mode 0700). Blocks on the disk.
///
/// The directory stays locked, and the writer thread runs, until the last clone of [`Opened::log`] and
/// [`Opened::meta`] is dropped; that drop waits until everything is written.
///
/// Anything that is not exactly what was last stored is an error: see [`OpenError::Damaged`].
pub fn open(dir: &Path, identity: &Identity) -> Result<Opened, OpenError> {
    let mut data = DataDir::open(dir, identity)?;
    let (log_dir, seal) = (data.log(), data.seal());
    if data.established() && !SledEngine::exists(&log_dir) {
        return Err(OpenError::damaged(&log_dir, "the Raft log is gone"));
    }
    let engine = Box::new(SledEngine::open(&log_dir)?);
    let (mut journal, contents) = Journal::open(engine, &log_dir)?;
    if data.established() {
        journal.check_seal(&seal, &log_dir)?;
    } else if journal.is_empty() {
        journal.establish(&seal)?;
        data.establish(identity)?;
    } else {
        return Err(OpenError::damaged(
            dir,
            "it holds a Raft log, but identity.json, which says whose, is gone",
        ));
    }
    let snapshots = data.snapshots();
    assemble(
        journal,
        contents,
        &log_dir,
        &snapshots,
        Threading::Thread,
        Box::new(data),
    )
}

/// Opens on another engine: no identity, no lock, no seal; the snapshots lie in the directory given.
/// For simulations and tests.
pub fn open_with_engine(
    engine: Box<dyn Engine>,
    snapshots: &Path,
    threading: Threading,
) -> Result<Opened, OpenError> {
    let (journal, contents) = Journal::open(engine, Path::new("the engine"))?;
    assemble(
        journal,
        contents,
        Path::new("the engine"),
        snapshots,
        threading,
        Box::new(()),
    )
}

fn assemble(
    journal: Journal,
    contents: Contents,
    log_path: &Path,
    snapshots: &Path,
    threading: Threading,
    keep: Keep,
) -> Result<Opened, OpenError> {
    let (snapshots, newest) = SnapshotStore::open(snapshots)?;
    let applied = match newest {
        None => AppliedState::default(),
        Some((meta, state)) => AppliedState {
            state,
            last: meta.last_log_id,
            membership: meta.last_membership,
        },
    };
    let mirror = SharedLog::load(&contents, &applied, log_path)?;
    let max_promise = max_promise(&contents, log_path)?;
    let views = mirror.views();
    let applied = Shared::new(applied);
    let writer = match threading {
        Threading::Thread => {
            Writer::spawn(journal, keep).map_err(OpenError::io("start the writer of", log_path))?
        }
        Threading::Inline => Writer::inline(journal),
    };
    Ok(Opened {
        log: LogStore::new(mirror.clone(), applied.clone(), writer.clone()),
        machine: Machine::new(applied.clone(), mirror, Arc::new(snapshots)),
        reader: applied.reader(),
        views,
        meta: Meta::new(max_promise, writer),
    })
}

fn max_promise(contents: &Contents, path: &Path) -> Result<Duration, OpenError> {
    let Some(bytes) = contents.values.get(&Value::MaxPromise) else {
        return Ok(Duration::ZERO);
    };
    postcard::from_bytes(bytes).map_err(|e| {
        OpenError::damaged(
            path,
            format!("{} cannot be decoded ({e})", Key::Value(Value::MaxPromise)),
        )
    })
}

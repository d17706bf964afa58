//! The Raft log, the vote and the snapshots on disk, behind openraft's storage traits; and what readers
//! may know of them: the applied state, and what this voter's own log says.
//!
//! Layers, from the disk up: `dir` (whose data), [`engine`] (sled), `record` (checksums), `seal` and
//! `journal` (nothing is missing), `writer` (one thread, group commit), [`LogStore`] and [`Machine`]
//! (openraft's traits), [`StateReader`] and [`ViewReader`] (for everybody else).

pub mod engine;
pub mod memory;

mod dir;
mod error;
mod fsync;
mod journal;
mod log;
mod machine;
mod meta;
mod open;
mod record;
mod seal;
mod snapshot;
mod state;
mod types;
mod view;
mod writer;

pub use dir::{FORMAT, Identity};
pub use error::{LOST_DATA_ADVICE, OpenError};
pub use fsync::measure_fsync;
pub use log::{LogStore, MAX_READ_BYTES};
pub use machine::{Machine, SnapshotBuilder};
pub use meta::Meta;
pub use open::{Opened, Threading, open, open_with_engine};
pub use snapshot::SNAPSHOT_FORMAT;
pub use state::{Applied, StateReader};
pub use types::{
    LogEntry, LogId, MAX_ENTRY_BYTES, MAX_SNAPSHOT_BYTES, PeerNode, Raft, RaftMembership, Snapshot,
    SnapshotData, SnapshotMeta, StoredMembership, TypeConfig, Vote, config_id, core_membership,
    membership_of,
};
pub use view::ViewReader;

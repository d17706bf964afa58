//! openraft's state machine: applies committed entries to core's state, makes and installs snapshots.

use std::io;
use std::sync::Arc;

use buoy_core::state::Outcome;
use futures::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::log::SharedLog;
use crate::snapshot::{self, SnapshotStore};
use crate::state::{AppliedState, Shared};
use crate::types::{
    LogEntry, LogId, Snapshot, SnapshotData, SnapshotMeta, StoredMembership, TypeConfig,
};

/// Entries applied before their proposers are answered: a bound for what the first of them waits.
const MAX_UNANSWERED: usize = 64;

/// The state machine of this node. It lives in memory: after a restart openraft applies the log again,
/// from the snapshot to the committed entry.
#[derive(Clone)]
pub struct Machine {
    applied: Shared,
    log: SharedLog,
    snapshots: Arc<SnapshotStore>,
}

impl Machine {
    pub(crate) fn new(applied: Shared, log: SharedLog, snapshots: Arc<SnapshotStore>) -> Machine {
        Machine {
            applied,
            log,
            snapshots,
        }
    }

    fn apply_one(&self, entry: &LogEntry) -> Outcome {
        let mut applied = self.applied.write();
        let index = entry.log_id.index;
        let outcome = match &entry.payload {
            EntryPayload::Normal(command) => applied.state.apply(index, command),
            payload => {
                if let EntryPayload::Membership(membership) = payload {
                    applied.membership =
                        StoredMembership::new(Some(entry.log_id), membership.clone());
                }
                applied.state.note_index(index);
                Outcome {
                    revision: applied.state.revision,
                    ..Outcome::default()
                }
            }
        };
        applied.last = Some(entry.log_id);
        outcome
    }

    fn answer(&self, waiting: &mut Vec<(ApplyResponder<TypeConfig>, Outcome)>) {
        self.applied.notify();
        waiting
            .drain(..)
            .for_each(|(responder, outcome)| responder.send(outcome));
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.applied.read();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut waiting = Vec::new();
        let mut unanswered = 0;
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_one(&entry);
            waiting.extend(responder.map(|responder| (responder, outcome)));
            unanswered += 1;
            if unanswered == MAX_UNANSWERED {
                self.answer(&mut waiting);
                unanswered = 0;
            }
        }
        self.answer(&mut waiting);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        // A copy, so that applying goes on while it is encoded and written.
        SnapshotBuilder {
            applied: Arc::new(self.applied.read().clone()),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        bytes: SnapshotData,
    ) -> Result<(), io::Error> {
        let (expected, snapshots) = (meta.clone(), self.snapshots.clone());
        let (meta, state) = blocking(move || {
            let (meta, state) = snapshot::decode(&bytes)?;
            if meta != expected {
                let text = format!("a snapshot was announced as {expected} and holds {meta}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            snapshots.save(&meta, &bytes)?;
            Ok((meta, state))
        })
        .await?;
        let applied = AppliedState {
            state,
            last: meta.last_log_id,
            membership: meta.last_membership,
        };
        self.log.lock().restart_view(&applied);
        *self.applied.write() = applied;
        self.applied.notify();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        blocking(move || snapshots.newest()).await
    }
}

/// Encodes and writes one snapshot.
pub struct SnapshotBuilder {
    applied: Arc<AppliedState>,
    snapshots: Arc<SnapshotStore>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (applied, snapshots) = (self.applied.clone(), self.snapshots.clone());
        blocking(move || {
            let meta = SnapshotMeta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
            };
            let bytes = snapshot::encode(&meta, &applied.state)?;
            snapshots.save(&meta, &bytes)?;
            Ok(Snapshot {
                meta,
                snapshot: bytes,
            })
        })
        .await
    }
}

/// Runs what waits for the disk, or takes long, on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

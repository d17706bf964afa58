//! Watching: every change of the history in order, or a plain word that some were missed.
//!
//! A watcher pulls: its task reads the replicated history from where the watcher is, and waits while the
//! watcher does not read. A slow watcher therefore costs no memory, and is told to start over when the
//! history that it still needs has been pruned.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use buoy_core::VipName;
use buoy_core::state::State;
use buoy_proto::v1::{Change, Progress, Restart, Snapshot, WatchResponse, watch_response::Event};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::ApiContext;
use super::view::Look;

/// Most watchers of one node, whichever way they come.
pub(super) const MAX_WATCHERS: usize = 256;
/// Messages that may wait for one watcher.
const QUEUE: usize = 64;
/// Events that are taken from the history at once.
const BATCH: usize = 256;
/// VIPs in one Snapshot message.
const SNAPSHOT_PART: usize = 500;
/// Most VIPs that a filter may name.
const MAX_FILTER: usize = buoy_core::spec::MAX_VIPS;

/// How long a node may be behind a watcher.
const CATCH_UP: Duration = Duration::from_secs(5);

/// How far a watcher is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    /// The last revision that it has seen.
    pub(super) revision: u64,
    /// Of which history; 0: not known.
    pub(super) history_id: u64,
}

/// Which events a watcher wants.
pub(super) struct Filter(BTreeSet<VipName>);

impl Filter {
    pub(super) fn new(vips: &[String]) -> Result<Self, Status> {
        if vips.len() > MAX_FILTER {
            return Err(Status::invalid_argument(format!(
                "field `vips`: {} names are more than the {MAX_FILTER} VIPs that a cluster can have",
                vips.len()
            )));
        }
        let parse = |(i, name): (usize, &String)| {
            let parsed = name.parse();
            parsed.map_err(|e| Status::invalid_argument(format!("field `vips[{i}]`: {e}")))
        };
        vips.iter()
            .enumerate()
            .map(parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn wants(&self, vip: Option<&VipName>) -> bool {
        self.0.is_empty() || vip.is_some_and(|v| self.0.contains(v))
    }
}

/// What a look at the history gave.
enum Found {
    /// Changes to send, and the revision that they reach.
    Changes(Vec<Change>, u64),
    /// Nothing new.
    Nothing,
    /// This node's newest revision is an earlier one.
    Behind,
    /// Changes are gone.
    Missed(Restart),
}

/// Starts a watcher; it ends when its stream is dropped or the daemon stops. `up_to_date`: this node's
/// state holds everything that was committed before the call, so a later revision cannot be the cluster's.
pub(super) fn start(
    context: ApiContext,
    filter: Filter,
    after: Option<Position>,
    up_to_date: bool,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        context,
        filter,
        sender,
    };
    tokio::spawn(async move {
        let mut stopping = watcher.context.stopping.clone();
        tokio::select! {
            () = watcher.run(after, up_to_date) => {}
            _ = stopping.wait_for(|s| *s) => {
                let bye = Status::unavailable("this node is stopping; watch at another node, with the last revision seen");
                // A watcher that does not read now learns it from the end of the stream.
                let _ = watcher.sender.try_send(Err(bye));
            }
        }
        drop(permit);
    });
    ReceiverStream::new(receiver)
}

struct Watcher {
    context: ApiContext,
    filter: Filter,
    sender: mpsc::Sender<Result<WatchResponse, Status>>,
}

/// The watcher has gone.
struct Gone;

impl Watcher {
    async fn send(&self, history_id: u64, event: Event) -> Result<(), Gone> {
        let message = Ok(WatchResponse {
            event: Some(event),
            history_id,
        });
        self.sender.send(message).await.map_err(|_| Gone)
    }

    async fn run(&self, after: Option<Position>, up_to_date: bool) {
        // Either end is the watcher's own doing.
        let _ = self.follow(after, up_to_date).await;
    }

    async fn follow(&self, after: Option<Position>, up_to_date: bool) -> Result<(), Gone> {
        // Subscribed before the first look, so that nothing falls between the two.
        let mut applied = self.context.reader.subscribe();
        let mut last = match after {
            Some(position) => position,
            None => self.snapshot().await?,
        };
        if let Some((id, restart)) = up_to_date
            .then(|| beyond(&self.context.reader.read(), last.revision))
            .flatten()
        {
            return self.send(id, Event::Restart(restart)).await;
        }
        let patience = tokio::time::sleep(CATCH_UP);
        tokio::pin!(patience);
        loop {
            applied.borrow_and_update();
            let (id, found) = {
                let state = self.context.reader.read();
                (state.history_id, look(&state, &self.filter, last))
            };
            if last.history_id == 0 {
                last.history_id = id;
            }
            let behind = matches!(found, Found::Behind);
            match found {
                Found::Changes(changes, reached) => {
                    self.pass_on(id, changes, reached).await?;
                    last.revision = reached;
                }
                Found::Missed(restart) => return self.send(id, Event::Restart(restart)).await,
                Found::Nothing | Found::Behind => tokio::select! {
                    changed = applied.changed() => changed.map_err(|_| Gone)?,
                    () = self.sender.closed() => return Err(Gone),
                    () = &mut patience, if behind => return self.give_up(last).await,
                },
            }
        }
    }

    /// This node does not catch up with the watcher.
    async fn give_up(&self, last: Position) -> Result<(), Gone> {
        let newest = self.context.reader.read().revision;
        let revision = last.revision;
        let status = Status::unavailable(format!(
            "this node has not reached revision {revision} within {CATCH_UP:?}, its newest is {newest}: it is behind, or \
             the revision is of another cluster; watch at another node, or with consistency LINEARIZABLE, which tells which"
        ));
        self.sender.send(Err(status)).await.map_err(|_| Gone)
    }

    /// Sends changes, and how far they reach if the last of them does not say so itself.
    async fn pass_on(&self, id: u64, changes: Vec<Change>, reached: u64) -> Result<(), Gone> {
        let sent = changes.last().map(|c| c.revision);
        for change in changes {
            self.send(id, Event::Change(change)).await?;
        }
        if sent == Some(reached) {
            return Ok(());
        }
        self.send(id, Event::Progress(Progress { revision: reached }))
            .await
    }

    /// Sends the present state and returns where it stands.
    async fn snapshot(&self) -> Result<Position, Gone> {
        let volatile = Look::take(&self.context).await;
        let (at, mut vips) = {
            let state = self.context.reader.read();
            let wanted = state
                .vips
                .values()
                .filter(|v| self.filter.wants(Some(&v.spec.name)));
            let vips: Vec<_> = wanted.map(|v| volatile.ownership(&state, v)).collect();
            (Position::of(&state), vips)
        };
        loop {
            let rest = vips.split_off(vips.len().min(SNAPSHOT_PART));
            let complete = rest.is_empty();
            let snapshot = Snapshot {
                revision: at.revision,
                vips,
                complete,
            };
            self.send(at.history_id, Event::Snapshot(snapshot)).await?;
            if complete {
                return Ok(at);
            }
            vips = rest;
        }
    }
}

impl Position {
    fn of(state: &State) -> Self {
        Self {
            revision: state.revision,
            history_id: state.history_id,
        }
    }
}

/// A revision that this cluster has not reached; with the id of its history.
fn beyond(state: &State, last: u64) -> Option<(u64, Restart)> {
    let newest = state.revision;
    let why = || {
        format!(
            "revision {last} is later than this cluster's newest, {newest}: it is of another cluster, or of one that was formed anew"
        )
    };
    (last > newest).then(|| (state.history_id, restart(state, why())))
}

fn restart(state: &State, reason: String) -> Restart {
    Restart {
        oldest: oldest(state),
        newest: state.revision,
        reason,
    }
}

/// The oldest revision that is still kept; 0: none.
fn oldest(state: &State) -> u64 {
    state.history.front().map_or(0, |e| e.revision)
}

/// What happened after `position`.
fn look(state: &State, filter: &Filter, position: Position) -> Found {
    let (last, newest) = (position.revision, state.revision);
    // A node without a state has not heard yet of which history it is.
    let known = state.bootstrapped && position.history_id != 0;
    if known && position.history_id != state.history_id {
        let reason = format!(
            "revision {last} is of history {:016x}, and this cluster's is {:016x}: it is of another cluster, or of one that was formed anew",
            position.history_id, state.history_id
        );
        return Found::Missed(restart(state, reason));
    }
    match last.cmp(&newest) {
        Ordering::Less => {}
        Ordering::Equal => return Found::Nothing,
        Ordering::Greater => return Found::Behind,
    }
    let oldest = oldest(state);
    if oldest == 0 || last + 1 < oldest {
        let reason = format!(
            "revisions {} to {} are no longer kept: the watcher was away, or reads, for too long",
            last + 1,
            oldest.max(1) - 1
        );
        return Found::Missed(restart(state, reason));
    }
    let begin = state.history.partition_point(|e| e.revision <= last);
    let mut reached = last;
    let batch = state
        .history
        .range(begin..)
        .take(BATCH)
        .inspect(|e| reached = e.revision);
    let changes = batch
        .filter(|e| filter.wants(e.vip.as_ref()))
        .map(Change::from)
        .collect();
    Found::Changes(changes, reached)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

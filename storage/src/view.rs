//! What this voter's own log says, appended entries included: the `LogView` of the lease voter.
//!
//! A voter grants a claim only if its own log assigns the address to the claimant, and denies one that
//! its log has overtaken (`docs/leases.md`, voter rules 2 and 3). For that the log is what has been
//! *appended*, not what is known to be committed. So a second copy of the replicated state is kept here,
//! to which each entry is applied when it is appended.
//!
//! **Append.** The view is published inside `append`, before the entry is handed to the disk, hence
//! before the leader (or this node, if it leads) can count it. When an assignment is committed, each
//! voter of some majority has already published it; every majority that a superseded holder could ask
//! for a new promise contains one of them, and is denied there. Being early is safe: an entry that is in
//! memory only can deny a claim, which costs availability and nothing else, and it can let a claim be
//! granted only to the holder that it names, which does not claim before it has applied the entry.
//!
//! **Truncation.** openraft truncates when a leader of a later term has another entry at that index: the
//! removed entries never were committed and never will be. So no holder has claimed what they assign, and
//! going back to what the log said before is what every voter does that never had them. The view is
//! built anew from the applied state, which holds committed entries only, and the entries that remain. It is
//! published when they leave the log in memory; should the node stop before that is durable, the restarted
//! voter has them again, and denies too much until the leader has them truncated once more.
//!
//! **Snapshot.** The view is replaced by the snapshot's state and the entries after it, before the
//! snapshot is reported as installed. What it covers is committed.
//!
//! **Restart.** At open the view is made from the snapshot and the *whole* log, not only up to the
//! committed index: entries that this voter confirmed before it stopped bind it again before it answers
//! its first renewal.
//!
//! Purging changes nothing: purged entries are part of the state that the view is made from.

use std::sync::Arc;

use arc_swap::ArcSwap;
use buoy_core::Membership;
use buoy_core::lease::LogView;
use buoy_core::state::State;
use openraft::EntryPayload;
use tokio::sync::watch;

use crate::types::{LogEntry, membership_of};

/// Reads the view; clones share it. Reading takes no lock.
#[derive(Clone)]
pub struct ViewReader {
    shared: Arc<ArcSwap<LogView>>,
    changes: Arc<watch::Sender<u64>>,
}

impl ViewReader {
    /// The view as it is now.
    pub fn load(&self) -> Arc<LogView> {
        self.shared.load_full()
    }

    /// The place where it is published.
    pub fn shared(&self) -> Arc<ArcSwap<LogView>> {
        self.shared.clone()
    }

    /// Counts the publications; what was published before the call counts as seen. A voter with pending
    /// claims judges them again when it moves.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Applies appended entries and publishes the view when it changes. Used under the log's lock.
pub(crate) struct ViewPublisher {
    state: State,
    membership: Membership,
    shared: Arc<ArcSwap<LogView>>,
    changes: Arc<watch::Sender<u64>>,
}

impl ViewPublisher {
    /// Starts from a state, its membership, and the entries after it.
    pub(crate) fn new<'a>(
        base: State,
        membership: Membership,
        entries: impl IntoIterator<Item = &'a LogEntry>,
    ) -> ViewPublisher {
        let shared = Arc::new(ArcSwap::from_pointee(LogView::default()));
        let mut publisher = ViewPublisher {
            state: base,
            membership,
            shared,
            changes: Arc::new(watch::Sender::new(0)),
        };
        publisher.follow(entries);
        publisher.publish();
        publisher
    }

    /// For readers.
    pub(crate) fn reader(&self) -> ViewReader {
        ViewReader {
            shared: self.shared.clone(),
            changes: self.changes.clone(),
        }
    }

    /// Entries were appended. Blank ones, and commands that were refused, cost nothing.
    pub(crate) fn append<'a>(&mut self, entries: impl IntoIterator<Item = &'a LogEntry>) {
        if self.follow(entries) {
            self.publish();
        }
    }

    /// The log's end was cut, or a snapshot installed: starts again.
    pub(crate) fn reset<'a>(
        &mut self,
        base: State,
        membership: Membership,
        entries: impl IntoIterator<Item = &'a LogEntry>,
    ) {
        self.state = base;
        self.membership = membership;
        self.follow(entries);
        self.publish();
    }

    /// Applies entries; says whether the view may have changed.
    fn follow<'a>(&mut self, entries: impl IntoIterator<Item = &'a LogEntry>) -> bool {
        let mut dirty = false;
        for entry in entries {
            let index = entry.log_id.index;
            match &entry.payload {
                EntryPayload::Blank => self.state.note_index(index),
                EntryPayload::Normal(command) => {
                    dirty |= self.state.apply(index, command).rejected.is_none();
                    // The voter needs no history; it would grow here a second time.
                    self.state.history.clear();
                }
                EntryPayload::Membership(membership) => {
                    self.state.note_index(index);
                    self.membership = membership_of(Some(&entry.log_id), membership);
                    dirty = true;
                }
            }
        }
        dirty
    }

    fn publish(&mut self) {
        let view = self.state.log_view(&self.membership);
        if **self.shared.load() != view {
            self.shared.store(Arc::new(view));
            self.changes.send_modify(|n| *n += 1);
        }
    }
}

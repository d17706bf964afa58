//! The part of the daemon that decides: while this node leads the Raft group, it plans placement from
//! the replicated state and the health of the nodes, and proposes the moves.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buoy_core::placement::{Plan, plan, yields};
use buoy_core::spec::{NodeSpec, VipSpec};
use buoy_core::state::{Command, Entry, Move};
use buoy_core::{Mono, NodeId};
use buoy_fence::clock::boottime;
use buoy_storage::{Raft, StateReader};
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::health::HealthKeeper;

/// A proposal that no quorum takes within this time is given up; the next plan makes it anew.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait before the next plan after a proposal that was applied: it changes the state, which wakes the
/// loop by itself, unless nothing of it could be done.
const AFTER_APPLIED: Duration = Duration::from_millis(50);
/// Wait after a proposal that was not taken: a new leader takes none until a quorum has answered it.
const AFTER_REFUSED: Duration = Duration::from_millis(3);
/// Longest wait for entries that are written and not applied yet; usually the application wakes the loop.
const WHILE_APPLYING: Duration = Duration::from_millis(20);
/// Planning is repeated this often even if nothing seems to have changed.
const REPLAN_EVERY: Duration = Duration::from_secs(1);

/// What the leader's loop works with.
pub struct Leader {
    /// The Raft group.
    pub raft: Raft,
    /// The applied state.
    pub reader: StateReader,
    /// What is known of the nodes.
    pub health: Arc<HealthKeeper>,
    /// Nodes of the configuration, for the first entry of a new cluster.
    pub nodes: Vec<NodeSpec>,
    /// VIPs of the configuration, likewise.
    pub vips: Vec<VipSpec>,
}

/// A log entry with the wall clock that people will read in the history.
pub fn entry(command: Command) -> Entry {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Entry {
        at_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        command,
    }
}

impl Leader {
    /// Runs for ever; does nothing while another node leads.
    pub async fn run(self, mut lease_changed: watch::Receiver<u64>) {
        let mut applied = self.reader.subscribe();
        let mut reports = self.health.subscribe();
        let mut leads = self.health.leadership();
        loop {
            let mut sleep = REPLAN_EVERY;
            if *leads.borrow_and_update() {
                applied.borrow_and_update();
                reports.borrow_and_update();
                lease_changed.borrow_and_update();
                sleep = self.step().await;
            }
            tokio::select! {
                r = leads.changed() => if r.is_err() { return },
                r = applied.changed() => if r.is_err() { return },
                r = reports.changed() => if r.is_err() { return },
                r = lease_changed.changed() => if r.is_err() { return },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// One round of planning; returns how long to wait for the next if nothing happens.
    async fn step(&self) -> Duration {
        let now = boottime();
        let (command, recheck) = self.decide(now);
        if let Some(command) = command {
            let (moves, yielded) = match &command {
                Command::Assign(moves) => (moves.clone(), Vec::new()),
                Command::Yields(yielded) => (Vec::new(), yielded.clone()),
                _ => Default::default(),
            };
            return match self.propose(command).await {
                Proposed::Applied => {
                    self.say(&moves);
                    for (vip, evidence) in yielded {
                        match evidence {
                            Some(evidence) => warn!(%vip, "left to another router: {evidence}"),
                            None => info!(%vip, "taken back: no router outside has a better claim"),
                        }
                    }
                    AFTER_APPLIED
                }
                Proposed::Rejected => AFTER_APPLIED,
                Proposed::NotTaken => AFTER_REFUSED,
            };
        }
        recheck.map_or(REPLAN_EVERY, |at| at.since(now).min(REPLAN_EVERY))
            + Duration::from_millis(1)
    }

    fn decide(&self, now: Mono) -> (Option<Command>, Option<Mono>) {
        let written = self.raft.metrics().borrow_watched().last_log_index;
        let state = self.reader.read();
        if written.is_some_and(|index| index > state.applied) {
            // Something is under way; planning without it would only repeat or contradict it.
            return (None, Some(now + WHILE_APPLYING));
        }
        if !state.bootstrapped {
            return (self.bootstrap(), None);
        }
        let judge_at = self.health.may_judge_at();
        if now < judge_at {
            return (None, Some(judge_at));
        }
        let health = self.health.view(now);
        let first_heard: Vec<NodeId> = state
            .nodes
            .iter()
            .filter(|(id, node)| !node.joined && health.get(id).is_some_and(|h| h.report.is_some()))
            .map(|(id, _)| *id)
            .collect();
        let yielded = yields(&state, &health, &self.health.params(now));
        if !yielded.is_empty() {
            return (Some(Command::Yields(yielded)), None);
        }
        let Plan { moves, recheck_at } = plan(&state, &health, &self.health.params(now));
        if moves.is_empty() && !first_heard.is_empty() {
            return (Some(Command::Joined(first_heard)), None);
        }
        (
            (!moves.is_empty()).then_some(Command::Assign(moves)),
            recheck_at,
        )
    }

    /// The first command of a cluster; none while the system has no random number for its history.
    fn bootstrap(&self) -> Option<Command> {
        let history_id = match getrandom::u64() {
            Ok(id) => id.max(1),
            Err(e) => {
                error!(
                    "the cluster is not formed yet: the system gives no random number to name its history by: {e}"
                );
                return None;
            }
        };
        Some(Command::bootstrap(
            history_id,
            self.nodes.clone(),
            self.vips.clone(),
        ))
    }

    /// Says what was moved. Only what a quorum has taken: a leader that is cut off tries again and again.
    fn say(&self, moves: &[Move]) {
        let state = self.reader.read();
        for m in moves {
            let to = m.to.and_then(|id| state.nodes.get(&id));
            let to = to.map_or("nobody", |n| n.spec.name.as_str());
            info!(vip = %m.vip, %to, cause = ?m.cause, "moved: {}", m.evidence);
        }
    }

    async fn propose(&self, command: Command) -> Proposed {
        let entry = entry(command);
        let what = entry.to_string();
        match tokio::time::timeout(PROPOSAL_TIMEOUT, self.raft.client_write(entry)).await {
            Ok(Ok(done)) => match done.response().rejected.as_ref() {
                Some(rejected) => {
                    warn!("{what} was refused: {rejected}");
                    Proposed::Rejected
                }
                None => Proposed::Applied,
            },
            Ok(Err(e)) => {
                debug!("{what} was not taken: {e}");
                Proposed::NotTaken
            }
            Err(_) => {
                warn!("{what} was not committed within {PROPOSAL_TIMEOUT:?}: no quorum?");
                Proposed::NotTaken
            }
        }
    }
}

/// What became of a proposal.
enum Proposed {
    /// It is part of the state.
    Applied,
    /// It was committed, and the state refused it.
    Rejected,
    /// No quorum has taken it, as far as this node knows.
    NotTaken,
}

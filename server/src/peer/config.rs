//! openraft's settings, from the timing profile.

use std::sync::Arc;
use std::time::Duration;

use buoy_core::spec::timing::Timing;
use openraft::{Config, SnapshotPolicy};

/// Most log entries in one replication message.
pub const MAX_PAYLOAD_ENTRIES: u64 = 64;
/// A snapshot is made after so many entries; a follower that is further behind gets it.
pub const SNAPSHOT_EVERY: u64 = 5_000;
/// Entries kept after a snapshot, so that a follower that was away for a moment needs no snapshot.
pub const LOGS_KEPT: u64 = 1_000;
/// Longest time for sending a snapshot and installing it.
pub const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// Proposals and calls that wait for Raft's own task. openraft reserves memory for all of them; its
/// default of 65,536 costs 25 MB a node.
const API_QUEUE: u64 = 1_024;
/// Messages of Raft's own parts to each other that may wait.
const NOTIFICATION_QUEUE: u64 = 1_024;
/// Commands to the state machine that may wait.
const STATE_MACHINE_QUEUE: u64 = 256;
/// Proposals that are written as one batch.
const API_BATCH: u64 = 256;

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Settings for a node with these timings.
///
/// # Errors
/// The timings contradict each other (such as an election timeout below the heartbeat interval).
pub fn raft_config(timing: &Timing) -> Result<Arc<Config>, openraft::ConfigError> {
    let election_max = millis(timing.election_max);
    let config = Config {
        heartbeat_interval: millis(timing.raft_heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: election_max,
        // A node that was cut off comes back without deposing a healthy leader.
        enable_pre_vote: Some(true),
        // A restarted leader may have missed an election; it has to win one.
        enable_leader_restore: Some(false),
        // A leader without a quorum stops accepting writes.
        quorum_loss_probe_interval: Some(election_max.saturating_mul(2)),
        // A voter whose log went backwards has forgotten what it confirmed. It never gets so far (see
        // `form`), and if it did, the leader must not take it back as if nothing had happened.
        allow_log_reversion: Some(false),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        replication_lag_threshold: SNAPSHOT_EVERY + LOGS_KEPT,
        max_in_snapshot_log_to_keep: LOGS_KEPT,
        max_payload_entries: MAX_PAYLOAD_ENTRIES,
        api_channel_size: Some(API_QUEUE),
        api_batch_capacity: API_BATCH,
        notification_channel_size: Some(NOTIFICATION_QUEUE),
        state_machine_channel_size: Some(STATE_MACHINE_QUEUE),
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

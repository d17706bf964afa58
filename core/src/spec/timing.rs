//! Timing profiles: how often leases are renewed, how long they last, and how fast Raft elects.
//!
//! The figures rest on each other (`docs/leases.md`); [`Timing::validate`] says which rule a set of
//! them breaks. The defaults stand here and nowhere else.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Allowance;

mod rules;

pub use rules::{Rule, TimingError};

/// Shortest lease. Below it, scheduling delays of an ordinary kernel end leases.
pub const MIN_LEASE: Duration = Duration::from_millis(60);
/// Longest lease. A crashed owner's VIPs stay dark for its rest.
pub const MAX_LEASE: Duration = Duration::from_secs(60);
/// Shortest guard: packets in the queues of a machine need longer than nothing to leave it.
pub const MIN_GUARD: Duration = Duration::from_millis(1);
/// Added to the lease that a node names in its renewals when its packet gate is nftables: together with the
/// default guard of 20 ms that makes 50 ms for kernel ticks and queued packets.
pub const NFT_MARGIN: Duration = Duration::from_millis(30);
/// Renewals that must fit into one lease, so that two in a row may be lost.
pub const RENEWALS_PER_LEASE: u32 = 3;
/// Heartbeats that must fit into the shortest election timeout, so that one may be lost.
pub const HEARTBEATS_PER_ELECTION: u32 = 2;
/// Longest Raft election timeout.
pub const MAX_ELECTION: Duration = Duration::from_secs(60);
/// Clock rates that differ by more than this (10%) are no clocks.
pub const MAX_DRIFT_PPM: u32 = 100_000;

/// Parts per million by which clock rates of two nodes may differ (1%).
const DEFAULT_DRIFT_PPM: u32 = 10_000;
/// Time for packets that were queued before the gate shut.
const DEFAULT_GUARD: Duration = Duration::from_millis(20);
/// An unanswered renewal is sent again after this part of the renewal interval.
const RETRIES_PER_RENEWAL: u32 = 4;

/// A named set of timings.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One switched network: a crash is survived in about 0.35 s.
    #[default]
    Lan,
    /// One switched network and machines with CPU to spare: about 0.15 s.
    Fast,
    /// Sites apart, or slow disks: about 2 s.
    Wan,
}

impl Profile {
    /// Every profile, in the order of the documentation.
    pub const ALL: [Profile; 3] = [Profile::Lan, Profile::Fast, Profile::Wan];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Lan => "lan",
            Profile::Fast => "fast",
            Profile::Wan => "wan",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// No profile has this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no timing profile {0:?} (expected \"lan\", \"fast\" or \"wan\")")]
pub struct UnknownProfile(String);

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let found = Profile::ALL.into_iter().find(|p| p.as_str() == name);
        found.ok_or_else(|| UnknownProfile(name.chars().take(40).collect()))
    }
}

/// All timings of a node. They should be the same on all nodes; the leases stay safe if they are not,
/// because each renewal names the length that its sender counts with.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// Interval of lease renewals.
    pub renew: Duration,
    /// A renewal without an answer is sent again after this.
    pub retry: Duration,
    /// Lease length as the holder counts it (`L` in `docs/leases.md`).
    pub lease: Duration,
    /// A node that was not heard for this long is silent: its VIPs move.
    pub suspect_after: Duration,
    /// Interval of the Raft leader's heartbeats.
    pub raft_heartbeat: Duration,
    /// Shortest Raft election timeout.
    pub election_min: Duration,
    /// Longest Raft election timeout.
    pub election_max: Duration,
    /// Largest difference of two nodes' clock rates, in parts per million.
    pub max_drift_ppm: u32,
    /// Added to every promise for packets still queued when the holder's gate shuts.
    pub guard: Duration,
}

/// Single timings that a configuration sets beside the profile.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Overrides {
    /// See [`Timing::renew`].
    pub renew: Option<Duration>,
    /// See [`Timing::retry`]; a quarter of `renew` when not given.
    pub retry: Option<Duration>,
    /// See [`Timing::lease`].
    pub lease: Option<Duration>,
    /// See [`Timing::suspect_after`].
    pub suspect_after: Option<Duration>,
    /// See [`Timing::raft_heartbeat`].
    pub raft_heartbeat: Option<Duration>,
    /// See [`Timing::election_min`].
    pub election_min: Option<Duration>,
    /// See [`Timing::election_max`].
    pub election_max: Option<Duration>,
    /// See [`Timing::max_drift_ppm`].
    pub max_drift_ppm: Option<u32>,
    /// See [`Timing::guard`].
    pub guard: Option<Duration>,
}

impl Default for Timing {
    fn default() -> Self {
        Timing::for_profile(Profile::default())
    }
}

impl Timing {
    /// The timings of a profile.
    pub fn for_profile(profile: Profile) -> Timing {
        //                                        renew  lease suspect heartbeat elections
        let [renew, lease, suspect, beat, min, max] = match profile {
            Profile::Lan => [75, 300, 200, 30, 90, 150],
            Profile::Fast => [25, 100, 65, 15, 45, 75],
            Profile::Wan => [500, 2000, 1300, 150, 500, 900],
        }
        .map(Duration::from_millis);
        Timing {
            renew,
            retry: renew / RETRIES_PER_RENEWAL,
            lease,
            suspect_after: suspect,
            raft_heartbeat: beat,
            election_min: min,
            election_max: max,
            max_drift_ppm: DEFAULT_DRIFT_PPM,
            guard: DEFAULT_GUARD,
        }
    }

    /// The timings of a profile with single ones replaced. Not validated: see [`Timing::validate`].
    pub fn with_overrides(profile: Profile, o: &Overrides) -> Timing {
        let base = Timing::for_profile(profile);
        let renew = o.renew.unwrap_or(base.renew);
        Timing {
            renew,
            retry: o.retry.unwrap_or(renew / RETRIES_PER_RENEWAL),
            lease: o.lease.unwrap_or(base.lease),
            suspect_after: o.suspect_after.unwrap_or(base.suspect_after),
            raft_heartbeat: o.raft_heartbeat.unwrap_or(base.raft_heartbeat),
            election_min: o.election_min.unwrap_or(base.election_min),
            election_max: o.election_max.unwrap_or(base.election_max),
            max_drift_ppm: o.max_drift_ppm.unwrap_or(base.max_drift_ppm),
            guard: o.guard.unwrap_or(base.guard),
        }
    }

    /// What a voter adds to the length that a holder counts.
    pub fn allowance(&self) -> Allowance {
        Allowance {
            max_drift_ppm: self.max_drift_ppm,
            guard: self.guard,
        }
    }

    /// Length of a voter's promise (`L_voter` in `docs/leases.md`).
    pub fn voter_lease(&self) -> Duration {
        self.allowance().voter_length(self.lease)
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// All rules that are broken, in the order of [`Rule`].
    pub fn validate(&self) -> Result<(), Vec<TimingError>> {
        let broken: Vec<TimingError> = Rule::ALL
            .iter()
            .filter_map(|rule| rule.check(self))
            .collect();
        if broken.is_empty() {
            Ok(())
        } else {
            Err(broken)
        }
    }
}

#[cfg(test)]
mod tests;

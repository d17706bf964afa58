//! The rules that timings must keep, each with the words for whoever breaks it.

use std::time::Duration;

use super::{
    DEFAULT_DRIFT_PPM, DEFAULT_GUARD, HEARTBEATS_PER_ELECTION, MAX_DRIFT_PPM, MAX_ELECTION,
    MAX_LEASE, MIN_GUARD, MIN_LEASE, Profile, RENEWALS_PER_LEASE, RETRIES_PER_RENEWAL, Timing,
};

/// A rule that timings must keep.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// `lease` is between [`MIN_LEASE`] and [`MAX_LEASE`].
    LeaseRange,
    /// `lease` is a whole number of milliseconds.
    LeaseWholeMillis,
    /// `renew` is longer than nothing and fits [`RENEWALS_PER_LEASE`] times into `lease`.
    RenewalsFitLease,
    /// `retry` is longer than nothing and shorter than `renew`.
    RetryWithinRenewal,
    /// `suspect_after` is shorter than `lease`: takeover is decided while the old lease runs out.
    SuspectBeforeLeaseEnds,
    /// `suspect_after` is at least two renewals and a retry: one lost renewal makes nobody silent.
    SuspectSurvivesLoss,
    /// `guard` is between [`MIN_GUARD`] and `lease`.
    GuardRange,
    /// `max_drift_ppm` is between 1 and [`MAX_DRIFT_PPM`].
    DriftRange,
    /// `raft_heartbeat` is longer than nothing and fits [`HEARTBEATS_PER_ELECTION`] times into
    /// `election_min`.
    HeartbeatsFitElection,
    /// `election_min` is shorter than `election_max`, which is at most [`MAX_ELECTION`].
    ElectionRange,
}

impl Rule {
    /// Every rule, in the order in which they are checked.
    pub const ALL: [Rule; 10] = [
        Rule::LeaseRange,
        Rule::LeaseWholeMillis,
        Rule::RenewalsFitLease,
        Rule::RetryWithinRenewal,
        Rule::SuspectBeforeLeaseEnds,
        Rule::SuspectSurvivesLoss,
        Rule::GuardRange,
        Rule::DriftRange,
        Rule::HeartbeatsFitElection,
        Rule::ElectionRange,
    ];

    /// The timing that the rule is mainly about: where an error in a file is shown.
    pub fn field(self) -> &'static str {
        match self {
            Rule::LeaseRange | Rule::LeaseWholeMillis => "lease",
            Rule::RenewalsFitLease => "renew",
            Rule::RetryWithinRenewal => "retry",
            Rule::SuspectBeforeLeaseEnds | Rule::SuspectSurvivesLoss => "suspect_after",
            Rule::GuardRange => "guard",
            Rule::DriftRange => "max_drift_ppm",
            Rule::HeartbeatsFitElection => "raft_heartbeat",
            Rule::ElectionRange => "election_max",
        }
    }

    /// The rule broken by `t`, in words; `None` when it is kept.
    pub(super) fn check(self, t: &Timing) -> Option<TimingError> {
        (!self.is_kept(t)).then(|| TimingError {
            rule: self,
            message: self.message(t),
            hint: self.hint(t),
        })
    }

    fn is_kept(self, t: &Timing) -> bool {
        match self {
            Rule::LeaseRange => (MIN_LEASE..=MAX_LEASE).contains(&t.lease),
            Rule::LeaseWholeMillis => t.lease.subsec_nanos().is_multiple_of(1_000_000),
            Rule::RenewalsFitLease => {
                !t.renew.is_zero() && t.renew.saturating_mul(RENEWALS_PER_LEASE) <= t.lease
            }
            Rule::RetryWithinRenewal => !t.retry.is_zero() && t.retry < t.renew,
            Rule::SuspectBeforeLeaseEnds => t.suspect_after < t.lease,
            Rule::SuspectSurvivesLoss => t.suspect_after >= least_suspect(t),
            Rule::GuardRange => (MIN_GUARD..=t.lease).contains(&t.guard),
            Rule::DriftRange => (1..=MAX_DRIFT_PPM).contains(&t.max_drift_ppm),
            Rule::HeartbeatsFitElection => {
                !t.raft_heartbeat.is_zero()
                    && t.raft_heartbeat.saturating_mul(HEARTBEATS_PER_ELECTION) <= t.election_min
            }
            Rule::ElectionRange => {
                t.election_min < t.election_max && t.election_max <= MAX_ELECTION
            }
        }
    }

    fn message(self, t: &Timing) -> String {
        let Timing {
            renew,
            retry,
            lease,
            suspect_after,
            raft_heartbeat,
            ..
        } = t;
        let Timing {
            election_min,
            election_max,
            max_drift_ppm,
            guard,
            ..
        } = t;
        match self {
            Rule::LeaseRange => {
                format!("lease must be between {MIN_LEASE:?} and {MAX_LEASE:?}, but is {lease:?}")
            }
            Rule::LeaseWholeMillis => {
                format!("lease must be a whole number of milliseconds, but is {lease:?}")
            }
            Rule::RenewalsFitLease => format!(
                "at least {RENEWALS_PER_LEASE} renewals must fit into one lease (0 < renew * {RENEWALS_PER_LEASE} <= lease), but renew is {renew:?} and lease is {lease:?}"
            ),
            Rule::RetryWithinRenewal => format!(
                "an unanswered renewal must be repeated before the next is due (0 < retry < renew), but retry is {retry:?} and renew is {renew:?}"
            ),
            Rule::SuspectBeforeLeaseEnds => format!(
                "takeover must be decided before the old lease ends (suspect_after < lease), but suspect_after is {suspect_after:?} and lease is {lease:?}"
            ),
            Rule::SuspectSurvivesLoss => format!(
                "one lost renewal must not make a node silent (suspect_after >= 2 * renew + retry), but suspect_after is {suspect_after:?} and 2 * {renew:?} + {retry:?} is {:?}",
                least_suspect(t)
            ),
            Rule::GuardRange => format!(
                "guard must be between {MIN_GUARD:?} and the lease, but guard is {guard:?} and lease is {lease:?}"
            ),
            Rule::DriftRange => {
                format!(
                    "max_drift_ppm must be between 1 and {MAX_DRIFT_PPM}, but is {max_drift_ppm}"
                )
            }
            Rule::HeartbeatsFitElection => format!(
                "at least {HEARTBEATS_PER_ELECTION} heartbeats must fit into the shortest election timeout (0 < raft_heartbeat * {HEARTBEATS_PER_ELECTION} <= election_min), but raft_heartbeat is {raft_heartbeat:?} and election_min is {election_min:?}"
            ),
            Rule::ElectionRange => format!(
                "election timeouts must differ and be bounded (election_min < election_max <= {MAX_ELECTION:?}), but election_min is {election_min:?} and election_max is {election_max:?}"
            ),
        }
    }

    fn hint(self, t: &Timing) -> String {
        match self {
            Rule::LeaseRange => {
                let known = Profile::ALL.map(|p| format!("{p} {:?}", Timing::for_profile(p).lease));
                format!("the profiles have: {}", known.join(", "))
            }
            Rule::LeaseWholeMillis => format!("write {}ms", t.lease.as_millis()),
            Rule::RenewalsFitLease => {
                format!("set renew to {:?}, a quarter of the lease", t.lease / 4)
            }
            Rule::RetryWithinRenewal => {
                format!(
                    "leave retry out: it is a quarter of renew, {:?}",
                    t.renew / RETRIES_PER_RENEWAL
                )
            }
            Rule::SuspectBeforeLeaseEnds => {
                format!(
                    "set suspect_after to {:?}, two thirds of the lease",
                    t.lease.saturating_mul(2) / 3
                )
            }
            Rule::SuspectSurvivesLoss => {
                format!(
                    "set suspect_after to {:?} or more, or renew more often",
                    least_suspect(t)
                )
            }
            Rule::GuardRange => format!("leave guard out: it is {DEFAULT_GUARD:?}"),
            Rule::DriftRange => format!("leave max_drift_ppm out: it is {DEFAULT_DRIFT_PPM} (1%)"),
            Rule::HeartbeatsFitElection => {
                format!(
                    "set raft_heartbeat to {:?}, a third of election_min",
                    t.election_min / 3
                )
            }
            Rule::ElectionRange => format!(
                "set election_max to {:?}, 5/3 of election_min",
                t.election_min.saturating_mul(5) / 3
            ),
        }
    }
}

/// Two renewals and the retry of the second.
fn least_suspect(t: &Timing) -> Duration {
    t.renew.saturating_mul(2).saturating_add(t.retry)
}

/// A rule that a set of timings breaks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} ({hint})")]
pub struct TimingError {
    /// Which rule.
    pub rule: Rule,
    /// The rule in words, with the values that break it.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

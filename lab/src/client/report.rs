//! What a client reports, and what it means: requests lost, and for how long nothing was answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::runs::{Run, clip};
use crate::sys::clock::ns_to_ms;

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered by this one of [`Report::backends`].
    Answered(u8),
    /// Not answered.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No answer before the deadline.
    Timeout,
    /// The connection was refused.
    Refused,
    /// No way to the target (ARP or ND gave up, no route).
    Unreachable,
    /// The connection broke.
    Reset,
    /// An answer that is not one.
    BadAnswer,
    /// The client itself had no socket or port left: says nothing about the target.
    Local,
}

/// What a client has seen since it was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Names of those who answered.
    pub backends: Vec<String>,
    /// Every request started up to this time (ns of CLOCK_BOOTTIME) has its outcome.
    pub judged_until: u64,
    /// Longest time between two starts (the client did not get a CPU), ns.
    pub longest_gap_ns: u64,
    /// The targets.
    pub targets: Vec<TargetReport>,
}

/// What a client has seen of one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetReport {
    /// The target, `address` or `address:port`.
    pub target: String,
    /// Requests in a row with the same outcome, by start time.
    pub runs: Vec<Run<Outcome>>,
    /// Runs forgotten because there were too many.
    pub forgotten: u64,
}

/// The figures of one target over a stretch of time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Loss {
    /// The target, `address` or `address:port`.
    pub target: String,
    /// Requests sent.
    pub sent: u64,
    /// Requests not answered.
    pub lost: u64,
    /// The longest blackout, ms: from the start of the first failing request to the start of the first
    /// later one that was answered.
    pub blackout_ms: f64,
    /// All blackouts together, ms.
    pub total_blackout_ms: f64,
    /// Answers by backend.
    pub answered: BTreeMap<String, u64>,
    /// Failures by kind.
    pub failures: BTreeMap<Failure, u64>,
}

/// The figures of every target between `from` and `to` (ns of CLOCK_BOOTTIME).
#[must_use]
pub fn losses(report: &Report, from: u64, to: u64) -> Vec<Loss> {
    report
        .targets
        .iter()
        .map(|target| {
            let runs = clip(&target.runs, from, to);
            let blackouts = blackouts(&runs, to);
            let mut loss = Loss {
                target: target.target.clone(),
                sent: runs.iter().map(|run| run.count).sum(),
                lost: 0,
                blackout_ms: blackouts.iter().copied().fold(0.0, f64::max),
                total_blackout_ms: blackouts.iter().fold(0.0, |sum, length| sum + length),
                answered: BTreeMap::new(),
                failures: BTreeMap::new(),
            };
            for run in &runs {
                match run.key {
                    Outcome::Answered(backend) => {
                        let name = report.backends.get(usize::from(backend));
                        let name = name.map_or("?", String::as_str).to_owned();
                        *loss.answered.entry(name).or_default() += run.count;
                    }
                    Outcome::Failed(failure) => {
                        loss.lost += run.count;
                        *loss.failures.entry(failure).or_default() += run.count;
                    }
                }
            }
            loss
        })
        .collect()
}

fn blackouts(runs: &[Run<Outcome>], end: u64) -> Vec<f64> {
    let mut lengths = Vec::new();
    let mut since = None;
    for run in runs {
        match run.key {
            Outcome::Failed(_) => {
                since.get_or_insert(run.first);
            }
            Outcome::Answered(_) => {
                lengths.extend(since.take().map(|since| ns_to_ms(run.first - since)));
            }
        }
    }
    // Still dark at the end: at least so long.
    lengths.extend(since.map(|since| ns_to_ms(end.saturating_sub(since))));
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::MS;

    fn run(key: Outcome, first: u64, last: u64, count: u64) -> Run<Outcome> {
        Run {
            key,
            first: first * MS,
            last: last * MS,
            count,
        }
    }

    #[test]
    fn blackouts_run_from_first_failure_to_next_success() {
        let report = Report {
            backends: vec!["n1".into(), "n2".into()],
            judged_until: 1_000 * MS,
            longest_gap_ns: 0,
            targets: vec![TargetReport {
                target: "192.168.192.13:80".into(),
                runs: vec![
                    run(Outcome::Answered(0), 0, 95, 20),
                    run(Outcome::Failed(Failure::Timeout), 100, 195, 20),
                    run(Outcome::Failed(Failure::Refused), 200, 200, 1),
                    run(Outcome::Answered(1), 205, 300, 20),
                    run(Outcome::Failed(Failure::Timeout), 305, 305, 1),
                    run(Outcome::Answered(1), 310, 400, 19),
                ],
                forgotten: 0,
            }],
        };
        let loss = losses(&report, 0, 1_000 * MS).remove(0);
        assert_eq!((loss.sent, loss.lost), (81, 22));
        assert!((loss.blackout_ms - 105.0).abs() < 1e-9);
        assert!((loss.total_blackout_ms - 110.0).abs() < 1e-9);
        assert_eq!(loss.answered["n1"], 20);
        assert_eq!(loss.answered["n2"], 39);
        assert_eq!(loss.failures[&Failure::Timeout], 21);
    }

    #[test]
    fn a_blackout_that_does_not_end_counts_to_the_end() {
        let report = Report {
            backends: vec![],
            judged_until: 50 * MS,
            longest_gap_ns: 0,
            targets: vec![TargetReport {
                target: "x".into(),
                runs: vec![run(Outcome::Failed(Failure::Timeout), 10, 40, 7)],
                forgotten: 0,
            }],
        };
        assert!((losses(&report, 0, 50 * MS)[0].blackout_ms - 40.0).abs() < 1e-9);
    }
}

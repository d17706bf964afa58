//! What Buoy has promised itself, beside what was measured.

use serde::{Deserialize, Serialize};

use super::bed::Contender;
use super::events::Row;
use super::results::Results;
use super::stats::{Summary, number};

/// Median blackout of a planned move, ms.
const MOVE_MS: f64 = 10.0;
/// Median blackout of a node crash, ms.
const CRASH_MS: f64 = 400.0;
/// CPU time of an idle node, percent of a core: the most, and the goal.
const CPU: (f64, f64) = (2.0, 0.5);
/// Memory of an idle node, MiB: the most, and the goal.
const MEMORY: (f64, f64) = (40.0, 20.0);
/// From the first to the last of 200 VIPs of a crashed node, ms.
const SPREAD_MS: f64 = 100.0;

/// A target and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// What was wanted.
    pub target: String,
    /// What was measured.
    pub measured: String,
    /// Whether the one satisfies the other; `None` if it was not measured this time.
    pub met: Option<bool>,
}

impl Verdict {
    /// The last column of the table.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "**NOT met**",
            None => "not measured",
        }
    }
}

fn verdict(target: String, measured: Option<(String, bool)>) -> Verdict {
    let (measured, met) = measured.map_or((String::new(), None), |(words, met)| (words, Some(met)));
    Verdict {
        target,
        measured,
        met,
    }
}

/// Every target of Buoy's.
#[must_use]
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut all = vec![
        median(results, Row::Move, "planned move", MOVE_MS),
        median(
            results,
            Row::Crash,
            "node crash, owner does not lead",
            CRASH_MS,
        ),
        median(
            results,
            Row::CrashLeader,
            "node crash, owner is the Raft leader",
            CRASH_MS,
        ),
        nothing_lost(
            results,
            Row::LeaderLoss,
            "loss of the leader costs the client nothing",
        ),
        nothing_lost(
            results,
            Row::HealWithout,
            "healing costs a client that is served nothing",
        ),
        never_two(results),
        crowd(results),
    ];
    all.extend(idle(results));
    all.push(soak(results));
    all
}

fn median(results: &Results, row: Row, what: &str, limit: f64) -> Verdict {
    let summary = Summary::of(
        results
            .samples(row, Contender::Buoy)
            .map(|it| it.blackout_ms),
    );
    verdict(
        format!("{what}: client blackout <= {limit} ms median"),
        summary.map(|it| (format!("{} ms", number(it.median)), it.median <= limit)),
    )
}

fn nothing_lost(results: &Results, row: Row, what: &str) -> Verdict {
    let samples: Vec<_> = results.samples(row, Contender::Buoy).collect();
    let lost: u64 = samples.iter().map(|it| it.lost).sum();
    let worst = samples.iter().map(|it| it.blackout_ms).fold(0.0, f64::max);
    let sent: u64 = samples.iter().map(|it| it.sent).sum();
    let words = format!(
        "{lost} of {sent} requests lost in {} repeats, longest blackout {} ms",
        samples.len(),
        number(worst)
    );
    verdict(
        what.to_owned(),
        (!samples.is_empty()).then_some((words, lost == 0)),
    )
}

fn never_two(results: &Results) -> Verdict {
    let samples: Vec<_> = results
        .samples
        .iter()
        .filter(|it| it.contender == Contender::Buoy)
        .collect();
    let crowds = results
        .crowds
        .iter()
        .filter(|it| it.contender == Contender::Buoy);
    let soaked = results.soak.iter().map(|it| it.dual_ms);
    let total: f64 = samples.iter().map(|it| it.overlap_ms()).sum::<f64>()
        + crowds.map(|it| it.dual_ms).sum::<f64>()
        + soaked.sum::<f64>();
    let words = format!("{} ms in {} repeats", number(total), samples.len());
    verdict(
        "two owners: 0 ms, always".to_owned(),
        (!samples.is_empty()).then_some((words, total == 0.0)),
    )
}

fn crowd(results: &Results) -> Verdict {
    let seen: Vec<_> = results
        .crowds
        .iter()
        .filter(|it| it.contender == Contender::Buoy)
        .collect();
    let missing: usize = seen.iter().map(|it| it.missing).sum();
    let summary = Summary::of(seen.iter().filter_map(|it| it.spread_ms));
    let figure = summary.map(|it| {
        let words = format!(
            "{} ms median, {} ms at most, {missing} missing, {} repeats",
            number(it.median),
            number(it.max),
            seen.len()
        );
        (words, it.max <= SPREAD_MS && missing == 0)
    });
    let unseen = (missing > 0).then(|| (format!("{missing} did not come up"), false));
    verdict(
        format!("200 VIPs of a crashed node: the last up <= {SPREAD_MS} ms after the first"),
        figure.or(unseen),
    )
}

fn idle(results: &Results) -> Vec<Verdict> {
    let mut all = Vec::new();
    for vips in [1, super::crowd::VIPS] {
        let nodes: Vec<_> = results
            .idle
            .iter()
            .filter(|it| it.contender == Contender::Buoy && it.vips == vips)
            .collect();
        let cpu = Summary::of(nodes.iter().map(|it| it.cpu_percent));
        let memory = Summary::of(nodes.iter().map(|it| it.rss_mib));
        for (what, unit, (limit, goal), figure) in [
            ("CPU", "% of a core", CPU, cpu),
            ("memory", " MiB", MEMORY, memory),
        ] {
            let measured = figure.map(|it| {
                let reached = if it.max <= goal {
                    "goal reached"
                } else {
                    "goal not reached"
                };
                (
                    format!("{:.2}{unit} on the busiest node, {reached}", it.max),
                    it.max <= limit,
                )
            });
            all.push(verdict(
                format!("idle, {vips} VIP: {what} <= {limit}{unit} a node (goal {goal})"),
                measured,
            ));
        }
    }
    all
}

fn soak(results: &Results) -> Verdict {
    let measured = results.soak.as_ref().map(|it| {
        let words = format!(
            "{} lost in {:.0} s, {} changes of owner",
            it.leases_lost, it.seconds, it.owner_changes
        );
        (words, it.passed())
    });
    verdict(
        "5 % loss, 5 % duplicates, 5 % reordering: no lease lost".to_owned(),
        measured,
    )
}

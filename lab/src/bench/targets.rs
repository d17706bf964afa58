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
/// What fewer repeats of an event show is not enough to call a target met.
const REPEATS: usize = 10;
/// The same for crashes of a node with 200 VIPs.
const CROWDS: usize = 5;
/// The same for idleness, seconds: every VIP is announced again each 60 s.
const IDLE_S: f64 = 60.0;
/// The same for the time on a bad network, seconds.
const SOAK_S: f64 = 600.0;

/// A target and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// What was wanted.
    pub target: String,
    /// What was measured.
    pub measured: String,
    /// Whether the one satisfies the other; `None` if that is open.
    pub met: Option<bool>,
    /// Why it is open, if it is.
    pub open: String,
}

impl Verdict {
    /// The last column of the table.
    #[must_use]
    pub fn word(&self) -> String {
        match self.met {
            Some(true) => "met".to_owned(),
            Some(false) => "**NOT met**".to_owned(),
            None => format!("open: {}", self.open),
        }
    }
}

/// What was measured, and whether it is within the target.
type Measured = Option<(String, bool)>;

/// A failure counts however little was measured; for success it must have been enough, or `lacking` says
/// what was not.
fn verdict(target: String, measured: Measured, lacking: Option<String>) -> Verdict {
    let Some((measured, met)) = measured else {
        return Verdict {
            target,
            measured: String::new(),
            met: None,
            open: "not measured".to_owned(),
        };
    };
    let open = lacking.filter(|_| met);
    Verdict {
        target,
        measured,
        met: open.is_none().then_some(met),
        open: open.unwrap_or_default(),
    }
}

fn too_few(count: usize, wanted: usize) -> Option<String> {
    (count < wanted).then(|| format!("{count} of {wanted} repeats"))
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
    let blackouts = results.samples(row, Contender::Buoy);
    let summary = Summary::of(blackouts.map(|it| it.blackout_ms));
    verdict(
        format!("{what}: client blackout <= {limit} ms median"),
        summary.map(|it| {
            let words = format!("{} ms in {} repeats", number(it.median), it.count);
            (words, it.median <= limit)
        }),
        summary.and_then(|it| too_few(it.count, REPEATS)),
    )
}

fn nothing_lost(results: &Results, row: Row, what: &str) -> Verdict {
    let samples: Vec<_> = results.samples(row, Contender::Buoy).collect();
    let lost: u64 = samples.iter().map(|it| it.lost).sum();
    let worst = samples.iter().map(|it| it.blackout_ms).fold(0.0, f64::max);
    let sent: u64 = samples.iter().map(|it| it.sent).sum();
    let mut words = format!(
        "{lost} of {sent} requests lost in {} repeats, longest blackout {} ms",
        samples.len(),
        number(worst)
    );
    let with_the_owner = results.samples(Row::HealWith, Contender::Buoy);
    let other = Summary::of(with_the_owner.map(|it| it.blackout_ms));
    if let Some(other) = other.filter(|_| row == Row::HealWithout) {
        words += &format!(
            "; a client cut off with the owner, not served until then, waits {} ms more (median of {})",
            number(other.median),
            other.count
        );
    }
    verdict(
        what.to_owned(),
        (!samples.is_empty()).then_some((words, lost == 0)),
        too_few(samples.len(), REPEATS),
    )
}

/// Over whole turns, so that the return of a crashed node counts as much as its crash.
fn never_two(results: &Results) -> Verdict {
    let turns = results.turns.iter();
    let mut seen: Vec<_> = turns
        .filter(|it| it.contender == Contender::Buoy)
        .map(|it| &it.judgement)
        .collect();
    seen.extend(results.soak.iter().map(|it| &it.whole));
    // What was seen in a turn that could not be judged as a whole.
    let ours = |contender| contender == Contender::Buoy;
    let samples = results.samples.iter().filter(|it| ours(it.contender));
    let crowds = results.crowds.iter().filter(|it| ours(it.contender));
    let parts =
        samples.map(|it| it.overlap_ms()).sum::<f64>() + crowds.map(|it| it.dual_ms).sum::<f64>();
    let whole: f64 = seen.iter().map(|it| it.overlap_ms).sum();
    let total = whole.max(parts);
    let minutes = seen.iter().map(|it| it.watched_ms).sum::<f64>() / 60_000.0;
    let words = format!(
        "{} ms in {} turns, {minutes:.1} minutes, the return of crashed nodes included",
        number(total),
        seen.len()
    );
    let blind = seen.iter().filter(|it| it.blind().is_some()).count();
    let gap = seen.iter().map(|it| it.gap_ms).fold(0.0, f64::max);
    let blind = (blind > 0).then(|| {
        format!(
            "in {blind} turns one may have gone unseen (the observer did not look for up to {} ms)",
            number(gap)
        )
    });
    let repeats = Row::ALL.map(|row| results.samples(row, Contender::Buoy).count());
    let fewest = repeats.into_iter().min().unwrap_or(0);
    let few = too_few(fewest, REPEATS).map(|words| format!("{words} of some event"));
    verdict(
        "two owners: 0 ms, always".to_owned(),
        (!seen.is_empty() || parts > 0.0).then_some((words, total == 0.0)),
        blind.or(few),
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
        too_few(seen.len(), CROWDS),
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
        let seconds = nodes
            .iter()
            .map(|it| it.seconds)
            .fold(f64::INFINITY, f64::min);
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
                let nodes = it.count;
                (
                    format!(
                        "{:.2}{unit} on the busiest of {nodes} nodes, {reached}",
                        it.max
                    ),
                    it.max <= limit,
                )
            });
            all.push(verdict(
                format!("idle, {vips} VIP: {what} <= {limit}{unit} a node (goal {goal})"),
                measured,
                (seconds < IDLE_S).then(|| format!("{seconds:.0} of {IDLE_S} s")),
            ));
        }
    }
    all
}

fn soak(results: &Results) -> Verdict {
    let soak = results.soak.as_ref();
    let measured = soak.map(|it| {
        let words = format!(
            "{} lost in {:.0} s, {} changes of owner",
            it.leases_lost, it.seconds, it.owner_changes
        );
        (words, it.passed())
    });
    let short = soak.filter(|it| it.seconds < SOAK_S);
    verdict(
        "5 % loss, 5 % duplicates, 5 % reordering for 10 minutes: no lease lost".to_owned(),
        measured,
        short.map(|it| format!("too short, {:.0} of {SOAK_S} s", it.seconds)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{few, whole};
    use super::*;

    fn met(results: &Results, target: &str) -> Verdict {
        let all = verdicts(results).into_iter();
        let mut found = all.filter(|it| it.target.contains(target));
        found.next().unwrap()
    }

    #[test]
    fn a_whole_run_decides_every_target() {
        for verdict in verdicts(&whole()) {
            assert_eq!(verdict.met, Some(true), "{verdict:?}");
        }
        let healed = met(&whole(), "healing");
        assert!(
            healed.measured.contains("cut off with the owner"),
            "{healed:?}"
        );
    }

    #[test]
    fn what_was_measured_too_little_is_open_but_not_when_it_fails() {
        let mut results = few();
        for target in [
            "planned move",
            "two owners",
            "loss of the leader",
            "200 VIPs",
            "no lease lost",
        ] {
            let verdict = met(&results, target);
            assert_eq!(verdict.met, None, "{verdict:?}");
            assert!(verdict.word().starts_with("open: "), "{verdict:?}");
        }
        assert!(met(&results, "no lease lost").word().contains("too short"));
        assert_eq!(
            met(&Results::default(), "planned move").word(),
            "open: not measured"
        );
        for sample in &mut results.samples {
            sample.blackout_ms = 1_000.0;
        }
        results.soak.as_mut().unwrap().leases_lost = 1;
        for target in ["planned move", "no lease lost"] {
            assert_eq!(met(&results, target).met, Some(false));
        }
    }

    #[test]
    fn two_owners_between_the_events_count_and_a_blind_observer_decides_nothing() {
        let mut results = whole();
        results.turns[0].judgement.gap_ms = 80.0;
        let blind = met(&results, "two owners");
        assert_eq!(blind.met, None);
        assert!(blind.word().contains("gone unseen"), "{blind:?}");
        results.turns[1].judgement.overlap_ms = 1.0;
        assert_eq!(met(&results, "two owners").met, Some(false));
    }
}

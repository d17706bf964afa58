//! What this node has heard of the others and been told by them, kept up to date.
//!
//! Volatile: a node that starts begins with an empty book.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{HealthView, NodeHealth, NodeReport};
use crate::ids::{Incarnation, NodeId};
use crate::spec::MAX_NODES;
use crate::time::Mono;

/// Earlier runs of a node's daemon that are remembered, so that a report of theirs that arrives late is
/// not taken for news.
const PAST_INCARNATIONS: usize = 8;

/// Most nodes that the book remembers: twice a cluster, as ids are never used again.
const MAX_RECORDS: usize = 2 * MAX_NODES;

/// The book. Feed it with what is heard ([`HealthBook::heard`]) and reported ([`HealthBook::report`]), and look
/// at it often enough that a silence does not begin and end between two looks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HealthBook {
    nodes: BTreeMap<NodeId, Record>,
    /// The limit of the last look; a longer silence is a gap. `None` before the first look.
    limit: Option<Duration>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Record {
    last_heard: Option<Mono>,
    /// First time heard after the last gap.
    heard_since: Option<Mono>,
    report: Option<NodeReport>,
    /// Since when the reports of this run name no fault of the whole node.
    faultless_since: Option<Mono>,
    /// Earlier runs, oldest first.
    past: VecDeque<Incarnation>,
    /// The run whose renewals are heard; `None`: not told. Only its reports count.
    live: Option<Incarnation>,
    /// The newest report of another run, which may turn out to be the live one.
    ahead: Option<(NodeReport, Mono)>,
    /// When anything of it was last fed.
    touched: Mono,
}

impl HealthBook {
    /// A renewal of `node` was heard at `at`. Times that are not later than the last are ignored, so the
    /// same observation may be fed again.
    pub fn heard(&mut self, node: NodeId, at: Mono) {
        let limit = self.limit;
        let record = self.record(node, at);
        let gap = match record.last_heard {
            Some(last) if at <= last => return,
            Some(last) => limit.is_some_and(|limit| at.since(last) >= limit),
            None => true,
        };
        record.last_heard = Some(at);
        if gap {
            record.heard_since = Some(at);
        }
    }

    /// The renewals of `node` that are heard are those of this run ([`crate::lease::Voter::heard_incarnation`]).
    /// From now on only its reports count: a report alone cannot tell a new run from an old one whose
    /// report comes late. One that came before this was told counts from when it came.
    pub fn heard_run(&mut self, node: NodeId, incarnation: Incarnation, at: Mono) {
        let record = self.record(node, at);
        record.live = Some(incarnation);
        if record
            .report
            .as_ref()
            .is_some_and(|r| r.incarnation == incarnation)
        {
            record.ahead = None;
        } else if let Some((report, came)) = record.ahead.take() {
            if report.incarnation == incarnation {
                record.take(report, came);
            } else {
                record.ahead = Some((report, came));
            }
        }
    }

    /// A report arrived at `at`. Returns whether it was news: one that is older than the newest of its
    /// run, or not of the run that is heard (where that is not told: of an earlier run), is ignored.
    pub fn report(&mut self, report: NodeReport, at: Mono) -> bool {
        let record = self.record(report.node, at);
        match record.live {
            Some(live) if live != report.incarnation => {
                let older = |(r, _): &(NodeReport, Mono)| {
                    r.incarnation == report.incarnation && r.rev > report.rev
                };
                if !record.ahead.as_ref().is_some_and(older) {
                    record.ahead = Some((report, at));
                }
                false
            }
            _ => record.take(report, at),
        }
    }

    /// The record of a node; a new one takes the place of the one that was fed the longest ago when there
    /// are too many.
    fn record(&mut self, node: NodeId, at: Mono) -> &mut Record {
        if self.nodes.len() >= MAX_RECORDS && !self.nodes.contains_key(&node) {
            let oldest = self.nodes.iter().min_by_key(|(_, r)| r.touched);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.nodes.remove(&oldest);
            }
        }
        let record = self.nodes.entry(node).or_default();
        record.touched = record.touched.max(at);
        record
    }

    /// The newest report of a node.
    pub fn report_of(&self, node: NodeId) -> Option<&NodeReport> {
        self.nodes.get(&node)?.report.as_ref()
    }

    /// Every node's health at `now`; a node that was not heard for `suspect_after` is not well.
    pub fn view(&mut self, now: Mono, suspect_after: Duration) -> HealthView {
        self.limit = Some(suspect_after);
        let health = |record: &Record| NodeHealth {
            last_heard: record.last_heard,
            report: record.report.clone(),
            well_since: record.well_since(now, suspect_after),
        };
        self.nodes
            .iter()
            .map(|(id, record)| (*id, health(record)))
            .collect()
    }
}

impl Record {
    /// Takes a report in, if it is news.
    fn take(&mut self, report: NodeReport, at: Mono) -> bool {
        let record = self;
        let mut restarted = false;
        if let Some(known) = &record.report {
            if known.incarnation == report.incarnation {
                if report.rev < known.rev {
                    return false;
                }
            } else if record.past.contains(&report.incarnation)
                && record.live != Some(report.incarnation)
            {
                return false;
            } else {
                restarted = true;
                record.past.push_back(known.incarnation);
                if record.past.len() > PAST_INCARNATIONS {
                    record.past.pop_front();
                }
            }
        }
        if !report.faults.is_empty() {
            record.faultless_since = None;
        } else if restarted || record.faultless_since.is_none() {
            record.faultless_since = Some(at);
        }
        record.report = Some(report);
        true
    }

    /// The later of the end of the last gap and the end of the last fault. A node that is never heard
    /// is this one itself (it hears its own reports only), or silent, where this does not matter.
    fn well_since(&self, now: Mono, limit: Duration) -> Option<Mono> {
        let faultless = self.faultless_since?;
        match self.last_heard {
            None => Some(faultless),
            Some(last) if now.since(last) >= limit => None,
            Some(_) => self.heard_since.map(|heard| heard.max(faultless)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);
    const N: NodeId = NodeId(1);

    fn at(ms: u64) -> Mono {
        Mono::from_millis(ms)
    }

    fn report(incarnation: u64, rev: u64, faults: &[&str]) -> NodeReport {
        NodeReport {
            node: N,
            incarnation: Incarnation(incarnation),
            rev,
            faults: faults.iter().map(|f| (*f).to_owned()).collect(),
            ..NodeReport::default()
        }
    }

    fn well(book: &mut HealthBook, now: u64) -> Option<Mono> {
        book.view(at(now), LIMIT)[&N].well_since
    }

    /// Heard every 75 ms from `from` to `to`, and looked at each time.
    fn renewals(book: &mut HealthBook, from: u64, to: u64) {
        for ms in (from..=to).step_by(75) {
            book.heard(N, at(ms));
            book.view(at(ms), LIMIT);
        }
    }

    #[test]
    fn well_is_counted_from_the_end_of_the_last_gap() {
        let mut book = HealthBook::default();
        assert!(book.view(at(0), LIMIT).is_empty());
        assert!(book.report(report(1, 1, &[]), at(10)));
        renewals(&mut book, 20, 320);
        assert_eq!(well(&mut book, 400), Some(at(20)));
        assert_eq!(well(&mut book, 519), Some(at(20)));
        assert_eq!(well(&mut book, 520), None, "silent for exactly the limit");
        renewals(&mut book, 600, 900);
        assert_eq!(well(&mut book, 950), Some(at(600)));
        assert_eq!(book.view(at(950), LIMIT)[&N].last_heard, Some(at(900)));
    }

    #[test]
    fn a_gap_between_two_looks_is_noticed() {
        let mut book = HealthBook::default();
        book.report(report(1, 1, &[]), at(0));
        book.heard(N, at(10));
        book.view(at(20), LIMIT);
        book.heard(N, at(209));
        assert_eq!(
            well(&mut book, 250),
            Some(at(10)),
            "one millisecond short of a gap"
        );
        book.heard(N, at(409));
        assert_eq!(well(&mut book, 450), Some(at(409)));
        book.heard(N, at(300));
        assert_eq!(
            book.view(at(450), LIMIT)[&N].last_heard,
            Some(at(409)),
            "time does not go back"
        );
    }

    #[test]
    fn a_fault_of_the_whole_node_starts_the_count_anew() {
        let mut book = HealthBook::default();
        renewals(&mut book, 0, 300);
        assert_eq!(well(&mut book, 310), None, "no report yet");
        book.report(report(1, 1, &[]), at(310));
        book.report(report(1, 2, &["fence broken"]), at(320));
        assert_eq!(well(&mut book, 330), None);
        book.report(report(1, 3, &[]), at(340));
        book.report(report(1, 4, &[]), at(350));
        assert_eq!(well(&mut book, 360), Some(at(340)));
    }

    #[test]
    fn late_reports_are_no_news() {
        let mut book = HealthBook::default();
        assert!(book.report(report(1, 5, &[]), at(0)));
        assert!(!book.report(report(1, 4, &["old"]), at(1)));
        assert!(
            book.report(report(1, 5, &[]), at(2)),
            "the repeat of the newest"
        );
        assert!(
            book.report(report(2, 1, &[]), at(3)),
            "a new run begins at revision 1"
        );
        assert!(!book.report(report(1, 6, &["old run"]), at(4)));
        assert_eq!(book.report_of(N), Some(&report(2, 1, &[])));
        assert_eq!(
            well(&mut book, 10),
            Some(at(3)),
            "a restart starts the count anew; never heard: this node itself"
        );
    }

    #[test]
    fn a_late_report_of_an_old_run_does_not_lock_the_live_one_out() {
        let mut book = HealthBook::default();
        book.heard_run(N, Incarnation(2), at(0));
        assert!(book.report(report(2, 1, &[]), at(1)));
        // Run 1 ended long ago, and nothing of it had ever come.
        assert!(!book.report(report(1, 9, &["stopping"]), at(2)));
        assert!(
            book.report(report(2, 2, &[]), at(3)),
            "the live run goes on"
        );
        assert_eq!(book.report_of(N), Some(&report(2, 2, &[])));
        assert_eq!(well(&mut book, 4), Some(at(1)));
        // A run that reports before it is heard counts as soon as it is, from when it reported.
        assert!(!book.report(report(3, 2, &[]), at(5)));
        assert!(!book.report(report(3, 1, &["older"]), at(6)));
        book.heard_run(N, Incarnation(3), at(8));
        assert_eq!(book.report_of(N), Some(&report(3, 2, &[])));
        assert_eq!(well(&mut book, 9), Some(at(5)));
        // Also where the live run was taken for an earlier one before that was told.
        let mut book = HealthBook::default();
        book.report(report(2, 1, &[]), at(0));
        book.report(report(1, 9, &["stopping"]), at(1));
        book.heard_run(N, Incarnation(2), at(2));
        assert!(book.report(report(2, 2, &[]), at(3)));
        assert_eq!(book.report_of(N), Some(&report(2, 2, &[])));
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = HealthBook::default();
        for id in 0..1_000 {
            book.heard(NodeId(id), at(id));
            book.heard(N, at(id));
        }
        let view = book.view(at(1_000), LIMIT);
        assert_eq!(view.len(), MAX_RECORDS);
        assert!(view.contains_key(&N) && view.contains_key(&NodeId(999)));
    }

    #[test]
    fn earlier_runs_are_bounded() {
        let mut book = HealthBook::default();
        for run in 3..100 {
            assert!(book.report(report(run, 1, &[]), at(run)));
        }
        assert_eq!(book.nodes[&N].past.len(), PAST_INCARNATIONS);
    }
}

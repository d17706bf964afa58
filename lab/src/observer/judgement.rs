//! The verdict over a whole stretch of time: whether two nodes were ever seen to own one address, and whether
//! that would have been seen.

use serde::{Deserialize, Serialize};

use super::{Observations, figures};
use crate::sys::clock::ns_to_ms;

/// An observer that did not look for longer than this, ms, has not seen that there was no overlap. A mistake of the
/// leases lets two nodes overlap for about a renewal or longer (75 ms in profile `lan`): that cannot fall
/// whole into a gap shorter than this.
pub const BLIND_MS: f64 = 50.0;

/// What is to be said of all addresses together.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Judgement {
    /// For how long it was observed, ms.
    pub watched_ms: f64,
    /// For how long two nodes owned an address, answering or sending in its name, ms, summed over the addresses.
    pub overlap_ms: f64,
    /// Each such overlap, in words.
    pub overlaps: Vec<String>,
    /// Longest time in which the observer did not look, ms.
    pub gap_ms: f64,
    /// Runs of observations that were forgotten because there were too many.
    pub forgotten: u64,
}

impl Judgement {
    /// Of the time `from..=to` (ns of CLOCK_BOOTTIME).
    #[must_use]
    pub fn of(seen: &Observations, from: u64, to: u64) -> Self {
        let interval_ms = ns_to_ms(seen.interval_ns);
        let mut judgement = Self {
            watched_ms: ns_to_ms(to.saturating_sub(from)),
            gap_ms: ns_to_ms(seen.longest_gap_ns),
            forgotten: seen.targets.iter().map(|target| target.forgotten).sum(),
            ..Self::default()
        };
        for it in figures(seen, from, to) {
            #[expect(clippy::cast_precision_loss, reason = "a count of milliseconds")]
            let stray_ms = it.stray_intervals as f64 * interval_ms;
            judgement.overlap_ms += it.dual_ms.max(stray_ms);
            for dual in &it.dual {
                let ports = dual.ports.join(" and ");
                let ms = ns_to_ms(dual.to - dual.from) + interval_ms;
                let (address, at) = (it.address, ns_to_ms(dual.from - from) / 1e3);
                judgement.overlaps.push(format!(
                    "{ports} answered for {address} together for {ms:.0} ms, {at:.3} s after the start"
                ));
            }
            if it.stray_intervals > 0 {
                judgement.overlaps.push(format!(
                    "{} sent in the name of {} for {stray_ms:.0} ms while another node owned it",
                    it.stray_ports.join(" and "),
                    it.address
                ));
            }
        }
        judgement
    }

    /// Why an overlap may have gone unseen, if it may.
    #[must_use]
    pub fn blind(&self) -> Option<String> {
        if self.gap_ms > BLIND_MS {
            Some(format!(
                "the observer did not look for {:.0} ms (this machine is too busy); at most {BLIND_MS} ms are \
                 allowed",
                self.gap_ms
            ))
        } else if self.forgotten > 0 {
            Some(format!(
                "the observer forgot {} observations: there were too many",
                self.forgotten
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::TargetObservations;
    use crate::runs::Run;
    use crate::sys::clock::MS;

    fn run<K>(key: K, first: u64, last: u64) -> Run<K> {
        Run {
            key,
            first: first * MS,
            last: last * MS,
            count: last - first + 1,
        }
    }

    fn seen(runs: Vec<Run<u16>>, strays: Vec<Run<u8>>) -> Observations {
        Observations {
            ports: vec!["n1".into(), "n2".into()],
            interval_ns: MS,
            judged_until: 1_000 * MS,
            longest_gap_ns: 2 * MS,
            late_answers: 0,
            targets: vec![TargetObservations {
                address: "192.168.192.13".parse().unwrap(),
                runs,
                strays,
                forgotten: 0,
            }],
        }
    }

    #[test]
    fn answers_and_frames_of_two_nodes_are_overlaps() {
        let alone = seen(vec![run(1, 0, 99), run(2, 110, 500)], vec![]);
        let judged = Judgement::of(&alone, 0, 500 * MS);
        assert_eq!((judged.overlap_ms, judged.overlaps.len()), (0.0, 0));
        assert!((judged.watched_ms - 500.0).abs() < 1e-9);

        let both = vec![run(1, 0, 99), run(3, 100, 102), run(2, 103, 500)];
        let judged = Judgement::of(&seen(both, vec![run(0, 200, 200)]), 0, 500 * MS);
        assert!((judged.overlap_ms - 3.0).abs() < 1e-9, "{judged:?}");
        let words = judged.overlaps.join("\n");
        for expected in [
            "n1 and n2 answered for 192.168.192.13 together for 3 ms, 0.100 s after",
            "n1 sent in the name of 192.168.192.13 for 1 ms",
        ] {
            assert!(words.contains(expected), "{words}");
        }
    }

    #[test]
    fn one_who_did_not_look_or_has_forgotten_is_blind() {
        let mut all = seen(vec![run(1, 0, 500)], vec![]);
        let blind = |seen: &Observations| Judgement::of(seen, 0, 500 * MS).blind();
        assert_eq!(blind(&all), None);
        all.targets[0].forgotten = 1;
        assert!(blind(&all).unwrap().contains("forgot 1 "));
        all.longest_gap_ns = 51 * MS;
        assert!(blind(&all).unwrap().contains("did not look for 51 ms"));
    }
}

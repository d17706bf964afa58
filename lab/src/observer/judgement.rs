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

//! One measurement: the client and the observer watch while something is done to a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::bed::{Bed, Contender, Situation};
use super::events::Row;
use crate::client::{Client, ClientSpec, Kind, losses};
use crate::observer::figures;
use crate::sys::clock::{MS, duration_ns, now_ns, ns_to_ms};

/// Time between two echo requests of the client, microseconds.
pub const ECHO_US: u64 = 1_000;
/// When an echo request counts as lost, ms.
pub const DEADLINE_MS: u64 = 100;
/// The client sends for so long before anything happens.
const WARM_UP: Duration = Duration::from_millis(300);
/// Figures begin so long before the event: a request that is under way then may be its first victim.
const LEAD_NS: u64 = 5 * MS;

/// What was seen of one repeat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// What was done.
    pub row: Row,
    /// To whom.
    pub contender: Contender,
    /// Who owned and led before.
    pub before: Situation,
    /// For how long it was watched, ms.
    pub watched_ms: f64,
    /// The client's longest blackout, ms.
    pub blackout_ms: f64,
    /// Echo requests sent.
    pub sent: u64,
    /// Echo requests not answered.
    pub lost: u64,
    /// From the event until another node first answered the prober, ms, if one did.
    pub takeover_ms: Option<f64>,
    /// For how long nobody answered the prober, ms.
    pub dark_ms: f64,
    /// For how long two nodes answered the prober, ms.
    pub dual_ms: f64,
    /// For how long a node sent in the VIP's name while another one owned it, ms.
    pub stray_ms: f64,
    /// Longest time in which the client did not get a CPU, ms, since it was started.
    pub client_gap_ms: f64,
    /// Longest time in which the observer did not get a CPU, ms, since it was started.
    pub observer_gap_ms: f64,
}

impl Sample {
    /// Whether the client had no answer for (nearly) as long as it was watched.
    #[must_use]
    pub fn dark_throughout(&self) -> bool {
        self.blackout_ms > 0.0 && self.blackout_ms >= 0.75 * self.watched_ms
    }

    /// One line, for who watches the run.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{}: {:?}: blackout {:.1} ms, dark {:.1} ms, {} lost, takeover {:.0?} ms, two owners {:.0} ms",
            self.contender.name(),
            self.row,
            self.blackout_ms,
            self.dark_ms,
            self.lost,
            self.takeover_ms.unwrap_or(f64::NAN),
            self.overlap_ms()
        )
    }

    /// Time with two owners, seen either way, ms.
    #[must_use]
    pub fn overlap_ms(&self) -> f64 {
        self.dual_ms.max(self.stray_ms)
    }
}

/// A client and an observer at work.
pub struct Watch<'a> {
    bed: &'a Bed,
    before: Situation,
    client: Client,
}

impl<'a> Watch<'a> {
    /// Starts to watch; the observer is on, and the client has its answers before this returns.
    ///
    /// # Errors
    /// The client cannot be run, or gets no answers although nothing has happened yet.
    pub fn start(bed: &'a Bed, before: Situation) -> Result<Self> {
        let vip = bed.lab.topology().vip_addresses();
        let vip = *vip.first().context("the lab has no VIP")?;
        let mut client = bed.lab.client(&ClientSpec {
            kind: Kind::Icmp,
            targets: vec![SocketAddr::new(vip, 0)],
            interval_us: ECHO_US,
            deadline_ms: DEADLINE_MS,
        })?;
        std::thread::sleep(WARM_UP);
        let (from, to) = (now_ns() - 50 * MS, now_ns());
        let seen = losses(&client.report_until(to)?, from, to);
        ensure!(
            seen.iter().all(|loss| loss.lost < loss.sent),
            "the client gets no answers although nothing has happened yet"
        );
        Ok(Self {
            bed,
            before,
            client,
        })
    }

    /// Watches until `window` after the event at `at` (ns of CLOCK_BOOTTIME) and says what was seen.
    ///
    /// # Errors
    /// The client or the switch is gone.
    pub fn sample(&mut self, row: Row, at: u64, window: Duration) -> Result<Sample> {
        let (from, to) = (at - LEAD_NS, at + duration_ns(window));
        std::thread::sleep(Duration::from_nanos(to.saturating_sub(now_ns())));
        let report = self.client.report_until(to)?;
        let seen = self.bed.lab.switch().observed(from, to)?;
        let losses = losses(&report, from, to);
        let loss = losses.first().context("the client has no target")?;
        let figures = figures(&seen, from, to);
        let figure = figures.first().context("nothing was observed")?;
        let old = &self.before.owner;
        let new = figure
            .owners
            .iter()
            .find(|owner| owner.port != *old && owner.first_answer >= at);
        Ok(Sample {
            row,
            contender: self.bed.contender,
            before: self.before.clone(),
            watched_ms: ns_to_ms(to - at),
            blackout_ms: loss.blackout_ms,
            sent: loss.sent,
            lost: loss.lost,
            takeover_ms: new.map(|owner| ns_to_ms(owner.first_answer - at)),
            dark_ms: figure.dark_ms,
            dual_ms: figure.dual_ms,
            #[expect(clippy::cast_precision_loss, reason = "a count of milliseconds")]
            stray_ms: figure.stray_intervals as f64 * ns_to_ms(seen.interval_ns),
            client_gap_ms: ns_to_ms(report.longest_gap_ns),
            observer_gap_ms: ns_to_ms(seen.longest_gap_ns),
        })
    }
}

//! What the demo shows and how it is judged.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::client::Loss;
use crate::cluster::{Lab, Readiness};
use crate::observer::{Figures, Judgement};
use crate::say::say;
use crate::sys::clock::ns_to_ms;

/// (VIP, node)
type Owners = [(String, String)];

/// The figures of a demo.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DemoReport {
    /// What floated the VIPs.
    pub backend: String,
    /// How long the cluster took to form, ms.
    pub formed_ms: f64,
    /// The first owners: (VIP, node).
    pub owners: Vec<(String, String)>,
    /// What was shown.
    pub steps: Vec<Step>,
    /// How long it took altogether, seconds.
    pub seconds: f64,
    /// What the observer saw of the whole time, the forming and what lies between the steps included.
    pub whole: Judgement,
    /// Whether the VIPs moved, nothing overlapped, and an overlap would have been seen.
    pub passed: bool,
    /// What was not as it must be.
    pub problems: Vec<String>,
    /// Why an overlap may have gone unseen, if it may: then the demo shows nothing, and is to be run again.
    pub inconclusive: Option<String>,
}

/// One step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Its name: quiet, crash, return, move.
    pub name: String,
    /// What happened.
    pub title: String,
    /// What it meant for each VIP address.
    pub vips: Vec<VipStep>,
}

/// What a step meant for one address of a VIP.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VipStep {
    /// The VIP.
    pub vip: String,
    /// The address.
    pub address: IpAddr,
    /// Who owned it before.
    pub from: String,
    /// Who owned it after.
    pub to: String,
    /// Requests that the client sent.
    pub requests: u64,
    /// Requests that were not answered.
    pub lost: u64,
    /// The client's longest blackout, ms.
    pub blackout_ms: f64,
    /// From the crash or command until the new owner's first answer to the prober, ms, if the VIP moved.
    pub takeover_ms: Option<f64>,
    /// For how long nobody answered the prober, ms.
    pub dark_ms: f64,
    /// For how long two nodes answered the prober, ms.
    pub two_owners_ms: f64,
    /// For how long a node that did not own the address sent in its name, ms.
    pub out_of_turn_ms: f64,
}

impl DemoReport {
    pub(super) fn new(backend: String) -> Self {
        Self {
            backend,
            formed_ms: 0.0,
            owners: Vec::new(),
            steps: Vec::new(),
            seconds: 0.0,
            whole: Judgement::default(),
            passed: false,
            problems: Vec::new(),
            inconclusive: None,
        }
    }

    pub(super) fn formed(&mut self, ready: &Readiness) {
        self.formed_ms = ready.after_ms;
        self.owners.clone_from(&ready.owners);
    }

    /// Notes a problem unless the VIP moved in this step, to `to` if that is said.
    pub(super) fn expect_moved(&mut self, step: &str, vip: &str, to: Option<&str>) {
        let found = self.steps.iter().find(|known| known.name == step);
        let parts = found.iter().flat_map(|step| &step.vips);
        let mut parts = parts.filter(|part| part.vip == vip).peekable();
        let moved = parts.peek().is_some()
            && parts.all(|part| part.from != part.to && to.is_none_or(|to| part.to == to));
        if !moved {
            self.problems
                .push(format!("VIP {vip} did not move in step '{step}'"));
        }
    }

    /// Notes every overlap of the whole time, in the steps and between them.
    pub(super) fn judge(&mut self, whole: Judgement) {
        self.problems.extend(whole.overlaps.iter().cloned());
        self.inconclusive = whole.blind();
        self.whole = whole;
    }

    /// Gives the verdict; nothing is noted after it.
    pub(super) fn conclude(&mut self) {
        self.passed = self.problems.is_empty() && self.inconclusive.is_none();
    }

    pub(super) fn print_formed(&self) {
        say!("   The cluster has formed after {:.0} ms:", self.formed_ms);
        for (vip, owner) in &self.owners {
            say!("     {vip} is on {owner}");
        }
    }

    pub(super) fn print_verdict(&self) {
        say!();
        if self.passed {
            say!(
                "PASSED in {:.0} s: the VIPs moved, and at no time did two nodes answer for one.",
                self.seconds
            );
        } else if self.problems.is_empty() {
            say!(
                "INCONCLUSIVE after {:.0} s: no overlap was seen, but one may have gone unseen.",
                self.seconds
            );
        } else {
            say!("FAILED after {:.0} s:", self.seconds);
            for problem in &self.problems {
                say!("  {problem}");
            }
        }
        if let Some(why) = &self.inconclusive {
            say!("  {why}");
        } else if self.whole.gap_ms > 5.0 {
            say!(
                "Mind: this machine is busy. The observer, which looks every millisecond, once did not look \
                 for {:.1} ms.",
                self.whole.gap_ms
            );
        }
    }
}

impl Step {
    pub(super) fn new(
        lab: &Lab,
        (name, title): (&str, String),
        (before, after): (&Owners, &Owners),
        losses: &[Loss],
        seen: &[Figures],
        at: Option<u64>,
    ) -> Self {
        let owner = |owners: &Owners, vip: &str| {
            let found = owners.iter().find(|(name, _)| name == vip);
            found.map_or_else(String::new, |(_, owner)| owner.clone())
        };
        let mut vips = Vec::new();
        for figures in seen {
            let Some(vip) = lab.topology().vip_of(figures.address) else {
                continue;
            };
            let target = std::net::SocketAddr::new(figures.address, 80).to_string();
            let loss = losses.iter().find(|loss| loss.target == target);
            let (from, to) = (owner(before, &vip.name), owner(after, &vip.name));
            let first = figures.owners.iter().rfind(|owner| owner.port == to);
            let takeover = first.zip(at).filter(|_| from != to);
            vips.push(VipStep {
                vip: vip.name.clone(),
                address: figures.address,
                takeover_ms: takeover
                    .map(|(owner, at)| ns_to_ms(owner.first_answer.saturating_sub(at))),
                from,
                to,
                requests: loss.map_or(0, |loss| loss.sent),
                lost: loss.map_or(0, |loss| loss.lost),
                blackout_ms: loss.map_or(0.0, |loss| loss.blackout_ms),
                dark_ms: figures.dark_ms,
                two_owners_ms: figures.dual_ms,
                #[expect(clippy::cast_precision_loss, reason = "a count of milliseconds")]
                out_of_turn_ms: figures.stray_intervals as f64
                    * crate::cluster::PROBE.as_secs_f64()
                    * 1_000.0,
            });
        }
        Self {
            name: name.to_owned(),
            title,
            vips,
        }
    }

    pub(super) fn print(&self) {
        say!(
            "     {:<7} {:<11} {:>9} {:>6} {:>12} {:>14} {:>12}",
            "VIP",
            "owner",
            "requests",
            "lost",
            "blackout",
            "nobody answers",
            "two answer"
        );
        for part in &self.vips {
            let owner = if part.from == part.to {
                part.to.clone()
            } else {
                format!("{} -> {}", part.from, part.to)
            };
            say!(
                "     {:<7} {owner:<11} {:>9} {:>6} {:>9.0} ms {:>11.0} ms {:>9.0} ms",
                part.vip,
                part.requests,
                part.lost,
                part.blackout_ms,
                part.dark_ms,
                part.two_owners_ms
            );
        }
    }
}

pub(super) fn print_start(lab: &Lab) {
    let topology = lab.topology();
    say!(
        "Three nodes, a client and a switch on this machine; {} floats the VIPs:",
        lab.backend().name()
    );
    for vip in &topology.vips {
        let addresses: Vec<_> = vip.addresses.iter().map(|(ip, _)| ip.to_string()).collect();
        let home = vip.priority.iter().max_by_key(|(_, priority)| **priority);
        say!(
            "   {} {}, nginx behind it, at home on {}",
            vip.name,
            addresses.join(" "),
            home.map_or("no node", |(node, _)| node)
        );
    }
    say!(
        "The client sends each VIP an HTTP request every 5 ms, on a new connection. An observer on the \n\
         switch asks every node every millisecond whether it answers for the VIP.\n"
    );
}

pub(super) fn print_title(number: usize, title: &str) {
    say!("\n{number}. {title}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(whole: Judgement) -> DemoReport {
        let mut report = DemoReport::new("Buoy".into());
        report.judge(whole);
        report.conclude();
        report
    }

    #[test]
    fn an_overlap_and_a_blind_observer_are_told_apart() {
        let clean = Judgement {
            gap_ms: 3.0,
            ..Judgement::default()
        };
        assert!(verdict(clean.clone()).passed);
        let blind = verdict(Judgement {
            gap_ms: 80.0,
            ..clean.clone()
        });
        assert!(!blind.passed && blind.problems.is_empty());
        assert!(
            blind
                .inconclusive
                .unwrap()
                .contains("did not look for 80 ms")
        );
        let overlap = verdict(Judgement {
            overlap_ms: 2.0,
            overlaps: vec!["n1 and n2".into()],
            ..clean
        });
        assert!(!overlap.passed && overlap.inconclusive.is_none());
        assert_eq!(overlap.problems, ["n1 and n2"]);
    }
}

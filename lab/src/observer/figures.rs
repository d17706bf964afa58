//! From who-answered-when to what a reader wants to know: owners, dark time, and time with two owners.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Observations, PortSet, TargetObservations};
use crate::runs::{Run, clip};
use crate::sys::clock::ns_to_ms;

/// The figures of one address over a stretch of time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// The address.
    pub address: IpAddr,
    /// Probes sent to each port.
    pub probes: u64,
    /// Who answered, in the order of time; two owners at once appear as overlapping entries.
    pub owners: Vec<Owner>,
    /// Times when nobody answered.
    pub dark: Vec<Dark>,
    /// Their sum, ms.
    pub dark_ms: f64,
    /// The longest of them, ms.
    pub longest_dark_ms: f64,
    /// Times when two or more ports answered the same probe.
    pub dual: Vec<Dual>,
    /// Number of such probes.
    pub dual_probes: u64,
    /// Number of such probes times the probe interval, ms.
    pub dual_ms: f64,
    /// Probe intervals in which a port spoke in the address's name while another one owned it.
    pub stray_intervals: u64,
    /// Ports that did so.
    pub stray_ports: Vec<String>,
}

/// A port that answered without a break.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// The port.
    pub port: String,
    /// Send time of the first probe that it answered, ns of CLOCK_BOOTTIME.
    pub first_answer: u64,
    /// Send time of the last probe that it answered, ns of CLOCK_BOOTTIME.
    pub last_answer: u64,
}

/// A time when nobody answered: from the first unanswered probe to the next answered one (or the end).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dark {
    /// Start, ns of CLOCK_BOOTTIME.
    pub from: u64,
    /// End, ns of CLOCK_BOOTTIME.
    pub to: u64,
}

/// A time when several ports answered the same probes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dual {
    /// The ports.
    pub ports: Vec<String>,
    /// Send time of the first such probe, ns of CLOCK_BOOTTIME.
    pub from: u64,
    /// Send time of the last one, ns of CLOCK_BOOTTIME.
    pub to: u64,
}

/// The figures of every observed address between `from` and `to` (ns of CLOCK_BOOTTIME).
#[must_use]
pub fn figures(seen: &Observations, from: u64, to: u64) -> Vec<Figures> {
    seen.targets
        .iter()
        .map(|target| of_target(seen, target, from, to))
        .collect()
}

fn of_target(seen: &Observations, target: &TargetObservations, from: u64, to: u64) -> Figures {
    let runs = clip(&target.runs, from, to);
    let strays = clip(&target.strays, from, to);
    let dark = dark(&runs, to);
    let lengths = || dark.iter().map(|dark| ns_to_ms(dark.to - dark.from));
    let shared = || runs.iter().filter(|run| run.key.count_ones() > 1);
    let dual_probes: u64 = shared().map(|run| run.count).sum();
    let mut stray_ports: Vec<_> = strays
        .iter()
        .map(|run| name(seen, usize::from(run.key)))
        .collect();
    stray_ports.sort();
    stray_ports.dedup();
    Figures {
        address: target.address,
        probes: runs.iter().map(|run| run.count).sum(),
        owners: owners(seen, &runs),
        dark_ms: lengths().fold(0.0, |sum, length| sum + length),
        longest_dark_ms: lengths().fold(0.0, f64::max),
        dark,
        dual: shared()
            .map(|run| Dual {
                ports: names(seen, run.key),
                from: run.first,
                to: run.last,
            })
            .collect(),
        dual_probes,
        dual_ms: ns_to_ms(dual_probes * seen.interval_ns),
        stray_intervals: strays.iter().map(|run| run.count).sum(),
        stray_ports,
    }
}

fn owners(seen: &Observations, runs: &[Run<PortSet>]) -> Vec<Owner> {
    let mut owners = Vec::new();
    for port in 0..seen.ports.len() {
        let mut current: Option<Owner> = None;
        for run in runs {
            if run.key >> port & 1 == 0 {
                owners.extend(current.take());
                continue;
            }
            let owner = current.get_or_insert_with(|| Owner {
                port: name(seen, port),
                first_answer: run.first,
                last_answer: run.last,
            });
            owner.last_answer = run.last;
        }
        owners.extend(current);
    }
    owners.sort_by_key(|owner| owner.first_answer);
    owners
}

fn dark(runs: &[Run<PortSet>], end: u64) -> Vec<Dark> {
    runs.iter()
        .enumerate()
        .filter(|(_, run)| run.key == 0)
        .map(|(at, run)| Dark {
            from: run.first,
            to: runs
                .get(at + 1)
                .map_or(end.max(run.last), |next| next.first),
        })
        .collect()
}

fn names(seen: &Observations, ports: PortSet) -> Vec<String> {
    (0..seen.ports.len())
        .filter(|&port| ports >> port & 1 == 1)
        .map(|port| name(seen, port))
        .collect()
}

fn name(seen: &Observations, port: usize) -> String {
    seen.ports
        .get(port)
        .cloned()
        .unwrap_or_else(|| format!("port {port}"))
}

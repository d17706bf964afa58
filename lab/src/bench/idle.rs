//! What a daemon costs while nothing happens: CPU time and memory, from /proc.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::bed::{Bed, Contender};
use crate::process::Process;

/// After the start, announcements go out for 6 s; that is not idleness.
const SETTLE: Duration = Duration::from_secs(8);

/// What the daemon of one node costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Idle {
    /// Who.
    pub contender: Contender,
    /// Number of VIPs in the cluster.
    pub vips: usize,
    /// The node.
    pub node: String,
    /// What the node did: owner, leader, neither.
    pub part: String,
    /// CPU time, percent of one core.
    pub cpu_percent: f64,
    /// Resident memory of all of the daemon's processes, MiB.
    pub rss_mib: f64,
    /// Over how long it was measured, seconds.
    pub seconds: f64,
}

struct Meter<'a> {
    bed: &'a Bed,
    node: String,
    part: String,
    processes: Vec<Process>,
    ticks: u64,
}

/// Measures all these labs over the same stretch of time, with observer and client off.
///
/// # Errors
/// A daemon has ended, or /proc cannot be read.
pub fn measure(beds: &[&Bed], time: Duration) -> Result<Vec<Idle>> {
    let mut parts = Vec::new();
    for bed in beds {
        parts.push(parts_of(bed)?);
        bed.look_away()?;
    }
    std::thread::sleep(SETTLE);
    let mut meters = Vec::new();
    let start = Instant::now();
    for (bed, parts) in beds.iter().zip(parts) {
        for (node, part) in parts {
            let processes = bed.daemons(&node)?;
            meters.push(Meter {
                bed,
                ticks: ticks(&processes)?,
                processes,
                node,
                part,
            });
        }
    }
    std::thread::sleep(time);
    meters
        .into_iter()
        .map(|meter| meter.read(start.elapsed()))
        .collect()
}

impl Meter<'_> {
    fn read(self, time: Duration) -> Result<Idle> {
        let used = ticks(&self.processes)?.saturating_sub(self.ticks);
        // SAFETY: sysconf takes an integer only.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let cpu = used as f64 / per_second as f64 / time.as_secs_f64();
        let mut rss = 0.0;
        for process in &self.processes {
            rss += rss_mib(process.id().pid)?;
        }
        Ok(Idle {
            contender: self.bed.contender,
            vips: self.bed.lab.topology().vips.len(),
            node: self.node,
            part: self.part,
            cpu_percent: cpu * 100.0,
            rss_mib: rss,
            seconds: time.as_secs_f64(),
        })
    }
}

/// The nodes that run a daemon, and what each of them does.
fn parts_of(bed: &Bed) -> Result<Vec<(String, String)>> {
    bed.observe()?;
    // Until the observer has its first answers.
    bed.lab.wait_ready(Duration::from_secs(60))?;
    let owners = bed.lab.owners()?;
    let leader = match bed.contender {
        Contender::Buoy => bed.situation()?.leader,
        _ => None,
    };
    let nodes = bed.lab.topology().nodes.iter();
    Ok(nodes
        .filter(|node| bed.lab.backend().runs_on(node))
        .map(|node| {
            let owned = owners.iter().filter(|(_, owner)| *owner == node.name);
            let mut part = match owned.count() {
                0 => "owns nothing".to_owned(),
                1 => "owns 1 VIP".to_owned(),
                more => format!("owns {more} VIPs"),
            };
            if leader.as_deref() == Some(&node.name) {
                part += ", leads";
            }
            (node.name.clone(), part)
        })
        .collect())
}

/// User and system time of all threads of these processes, clock ticks.
fn ticks(processes: &[Process]) -> Result<u64> {
    let mut sum = 0;
    for process in processes {
        let path = format!("/proc/{}/stat", process.id().pid);
        let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        sum += ticks_of(&stat).with_context(|| format!("{path} is not understood"))?;
    }
    Ok(sum)
}

/// Fields 14 and 15 of /proc/PID/stat.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn rss_mib(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib: Option<f64> = kib.and_then(|kib| kib.trim().parse().ok());
    Ok(kib.with_context(|| format!("{path} has no VmRSS"))? / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_fields_14_and_15() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 5 6 20 0 9 0 1234";
        assert_eq!(ticks_of(stat), Some(42));
        assert_eq!(ticks_of("7 (x) S 1"), None);
    }

    #[test]
    fn our_own_memory_can_be_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(rss_mib(pid).unwrap() > 0.1);
    }
}

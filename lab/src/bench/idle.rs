//! What a daemon costs while nothing happens: CPU time and memory, from /proc.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::bed::{Bed, Contender};
use crate::process::Process;
use crate::sys::cvt;

/// After the start, announcements go out for 6 s; that is not idleness.
pub const SETTLE: Duration = Duration::from_secs(8);

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
    used: Duration,
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
                used: cpu_time(&processes)?,
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
        let used = cpu_time(&self.processes)?.saturating_sub(self.used);
        let cpu = used.as_secs_f64() / time.as_secs_f64();
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

/// CPU time that these processes have used, in all of their threads, ended ones too: by the kernel's CPU clocks,
/// which count nanoseconds, where /proc/PID/stat counts ticks.
fn cpu_time(processes: &[Process]) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for process in processes {
        sum += used(process.id().pid)?;
    }
    Ok(sum)
}

fn used(pid: i32) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` is valid for the call.
    let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    ensure!(error == 0, "process {pid} has ended");
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for the call.
    cvt(unsafe { libc::clock_gettime(clock, &mut time) })
        .with_context(|| format!("read the CPU clock of process {pid}"))?;
    let (seconds, nanos) = (u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?);
    Ok(Duration::new(seconds, nanos))
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
    fn cpu_time_is_that_of_all_threads_and_finer_than_a_tick() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let began = used(pid).unwrap();
        assert!(began < Duration::from_secs(1), "{began:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(used(pid).is_err(), "it has ended");

        let own = i32::try_from(std::process::id()).unwrap();
        let before = used(own).unwrap();
        let spun = std::thread::spawn(|| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(5) {
                std::hint::spin_loop();
            }
        });
        spun.join().unwrap();
        assert!(used(own).unwrap() > before);
    }

    #[test]
    fn our_own_memory_can_be_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(rss_mib(pid).unwrap() > 0.1);
    }
}

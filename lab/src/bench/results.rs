//! Everything that one run of the benchmark has found, and on which machine.

use std::process::Command;

use serde::{Deserialize, Serialize};

use super::bed::Contender;
use super::crowd::Crowd;
use super::events::Row;
use super::idle::Idle;
use super::measure::Sample;
use super::soak::Soak;

/// Where and how it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Date and time at the start, UTC.
    pub date: String,
    /// The command.
    pub command: String,
    /// Version of Buoy.
    pub buoy: String,
    /// Build profile of Buoy.
    pub profile: String,
    /// Version of keepalived.
    pub keepalived: String,
    /// The processor.
    pub processor: String,
    /// Number of cores.
    pub cores: usize,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Version of the kernel.
    pub kernel: String,
    /// Load average at the start.
    pub load_before: String,
    /// Load average at the end.
    pub load_after: String,
    /// How long the run took, seconds.
    pub seconds: f64,
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Where.
    pub machine: Machine,
    /// Repeats that were asked for.
    pub repeats: u32,
    /// What client and observer saw.
    pub samples: Vec<Sample>,
    /// What the daemons cost.
    pub idle: Vec<Idle>,
    /// Two hundred VIPs of one node.
    pub crowds: Vec<Crowd>,
    /// The bad network.
    pub soak: Option<Soak>,
    /// Measurements that did not come about, and why.
    pub failures: Vec<String>,
}

impl Results {
    /// The samples of one row of one contender.
    pub fn samples(&self, row: Row, contender: Contender) -> impl Iterator<Item = &Sample> {
        let matches = move |it: &&Sample| it.row == row && it.contender == contender;
        self.samples.iter().filter(matches)
    }
}

impl Machine {
    /// This machine, now.
    #[must_use]
    pub fn here() -> Self {
        Self {
            date: output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            command: format!(
                "buoy {}",
                std::env::args().skip(1).collect::<Vec<_>>().join(" ")
            ),
            buoy: env!("CARGO_PKG_VERSION").to_owned(),
            profile: if cfg!(debug_assertions) {
                "debug (figures of CPU and memory say little)".to_owned()
            } else {
                "release".to_owned()
            },
            keepalived: output(Command::new("keepalived").arg("--version")),
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .unwrap_or(0)
                / 1_024,
            kernel: read("/proc/sys/kernel/osrelease"),
            load_before: load(),
            load_after: String::new(),
            seconds: 0.0,
        }
    }
}

/// The load average of the last 1, 5 and 15 minutes.
#[must_use]
pub fn load() -> String {
    let text = read("/proc/loadavg");
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.trim_start().strip_prefix(':'));
    value.map_or_else(|| "?".to_owned(), |value| value.trim().to_owned())
}

/// The first line of what a command prints; keepalived names its version on standard error.
fn output(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return "?".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("?").trim().to_owned()
}

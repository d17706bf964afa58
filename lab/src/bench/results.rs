//! Everything that one run of the benchmark has found, and on which machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::bed::Contender;
use super::crowd::Crowd;
use super::events::Row;
use super::idle::Idle;
use super::measure::Sample;
use super::soak::Soak;
use crate::ns::search_path;
use crate::observer::Judgement;
use crate::topology::DATA;

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
    /// Type of the file system on which the nodes keep their data.
    pub data: String,
    /// Load average at the start.
    pub load_before: String,
    /// Load average at the end.
    pub load_after: String,
    /// How long the run took, seconds.
    pub seconds: f64,
}

/// What the observer saw of one whole turn, from before the event until the cluster was whole again (Buoy), or
/// until the client was no longer watched (the others).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// Who.
    pub contender: Contender,
    /// Which turn.
    pub what: String,
    /// What was seen.
    pub judgement: Judgement,
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
    /// The turns, seen as a whole.
    pub turns: Vec<Turn>,
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
    /// Writes them to a file, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
            std::fs::rename(&new, path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

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
            // Without the words `lab bench`.
            command: command(&std::env::args().skip(3).collect::<Vec<_>>()),
            buoy: env!("CARGO_PKG_VERSION").to_owned(),
            profile: if cfg!(debug_assertions) {
                "debug (figures of CPU and memory say little)".to_owned()
            } else {
                "release".to_owned()
            },
            keepalived: output(
                Command::new("keepalived")
                    .env("PATH", search_path())
                    .arg("--version"),
            ),
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .unwrap_or(0)
                / 1_024,
            kernel: read("/proc/sys/kernel/osrelease"),
            data: file_system(&read("/proc/self/mounts"), Path::new(DATA)),
            load_before: load(),
            load_after: String::new(),
            seconds: 0.0,
        }
    }
}

/// The command as one gives it in the project's directory.
fn command(arguments: &[String]) -> String {
    match arguments {
        [] => "make bench".to_owned(),
        some => format!("make bench ARGS=\"{}\"", some.join(" ")),
    }
}

/// The type of the file system that holds a path: that of the longest mount point which leads there, the last of
/// several at one place.
fn file_system(mounts: &str, path: &Path) -> String {
    let mut found = (0, "?");
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let Some((point, kind)) = fields.next().zip(fields.next())
            && path.starts_with(point)
            && point.len() >= found.0
        {
            found = (point.len(), kind);
        }
    }
    found.1.to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount_point() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\nx /var/lib xfs rw 0 0\ny /var/lib/bu z rw 0 0";
        for (path, kind) in [
            ("/var/lib/buoy-lab", "xfs"),
            ("/run/buoy-lab", "tmpfs"),
            ("/home", "ext4"),
        ] {
            assert_eq!(file_system(mounts, Path::new(path)), kind);
        }
        assert_eq!(file_system("", Path::new("/")), "?");
    }

    #[test]
    fn the_command_is_one_for_make() {
        assert_eq!(command(&[]), "make bench");
        let some = ["--repeats".to_owned(), "20".to_owned()];
        assert_eq!(command(&some), "make bench ARGS=\"--repeats 20\"");
    }
}

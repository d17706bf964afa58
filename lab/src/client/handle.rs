//! A client in a process of its own, in a namespace.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::{ClientSpec, Report};
use crate::ns::Netns;
use crate::process::{Process, readable};
use crate::sys::clock::now_ns;

/// How long a report may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A running client; it ends when the value is dropped.
pub struct Client {
    process: Process,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    wait_ns: u64,
}

impl Client {
    /// Starts `program lab client` in the namespace; what it has to complain of goes to `log`.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn start(program: &Path, ns: &Netns, spec: &ClientSpec, log: &Path) -> Result<Self> {
        spec.check()?;
        let kind = spec.kind.to_possible_value();
        let mut command = ns.command(program)?;
        command
            .args(["lab", "client", "--kind"])
            .arg(kind.as_ref().map_or("", |kind| kind.get_name()))
            .args(["--interval-us", &spec.interval_us.to_string()])
            .args(["--deadline-ms", &spec.deadline_ms.to_string()]);
        for target in &spec.targets {
            command.args(["--target", &target.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log).with_context(|| format!("make {}", log.display()))?)
            .spawn()
            .with_context(|| format!("run {} lab client", program.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the client was started without pipes");
        };
        Ok(Self {
            process: Process::from_child(&child)?,
            input: Some(input),
            output: BufReader::new(output),
            wait_ns: spec.deadline_ms * 1_000_000 + 2 * spec.interval_us * 1_000,
        })
    }

    /// What it has seen since it was started.
    ///
    /// # Errors
    /// The client is gone, or does not answer within 5 s.
    pub fn report(&mut self) -> Result<Report> {
        let input = self.input.as_mut().context("the client was ended")?;
        input
            .write_all(b"report\n")
            .and_then(|()| input.flush())
            .context("ask the client for its report: it is gone, its log says why")?;
        if !readable(self.output.get_ref(), ANSWER) {
            bail!("the client gives no report within {} s", ANSWER.as_secs());
        }
        let mut line = String::new();
        let length = self.output.read_line(&mut line)?;
        if length == 0 {
            bail!("the client is gone; its log says why");
        }
        serde_json::from_str(&line).context("the client's report is not understood")
    }

    /// As [`Client::report`], but waits until every request started up to `until` (ns of CLOCK_BOOTTIME)
    /// has its outcome.
    ///
    /// # Errors
    /// As [`Client::report`], or the client stands still.
    pub fn report_until(&mut self, until: u64) -> Result<Report> {
        let give_up = until.max(now_ns()) + self.wait_ns + 5_000_000_000;
        loop {
            let report = self.report()?;
            if report.judged_until >= until {
                return Ok(report);
            }
            let now = now_ns();
            if now > give_up {
                bail!("the client stands still: it has no outcome of what it sent long ago");
            }
            // First as long as the outcome may take, then a little at a time.
            let wait = (until + self.wait_ns).saturating_sub(now).max(5_000_000);
            std::thread::sleep(Duration::from_nanos(wait));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of its standard input ends it; SIGKILL is for one that hangs.
        self.input = None;
        if self.process.wait_exit(Duration::from_secs(1)).is_err() {
            let _ = self.process.signal(libc::SIGKILL);
            let _ = self.process.wait_exit(Duration::from_secs(1));
        }
    }
}

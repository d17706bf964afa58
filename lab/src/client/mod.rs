//! Load as a client sees it: HTTP requests or ICMP echoes at a steady rate, whatever becomes of them.

mod handle;
mod http;
mod icmp;
mod order;
mod report;

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::sys::clock::now_ns;
use crate::sys::poll::{Epoll, Interest, Timer};
use crate::sys::realtime;

pub use handle::Client;
pub use report::{Failure, Loss, Outcome, Report, TargetReport, losses};

/// Most targets of one client.
pub const MAX_TARGETS: usize = 256;
/// Most requests of one target under way at once.
pub const MAX_IN_FLIGHT: u64 = 1_024;
/// Priority under SCHED_RR: above ordinary load, so that the client's own lateness is not measured.
const PRIORITY: i32 = 10;

const COMMAND: u64 = 0;
const TICK: u64 = 1;
/// First token that belongs to the prober.
const FIRST: u64 = 16;

/// What a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A new TCP connection and one GET each time.
    Http,
    /// An ICMP or ICMPv6 echo request each time.
    Icmp,
}

/// What a client is started with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, clap::Args)]
pub struct ClientSpec {
    /// What it sends.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Where to; ICMP ignores the port.
    #[arg(long = "target", required = true)]
    pub targets: Vec<SocketAddr>,
    /// Time between two requests to a target, microseconds, 200 to 1,000,000.
    #[arg(long)]
    pub interval_us: u64,
    /// When an unanswered request counts as lost, ms.
    #[arg(long)]
    pub deadline_ms: u64,
}

impl ClientSpec {
    fn check(&self) -> Result<()> {
        ensure!(
            (1..=MAX_TARGETS).contains(&self.targets.len()),
            "a client has 1 to {MAX_TARGETS} targets, not {}",
            self.targets.len()
        );
        ensure!(
            (200..=1_000_000).contains(&self.interval_us),
            "a request every {} us, expected 200 to 1000000 us",
            self.interval_us
        );
        let in_flight = self.deadline_ms.saturating_mul(1_000) / self.interval_us;
        ensure!(
            in_flight < MAX_IN_FLIGHT,
            "{in_flight} requests would be under way to one target, at most {MAX_IN_FLIGHT} may be"
        );
        Ok(())
    }
}

/// A kind of client.
trait Prober {
    /// Starts one request to every target, and gives up on those that are over their deadline.
    fn tick(&mut self, now: u64, epoll: &Epoll);
    /// Something happened on a descriptor of the prober's.
    fn ready(&mut self, token: u64, epoll: &Epoll);
    /// What was seen up to now.
    fn report(&self) -> Report;
}

/// Runs a client in the namespace of the calling process. Each line `report` on standard input is
/// answered by one line of JSON, a [`Report`]; the end of standard input ends the client.
///
/// # Errors
/// The values make no sense, a socket cannot be made, or the poll loop fails.
pub fn serve(spec: &ClientSpec) -> Result<()> {
    spec.check()?;
    let epoll = Epoll::new()?;
    // Without the right to do so it runs all the same; the report says how late it was.
    let _ = realtime(PRIORITY);
    match spec.kind {
        Kind::Http => run(spec, &epoll, http::Http::new(spec)),
        Kind::Icmp => run(spec, &epoll, icmp::Icmp::new(spec, &epoll)?),
    }
}

fn run(spec: &ClientSpec, epoll: &Epoll, mut prober: impl Prober) -> Result<()> {
    let stdin = std::io::stdin();
    epoll.add(stdin.as_fd(), COMMAND, Interest::Read)?;
    let timer = Timer::new()?;
    epoll.add(&timer, TICK, Interest::Read)?;
    let interval = spec.interval_us * 1_000;
    timer.set(now_ns() + interval, interval)?;
    let (mut last, mut longest_gap) = (None, 0);
    let mut ready = Vec::with_capacity(crate::sys::poll::EVENTS);
    loop {
        epoll.wait(&mut ready, -1)?;
        for &token in &ready {
            match token {
                COMMAND => {
                    if !command(&prober, longest_gap)? {
                        return Ok(());
                    }
                }
                TICK => {
                    if timer.fired() > 0 {
                        let now = now_ns();
                        longest_gap = longest_gap.max(now - last.unwrap_or(now));
                        last = Some(now);
                        prober.tick(now, epoll);
                    }
                }
                token => prober.ready(token, epoll),
            }
        }
    }
}

fn command(prober: &impl Prober, longest_gap_ns: u64) -> Result<bool> {
    let mut line = String::new();
    let length = std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("read a command")?;
    match line.trim() {
        _ if length == 0 => Ok(false),
        "report" => {
            let report = Report {
                longest_gap_ns,
                ..prober.report()
            };
            let mut text = serde_json::to_vec(&report)?;
            text.push(b'\n');
            let mut out = std::io::stdout().lock();
            out.write_all(&text).context("write the report")?;
            out.flush().context("write the report")?;
            Ok(true)
        }
        other => bail!("'{other}' is not a command; the only one is `report`"),
    }
}

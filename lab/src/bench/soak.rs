//! `buoy lab soak`: a bad network for a while, and what of it the leases notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::bed::{Bed, Contender};
use crate::cli::{OK, UNHEALTHY, Usage};
use crate::cluster::PROBE;
use crate::observer::{Figures, Judgement, figures};
use crate::switch::protocol::Faults;
use crate::sys::clock::{MS, duration_ns, now_ns, ns_to_ms};

/// VIPs of the lab.
const VIPS: usize = 2;
/// What a node writes to its log when a lease ran out under it.
const LOST: &str = "the lease ended: no majority of the voters renewed it in time";
/// What it writes whenever a VIP goes down on it, whatever the reason.
const DOWN: &str = "going down:";
/// How long the cluster may take to be well.
const READY: Duration = Duration::from_secs(60);
/// How long a node that is cut off may take to write that its lease ended.
const NOTICE: Duration = Duration::from_secs(5);
/// Longest soak, minutes.
const MAX_MINUTES: f64 = 24.0 * 60.0;

/// Arguments of `soak`.
#[derive(Args, Debug)]
pub struct SoakArgs {
    /// Frames that are lost on each link, percent.
    #[arg(long, default_value_t = 5.0)]
    loss: f64,
    /// Frames that arrive twice, percent.
    #[arg(long, default_value_t = 5.0)]
    dup: f64,
    /// Frames that are overtaken by later ones, percent.
    #[arg(long, default_value_t = 5.0)]
    reorder: f64,
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The program of the daemon; without it, this one.
    #[arg(long, value_name = "FILE")]
    buoy: Option<PathBuf>,
    /// The figures, for programs.
    #[arg(long)]
    json: bool,
}

/// What a bad network did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Soak {
    /// The faults of every link.
    pub faults: Faults,
    /// How long, seconds.
    pub seconds: f64,
    /// Leases that ran out, from the logs of the nodes.
    pub leases_lost: usize,
    /// VIPs that went down for whatever reason, from the logs of the nodes.
    pub went_down: usize,
    /// Changes of owner that the observer saw.
    pub owner_changes: usize,
    /// Time in which a VIP was not answered, ms, summed over the VIPs.
    pub dark_ms: f64,
    /// The longest of these times, ms.
    pub longest_dark_ms: f64,
    /// What the observer saw of all of it, until the links were good again and the cluster well.
    pub whole: Judgement,
    /// Raft elections: how far the term has grown.
    pub elections: u64,
}

impl Soak {
    /// Whether nobody who uses the VIPs could notice anything.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.leases_lost == 0
            && self.went_down == 0
            && self.owner_changes == 0
            && self.whole.overlap_ms == 0.0
    }

    /// One line that programs can search.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "leases_lost={} went_down={} owner_changes={} elections={} dark_ms={:.0} \
             longest_dark_ms={:.0} two_owners_ms={:.0}",
            self.leases_lost,
            self.went_down,
            self.owner_changes,
            self.elections,
            self.dark_ms,
            self.longest_dark_ms,
            self.whole.overlap_ms
        )
    }
}

pub(crate) fn run(args: &SoakArgs) -> Result<u8> {
    ensure!(
        args.minutes > 0.0 && args.minutes <= MAX_MINUTES,
        Usage(format!(
            "--minutes is {}, expected more than 0 and at most {MAX_MINUTES}",
            args.minutes
        ))
    );
    let faults = Faults {
        loss: args.loss / 100.0,
        duplicate: args.dup / 100.0,
        reorder: args.reorder / 100.0,
        ..Faults::default()
    };
    if let Err(why) = faults.check() {
        anyhow::bail!(Usage(why));
    }
    let time = Duration::from_secs_f64(args.minutes * 60.0);
    let buoy = match &args.buoy {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("find the path of this program")?,
    };
    let soak = measure(faults, time, &buoy)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&soak)?);
    } else {
        println!("{}", soak.line());
    }
    if let Some(why) = soak.whole.blind() {
        eprintln!("buoy lab soak: two owners may have gone unseen: {why}");
        return Ok(UNHEALTHY);
    }
    Ok(if soak.passed() { OK } else { UNHEALTHY })
}

/// Runs a Buoy cluster on links with these faults.
///
/// # Errors
/// The cluster does not form on good links, or does not get well when they are good again.
pub fn measure(faults: Faults, time: Duration, buoy: &Path) -> Result<Soak> {
    let bed = Bed::start(Contender::Buoy, VIPS, PROBE, buoy)?;
    bed.observe()?;
    bed.lab.wait_ready(READY)?;
    let before = logged(&bed);
    let term = term(&bed)?;
    let from = bed.lab.switch().link_faults(None, None, faults)?;
    std::thread::sleep(time);
    let to = now_ns();
    let after = logged(&bed);
    let seen = bed.lab.switch().observed(from + MS, to)?;
    let seen = figures(&seen, from + MS, to);
    bed.lab.heal()?;
    bed.lab.wait_ready(READY)?;
    let term_after = self::term(&bed)?;
    let whole = bed.judge()?;
    check_counter(&bed)?;
    Ok(Soak {
        faults,
        seconds: ns_to_ms(to - from) / 1e3,
        leases_lost: after.0 - before.0,
        went_down: after.1 - before.1,
        owner_changes: seen.iter().map(owner_changes).sum(),
        dark_ms: seen.iter().map(|it| it.dark_ms).sum(),
        longest_dark_ms: seen.iter().map(|it| it.longest_dark_ms).fold(0.0, f64::max),
        whole,
        elections: term_after.saturating_sub(term),
    })
}

/// A count of nothing says something only if what it counts would have been found: cuts an owner off, whose
/// lease must end, and looks for that.
fn check_counter(bed: &Bed) -> Result<()> {
    let before = logged(bed).0;
    let owner = bed.situation()?.owner;
    let others = bed.lab.topology().ports().filter(|port| *port != owner);
    let others = others.map(str::to_owned).collect();
    bed.lab.switch().partition(&[vec![owner.clone()], others])?;
    let end = now_ns() + duration_ns(NOTICE);
    while logged(bed).0 == before {
        ensure!(
            now_ns() < end,
            "{owner} was cut off, and its log does not say \"{LOST}\": the counts of the soak mean nothing"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn owner_changes(figures: &Figures) -> usize {
    let owners = figures.owners.windows(2);
    owners.filter(|pair| pair[0].port != pair[1].port).count()
}

/// How often the logs of the nodes speak of a lease that ended, and of a VIP that went down.
fn logged(bed: &Bed) -> (usize, usize) {
    let mut counts = (0, 0);
    for node in &bed.lab.topology().nodes {
        let text = fs::read_to_string(bed.lab.log(&node.name, "daemon")).unwrap_or_default();
        counts.0 += text.matches(LOST).count();
        counts.1 += text.matches(DOWN).count();
    }
    counts
}

fn term(bed: &Bed) -> Result<u64> {
    let status = bed.status()?;
    let term = status.get("term").and_then(serde_json::Value::as_u64);
    term.ok_or_else(|| anyhow::anyhow!("the status names no term"))
}

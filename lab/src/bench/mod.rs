//! `buoy lab bench`: Buoy and keepalived side by side, in the same lab, in turns.

mod bed;
mod crowd;
mod estimate;
mod events;
#[cfg(test)]
mod fixtures;
mod ground;
mod idle;
mod measure;
mod page;
mod results;
mod run;
mod soak;
mod stats;
mod targets;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::cli::{OK, UNHEALTHY, Usage};
use estimate::estimate;
use events::Event;
use results::{Machine, Results};
use run::Log;

pub use soak::SoakArgs;
pub(crate) use soak::run as soak;

/// The page that a whole run replaces.
const PAGE: &str = "docs/benchmarks.md";
/// Most repeats.
const MAX_REPEATS: u32 = 1_000;
/// The share of frames that are lost, that arrive twice, and that are overtaken in the soak.
const BAD: f64 = 0.05;
/// Parts of the run beside the events, by their names on the command line.
const PARTS: [&str; 3] = ["idle", "crowd", "soak"];

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Repeats of each event.
    #[arg(long, default_value_t = 10)]
    repeats: u32,
    /// Three repeats, 10 s of idleness, and 15 s of a bad network instead of 10 minutes: to see that it works.
    /// What that cannot show stays open.
    #[arg(long)]
    quick: bool,
    /// Only this: quiet, move, term, kill, crash, crash-leader, partition-with, partition-without, leader,
    /// idle, crowd or soak. May be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Where the page goes. Without it a whole run replaces docs/benchmarks.md, any other is printed.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The program of Buoy's daemon, to compare versions; without it, this one.
    #[arg(long, value_name = "FILE")]
    buoy: Option<PathBuf>,
    /// Where the figures of every repeat go, after each turn. Without it a whole run writes target/bench.json,
    /// any other target/bench-part.json.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Measure nothing: write the page from the figures that an earlier run has left (--results, --json).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "buoy", "results"])]
    render: Option<PathBuf>,
    /// The figures of every repeat on standard output, for programs.
    #[arg(long)]
    json: bool,
}

/// What a run consists of.
struct Scope {
    buoy: PathBuf,
    repeats: u32,
    crowds: u32,
    idle: Duration,
    soak: Duration,
}

impl BenchArgs {
    fn scope(&self) -> Result<Scope> {
        let seconds = |quick, plain| Duration::from_secs(if self.quick { quick } else { plain });
        let buoy = match &self.buoy {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("find the path of this program")?,
        };
        Ok(Scope {
            buoy,
            repeats: if self.quick { 3 } else { self.repeats },
            crowds: if self.quick { 1 } else { self.repeats.min(5) },
            // More than the 60 s after which every VIP is announced again.
            idle: seconds(10, 65),
            soak: seconds(15, 600),
        })
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        let all = Event::ALL.into_iter();
        all.filter(|event| self.wants(event.name()))
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }

    fn whole(&self) -> bool {
        !self.quick && self.only.is_empty()
    }

    /// Where the page goes; `None` stands for standard output.
    fn target(&self) -> Option<PathBuf> {
        let out = self.out.clone();
        out.or_else(|| self.whole().then(|| PathBuf::from(PAGE)))
    }

    fn results(&self) -> PathBuf {
        let file = if self.whole() {
            "target/bench.json"
        } else {
            "target/bench-part.json"
        };
        self.results.clone().unwrap_or_else(|| file.into())
    }

    fn check(&self) -> Result<()> {
        ensure!(
            (1..=MAX_REPEATS).contains(&self.repeats),
            Usage(format!(
                "--repeats is {}, expected 1 to {MAX_REPEATS}",
                self.repeats
            ))
        );
        let events = Event::ALL.iter().map(|event| event.name());
        let known: Vec<_> = events.chain(PARTS).collect();
        for name in &self.only {
            if !known.contains(&name.as_str()) {
                bail!(Usage(format!(
                    "--only {name}: there is no such part; there are {}",
                    known.join(", ")
                )));
            }
        }
        Ok(())
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<u8> {
    args.check()?;
    if let Some(path) = &args.render {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let results = serde_json::from_slice(&text);
        return publish(
            args,
            &results.with_context(|| format!("understand {}", path.display()))?,
        );
    }
    let scope = args.scope()?;
    let results = Results {
        machine: Machine::here(),
        repeats: scope.repeats,
        ..Results::default()
    };
    let mut log = Log::new(results, args.results())?;
    let minutes = estimate(args, &scope).as_secs_f64() / 60.0;
    say(format_args!(
        "this takes about {minutes:.0} minutes; after each turn the figures are in {}",
        args.results().display()
    ));
    run::everything(args, &scope, &mut log);
    publish(args, &log.results)
}

fn publish(args: &BenchArgs, results: &Results) -> Result<u8> {
    let page = page::page(results);
    match args.target() {
        Some(path) => {
            std::fs::write(&path, &page).with_context(|| format!("write {}", path.display()))?;
            say(format_args!("written: {}", path.display()));
        }
        None if !args.json => println!("{page}"),
        None => {}
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(results)?);
    }
    let verdicts = targets::verdicts(results);
    for verdict in &verdicts {
        let word = verdict.word();
        say(format_args!(
            "{}: {} ({})",
            word.trim_matches('*'),
            verdict.target,
            verdict.measured
        ));
    }
    let all_met = verdicts.iter().all(|verdict| verdict.met != Some(false));
    Ok(if all_met && results.failures.is_empty() {
        OK
    } else {
        UNHEALTHY
    })
}

/// Progress; standard output belongs to the results.
fn say(words: std::fmt::Arguments<'_>) {
    eprintln!("buoy lab bench: {words}");
}

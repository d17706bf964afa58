//! `buoy lab bench`: Buoy and keepalived side by side, in the same lab, in turns.

mod bed;
mod crowd;
mod events;
mod idle;
mod measure;
mod page;
mod results;
mod soak;
mod stats;
mod targets;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::cli::{OK, UNHEALTHY};
use crate::cluster::PROBE;
use crate::switch::protocol::Faults;
use bed::{Bed, Contender};
use events::Event;
use results::{Machine, Results};

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
    /// Three repeats, and short soaks: to see that it works.
    #[arg(long)]
    quick: bool,
    /// The bad network for 10 minutes, not for one.
    #[arg(long)]
    full: bool,
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
    /// Measure nothing: write the page from the figures that an earlier run gave with --json.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "full", "only", "buoy"])]
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
            idle: seconds(5, 20),
            soak: if self.full {
                Duration::from_secs(600)
            } else {
                seconds(15, 60)
            },
        })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }

    /// Where the page goes; `None` stands for standard output.
    fn target(&self) -> Option<PathBuf> {
        let whole = !self.quick && self.only.is_empty();
        self.out
            .clone()
            .or_else(|| whole.then(|| PathBuf::from(PAGE)))
    }

    fn check(&self) -> Result<()> {
        ensure!(
            (1..=MAX_REPEATS).contains(&self.repeats),
            "--repeats is {}, expected 1 to {MAX_REPEATS}",
            self.repeats
        );
        let events = Event::ALL.iter().map(|event| event.name());
        let known: Vec<_> = events.chain(PARTS).collect();
        for name in &self.only {
            if !known.contains(&name.as_str()) {
                bail!(
                    "--only {name}: there is no such part; there are {}",
                    known.join(", ")
                );
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
    let start = Instant::now();
    let scope = args.scope()?;
    let mut results = Results {
        machine: Machine::here(),
        repeats: scope.repeats,
        ..Results::default()
    };
    events_and_idle(args, &scope, &mut results)?;
    many_vips(args, &scope, &mut results)?;
    if args.wants("soak") {
        say(format_args!("a bad network for {:.0?}", scope.soak));
        let faults = Faults {
            loss: BAD,
            duplicate: BAD,
            reorder: BAD,
            ..Faults::default()
        };
        match soak::measure(faults, scope.soak, &scope.buoy) {
            Ok(soak) => {
                say(format_args!("{}", soak.line()));
                results.soak = Some(soak);
            }
            Err(error) => failed(&mut results, "soak", &error),
        }
    }
    results.machine.load_after = results::load();
    results.machine.seconds = start.elapsed().as_secs_f64();
    publish(args, &results)
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
        let word = verdict.word().trim_matches('*');
        say(format_args!(
            "{word}: {} ({})",
            verdict.target, verdict.measured
        ));
    }
    let all_met = verdicts.iter().all(|verdict| verdict.met != Some(false));
    Ok(if all_met && results.failures.is_empty() {
        OK
    } else {
        UNHEALTHY
    })
}

/// One VIP: idle first, then every event in turns.
fn events_and_idle(args: &BenchArgs, scope: &Scope, results: &mut Results) -> Result<()> {
    let events: Vec<_> = Event::ALL
        .into_iter()
        .filter(|event| args.wants(event.name()))
        .collect();
    if events.is_empty() && !args.wants("idle") {
        return Ok(());
    }
    let mut beds = start_beds(scope, 1, PROBE)?;
    measure_idle(args, scope, &beds, results);
    for repeat in 1..=scope.repeats {
        for &event in &events {
            for bed in &mut beds {
                if event.applies(bed.contender) {
                    turn(event, repeat, bed, results)?;
                }
            }
        }
    }
    Ok(())
}

/// One measurement of one contender. What goes wrong is noted, and the contender gets a new lab.
fn turn(event: Event, repeat: u32, bed: &mut Bed, results: &mut Results) -> Result<()> {
    let contender = bed.contender;
    let what = format!("{} {repeat}, {}", event.name(), contender.name());
    match event.run(bed) {
        Ok(samples) => {
            for it in &samples {
                say(format_args!(
                    "{what}: {:?}: blackout {:.1} ms, dark {:.1} ms, {} lost, takeover {:.0?} ms, two owners {:.0} ms",
                    it.row,
                    it.blackout_ms,
                    it.dark_ms,
                    it.lost,
                    it.takeover_ms.unwrap_or(f64::NAN),
                    it.overlap_ms()
                ));
            }
            results.samples.extend(samples);
        }
        Err(error) => {
            failed(results, &what, &error);
            bed.renew()?;
        }
    }
    Ok(())
}

/// Two hundred VIPs: idle, then the crash of the node that owns them all.
fn many_vips(args: &BenchArgs, scope: &Scope, results: &mut Results) -> Result<()> {
    if !args.wants("idle") && !args.wants("crowd") {
        return Ok(());
    }
    let mut beds = start_beds(scope, crowd::VIPS, crowd::PROBE)?;
    measure_idle(args, scope, &beds, results);
    if !args.wants("crowd") {
        return Ok(());
    }
    for repeat in 1..=scope.crowds {
        for bed in &mut beds {
            let what = format!("crowd {repeat}, {}", bed.contender.name());
            match crowd::crash(bed) {
                Ok(it) => {
                    say(format_args!(
                        "{what}: first up after {:.0} ms, the last {:.0?} ms later, {} missing",
                        it.first_ms,
                        it.spread_ms.unwrap_or(f64::NAN),
                        it.missing
                    ));
                    results.crowds.push(it);
                }
                Err(error) => {
                    failed(results, &what, &error);
                    bed.renew()?;
                }
            }
        }
    }
    Ok(())
}

fn start_beds(scope: &Scope, vips: usize, probe: Duration) -> Result<Vec<Bed>> {
    Contender::ALL
        .into_iter()
        .map(|contender| {
            say(format_args!("a lab for {}, {vips} VIP", contender.name()));
            Bed::start(contender, vips, probe, &scope.buoy)
        })
        .collect()
}

fn measure_idle(args: &BenchArgs, scope: &Scope, beds: &[Bed], results: &mut Results) {
    if !args.wants("idle") {
        return;
    }
    say(format_args!("idle for {:.0?}", scope.idle));
    match idle::measure(&beds.iter().collect::<Vec<_>>(), scope.idle) {
        Ok(idle) => results.idle.extend(idle),
        Err(error) => failed(results, "idle", &error),
    }
}

fn failed(results: &mut Results, what: &str, error: &anyhow::Error) {
    say(format_args!("{what}: FAILED: {error:#}"));
    results.failures.push(format!("{what}: {error:#}"));
}

/// Progress; standard output belongs to the results.
fn say(words: std::fmt::Arguments<'_>) {
    eprintln!("buoy lab bench: {words}");
}

//! `buoy-jepsen`: runs the checks of this crate from the command line.

use std::process::ExitCode;
use std::time::Instant;

use buoy_jepsen_tests::sim::gate::Kind;
use buoy_jepsen_tests::sim::{self, Bug, Config, Faults, Invariant, Stats};
use clap::{Parser, Subcommand};

/// Checks what Buoy promises about its leases.
#[derive(Parser)]
#[command(name = "buoy-jepsen", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the lease core of a whole cluster on one virtual clock, with random faults.
    Sim(SimArgs),
}

#[derive(clap::Args)]
struct SimArgs {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    seeds: u64,
    /// The first seed; alone (without --seeds) it is the only one, and is traced.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Length of the time with faults, in simulated milliseconds.
    #[arg(long, default_value_t = 6_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    chaos_ms: u64,
    /// Run without any fault.
    #[arg(long)]
    calm: bool,
    /// Give every node this kind of gate (exact, timed), instead of drawing each.
    #[arg(long, value_name = "KIND")]
    gates: Option<Kind>,
    /// Plant a bug, to see that it is found.
    #[arg(long, value_name = "NAME")]
    bug: Option<Bug>,
    /// Check only these invariants (S1, S2, S3, S4, S6, Rule, L1, L2).
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<Invariant>,
    /// Show the last things that happened before a violation.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let matches = <Cli as clap::CommandFactory>::command().get_matches();
    let one_seed = matches.subcommand().is_some_and(|(_, m)| {
        let given = |id| m.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
        given("seed") && !given("seeds")
    });
    let cli = match <Cli as clap::FromArgMatches>::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    let Command::Sim(args) = cli.command;
    run_sim(&args, one_seed)
}

fn run_sim(args: &SimArgs, one_seed: bool) -> ExitCode {
    let cfg = Config {
        faults: if args.calm { Faults::NONE } else { Faults::ALL },
        chaos_ms: args.chaos_ms,
        scenario: None,
        gates: args.gates,
        bug: args.bug,
        trace: args.trace || one_seed,
        checked: if args.only.is_empty() {
            Config::default().checked
        } else {
            args.only.clone()
        },
    };
    let first = args.seed.unwrap_or(0);
    let seeds = if one_seed { 1 } else { args.seeds };
    let began = Instant::now();
    let mut total = Stats::default();
    for seed in first..first.saturating_add(seeds) {
        match sim::run(seed, &cfg) {
            Ok(stats) => add(&mut total, stats),
            Err(violation) => {
                println!("seed {seed}: {violation}");
                println!("again, with what led to it: {}", again(args, seed));
                return ExitCode::FAILURE;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds in {seconds:.1} s ({:.0} a second): no violation. {} events, {} VIPs went down, \
         {} addresses stayed through an edit, {} assignments, {} memberships, {} daemons ended, {} were stopped, {} rounds of timed gates, {} refusals of them; slowest recovery {} ms",
        seeds as f64 / seconds.max(1e-9),
        total.events,
        total.shuts,
        total.kept,
        total.assigns,
        total.memberships,
        total.ends,
        total.pauses,
        total.rounds,
        total.refused,
        total.recovery_ms,
    );
    ExitCode::SUCCESS
}

/// The command line that runs one seed again.
fn again(args: &SimArgs, seed: u64) -> String {
    let mut line = format!("buoy-jepsen sim --seed {seed} --chaos-ms {}", args.chaos_ms);
    if args.calm {
        line.push_str(" --calm");
    }
    if let Some(kind) = args.gates {
        line.push_str(&format!(" --gates {kind}"));
    }
    if let Some(bug) = args.bug {
        line.push_str(&format!(" --bug {bug}"));
    }
    if !args.only.is_empty() {
        let names: Vec<String> = args.only.iter().map(|i| format!("{i:?}")).collect();
        line.push_str(&format!(" --only {}", names.join(",")));
    }
    line
}

fn add(total: &mut Stats, one: Stats) {
    total.events += one.events;
    total.shuts += one.shuts;
    total.kept += one.kept;
    total.assigns += one.assigns;
    total.memberships += one.memberships;
    total.ends += one.ends;
    total.pauses += one.pauses;
    total.rounds += one.rounds;
    total.refused += one.refused;
    total.recovery_ms = total.recovery_ms.max(one.recovery_ms);
}

//! `buoy lab` without the rest of `buoy`, for the lab's own tests.

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Harness {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(subcommand)]
    Lab(buoy_lab::cli::LabCommand),
}

fn main() -> std::process::ExitCode {
    let Command::Lab(command) = Harness::parse().command;
    std::process::ExitCode::from(buoy_lab::cli::run(command))
}

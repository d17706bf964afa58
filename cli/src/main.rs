//! The `buoy` binary: the daemon, and the commands that talk to a running cluster.

mod args;
mod check;
mod connect;
mod doctor;
mod error;
mod fence;
#[cfg(test)]
mod fixtures;
mod json;
mod node;
mod output;
#[cfg(test)]
mod pages;
mod serve;
mod status;
mod text;
mod tls;
mod vip;
mod vrrp;

use std::future::Future;
use std::process::ExitCode;

use args::{Cli, Command};
use error::{Failure, Verdict};
use output::Output;

fn main() -> ExitCode {
    let cli = args::parse();
    let code = match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message().is_empty() {
                eprintln!("buoy: {}", failure.message().trim_end());
            }
            failure.code()
        }
    };
    ExitCode::from(code)
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let out = &mut Output::stdout(cli.global.json);
    let verdict = match cli.command {
        Command::Serve { config } => serve::run(&config)?,
        Command::Lab(command) => return Ok(buoy_lab::cli::run(command)),
        Command::CheckConfig { file, no_host } => check::run(&file, no_host, out)?,
        Command::Tls(command) => tls::run(command, out)?,
        Command::Completions { shell } => completions(shell, out)?,
        Command::Status { watch } => talk(status::run(&cli.global, watch, out))?,
        Command::Vip(command) => talk(vip::run(&cli.global, command, out))?,
        Command::Node(command) => talk(node::run(&cli.global, command, out))?,
        Command::Doctor { config } => talk(doctor::run(config.as_deref(), out))?,
        Command::Fence(command) => talk(fence::run(&cli.global, command, out))?,
        Command::Vrrp(command) => talk(vrrp::run(&cli.global, command, out))?,
    };
    Ok(verdict.code())
}

/// Runs a command that talks to a node, or to the kernel's keepers.
fn talk(command: impl Future<Output = Result<Verdict, Failure>>) -> Result<Verdict, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Refused(format!("cannot start: {e}")))?;
    runtime.block_on(command)
}

fn completions(shell: clap_complete::Shell, out: &mut Output) -> Result<Verdict, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "buoy", &mut script);
    out.text(&String::from_utf8_lossy(&script))?;
    Ok(Verdict::Fine)
}

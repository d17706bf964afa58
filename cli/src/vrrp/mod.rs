//! `buoy vrrp ...`: what is said in VRRP around this machine.

mod filter;
mod seen;
mod status;
mod watch;

use crate::args::{Global, VrrpCommand};
use crate::error::{Failure, Verdict};
use crate::output::Output;

/// Runs a subcommand.
pub async fn run(
    options: &Global,
    command: VrrpCommand,
    out: &mut Output,
) -> Result<Verdict, Failure> {
    match command {
        VrrpCommand::Status => status::run(options, out).await,
        VrrpCommand::Watch(args) => watch::run(&args, out).await,
    }
}

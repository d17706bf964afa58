//! `buoy serve`: reads the configuration and becomes the daemon.

use std::path::Path;

use buoy_server::config::Config;

use crate::error::{Failure, Verdict};

/// Runs the daemon until it is told to stop.
pub fn run(file: &Path) -> Result<Verdict, Failure> {
    let config = Config::load(file).map_err(|e| Failure::Usage(e.render(false)))?;
    buoy_server::serve(config).map_err(|e| Failure::Refused(e.to_string()))?;
    Ok(Verdict::Fine)
}

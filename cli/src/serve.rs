//! `buoy serve`: reads the configuration and becomes the daemon.

use std::path::Path;

use buoy_server::StartError;
use buoy_server::config::Config;
use buoy_server::tls::TlsError;

use crate::error::{Failure, Verdict};

/// Runs the daemon until it is told to stop.
pub fn run(file: &Path) -> Result<Verdict, Failure> {
    let config = Config::load(file).map_err(|e| Failure::Usage(e.render(false)))?;
    buoy_server::serve(config).map_err(failure)?;
    Ok(Verdict::Fine)
}

/// A fault of the configuration exits with 2, so that systemd does not try again. A certificate can be
/// wrong for a while only (a file system that is not there yet, a clock that is not set): that is no such fault.
fn failure(e: StartError) -> Failure {
    match &e {
        StartError::Config(_) | StartError::Tls(TlsError::NodeName { .. }) => {
            Failure::Usage(e.to_string())
        }
        _ => Failure::Refused(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_configuration_exit_with_2_and_others_with_1() {
        let wrong = Config::parse(Path::new("f.toml"), b"").unwrap_err();
        let name = TlsError::NodeName { name: "n_1".into() };
        let setup = TlsError::Setup {
            problem: "x".into(),
        };
        for (error, code) in [
            (StartError::Config(wrong), 2),
            (StartError::Tls(name), 2),
            (StartError::Tls(setup), 1),
            (StartError::Raft("x".into()), 1),
        ] {
            let shown = error.to_string();
            assert_eq!(failure(error).code(), code, "{shown}");
        }
    }
}

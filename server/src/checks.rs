//! What is measured and checked before the daemon touches the network.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::time::Duration;

use buoy_storage::measure_fsync;
use tracing::{info, warn};

use crate::config::{
    Config, HostInterface, Problem, check_against_host, check_program, interfaces,
};
use crate::precheck::{Measured, judge, round_trip};
use crate::start::StartError;
use crate::sys;

const FSYNC_SAMPLES: usize = 16;
const WAKE_SAMPLES: usize = 20;
const WAKE_TICK: Duration = Duration::from_millis(5);

/// Who has this abstract socket has charge of the addresses and packet gates of its network namespace. The
/// kernel frees it when the process ends, however it ends.
const CHARGE: &str = "buoy.floating-addresses";

/// Takes charge of this host's addresses for as long as the value lives.
///
/// # Errors
/// Another daemon has it.
pub fn take_charge() -> Result<UnixListener, StartError> {
    let taken = |e: io::Error| {
        let e = match e.kind() {
            io::ErrorKind::AddrInUse => io::Error::new(
                e.kind(),
                "another buoy daemon has it already; stop that one first (two in one network namespace would undo each other's work)",
            ),
            _ => e,
        };
        StartError::System("take charge of this host's floating addresses", e)
    };
    SocketAddr::from_abstract_name(CHARGE)
        .and_then(|name| UnixListener::bind_addr(&name))
        .map_err(taken)
}

/// Has a daemon charge of this host's addresses? Only looks, and so never is in the way of one that starts.
///
/// # Errors
/// The kernel's list of sockets cannot be read.
pub fn in_charge() -> io::Result<bool> {
    // Of the network namespace of this thread; an abstract name stands there with an `@` (proc_net(5)).
    let sockets = std::fs::read_to_string("/proc/thread-self/net/unix")?;
    let name = format!("@{CHARGE}");
    Ok(sockets.lines().any(|line| line.ends_with(&name)))
}

/// What is wrong with the file's VIPs on this machine.
fn judge_vips(
    config: &Config,
    host: &[HostInterface],
    first_start: bool,
) -> Result<Vec<String>, StartError> {
    let errors = match check_against_host(config, host) {
        Ok(notes) => return Ok(notes),
        Err(errors) if first_start => return Err(StartError::Config(errors)),
        Err(errors) => errors,
    };
    let warn = |p: &Problem| {
        format!(
            "{}, but {}: ignored, because the cluster exists and has VIPs of its own",
            p.message,
            p.label()
        )
    };
    Ok(errors.problems().iter().map(warn).collect())
}

/// Measures durable writes in the data directory, wake-ups and round trips to the peers that answer.
///
/// # Errors
/// The data directory cannot be written.
pub async fn measure(config: &Config) -> Result<Measured, StartError> {
    let dir = config.data_dir.clone();
    let local = tokio::task::spawn_blocking(move || {
        let fsync = measure_fsync(&dir, FSYNC_SAMPLES)?;
        let lateness = sys::measure_wake_lateness(WAKE_SAMPLES, WAKE_TICK);
        // Asked on a thread that ends right after.
        let realtime = std::thread::spawn(|| sys::realtime(sys::LEASE_PRIORITY)).join();
        let realtime_refused = match realtime {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(e.to_string()),
            Err(_) => Some("the trial thread failed".to_owned()),
        };
        Ok(Measured {
            fsync,
            lateness,
            round_trips: Vec::new(),
            realtime_refused,
        })
    });
    let others: Vec<_> = config
        .nodes
        .iter()
        .filter(|n| n.id != config.me.id)
        .collect();
    let trips = futures::future::join_all(others.iter().map(|n| round_trip(n.address))).await;
    let measured = local
        .await
        .map_err(|e| StartError::System("measure this machine", std::io::Error::other(e)))?;
    let mut measured =
        measured.map_err(|e| StartError::System("measure durable writes in node.data_dir", e))?;
    measured.round_trips = others
        .iter()
        .zip(trips)
        .filter_map(|(node, trip)| Some((node.name.clone(), trip?)))
        .collect();
    Ok(measured)
}

/// Measures this machine against the timing profile, and the configuration against its interfaces.
/// Returns what an operator should know. `first_start`: the cluster is formed from this configuration; else
/// its VIPs are not used, and what is wrong with them is no reason not to start. `differences`: between
/// the file and the cluster, to be said with the rest.
///
/// # Errors
/// Reasons not to start, all at once.
pub async fn run(
    config: &Arc<Config>,
    first_start: bool,
    differences: Vec<String>,
) -> Result<Vec<String>, StartError> {
    check_program(config).map_err(StartError::Config)?;
    let mut warnings = config.warnings.clone();
    warnings.extend(differences);
    let host = interfaces().map_err(|e| StartError::System("list the interfaces", e))?;
    warnings.extend(judge_vips(config, &host, first_start)?);

    let measured = measure(config).await?;
    let (fsync, _) = sys::median_and_max(&measured.fsync);
    let (late, late_max) = sys::median_and_max(&measured.lateness);
    info!(
        "measured: durable write {fsync:.1?} (median), wake-up {late:.1?} late (at most {late_max:.1?}), round trips {:?}",
        measured.round_trips
    );
    let found = judge(&config.timing, &measured);
    if !found.refusals.is_empty() {
        return Err(StartError::Unfit(found.refusals));
    }
    warnings.extend(found.warnings);
    for warning in &warnings {
        warn!("{warning}");
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::EXAMPLE;

    #[test]
    fn vips_of_the_file_refuse_the_first_start_only() {
        let config = Config::parse(Path::new("f.toml"), EXAMPLE.as_bytes()).unwrap();
        let host = [HostInterface {
            name: "eth0".into(),
            prefixes: vec!["10.1.0.1/24".parse().unwrap()],
        }];
        let first = judge_vips(&config, &host, true).unwrap_err();
        assert!(matches!(first, StartError::Config(_)), "{first}");
        let later = judge_vips(&config, &host, false).unwrap();
        assert_eq!(later.len(), 2, "{later:?}");
        assert!(
            later[0].contains("192.168.192.13") && later[0].contains("ignored"),
            "{later:?}"
        );
    }
}

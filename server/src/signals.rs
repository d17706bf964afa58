//! Signals: SIGTERM and SIGINT stop the daemon, SIGHUP reads the configuration again.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::config::{Config, Contents};
use crate::logging::Log;
use crate::systemd::Systemd;

/// SIGHUP, and what it is about besides the configuration.
pub struct Hangup {
    signal: Signal,
    certificates: Contents,
}

/// Catches SIGHUP from now on: without a handler it ends the process. SIGTERM and SIGINT still do that
/// until [`wait`], so that a start can be broken off. To be called before the certificates are loaded.
///
/// # Errors
/// What the system said.
pub fn hangup(config: &Config) -> io::Result<Hangup> {
    Ok(Hangup {
        signal: signal(SignalKind::hangup())?,
        certificates: Contents::read(config),
    })
}

/// Waits until the daemon is to stop; serves SIGHUP meanwhile, also one that came before.
pub async fn wait(mut hup: Hangup, config: Arc<Config>, log: Log, systemd: Systemd) {
    let Some((mut term, mut int)) = signals() else {
        return std::future::pending().await;
    };
    let mut running = Config::clone(&config);
    loop {
        tokio::select! {
            _ = term.recv() => {
                info!("SIGTERM: stopping");
                return;
            }
            _ = int.recv() => {
                info!("SIGINT: stopping");
                return;
            }
            _ = hup.signal.recv() => {
                systemd.reloading();
                reload(&mut running, &hup.certificates, &log);
                systemd.ready();
            }
        }
    }
}

fn signals() -> Option<(Signal, Signal)> {
    let get = |kind| {
        signal(kind)
            .map_err(|e| error!("cannot handle signals: {e}"))
            .ok()
    };
    Some((get(SignalKind::terminate())?, get(SignalKind::interrupt())?))
}

/// Takes over what can be taken over, and names everything else. A file with errors changes nothing.
fn reload(running: &mut Config, certificates: &Contents, log: &Log) {
    let new = match Config::load(&running.path) {
        Ok(new) => new,
        Err(e) => {
            error!("SIGHUP: the configuration is refused, nothing was changed:\n{e}");
            return;
        }
    };
    let reload = running.diff(&new);
    let replaced = certificates.changed();
    if reload.is_empty() && replaced.is_empty() {
        info!("SIGHUP: the configuration is as before");
    }
    for change in &reload.can_apply {
        info!("SIGHUP: taken over: {change}");
    }
    for change in &reload.needs_restart {
        warn!("SIGHUP: not taken over, needs a restart: {change}");
    }
    for file in replaced {
        warn!("SIGHUP: not taken over, needs a restart: {file}");
    }
    for words in &reload.ignored {
        warn!("SIGHUP: ignored: {words}");
    }
    if let Err(e) = log.set(new.log_level) {
        error!("SIGHUP: the log level was not changed: {e}");
        return;
    }
    running.log_level = new.log_level;
}

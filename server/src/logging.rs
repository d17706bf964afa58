//! The daemon's log: one line an event on standard error, its level changeable while it runs.

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Changes the level of the running log.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<Targets, tracing_subscriber::Registry>);

/// Libraries speak of their own troubles at every election; ours are said by Buoy in its own words.
fn targets(level: Level) -> Targets {
    let libraries = if level >= Level::DEBUG {
        LevelFilter::INFO
    } else {
        LevelFilter::ERROR
    };
    let libraries = if level == Level::TRACE {
        LevelFilter::DEBUG
    } else {
        libraries
    };
    Targets::new()
        .with_default(libraries)
        .with_target("buoy", level)
}

/// Starts logging. A second call in the same process changes nothing.
pub fn start(level: Level) -> LogLevel {
    let (filter, handle) = reload::Layer::new(targets(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Fails only when a log exists already, as in tests that run several daemons.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    LogLevel(handle)
}

impl LogLevel {
    /// From now on events of `level` and above are logged.
    ///
    /// # Errors
    /// The log is gone.
    pub fn set(&self, level: Level) -> Result<(), reload::Error> {
        self.0.reload(targets(level))
    }
}

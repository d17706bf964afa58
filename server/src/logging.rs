//! The daemon's log: one line an event on standard error, its level changeable while it runs. Who logs never waits for
//! who reads: lines that find no room are lost, and counted.

use std::sync::Arc;
use std::time::Duration;

use tracing::{Level, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that wait to be written; more are lost.
const WAITING_LINES: usize = 16_384;
/// How often lost lines are told of.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The running log. The last clone writes out what waits when it is dropped.
#[derive(Clone)]
pub struct Log {
    level: reload::Handle<Targets, tracing_subscriber::Registry>,
    lost: ErrorCounter,
    _writer: Arc<WorkerGuard>,
}

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
pub fn start(level: Level) -> Log {
    let (filter, handle) = reload::Layer::new(targets(level));
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("buoy-log-out")
        .finish(std::io::stderr());
    let lost = writer.error_counter();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Fails only when a log exists already, as in tests that run several daemons.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    Log {
        level: handle,
        lost,
        _writer: Arc::new(guard),
    }
}

impl Log {
    /// From now on events of `level` and above are logged.
    ///
    /// # Errors
    /// The log is gone.
    pub fn set(&self, level: Level) -> Result<(), reload::Error> {
        self.level.reload(targets(level))
    }

    /// Says when lines were lost. Runs for ever.
    pub async fn tell_losses(self) {
        let mut told = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let lost = self.lost.dropped_lines();
            if lost > told {
                warn!(
                    "{} lines of the log were lost: whoever reads standard error is too slow",
                    lost - told
                );
                told = lost;
            }
        }
    }
}

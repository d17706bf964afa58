//! The outer fences: the unit's watchdog, which restarts the daemon, and the hardware's, which resets the machine.
//!
//! Both are fed on the word of one [`Judge`].

pub(crate) mod device;
mod feeding;
pub(crate) mod judge;

use std::io;
use std::path::Path;
use std::sync::Arc;

use buoy_fence::clock::boottime;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::lease::{LeaseIn, LeaseShared};

pub use device::{Armed, DeviceError};
pub use feeding::{Feeding, HardwareFeeder};
pub use judge::Judge;

/// Looks at the lease thread again and again, for ever: its answers are what the judge goes by. One that does not answer
/// is asked once only.
pub async fn look(shared: Arc<LeaseShared>, lease: UnboundedSender<LeaseIn>) {
    let mut every = interval(judge::LOOK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = None;
    loop {
        every.tick().await;
        if asked.is_none_or(|asked| shared.looked() >= Some(asked)) {
            asked = Some(boottime());
            if lease.send(LeaseIn::Look).is_err() {
                return;
            }
        }
    }
}

/// Starts the hardware watchdog; returns who feeds it, and what people should know of it.
///
/// # Errors
/// It cannot be used.
pub fn arm(path: &Path, judge: Arc<Judge>) -> Result<(HardwareFeeder, Vec<String>), DeviceError> {
    let mut armed = Armed::open(path)?;
    info!(
        "{} is armed: it resets this machine when it was not fed for {:?}; it is fed while leases are renewed or nothing is held",
        armed.name(),
        armed.timeout
    );
    let warnings = std::mem::take(&mut armed.warnings);
    let no_thread = |source: io::Error| DeviceError::Open {
        path: path.to_owned(),
        source,
    };
    let feeder = HardwareFeeder::start(armed, judge).map_err(no_thread)?;
    Ok((feeder, warnings))
}

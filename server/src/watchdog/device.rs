//! The hardware watchdog (`/dev/watchdog`): a timer that resets the machine unless it is fed in time.
//!
//! Opening the device starts its timer. Only the *magic close*, a `V` written before it is closed, stops it again; a daemon
//! that dies leaves it running. (Linux: Documentation/watchdog/watchdog-api.rst.)

#[cfg(test)]
pub(crate) mod fake;
mod kernel;

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libc::c_int;

pub(crate) use kernel::sysfs;
use kernel::{CharDevice, no_way_out};

/// Timeouts that are asked for, in seconds, the first that the device takes. Long enough for a daemon that crashed to be
/// started again and to feed on: the kernel's gate has shut its VIPs by then in any case.
const ASKED: [c_int; 3] = [10, 30, 60];
/// A shorter timeout than this would reset machines that are merely busy.
const SHORTEST: c_int = 5;

/// What [`Device::options`] may say (linux/watchdog.h).
const OPTION_MAGIC_CLOSE: u32 = 0x0100;
/// What [`Device::boot_status`] may say: the last reset was the watchdog's.
const BOOT_CARD_RESET: u32 = 0x0020;

/// Stops the timer, if the device is closed right after.
const MAGIC: &[u8] = b"V";
/// Anything but [`MAGIC`].
const FOOD: &[u8] = b"\0";

/// Why there is no hardware watchdog.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It cannot be opened.
    #[error("the hardware watchdog {} cannot be opened: {source}; {}", .path.display(), advice(.source))]
    Open {
        /// Of the device.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{} is no watchdog device ({found}); nothing was written to it. Expected one like /dev/watchdog, or no node.watchdog at all", .path.display()
    )]
    NoWatchdog {
        /// Of the file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// Its timeout is of no use.
    #[error(
        "the hardware watchdog {} cannot be used: {found}; expected a timeout of at least {SHORTEST} s. Use another device, or leave node.watchdog out", .path.display()
    )]
    Timeout {
        /// Of the device.
        path: PathBuf,
        /// What it says.
        found: String,
    },
}

fn advice(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EBUSY) => {
            "another program uses it: systemd itself does if RuntimeWatchdogSec= is set in system.conf, or it is the watchdog daemon. Only one can"
        }
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
            "is the driver of this machine's watchdog loaded? Without one, leave node.watchdog out"
        }
        _ => {
            "it must belong to root, and the unit must not hide devices (PrivateDevices=, DeviceAllow=)"
        }
    }
}

/// What is asked of a watchdog device.
pub trait Device: Send {
    /// What it can do.
    ///
    /// # Errors
    /// It is no watchdog.
    fn options(&mut self) -> io::Result<u32>;
    /// Why the machine was started.
    ///
    /// # Errors
    /// The driver's.
    fn boot_status(&mut self) -> io::Result<u32>;
    /// Asks for a timeout in seconds.
    ///
    /// # Errors
    /// Out of range, or the device has a fixed one.
    fn set_timeout(&mut self, seconds: c_int) -> io::Result<()>;
    /// The timeout in force, in seconds.
    ///
    /// # Errors
    /// The driver does not say.
    fn timeout(&mut self) -> io::Result<c_int>;
    /// Feeds it, or announces that it will be closed.
    ///
    /// # Errors
    /// The driver's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A watchdog whose timer runs.
pub struct Armed {
    device: Box<dyn Device>,
    path: PathBuf,
    /// The machine is reset when it was not fed for this long.
    pub timeout: Duration,
    /// What people should know of it.
    pub warnings: Vec<String>,
    no_way_out: bool,
}

impl Armed {
    /// Opens the device and starts its timer.
    ///
    /// # Errors
    /// Why it cannot be used; then the timer does not run, unless the kernel refuses to stop it.
    pub fn open(path: &Path) -> Result<Armed, DeviceError> {
        let failed = |source| DeviceError::Open {
            path: path.to_owned(),
            source,
        };
        let Some(directory) = sysfs(path).map_err(failed)? else {
            return Err(DeviceError::NoWatchdog {
                path: path.to_owned(),
                found: "it is no character device".to_owned(),
            });
        };
        let no_way_out = no_way_out(&directory);
        let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
        Armed::start(Box::new(CharDevice(file)), path, no_way_out)
    }

    /// As [`Armed::open`], with a device that is open.
    fn start(
        mut device: Box<dyn Device>,
        path: &Path,
        no_way_out: bool,
    ) -> Result<Armed, DeviceError> {
        let path = path.to_owned();
        let options = match device.options() {
            Ok(options) => options,
            Err(e) => {
                let found = format!("it does not answer as one: {e}");
                return Err(DeviceError::NoWatchdog { path, found });
            }
        };
        // What it refuses, it shows in the timeout that is in force.
        let _taken = ASKED.iter().find(|s| device.set_timeout(**s).is_ok());
        let timeout = match device.timeout() {
            Ok(seconds) if seconds >= SHORTEST => seconds,
            other => {
                let found = match other {
                    Ok(seconds) => format!("it takes no longer timeout than {seconds} s"),
                    Err(e) => format!("it does not tell its timeout ({e})"),
                };
                // Dropped right after this. What the kernel does not stop, nobody can.
                let _ = device.write(MAGIC);
                return Err(DeviceError::Timeout { path, found });
            }
        };
        let at = path.display();
        let mut warnings = Vec::new();
        if no_way_out {
            warnings.push(format!(
                "the hardware watchdog {at} cannot be stopped any more (nowayout): {timeout} s after the daemon has ended, however it ended, the machine is reset, unless the daemon runs again by then"
            ));
        }
        if options & OPTION_MAGIC_CLOSE == 0 {
            warnings.push(format!(
                "the hardware watchdog {at} stops when it is closed (no magic close): it does not reset a machine whose daemon was killed"
            ));
        }
        // Many drivers do not say.
        if device.boot_status().unwrap_or(0) & BOOT_CARD_RESET != 0 {
            warnings.push(format!(
                "this machine was last reset by its hardware watchdog {at}"
            ));
        }
        Ok(Armed {
            device,
            timeout: Duration::from_secs(u64::from(timeout.unsigned_abs())),
            path,
            warnings,
            no_way_out,
        })
    }

    /// For messages.
    pub fn name(&self) -> String {
        format!("the hardware watchdog {}", self.path.display())
    }

    /// The machine may run on for another timeout.
    ///
    /// # Errors
    /// The driver's.
    pub fn feed(&mut self) -> io::Result<()> {
        self.device.write(FOOD)
    }

    /// Stops the timer and closes the device.
    ///
    /// # Errors
    /// The timer goes on.
    pub fn disarm(mut self) -> io::Result<()> {
        self.device.write(MAGIC)?;
        if self.no_way_out {
            return Err(io::Error::other(
                "the kernel does not let anybody stop it (nowayout)",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

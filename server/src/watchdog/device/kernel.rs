//! The kernel's watchdog device: its requests, and what is known of it without opening it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use libc::{_IOR, _IOWR, Ioctl, c_int};

use super::Device;

/// The kernel's device.
pub(super) struct CharDevice(pub(super) File);

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

const GET_SUPPORT: Ioctl = _IOR::<Info>(b'W' as u32, 0);
const GET_BOOT_STATUS: Ioctl = _IOR::<c_int>(b'W' as u32, 2);
const SET_TIMEOUT: Ioctl = _IOWR::<c_int>(b'W' as u32, 6);
const GET_TIMEOUT: Ioctl = _IOR::<c_int>(b'W' as u32, 7);

impl CharDevice {
    fn number(&self, request: Ioctl, mut value: c_int) -> io::Result<c_int> {
        // SAFETY: the requests given here read and write one int, and `value` outlives the call.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, &mut value) } {
            0 => Ok(value),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Device for CharDevice {
    fn options(&mut self) -> io::Result<u32> {
        let mut info = Info::default();
        // SAFETY: the kernel writes a `watchdog_info`, and `info` outlives the call.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), GET_SUPPORT, &mut info) } {
            0 => Ok(info.options),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn boot_status(&mut self) -> io::Result<u32> {
        self.number(GET_BOOT_STATUS, 0).map(c_int::cast_unsigned)
    }

    fn set_timeout(&mut self, seconds: c_int) -> io::Result<()> {
        self.number(SET_TIMEOUT, seconds).map(|_| ())
    }

    fn timeout(&mut self) -> io::Result<c_int> {
        self.number(GET_TIMEOUT, 0)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}

/// Whether the kernel refuses ever to stop this timer; false where it does not say.
pub(super) fn no_way_out(directory: &str) -> bool {
    let text = std::fs::read_to_string(format!("/{directory}/nowayout"));
    text.is_ok_and(|text| text.trim() == "1")
}

/// Where the kernel tells of a watchdog without opening it, below the root directory; `None`: it is no character device.
///
/// # Errors
/// There is no such file, or it may not be looked at.
pub(crate) fn sysfs(path: &Path) -> io::Result<Option<String>> {
    let about = std::fs::metadata(path)?;
    if !about.file_type().is_char_device() {
        return Ok(None);
    }
    let (major, minor) = (libc::major(about.rdev()), libc::minor(about.rdev()));
    Ok(Some(match (major, minor) {
        // The old name of the first one.
        (10, 130) => "sys/class/watchdog/watchdog0".to_owned(),
        _ => format!("sys/dev/char/{major}:{minor}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of linux/watchdog.h, as compiled C has them on x86 and ARM.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn the_requests_are_those_of_the_kernel() {
        assert_eq!(size_of::<Info>(), 40);
        let requests = [GET_SUPPORT, GET_BOOT_STATUS, SET_TIMEOUT, GET_TIMEOUT];
        assert_eq!(
            requests,
            [0x8028_5700, 0x8004_5702, 0xc004_5706, 0x8004_5707]
        );
    }
}

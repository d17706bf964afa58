//! One TAP device: the cable between a node's namespace and the switch.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};

use crate::ns::Netns;
use crate::sys::{cvt, iface};

/// Largest frame: 1500 bytes of payload, the Ethernet header, and one VLAN tag.
pub const MAX_FRAME: usize = 1518;

/// The switch's end of a TAP device. The device goes when the value is dropped.
pub struct Tap(OwnedFd);

impl Tap {
    /// Makes the device inside the namespace and sets it up.
    ///
    /// # Errors
    /// No /dev/net/tun, no permission, or the name is taken.
    pub fn create(ns: &Netns, name: &str, mac: [u8; 6]) -> Result<Self> {
        ns.enter(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .context("open /dev/net/tun (is the kernel module `tun` loaded?)")?;
            let mut request = iface::request(name)?;
            #[expect(clippy::cast_possible_truncation, reason = "flags of 16 bits")]
            let flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
            request.ifr_ifru.ifru_flags = flags;
            // SAFETY: TUNSETIFF reads and writes an ifreq, which `request` is.
            cvt(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) })
                .with_context(|| format!("make TAP device {name} in {}", ns.name()))?;
            iface::set_mac(name, mac)?;
            iface::set_up(name, true)?;
            Ok(Self(file.into()))
        })
    }

    /// Switches the carrier that the node sees.
    ///
    /// # Errors
    /// The kernel has no TUNSETCARRIER (before Linux 5.0), or the device is gone.
    pub fn set_carrier(&self, up: bool) -> io::Result<()> {
        let value = libc::c_int::from(up);
        // SAFETY: TUNSETCARRIER reads an int, which `value` is.
        cvt(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNSETCARRIER, &value) }).map(drop)
    }

    /// Takes one frame that the node has sent; `None` if there is none.
    ///
    /// # Errors
    /// The device is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        // SAFETY: the buffer is valid for its length, which the call is told.
        let read =
            unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(read) {
            Ok(length) => Ok(Some(length)),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Gives the node one frame; false if it did not take it (interface down, no carrier).
    #[must_use]
    pub fn write(&self, frame: &[u8]) -> bool {
        // SAFETY: the frame is valid for its length, which the call is told.
        let written =
            unsafe { libc::write(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len()) };
        written >= 0
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

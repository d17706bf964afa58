//! Frames onto a device as they are, through AF_PACKET.
#![allow(
    dead_code,
    reason = "every test file compiles its own copy and uses a part of it"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::common::NetNs;

/// Sends a frame out of a device, with `protocol` in the packet's metadata.
pub fn send(ns: &NetNs, device: &str, protocol: u16, frame: &[u8]) -> io::Result<()> {
    let ifindex = ns.ifindex(device);
    ns.run(|| {
        // SAFETY: plain call; the descriptor is new and owned at once.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "AF_PACKET: {}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: ifindex.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        // SAFETY: frame and address are valid for the lengths given.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    })
}

/// The same frame, to everybody.
pub fn broadcast(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].fill(0xff);
    frame
}

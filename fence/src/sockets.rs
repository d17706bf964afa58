//! What sockets of several kinds need alike: their options, and netlink sockets that ask and wait for the answer.

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::{Socket, SocketAddr};

/// How long one answer may take. The kernel answers within the call that asks; only its locks can hold it up.
const ANSWER_WITHIN: libc::timeval = libc::timeval {
    tv_sec: 2,
    tv_usec: 0,
};

/// Sets an option of a socket (setsockopt(2)). `T`: what the kernel takes as the value of this one.
///
/// # Errors
/// The kernel's refusal.
pub fn set_option<T>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is of the length given, and the call only reads it.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            length,
        )
    };
    match rc {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A blocking netlink socket for requests, in the network namespace of this thread, and its port. It waits for an
/// answer no longer than [`late`] says.
pub(crate) fn asking(protocol: isize) -> io::Result<(Socket, u32)> {
    let mut socket = Socket::new(protocol)?;
    let port = socket.bind_auto()?.port_number();
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &ANSWER_WITHIN)?;
    Ok((socket, port))
}

/// What a socket of [`asking`] says, in words if no answer came.
pub(crate) fn late(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => io::Error::other(format!(
            "the kernel did not answer a netlink request within {} s",
            ANSWER_WITHIN.tv_sec
        )),
        _ => e,
    }
}

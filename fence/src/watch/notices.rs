//! The kernel's own notices about interfaces, addresses and traffic control.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::link::{FoundAddress, Link};
use crate::rtnl::{Message, Messages, RECEIVE_BYTES};
use crate::sockets::set_option;

/// Kernel memory for notices that wait, in bytes: a few thousand. Beyond it the kernel drops them and says so.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;
/// Datagrams taken in one go, so that a storm of notices lets other work through.
const DATAGRAMS: usize = 128;

/// `1 << (RTNLGRP - 1)` of LINK (1), TC (4), IPV4_IFADDR (5), IPV6_IFADDR (9).
const GROUPS: u32 = 1 | 1 << 3 | 1 << 4 | 1 << 8;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_NEWCHAIN: u16 = 100;
const RTM_DELCHAIN: u16 = 101;

/// One notice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// An interface is new or changed.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32),
    /// An address is new or changed.
    AddressNew(FoundAddress),
    /// An address is gone.
    AddressGone(FoundAddress),
    /// Traffic control of an interface changed.
    Tc(u32),
    /// Notices were lost.
    Overrun,
}

/// The multicast socket. It is not the one that requests go through.
pub(crate) struct Notices {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl Notices {
    /// Subscribes; notices caused through the socket with address `ours` are left out where the kernel
    /// says who caused them (not for IPv6 addresses).
    ///
    /// # Errors
    /// When the kernel refuses the socket, or outside a tokio runtime with I/O.
    pub(crate) fn open(ours: u32) -> io::Result<Notices> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        let size = RECEIVE_BUFFER;
        if set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &size).is_err() {
            // Without CAP_NET_ADMIN: as large as the host allows; an overrun is dealt with anyway.
            socket.set_rx_buf_sz(size)?;
        }
        leave_out(&socket, ours)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        // SAFETY: the socket owns its descriptor, never changes it, and closes it when it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Notices {
            socket,
            buffer: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// Waits for notices; up to [`DATAGRAMS`] datagrams of them. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// When the socket is broken.
    pub(crate) async fn next(&mut self) -> io::Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let mut guard = self.socket.readable().await?;
        for _ in 0..DATAGRAMS {
            self.buffer.clear();
            let buffer = &mut self.buffer;
            match guard.try_io(|socket| socket.get_ref().recv(buffer, 0)) {
                Ok(Ok(_)) => notices.extend(Messages(&self.buffer).filter_map(decode)),
                Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    notices.push(Notice::Overrun);
                }
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => break,
            }
        }
        Ok(notices)
    }
}

/// Has the kernel drop messages whose header names `port` as their cause.
pub(crate) fn leave_out(socket: &Socket, port: u32) -> io::Result<()> {
    let step = |code: u32, k, jt, jf| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    // A filter reads words in network order.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 12, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, port, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // The kernel copies the filter, and the program that it names.
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

fn decode(message: Message<'_>) -> Option<Notice> {
    let payload = message.payload;
    let index = || {
        payload
            .get(4..8)?
            .first_chunk()
            .map(|b| u32::from_ne_bytes(*b))
    };
    match message.kind {
        // A bridge speaks of its ports by the same messages, in its own family: not about the interface.
        RTM_NEWLINK | RTM_DELLINK if payload.first() != Some(&0) => None,
        RTM_NEWLINK => Link::parse(payload).map(Notice::Link),
        RTM_DELLINK => index().map(Notice::LinkGone),
        RTM_NEWADDR => FoundAddress::parse(payload).map(Notice::AddressNew),
        RTM_DELADDR => FoundAddress::parse(payload).map(Notice::AddressGone),
        RTM_NEWQDISC | RTM_DELQDISC | RTM_NEWTFILTER | RTM_DELTFILTER | RTM_NEWCHAIN
        | RTM_DELCHAIN => index().map(Notice::Tc),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: u16, payload: &[u8]) -> Option<Notice> {
        decode(Message {
            kind,
            flags: 0,
            sequence: 0,
            payload,
        })
    }

    #[test]
    fn a_bridge_port_is_no_interface() {
        let mut payload = [0; 16];
        payload[4] = 7;
        assert_eq!(told(RTM_DELLINK, &payload), Some(Notice::LinkGone(7)));
        payload[0] = libc::AF_BRIDGE as u8;
        assert_eq!(told(RTM_DELLINK, &payload), None);
        assert_eq!(told(RTM_NEWLINK, &payload), None);
    }

    #[test]
    fn broken_notices_are_none() {
        assert_eq!(told(RTM_DELLINK, &[0, 0, 0]), None);
        assert_eq!(told(RTM_NEWADDR, &[2]), None);
        assert_eq!(told(RTM_DELTFILTER, &[]), None);
        assert_eq!(told(9999, &[0; 64]), None);
    }
}

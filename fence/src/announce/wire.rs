//! Sockets of one interface: frames out as they are, ARP packets and neighbour advertisements in.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::frames::{ADVERTISEMENT, ARP_PACKET};

/// Longest neighbour advertisement that is read, in bytes; the rest of a longer one is cut off.
const NA_BYTES: usize = 256;
/// `ICMP6_FILTER` of linux/icmpv6.h.
const ICMP6_FILTER: libc::c_int = 1;

/// An address of `ifindex` for AF_PACKET; `protocol` is an EtherType, or zero for none.
fn link_address(ifindex: u32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll fits into the storage, and all zeros are a valid value of it.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex.cast_signed();
    // SAFETY: the storage holds a sockaddr_ll, and this is its length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// Sends Ethernet frames out of one interface. They pass the packet gate like every other packet.
pub(super) struct FrameSender {
    socket: Socket,
    to: SockAddr,
}

impl FrameSender {
    pub(super) fn open(ifindex: u32) -> io::Result<FrameSender> {
        // Protocol 0: it receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        let to = link_address(ifindex, 0);
        Ok(FrameSender { socket, to })
    }

    /// # Errors
    /// `ENOBUFS` if the packet gate (or a full queue) dropped it; others if the interface cannot send.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &self.to).map(drop)
    }
}

/// ARP packets that arrive on one interface.
pub(super) struct ArpReceiver(AsyncFd<Socket>);

impl ArpReceiver {
    pub(super) fn open(ifindex: u32) -> io::Result<ArpReceiver> {
        let protocol = libc::ETH_P_ARP as u16;
        // It hears nothing until it is bound to protocol and interface at once.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.bind(&link_address(ifindex, protocol))?;
        // SAFETY: the socket owns its descriptor, never changes it, and closes it when it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(ArpReceiver(socket))
    }

    /// The next packet, without its Ethernet header and trailer.
    pub(super) async fn next(&self) -> io::Result<Vec<u8>> {
        loop {
            let mut guard = self.0.readable().await?;
            let mut buffer = [MaybeUninit::<u8>::uninit(); ARP_PACKET];
            match guard.try_io(|socket| socket.get_ref().recv(&mut buffer)) {
                Ok(length) => return Ok(initialized(&buffer, length?)),
                Err(_would_block) => {}
            }
        }
    }
}

fn initialized(buffer: &[MaybeUninit<u8>], length: usize) -> Vec<u8> {
    let filled = &buffer[..length.min(buffer.len())];
    // SAFETY: the kernel has written that many bytes.
    filled
        .iter()
        .map(|byte| unsafe { byte.assume_init() })
        .collect()
}

/// Neighbour advertisements that arrive on one interface.
pub(super) struct NaReceiver(AsyncFd<Socket>);

impl NaReceiver {
    pub(super) fn open(interface: &str) -> io::Result<NaReceiver> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        // A set bit blocks its type.
        let mut blocked = [u32::MAX; 8];
        blocked[usize::from(ADVERTISEMENT) / 32] &= !(1 << (ADVERTISEMENT % 32));
        set_option(&socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &blocked)?;
        let on: libc::c_int = 1;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &on)?;
        // SAFETY: the socket owns its descriptor, never changes it, and closes it when it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(NaReceiver(socket))
    }

    /// The next advertisement that came from this link: its hop limit is still 255.
    pub(super) async fn next(&self) -> io::Result<Vec<u8>> {
        loop {
            let mut guard = self.0.readable().await?;
            match guard.try_io(|socket| receive_with_hop_limit(socket.get_ref())) {
                Ok(Ok((message, Some(255)))) => return Ok(message),
                Ok(Ok(_from_afar)) => {}
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => {}
            }
        }
    }
}

fn set_option<T>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
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

fn receive_with_hop_limit(socket: &Socket) -> io::Result<(Vec<u8>, Option<i32>)> {
    let mut bytes = vec![0u8; NA_BYTES];
    // Words, so that the control messages in it are aligned.
    let mut control = [0u64; 8];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeros are a valid msghdr.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header names buffers that live across the call, with their lengths.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(length);

    let mut limit = None;
    // SAFETY: the kernel has filled the header and the control buffer, which both still live; the
    // macros stay within `msg_controllen`.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            let kind = ((*message).cmsg_level, (*message).cmsg_type);
            if kind == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) {
                limit = Some(libc::CMSG_DATA(message).cast::<i32>().read_unaligned());
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Ok((bytes, limit))
}

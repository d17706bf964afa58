//! Packets as they pass the network interfaces, by AF_PACKET: without what is in front of IP or ARP.

use std::ffi::CStr;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sockets::set_option;

/// One instruction of a classic BPF program; which packets it lets through, it says by their length.
pub use libc::sock_filter as Instruction;

/// Of linux/if_packet.h: `tp_status` of an auxiliary message, there was a VLAN tag.
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
/// The lower 12 bits of a VLAN tag are the number of the VLAN.
const VLAN_ID: u16 = 0x0fff;

/// An interface that goes down makes an error, and no packet.
const READABLE_OR_BROKEN: Interest = Interest::READABLE.add(Interest::ERROR);

/// A packet that passed an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passed {
    /// When, by the kernel's clock.
    pub at: SystemTime,
    /// Index of the interface.
    pub ifindex: u32,
    /// This machine sent it.
    pub sent: bool,
    /// Hardware address of the sender, if it has one of 6 bytes.
    pub mac: Option<[u8; 6]>,
    /// The VLAN, if the packet passed this interface with a tag.
    pub vlan: Option<u16>,
    /// How much of the buffer it fills.
    pub length: usize,
}

/// A socket that gets packets without their link-layer header, in the network namespace of the thread that opened it.
pub struct PacketSocket(AsyncFd<Socket>);

impl PacketSocket {
    /// Gets packets of one EtherType that arrive on one interface.
    pub(crate) fn arriving(ifindex: u32, protocol: u16) -> io::Result<PacketSocket> {
        Self::bound(ifindex, protocol, |_| Ok(()))
    }

    /// Gets those packets that `filter` lets through: received and sent ones, on one interface or on all. The kernel
    /// runs the filter, so the others cost next to nothing. It sees a packet as the reader does: from its IP header on.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW; others if there is no such interface, or the kernel rejects the filter.
    pub fn passing(ifindex: Option<u32>, filter: &[Instruction]) -> io::Result<PacketSocket> {
        let every_protocol = libc::ETH_P_ALL as u16;
        Self::bound(ifindex.unwrap_or(0), every_protocol, |socket| {
            attach(socket, filter)?;
            let on: libc::c_int = 1;
            set_option(socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)?;
            set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on)
        })
    }

    fn bound(
        ifindex: u32,
        protocol: u16,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<PacketSocket> {
        // It hears nothing until it is bound to protocol and interface at once.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        prepare(&socket)?;
        socket.bind(&link_address(ifindex, protocol))?;
        waiting(socket, READABLE_OR_BROKEN).map(PacketSocket)
    }

    /// The next packet; what of it does not fit into the buffer is cut off.
    ///
    /// # Errors
    /// `ENETDOWN` when the interface goes down; packets come again after it went up.
    pub async fn next(&self, buffer: &mut [u8]) -> io::Result<Passed> {
        loop {
            let mut guard = self.0.ready(READABLE_OR_BROKEN).await?;
            match guard.try_io(|socket| receive_passed(socket.get_ref(), buffer)) {
                Ok(passed) => return passed,
                Err(_would_block) => {}
            }
        }
    }

    /// How many packets were lost since this was last asked, because they came faster than they were read.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lost(&self) -> io::Result<u32> {
        // struct tpacket_stats: all packets, and those that were dropped.
        let mut counts = [0u32; 2];
        let mut length = size_of_val(&counts) as libc::socklen_t;
        // SAFETY: the buffer is of the length given, and both live across the call.
        let rc = unsafe {
            libc::getsockopt(
                self.0.get_ref().as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                counts.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        match rc {
            0 => Ok(counts[1]),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Name of an interface in the network namespace of the calling thread; `#` and the index if it has gone.
pub fn interface_name(ifindex: u32) -> String {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call demands.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) };
    if found.is_null() {
        return format!("#{ifindex}");
    }
    // SAFETY: the call has put a NUL behind the name, within the buffer, which still lives.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_string_lossy().into_owned()
}

/// An address of `ifindex` for AF_PACKET (0: every interface); `protocol` is an EtherType, or zero for none.
pub(crate) fn link_address(ifindex: u32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll fits into the storage, and all zeros are a valid value of it.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex.cast_signed();
    // SAFETY: the storage holds a sockaddr_ll, and this is its length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// A socket with which something can be waited for.
pub(crate) fn waiting(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, never changes it, and closes it when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

fn attach(socket: &Socket, filter: &[Instruction]) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(too_long)?,
        // The kernel copies the program and does not write to it.
        filter: filter.as_ptr().cast_mut(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Reads one packet into `bytes`: how much of them it fills, and where it came from, all zeros if that is no packet
/// address. `each` is called with level, kind and value of every control message.
pub(crate) fn receive(
    socket: &Socket,
    bytes: &mut [u8],
    mut each: impl FnMut(i32, i32, &[u8]),
) -> io::Result<(usize, libc::sockaddr_ll)> {
    let mut from = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    // Words, so that the control messages in it are aligned.
    let mut control = [0u64; 16];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeros are a valid msghdr.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = from.as_mut_ptr().cast();
    header.msg_namelen = size_of_val(&from) as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header names buffers that live across the call, with their lengths.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;

    // SAFETY: the kernel has filled the header and the control buffer, which both still live; the macros stay within
    // `msg_controllen`, and a value lies between CMSG_DATA and the message's own length.
    unsafe {
        let empty = libc::CMSG_LEN(0) as usize;
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            let held = ((*message).cmsg_len as usize).saturating_sub(empty);
            let value = std::slice::from_raw_parts(libc::CMSG_DATA(message), held);
            each((*message).cmsg_level, (*message).cmsg_type, value);
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    // SAFETY: all zeros are a valid sockaddr_ll, and so is whatever the kernel wrote over them.
    let from = unsafe { from.assume_init() };
    if i32::from(from.sll_family) != libc::AF_PACKET {
        // SAFETY: as above.
        return Ok((length, unsafe { mem::zeroed() }));
    }
    Ok((length, from))
}

fn receive_passed(socket: &Socket, buffer: &mut [u8]) -> io::Result<Passed> {
    let (mut at, mut vlan) = (None, None);
    let (length, from) = receive(socket, buffer, |level, kind, value| match (level, kind) {
        (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => at = timestamp(value),
        (libc::SOL_PACKET, libc::PACKET_AUXDATA) => vlan = tag(value),
        _ => {}
    })?;
    let mac = [0, 1, 2, 3, 4, 5].map(|i: usize| from.sll_addr[i]);
    Ok(Passed {
        at: at.unwrap_or_else(SystemTime::now),
        ifindex: from.sll_ifindex.cast_unsigned(),
        sent: from.sll_pkttype == libc::PACKET_OUTGOING,
        mac: (from.sll_halen == 6).then_some(mac),
        vlan,
        length,
    })
}

/// A `struct timespec` of 64 bits each.
fn timestamp(value: &[u8]) -> Option<SystemTime> {
    let (seconds, rest) = value.split_first_chunk()?;
    let nanoseconds = i64::from_ne_bytes(*rest.first_chunk()?);
    let seconds = u64::try_from(i64::from_ne_bytes(*seconds)).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, u32::try_from(nanoseconds).ok()?))
}

/// The VLAN in a `struct tpacket_auxdata`: 32 bits each of status and two lengths, 16 bits each of two offsets and the tag.
fn tag(value: &[u8]) -> Option<u16> {
    let status = u32::from_ne_bytes(*value.first_chunk()?);
    let tag = u16::from_ne_bytes(*value.get(16..)?.first_chunk()?);
    (status & TP_STATUS_VLAN_VALID != 0).then_some(tag & VLAN_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_a_name_and_a_missing_one_its_number() {
        assert_eq!(interface_name(1), "lo");
        assert_eq!(interface_name(i32::MAX as u32), format!("#{}", i32::MAX));
    }

    #[test]
    fn control_messages_are_read_as_far_as_they_go() {
        let mut aux = [0u8; 20];
        aux[..4].copy_from_slice(&TP_STATUS_VLAN_VALID.to_ne_bytes());
        aux[16..18].copy_from_slice(&0x6064u16.to_ne_bytes());
        assert_eq!(tag(&aux), Some(100), "without its priority");
        assert_eq!(tag(&aux[..17]), None);
        aux[..4].fill(0);
        assert_eq!(tag(&aux), None, "the kernel says that there was no tag");

        let time = [1i64.to_ne_bytes(), 5_000_000i64.to_ne_bytes()].concat();
        let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(1005);
        assert_eq!(timestamp(&time), Some(expected));
        assert_eq!(timestamp(&time[..15]), None);
    }
}

//! Raw sockets of one interface: what carries the VRRP protocol, and keepalived's authentication header.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use buoy_fence::sockets::set_option;
use buoy_vrrp_compat::ah::IP_PROTOCOL_AH;
use buoy_vrrp_compat::packet::{GROUP_V4, GROUP_V6, IP_PROTOCOL};
use socket2::{Domain, InterfaceIndexOrAddress, MsgHdr, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

/// Largest packet that is looked at: an advertisement of 255 IPv6 addresses with all headers is smaller.
const MAX_PACKET: usize = 4_608;
/// `SO_PRIORITY` of advertisements: network control (`TC_PRIO_CONTROL`), as in keepalived.
const CONTROL: libc::c_int = 7;
/// An option that is switched on.
const ON: libc::c_int = 1;

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// VRRP over IPv4.
    V4,
    /// The authentication header over IPv4, which holds VRRP.
    V4Ah,
    /// VRRP over IPv6.
    V6,
}

/// A packet as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// The whole packet.
    V4(Vec<u8>),
    /// What the kernel says of its header, and the rest.
    V6 {
        /// Who sent it.
        source: Ipv6Addr,
        /// Whom it was for.
        destination: Ipv6Addr,
        /// Its hop limit.
        hop_limit: u8,
        /// Traffic class and flow label.
        flow_info: u32,
        /// Behind the header.
        payload: Vec<u8>,
    },
}

/// A raw socket that only sends whole IPv4 packets, by the interface of a virtual MAC. It joins no group: a report of
/// that would show switches the virtual MAC at a node that does not have the VIP.
#[derive(Debug)]
pub struct Outlet(Socket);

impl Outlet {
    /// Opens it in the network namespace of the calling thread. Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(ifindex: u32, interface: &str) -> io::Result<Outlet> {
        let protocol = Some(Protocol::from(libc::IPPROTO_RAW));
        let socket = Socket::new(Domain::IPV4, Type::RAW, protocol)?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_PRIORITY, &CONTROL)?;
        socket.set_multicast_loop_v4(false)?;
        let any = libc::ip_mreqn {
            imr_multiaddr: libc::in_addr { s_addr: 0 },
            imr_address: libc::in_addr { s_addr: 0 },
            imr_ifindex: libc::c_int::try_from(ifindex).map_err(io::Error::other)?,
        };
        set_option(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &any)?;
        Ok(Outlet(socket))
    }

    /// Sends a whole packet.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn send(&self, destination: IpAddr, packet: &[u8]) -> io::Result<()> {
        let to = SockAddr::from(SocketAddr::from((destination, 0)));
        all_sent(self.0.send_to(packet, &to)?, packet)
    }
}

fn all_sent(sent: usize, packet: &[u8]) -> io::Result<()> {
    if sent == packet.len() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{sent} of {} bytes were sent",
        packet.len()
    )))
}

/// A raw socket bound to an interface, which sends whole packets. Multicast that it sends is not heard on this host.
#[derive(Debug)]
pub struct Port {
    socket: AsyncFd<Socket>,
    ifindex: u32,
    kind: Kind,
}

impl Port {
    /// Opens it in the network namespace of the calling thread. Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(ifindex: u32, interface: &str, kind: Kind) -> io::Result<Port> {
        let (domain, protocol) = match kind {
            Kind::V4 => (Domain::IPV4, IP_PROTOCOL),
            Kind::V4Ah => (Domain::IPV4, IP_PROTOCOL_AH),
            Kind::V6 => (Domain::IPV6, IP_PROTOCOL),
        };
        let protocol = Some(Protocol::from(i32::from(protocol)));
        let socket = Socket::new(domain, Type::RAW, protocol)?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_PRIORITY, &CONTROL)?;
        match kind {
            Kind::V4 | Kind::V4Ah => {
                socket.set_header_included_v4(true)?;
                socket.set_multicast_loop_v4(false)?;
                let index = InterfaceIndexOrAddress::Index(ifindex);
                socket.join_multicast_v4_n(&GROUP_V4, &index)?;
            }
            Kind::V6 => {
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_HDRINCL, &ON)?;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &ON)?;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &ON)?;
                set_option(&socket, libc::IPPROTO_IPV6, IPV6_FLOWINFO, &ON)?;
                // As without a source given: one that is not there yet, or any more, is no error.
                set_option(&socket, libc::IPPROTO_IPV6, IPV6_FREEBIND, &ON)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_if_v6(ifindex)?;
                socket.join_multicast_v6(&GROUP_V6, ifindex)?;
            }
        }
        // SAFETY: the socket stays the one that it is for as long as the registration, which owns it.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Port {
            socket,
            ifindex,
            kind,
        })
    }

    /// The socket, for waiting.
    pub fn ready(&self) -> &AsyncFd<Socket> {
        &self.socket
    }

    /// Sends a whole packet.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn send(&self, destination: IpAddr, packet: &[u8]) -> io::Result<()> {
        let to: SocketAddr = match destination {
            IpAddr::V4(ip) => (ip, 0).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, 0, 0, self.ifindex).into(),
        };
        let (socket, to) = (self.socket.get_ref(), SockAddr::from(to));
        let sent = match self.kind {
            Kind::V4 | Kind::V4Ah => socket.send_to(packet, &to)?,
            Kind::V6 => {
                let source = SourceV6::of(packet, self.ifindex);
                let buffers = [IoSlice::new(packet)];
                let message = MsgHdr::new()
                    .with_addr(&to)
                    .with_buffers(&buffers)
                    .with_control(source.bytes());
                socket.sendmsg(&message, 0)?
            }
        };
        all_sent(sent, packet)
    }

    /// A packet that waits; `None`: none does.
    ///
    /// # Errors
    /// The kernel's words, such as that the interface is gone.
    pub fn receive(&self) -> io::Result<Option<Received>> {
        let received = match self.kind {
            Kind::V4 | Kind::V4Ah => self.receive_v4().map(Some),
            Kind::V6 => self.receive_v6(),
        };
        match received {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other,
        }
    }

    fn receive_v4(&self) -> io::Result<Received> {
        let mut buffer = [MaybeUninit::uninit(); MAX_PACKET];
        let count = self.socket.get_ref().recv(&mut buffer)?;
        // SAFETY: the kernel has written `count` bytes.
        let bytes = buffer[..count].iter().map(|b| unsafe { b.assume_init() });
        Ok(Received::V4(bytes.collect()))
    }

    /// One that comes without the facts about its header is not looked at (`None`).
    fn receive_v6(&self) -> io::Result<Option<Received>> {
        let mut buffer = [0u8; MAX_PACKET];
        let mut control = [0u64; 32];
        // SAFETY: all-zero is a valid value of these structures.
        let (mut from, mut message): (libc::sockaddr_in6, libc::msghdr) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        message.msg_name = std::ptr::from_mut(&mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let fd = self.socket.get_ref().as_raw_fd();
        // SAFETY: every pointer in `message` is to a live buffer of the length beside it.
        let count = unsafe { libc::recvmsg(fd, &mut message, 0) };
        let Ok(count) = usize::try_from(count) else {
            return Err(io::Error::last_os_error());
        };
        let (mut destination, mut hop_limit, mut flow_info) = (None, None, 0u32);
        // SAFETY: the kernel has filled `control` as the header says.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(&message) };
        while !next.is_null() {
            // SAFETY: not null, so within `control`, and its data is as long as its type says.
            unsafe {
                let data = libc::CMSG_DATA(next);
                match ((*next).cmsg_level, (*next).cmsg_type) {
                    (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                        hop_limit = u8::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                        destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
                    }
                    (libc::IPPROTO_IPV6, IPV6_FLOWINFO) => {
                        flow_info = u32::from_be(data.cast::<u32>().read_unaligned());
                    }
                    _ => {}
                }
                next = libc::CMSG_NXTHDR(&message, next);
            }
        }
        let (Some(destination), Some(hop_limit)) = (destination, hop_limit) else {
            return Ok(None);
        };
        Ok(Some(Received::V6 {
            source: Ipv6Addr::from(from.sin6_addr.s6_addr),
            destination,
            hop_limit,
            flow_info,
            payload: buffer[..count].to_vec(),
        }))
    }
}

/// The ancillary message that names the source of a packet (RFC 3542 section 6). The header of the packet names it
/// too, but the kernel looks for a route first, and without this it goes through all addresses of the interface for a
/// source: with 255 VIPs there that is four fifths of what an advertisement costs.
#[repr(C)]
struct SourceV6 {
    header: libc::cmsghdr,
    info: libc::in6_pktinfo,
}

impl SourceV6 {
    /// Of a whole packet; the unspecified address if it is too short to have one.
    fn of(packet: &[u8], ifindex: u32) -> SourceV6 {
        let source = packet.get(8..24).and_then(|b| b.first_chunk::<16>());
        // SAFETY: all-zero is a valid value of these structures.
        let mut message: SourceV6 = unsafe { std::mem::zeroed() };
        message.header.cmsg_len = SOURCE_V6_BYTES as _;
        message.header.cmsg_level = libc::IPPROTO_IPV6;
        message.header.cmsg_type = libc::IPV6_PKTINFO;
        message.info.ipi6_addr.s6_addr = source.copied().unwrap_or_default();
        message.info.ipi6_ifindex = ifindex as _;
        message
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: plain data without padding (16 bytes, then 20), alive as long as the slice.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), SOURCE_V6_BYTES) }
    }
}

/// `CMSG_LEN` of an `in6_pktinfo`: what is behind it pads to the alignment of a header.
const SOURCE_V6_BYTES: usize = size_of::<libc::cmsghdr>() + size_of::<libc::in6_pktinfo>();

/// Not in libc for this family (linux/in6.h).
const IPV6_FREEBIND: libc::c_int = 78;
/// Option and ancillary message of the same number (linux/in6.h).
const IPV6_FLOWINFO: libc::c_int = 11;

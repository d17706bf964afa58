//! Sockets of one interface: frames out as they are, ARP packets and neighbour advertisements in.

use std::io;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::frames::{ADVERTISEMENT, ARP_PACKET};
use crate::packets::{PacketSocket, link_address, receive, waiting};
use crate::sockets::set_option;

/// Longest neighbour advertisement that is read, in bytes; the rest of a longer one is cut off.
const NA_BYTES: usize = 256;
/// `ICMP6_FILTER` of linux/icmpv6.h.
const ICMP6_FILTER: libc::c_int = 1;

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
pub(super) struct ArpReceiver(PacketSocket);

impl ArpReceiver {
    pub(super) fn open(ifindex: u32) -> io::Result<ArpReceiver> {
        PacketSocket::arriving(ifindex, libc::ETH_P_ARP as u16).map(ArpReceiver)
    }

    /// The next packet, without its Ethernet header and trailer.
    pub(super) async fn next(&self) -> io::Result<Vec<u8>> {
        let mut packet = vec![0; ARP_PACKET];
        let passed = self.0.next(&mut packet).await?;
        packet.truncate(passed.length);
        Ok(packet)
    }
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
        waiting(socket, Interest::READABLE).map(NaReceiver)
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

fn receive_with_hop_limit(socket: &Socket) -> io::Result<(Vec<u8>, Option<i32>)> {
    let mut bytes = vec![0u8; NA_BYTES];
    let mut limit = None;
    let (length, _) = receive(socket, &mut bytes, |level, kind, value| {
        if (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) {
            limit = value.first_chunk().map(|value| i32::from_ne_bytes(*value));
        }
    })?;
    bytes.truncate(length);
    Ok((bytes, limit))
}

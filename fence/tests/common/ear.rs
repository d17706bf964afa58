//! What a neighbour hears of announcements.
#![allow(
    dead_code,
    reason = "every test file compiles its own copy and uses a part of it"
)]

use std::io::Read;
use std::net::IpAddr;
use std::time::Instant;

use buoy_fence::announce::{ArpForm, Pace, Target, gratuitous_arp, unsolicited_na};
use buoy_fence::link::Links;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::common::NetNs;
use crate::host::{Host, ip};

/// A raw socket on a device of a namespace, for every protocol.
pub fn raw(ns: &NetNs, device: &str) -> Socket {
    let ifindex = ns.ifindex(device);
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    ns.run(|| {
        let socket = Socket::new(
            Domain::PACKET,
            Type::RAW,
            Some(Protocol::from(i32::from(protocol))),
        );
        let socket = socket.expect("a raw socket");
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: sockaddr_ll fits into the storage, and all zeros are a valid value of it.
        let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex.cast_signed();
        // SAFETY: the storage holds a sockaddr_ll, and this is its length.
        let address = unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32) };
        socket.bind(&address).expect("bound to the device");
        socket.set_nonblocking(true).expect("a socket option");
        socket
            .set_recv_buffer_size(8 << 20)
            .expect("a socket option");
        socket
    })
}

/// What a neighbour hears: announcements, each with the time of its arrival.
pub struct Ear {
    socket: Socket,
    pub heard: Vec<(Instant, Vec<u8>)>,
}

impl Ear {
    pub fn new(host: &Host) -> Ear {
        let socket = raw(&host.peer, "eth0");
        Ear {
            socket,
            heard: vec![],
        }
    }

    /// Takes in what has arrived; how many announcements there are now. Only frames of `mac` count, and of
    /// those only ARP and neighbour advertisements to everybody.
    pub fn listen(&mut self, mac: [u8; 6]) -> usize {
        let mut frame = [0; 2048];
        while let Ok(length) = self.socket.read(&mut frame) {
            let frame = &frame[..length];
            let arp = frame[12..14] == [8, 6] && frame[..6] == [0xff; 6];
            let na = frame[12..14] == [0x86, 0xdd]
                && frame[..6] == [0x33, 0x33, 0, 0, 0, 1]
                && frame[54] == 136;
            if frame[6..12] == mac && (arp || na) {
                self.heard.push((Instant::now(), frame.to_vec()));
            }
        }
        self.heard.len()
    }
}

pub fn target(host: &Host, text: &str) -> Target {
    let links = host
        .ns
        .run(|| Links::open().expect("a socket"))
        .snapshot()
        .expect("links");
    let link = links.link("eth0").expect("eth0");
    Target {
        ip: ip(text),
        ifindex: link.index,
        interface: "eth0".to_owned(),
        mac: link.mac.expect("a hardware address"),
        pace: Pace::default(),
    }
}

/// The frames of one announcement.
pub fn frames(target: &Target, router: bool) -> Vec<Vec<u8>> {
    match target.ip {
        IpAddr::V4(ip) => [ArpForm::Request, ArpForm::Reply]
            .map(|form| gratuitous_arp(target.mac, ip, form).to_vec())
            .to_vec(),
        IpAddr::V6(ip) => vec![unsolicited_na(target.mac, ip, router).to_vec()],
    }
}

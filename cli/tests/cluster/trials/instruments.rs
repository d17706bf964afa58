//! What is measured, from outside of the daemons: every frame that leaves a member, the time that the kernel took it
//! down at, and the deadline in that member's kernel.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use buoy_fence::gate::{leftovers, nft_leftover};
use buoy_lab::sys::clock::now_ns;
use buoy_lab::sys::realtime;
use buoy_lab::topology::{CLIENT, INTERFACE};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use socket2::{Domain, Protocol, Socket, Type};

use crate::harness::{Cluster, WEB_A};

/// Above busy loops and daemons, below the switch.
const PRIORITY: i32 = 50;
/// Each member is asked by each kind of question this often.
const ASK_EVERY: Duration = Duration::from_millis(1);
const PORT: u16 = 80;
const ETH_P_ALL: u16 = 3;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

/// In what a member spoke for the VIP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Arp,
    Icmp,
    Tcp,
    Nd,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Arp, Kind::Icmp, Kind::Tcp, Kind::Nd];
}

/// A frame of the VIP that left a member.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// On CLOCK_BOOTTIME, ns.
    pub at: u64,
    pub kind: Kind,
}

/// A reading of the VIP's deadline in a member's kernel.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// It takes a moment; what was read is of then or later.
    pub began: u64,
    /// ns; 0 while the VIP is not this member's.
    pub deadline: u64,
}

/// What was seen at one member.
#[derive(Clone, Default, Debug)]
pub struct Record {
    pub frames: Vec<Seen>,
    pub readings: Vec<Reading>,
}

/// The instruments; they stop when the value is dropped.
pub struct Instruments {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    records: Vec<(String, Arc<Mutex<Record>>)>,
}

impl Instruments {
    /// At these members, for `addresses` of the VIP.
    pub fn start(cluster: &Cluster, members: &[&str], addresses: &[IpAddr]) -> Instruments {
        let mut this = Instruments {
            over: Arc::default(),
            threads: Vec::new(),
            records: Vec::new(),
        };
        let nft = cluster.lab.topology().fence.as_deref() == Some("nft");
        for member in members {
            let ns = cluster.lab.netns(member).unwrap();
            let record = Arc::<Mutex<Record>>::default();
            let socket = ns.enter(|| Ok(listener()?)).unwrap();
            let (to, addresses) = (record.clone(), addresses.to_vec());
            this.spawn(move || take_down(&socket, &addresses, &to));
            let (to, over) = (record.clone(), this.over.clone());
            let ready = ns.enter(|| {
                Ok(std::thread::spawn(move || {
                    realtime(PRIORITY).unwrap();
                    read_deadlines(nft, &to, &over);
                }))
            });
            this.threads.push(ready.unwrap());
            this.records.push(((*member).to_owned(), record));
        }
        let macs: Vec<[u8; 6]> = members
            .iter()
            .map(|m| cluster.lab.topology().mac(m))
            .collect();
        let [(client, _), _] = cluster.lab.topology().addresses(CLIENT);
        let own = cluster.lab.topology().mac(CLIENT);
        let ns = cluster.lab.netns(CLIENT).unwrap();
        let socket = ns.enter(|| Ok(packet_socket()?)).unwrap();
        let mut number = 0u16;
        this.spawn(move || {
            std::thread::sleep(ASK_EVERY);
            number = number.wrapping_add(1);
            ask(&socket, (own, client), &macs, number);
        });
        this
    }

    fn spawn(&mut self, mut again: impl FnMut() + Send + 'static) {
        let over = self.over.clone();
        self.threads.push(std::thread::spawn(move || {
            realtime(PRIORITY).unwrap();
            while !over.load(Ordering::Relaxed) {
                again();
            }
        }));
    }

    /// What was seen at each member so far.
    pub fn records(&self) -> Vec<(String, Record)> {
        let read = |(name, record): &(String, Arc<Mutex<Record>>)| {
            (name.clone(), record.lock().unwrap().clone())
        };
        self.records.iter().map(read).collect()
    }
}

impl Drop for Instruments {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("an instrument failed");
            }
        }
    }
}

/// A packet socket on the interface of the calling thread's namespace.
fn packet_socket() -> io::Result<Socket> {
    let all = i32::from(ETH_P_ALL.to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all)))?;
    let name = std::ffi::CString::new(INTERFACE).unwrap();
    // SAFETY: a valid C string; all zero is a valid sockaddr_ll.
    let (index, mut address) = unsafe {
        (
            libc::if_nametoindex(name.as_ptr()),
            std::mem::zeroed::<libc::sockaddr_ll>(),
        )
    };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ETH_P_ALL.to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is of the length given.
    let rc = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Hears what passes the interface both ways, each frame with the time at which the kernel took it down: on the way out
/// that is after every hook of the gate.
fn listener() -> io::Result<Socket> {
    let socket = packet_socket()?;
    let on: libc::c_int = 1;
    let room: libc::c_int = 64 << 20;
    for (option, value) in [(libc::SO_TIMESTAMPNS, on), (libc::SO_RCVBUFFORCE, room)] {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `value` is of the length given.
        let rc = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const value).cast(),
                length,
            )
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    Ok(socket)
}

/// Takes one frame down, if it speaks for the VIP.
fn take_down(socket: &Socket, addresses: &[IpAddr], record: &Mutex<Record>) {
    let mut bytes = [0u8; 256];
    let mut control = [0u64; 16];
    // SAFETY: all zero is valid for these.
    let (mut from, mut message) = unsafe {
        (
            std::mem::zeroed::<libc::sockaddr_ll>(),
            std::mem::zeroed::<libc::msghdr>(),
        )
    };
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer of `message` is valid for the call, with its length.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let Ok(length) = usize::try_from(length) else {
        return;
    };
    if from.sll_pkttype != libc::PACKET_OUTGOING {
        return;
    }
    let Some(kind) = spoken_for(&bytes[..length.min(bytes.len())], addresses) else {
        return;
    };
    let stamp = stamp(&message).expect("a time with every frame");
    let at = stamp.wrapping_add_signed(wall_to_boottime());
    record.lock().unwrap().frames.push(Seen { at, kind });
}

/// The kernel's time of a frame, ns on CLOCK_REALTIME.
fn stamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel has filled the control buffer that `message` points to.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if ((*header).cmsg_level, (*header).cmsg_type)
                == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)
            {
                let mut time = MaybeUninit::<libc::timespec>::uninit();
                std::ptr::copy_nonoverlapping(
                    libc::CMSG_DATA(header),
                    time.as_mut_ptr().cast(),
                    size_of::<libc::timespec>(),
                );
                return Some(nanos(time.assume_init()));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

fn nanos(time: libc::timespec) -> u64 {
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// What to add to CLOCK_REALTIME: from the closest of several readings of both, which is right to under a microsecond.
fn wall_to_boottime() -> i64 {
    let wall = || {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` outlives the call.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
        nanos(time)
    };
    let reading = |_| {
        let (before, wall, after) = (now_ns(), wall(), now_ns());
        let middle = before + (after - before) / 2;
        (after - before, middle.cast_signed() - wall.cast_signed())
    };
    (0..3).map(reading).min().unwrap().1
}

/// In what a frame speaks for one of the addresses.
fn spoken_for(frame: &[u8], addresses: &[IpAddr]) -> Option<Kind> {
    let v4 = |at: usize| {
        Some(IpAddr::from(
            <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?,
        ))
    };
    let v6 = |at: usize| {
        Some(IpAddr::from(
            <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?,
        ))
    };
    if frame.get(12..14)? == ETHERTYPE_ARP {
        return addresses.contains(&v4(28)?).then_some(Kind::Arp);
    }
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (packet.net?, packet.transport) {
        (NetSlice::Ipv4(ip), transport) => {
            let source = IpAddr::V4(ip.header().source_addr());
            let kind = match transport {
                Some(TransportSlice::Tcp(_)) => Kind::Tcp,
                _ => Kind::Icmp,
            };
            addresses.contains(&source).then_some(kind)
        }
        // A neighbour advertisement speaks for its target.
        (NetSlice::Ipv6(ip), Some(TransportSlice::Icmpv6(_))) => {
            let source = IpAddr::V6(ip.header().source_addr());
            let advertised = (*frame.get(54)? == 136).then(|| v6(62)).flatten();
            let spoken = [Some(source), advertised].into_iter().flatten();
            spoken
                .into_iter()
                .any(|a| addresses.contains(&a))
                .then_some(Kind::Nd)
        }
        (NetSlice::Ipv6(ip), _) => {
            let source = IpAddr::V6(ip.header().source_addr());
            addresses.contains(&source).then_some(Kind::Nd)
        }
        _ => None,
    }
}

/// Reads the VIP's deadline out of the kernel of the calling thread's namespace, without the daemon.
fn read_deadlines(nft: bool, record: &Mutex<Record>, over: &AtomicBool) {
    let name = std::ffi::CString::new(INTERFACE).unwrap();
    // SAFETY: a valid C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let every = Duration::from_millis(if nft { 10 } else { 4 });
    while !over.load(Ordering::Relaxed) {
        let began = now_ns();
        let rows = if nft {
            let left = nft_leftover().ok().flatten();
            left.map(|left| left.fenced)
        } else {
            let left = leftovers(index).ok();
            left.and_then(|mut left| left.pop()?.fenced.ok())
        };
        // While a daemon starts there may be no gate for a moment.
        if let Some(rows) = rows {
            let row = rows.iter().find(|row| row.address == WEB_A.1);
            let deadline = row.and_then(|row| row.deadline).map_or(0, |d| d.0);
            record
                .lock()
                .unwrap()
                .readings
                .push(Reading { began, deadline });
        }
        std::thread::sleep(every);
    }
}

/// Asks each member directly, whoever the neighbour tables say the owner is. (The observer asks by ARP and ND.)
fn ask(socket: &Socket, (own, client): ([u8; 6], IpAddr), macs: &[[u8; 6]], number: u16) {
    let (IpAddr::V4(client), IpAddr::V4(vip)) = (client, WEB_A.1) else {
        unreachable!("the lab's first addresses are IPv4");
    };
    for mac in macs {
        let to = || PacketBuilder::ethernet2(own, *mac).ipv4(client.octets(), vip.octets(), 64);
        let mut frame = Vec::with_capacity(64);
        to().icmpv4_echo_request(0xb0b0, number)
            .write(&mut frame, b"trial")
            .unwrap();
        // A full queue is the loss of one question.
        let _ = socket.send(&frame);
        frame.clear();
        let from = 20_000 + number % 40_000;
        to().tcp(from, PORT, u32::from(number), 1_024)
            .syn()
            .write(&mut frame, &[])
            .unwrap();
        let _ = socket.send(&frame);
    }
}

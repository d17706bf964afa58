//! Two namespaces on a cable, the owner of a VIP and a client, and questions from one to the other.
#![allow(
    dead_code,
    reason = "every test file compiles its own copy and uses a part of it"
)]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::clock::boottime;
use buoy_fence::gate::{EbpfGate, EbpfOptions};

use crate::common::NetNs;

pub const VIP4: &str = "10.77.0.100";
pub const VIP6: &str = "fd77::100";
/// Port of the owner's echo.
pub const PORT: u16 = 7007;
/// How long a question waits for an answer that should come.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Between two questions of a stream.
pub const BETWEEN: Duration = Duration::from_micros(100);
/// How long, and how often at least, a stream goes on after the time from which nothing may be answered.
const BEYOND: Duration = Duration::from_millis(30);
const ASKED_BEYOND: u32 = 50;
/// The longest that an answer takes on its way, by far.
const UNDERWAY: Duration = Duration::from_millis(50);

/// `owner` has both VIPs on `own`, `client` is at the other end of the cable on `cli`.
pub struct Wire {
    pub owner: NetNs,
    pub client: NetNs,
}

impl Wire {
    pub fn new(prefix: &str) -> Wire {
        let (owner, client) = (
            NetNs::new(&format!("{prefix}-owner")),
            NetNs::new(&format!("{prefix}-client")),
        );
        owner.veth("own", &client, "cli");
        // A question that was dropped is asked again soon, not after a second.
        client.run(|| {
            for family in ["ipv4", "ipv6"] {
                let interval = format!("/proc/sys/net/{family}/neigh/cli/retrans_time_ms");
                std::fs::write(&interval, "20").unwrap_or_else(|e| panic!("{interval}: {e}"));
            }
        });
        owner.ip("addr add 10.77.0.1/24 dev own");
        owner.ip("addr add fd77::1/64 dev own nodad");
        client.ip("addr add 10.77.0.2/24 dev cli");
        client.ip("addr add fd77::2/64 dev cli nodad");
        owner.ip(&format!("addr add {VIP4}/32 dev own"));
        owner.ip(&format!("addr add {VIP6}/128 dev own nodad"));
        Wire { owner, client }
    }

    /// A gate in the owner's namespace.
    pub fn gate(&self) -> EbpfGate {
        self.owner
            .run(|| EbpfGate::new(EbpfOptions::default()).expect("a gate"))
    }

    /// The client knows the way to the VIPs for good: it sends without asking.
    pub fn pin_neighbours(&self) {
        let shown = self.owner.ip("link show own");
        let mac = shown
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1);
        let mac = mac.expect("the owner's MAC address");
        for vip in [VIP4, VIP6] {
            self.client.ip(&format!(
                "neigh replace {vip} lladdr {mac} dev cli nud permanent"
            ));
        }
    }

    /// The opposite: the next question begins with ARP or ND again.
    pub fn unpin_neighbours(&self) {
        for vip in [VIP4, VIP6] {
            self.client.ip(&format!("neigh del {vip} dev cli"));
        }
    }

    /// The client forgets every neighbour, so that its next question begins with ARP or ND.
    pub fn forget_neighbours(&self) {
        self.client.ip("neigh flush all");
    }
}

/// Answers every datagram to an address with the same bytes, and counts them.
pub struct Echo {
    pub heard: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start(ns: &NetNs, address: &str) -> Echo {
        let address: IpAddr = address.parse().expect("an address");
        let socket = ns.run(|| UdpSocket::bind((address, PORT)).expect("the echo's socket"));
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("timeout");
        let (heard, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counter, ended) = (heard.clone(), stop.clone());
        let answer = move || {
            let mut bytes = [0; 64];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((n, from)) = socket.recv_from(&mut bytes) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    // A refusal is the gate's doing; whoever asked sees no answer.
                    let _ = socket.send_to(&bytes[..n], from);
                }
            }
        };
        Echo {
            heard,
            stop,
            thread: Some(std::thread::spawn(answer)),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks the echo of an address from a namespace.
pub struct Asker {
    socket: UdpSocket,
}

impl Asker {
    pub fn new(ns: &NetNs, address: &str) -> Asker {
        let to = SocketAddr::new(address.parse().expect("an address"), PORT);
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = ns.run(|| UdpSocket::bind(any).expect("the asker's socket"));
        socket.connect(to).expect("connect");
        Asker { socket }
    }

    /// Sends a question; that the own gate drops it is no error here.
    pub fn send(&self, number: u64) {
        match self.socket.send(&number.to_be_bytes()) {
            Ok(_) => {}
            Err(e) => assert!(
                matches!(
                    e.raw_os_error(),
                    Some(libc::EHOSTUNREACH | libc::ENOBUFS | libc::EPERM)
                ),
                "send: {e}"
            ),
        }
    }

    /// The next answer, if one comes in time.
    pub fn answer(&self, within: Duration) -> Option<u64> {
        self.socket.set_read_timeout(Some(within)).expect("timeout");
        let mut bytes = [0; 8];
        match self.socket.recv(&mut bytes) {
            Ok(_) => Some(u64::from_be_bytes(bytes)),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::HostUnreachable
                ) =>
            {
                None
            }
            Err(e) => panic!("recv: {e}"),
        }
    }

    /// The next answer, if one is there already.
    pub fn answer_so_far(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        // SAFETY: the buffer is valid for the length given.
        let got = unsafe {
            libc::recv(
                self.socket.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT,
            )
        };
        (got == bytes.len() as isize).then(|| u64::from_be_bytes(bytes))
    }

    /// Asks without a pause until well beyond `end`; returns when the last question that was answered was asked, if
    /// one was.
    pub fn last_answered(&self, end: Mono) -> Option<Mono> {
        let mut sent = BTreeMap::new();
        let mut last = None;
        let (mut number, mut beyond) = (boottime().0, 0);
        while beyond < ASKED_BEYOND || boottime() < end + BEYOND {
            number += 1;
            let now = boottime();
            sent.insert(number, now);
            self.send(number);
            beyond += u32::from(now >= end);
            std::thread::sleep(BETWEEN);
            while let Some(answered) = self.answer_so_far() {
                last = sent.get(&answered).copied().max(last);
            }
        }
        while let Some(answered) = self.answer(UNDERWAY) {
            last = sent.get(&answered).copied().max(last);
        }
        last
    }

    /// Whether this question is answered. Asks again at intervals: ARP and ND take a moment.
    pub fn answered(&self, number: u64) -> bool {
        let rounds = 30;
        (0..rounds).any(|_| {
            self.send(number);
            std::iter::from_fn(|| self.answer(ANSWER_WITHIN / rounds)).any(|n| n == number)
        })
    }
}

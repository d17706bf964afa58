//! What a gate adds to a packet on its way over a cable: the whole way through the kernel, next to one without.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::common::NetNs;
use crate::setting::{KINDS, Setting, name};
use crate::wire::{PORT, VIP4};
use crate::{ADDRESSES, percentile};

const PACKETS: u32 = 100_000;
const REPEATS: usize = 11;
/// The client's own address.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Sends on one thread; on a virtual cable the receiver's half runs in the same call.
struct Stream {
    sender: UdpSocket,
    _receiver: UdpSocket,
    to: SocketAddr,
}

impl Stream {
    fn new(from: (&NetNs, Ipv4Addr), to: (&NetNs, Ipv4Addr)) -> Stream {
        let bind = |(ns, address): (&NetNs, Ipv4Addr), port| {
            ns.run(|| UdpSocket::bind((address, port)).expect("a socket"))
        };
        Stream {
            sender: bind(from, 0),
            _receiver: bind(to, PORT),
            to: (to.1, PORT).into(),
        }
    }

    /// Mean time of one packet. The receiver's queue is full after the first few hundred, which is the same for all.
    fn each(&self) -> Duration {
        let begun = Instant::now();
        for _ in 0..PACKETS {
            self.sender
                .send_to(b"a packet of 32 bytes for the gate", self.to)
                .expect("sent");
        }
        begun.elapsed() / PACKETS
    }
}

pub fn run() {
    println!(
        "one UDP datagram over a veth cable, median of {REPEATS} times {PACKETS}, in turns; goal: at most 300 ns added\n"
    );
    println!(
        "{:>9}  {:12} {:>9} {:>18} {:>18}",
        "addresses", "direction", "no gate", "ebpf", "nft"
    );
    for count in ADDRESSES {
        let settings = KINDS.map(|kind| Setting::new(kind, count));
        for incoming in [true, false] {
            let vip: Ipv4Addr = VIP4.parse().expect("an address");
            let streams = settings.each_ref().map(|s| {
                let (owner, client) = ((&s.wire.owner, vip), (&s.wire.client, CLIENT));
                match incoming {
                    true => Stream::new(client, owner),
                    false => Stream::new(owner, client),
                }
            });
            let mut times: [Vec<Duration>; 3] = Default::default();
            for _ in 0..REPEATS {
                for (stream, times) in streams.iter().zip(&mut times) {
                    times.push(stream.each());
                }
            }
            let [none, ebpf, nft] = times.each_mut().map(|all| percentile(all, 50).as_nanos());
            let with =
                |ns: u128| format!("{ns} ns ({:+} ns)", ns.cast_signed() - none.cast_signed());
            let direction = if incoming {
                "to the VIP"
            } else {
                "from the VIP"
            };
            println!(
                "{count:>9}  {direction:12} {none:>6} ns {:>18} {:>18}",
                with(ebpf),
                with(nft)
            );
        }
    }
    let names = KINDS.map(name).join(", ");
    println!("\n({names}; with 0 addresses the packet is none of the gate's)");
}

//! One run of the eBPF program, without the way of a packet around it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use buoy_core::Mono;
use buoy_fence::gate::{Direction, EbpfGate, EbpfOptions, Gate, GateError};

use crate::{ADDRESSES, frames};

const PACKETS: u32 = 1_000_000;
const REPEATS: usize = 5;
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
/// Managed first, so it is there with 200 and with 10,000 addresses.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

pub fn run() -> Result<(), GateError> {
    println!(
        "one run of the program, median of {REPEATS} times {PACKETS} runs (BPF_PROG_TEST_RUN)\n"
    );
    println!(
        "{:>9}  {:28} {:>8} {:>8}",
        "addresses", "packet", "ingress", "egress"
    );
    for count in ADDRESSES {
        let mut gate = EbpfGate::new(EbpfOptions::default())?;
        gate.store(1, Mono(u64::MAX))?;
        let start = Instant::now();
        (0..count).try_for_each(|n| gate.manage(address(n)))?;
        let managed = start.elapsed();
        let start = Instant::now();
        (0..count).try_for_each(|n| gate.open(address(n), 1))?;
        let opened = start.elapsed();
        packets(&gate, count)?;
        if count > 0 {
            println!("{count:>9}  manage all {managed:?}, open all {opened:?}\n");
        }
    }
    Ok(())
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(VIP) + n).into()
}

fn packets(gate: &EbpfGate, count: u32) -> Result<(), GateError> {
    let peer6 = frames::v6("2001:db8::99");
    let mut cases = vec![
        ("IPv4, other addresses", frames::ipv4(STRANGER, STRANGER)),
        (
            "IPv6, other addresses",
            frames::ipv6(peer6, peer6, frames::TCP, &[0; 20]),
        ),
    ];
    if count > 0 {
        cases.push(("IPv4 from and to a VIP", frames::ipv4(VIP, VIP)));
        cases.push((
            "ARP from and for a VIP",
            frames::arp(1, VIP, frames::v4("10.0.0.1")),
        ));
    }
    for (name, frame) in cases {
        let median = |direction| -> Result<Duration, GateError> {
            let mut times = Vec::new();
            for _ in 0..REPEATS {
                times.push(gate.measure(direction, &frame, PACKETS)?);
            }
            times.sort();
            Ok(times[REPEATS / 2])
        };
        let (ingress, egress) = (median(Direction::Ingress)?, median(Direction::Egress)?);
        println!(
            "{count:>9}  {name:28} {:>5} ns {:>5} ns",
            ingress.as_nanos(),
            egress.as_nanos()
        );
    }
    Ok(())
}

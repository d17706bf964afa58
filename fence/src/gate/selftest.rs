//! The gate tried on crafted packets before any VIP is used: it must drop and pass as promised.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use buoy_core::Mono;

use super::bpf::{Map, MapKind, Program};
use super::loaded::misassembled;
use super::program::{Direction, clock_probe};
use super::{EbpfGate, Gate, GateError, SLOTS, Verdict};
use crate::clock::{ClockError, boottime};

/// Addresses for documentation (RFC 5737, RFC 3849): no packet with them is ever sent.
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const SLOT: u32 = SLOTS - 1;
/// Far enough that no delay between two steps of the trial ends it.
const AHEAD: Duration = Duration::from_secs(3600);

/// Runs all trials on a gate without addresses, and leaves it as it was.
pub(super) fn run(gate: &mut EbpfGate) -> Result<(), GateError> {
    if !gate.manages_nothing() {
        return Err(GateError::InUse);
    }
    same_clock()?;
    let result = trials(gate);
    let cleared = gate.clear_all();
    gate.forget_drops();
    result.and(cleared)
}

/// The program's clock must read between two readings of ours.
fn same_clock() -> Result<(), GateError> {
    let cell = Map::create("buoy_clock", MapKind::Array, 4, 8, 1)?;
    let probe = Program::load("buoy_clock", &clock_probe(&cell).map_err(misassembled)?)?;
    let before = boottime();
    let ran = probe.test_run(&frame(0x88b5, &[]), 1);
    let after = boottime();
    let mut value = [0; 8];
    let read = ran.and_then(|_| cell.lookup(&0u32.to_ne_bytes(), &mut value));
    read.map_err(|e| GateError::kernel("try its clock", e))?;
    let kernel = Mono(u64::from_ne_bytes(value));
    if kernel < before || kernel > after {
        return Err(ClockError::Differs {
            before,
            kernel,
            after,
        }
        .into());
    }
    Ok(())
}

struct Trial {
    name: &'static str,
    direction: Direction,
    frame: Vec<u8>,
}

fn trials(gate: &mut EbpfGate) -> Result<(), GateError> {
    let vips = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
    expect(gate, "address not managed", Verdict::Pass)?;
    vips.iter().try_for_each(|vip| gate.manage(*vip))?;
    gate.store(SLOT, boottime() + AHEAD)?;
    expect(gate, "address not ours", Verdict::Drop)?;
    vips.iter().try_for_each(|vip| gate.open(*vip, SLOT))?;
    expect(gate, "lease lasts", Verdict::Pass)?;
    gate.store(SLOT, boottime())?;
    expect(gate, "lease over", Verdict::Drop)?;
    let seen = gate.dropped()?;
    let each = vip_packets().len() as u64;
    if (seen.lease_over, seen.not_ours) != (each, each) {
        return Err(GateError::SelfTest {
            case: "counting".to_string(),
            expected: format!("{each} drops of each kind"),
            got: format!("{seen:?}"),
        });
    }
    vips.iter().try_for_each(|vip| gate.shut(*vip))?;
    gate.store(SLOT, boottime() + AHEAD)?;
    expect(gate, "address given up", Verdict::Drop)
}

/// Tries every packet of the VIPs, and that those of others pass whatever the state.
fn expect(gate: &EbpfGate, state: &str, expected: Verdict) -> Result<(), GateError> {
    let vips = vip_packets().into_iter().map(|trial| (trial, expected));
    let others = other_packets()
        .into_iter()
        .map(|trial| (trial, Verdict::Pass));
    for (trial, expected) in vips.chain(others) {
        let got = gate.judge(trial.direction, &trial.frame)?;
        if got != expected {
            return Err(GateError::SelfTest {
                case: format!("{} ({}), {state}", trial.name, trial.direction.name()),
                expected: format!("{expected:?}"),
                got: format!("{got:?}"),
            });
        }
    }
    Ok(())
}

fn vip_packets() -> Vec<Trial> {
    use Direction::{Egress, Ingress};
    let trial = |name, direction, frame| Trial {
        name,
        direction,
        frame,
    };
    vec![
        trial("ARP request for the VIP", Ingress, arp(PEER4, VIP4)),
        trial("ARP answer of the VIP", Egress, arp(VIP4, PEER4)),
        trial("IPv4 packet to the VIP", Ingress, ipv4(PEER4, VIP4)),
        trial("IPv4 packet of the VIP", Egress, ipv4(VIP4, PEER4)),
        trial(
            "IPv6 packet to the VIP",
            Ingress,
            ipv6(PEER6, VIP6, 59, &[]),
        ),
        trial("IPv6 packet of the VIP", Egress, ipv6(VIP6, PEER6, 59, &[])),
        trial(
            "neighbour solicitation for the VIP",
            Ingress,
            neighbour(135, PEER6, VIP6),
        ),
        trial(
            "neighbour advertisement of the VIP",
            Egress,
            neighbour(136, PEER6, VIP6),
        ),
    ]
}

/// Packets to a VIP that another node owns, and its answers: this node as a client.
fn other_packets() -> Vec<Trial> {
    use Direction::{Egress, Ingress};
    let trial = |name, direction, frame| Trial {
        name,
        direction,
        frame,
    };
    vec![
        trial("ARP request to another's VIP", Egress, arp(PEER4, VIP4)),
        trial("ARP answer of another's VIP", Ingress, arp(VIP4, PEER4)),
        trial("IPv4 packet to another's VIP", Egress, ipv4(PEER4, VIP4)),
        trial(
            "IPv6 packet of another's VIP",
            Ingress,
            ipv6(VIP6, PEER6, 59, &[]),
        ),
        trial(
            "neighbour solicitation to another's VIP",
            Egress,
            neighbour(135, PEER6, VIP6),
        ),
        trial(
            "neighbour advertisement of another's VIP",
            Ingress,
            neighbour(136, VIP6, VIP6),
        ),
    ]
}

fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1, 0x02, 0, 0, 0, 0, 2];
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    frame(0x0806, &packet)
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    frame(0x0800, &packet)
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 255];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    frame(0x86dd, &packet)
}

fn neighbour(kind: u8, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut packet = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(target.octets());
    ipv6(source, all_nodes, 58, &packet)
}

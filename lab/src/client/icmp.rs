//! The echo client: ICMP and ICMPv6 echo requests through the client's own kernel, so that its stale
//! neighbour cache counts.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::order::Order;
use super::{ClientSpec, FIRST, Failure, Outcome, Prober, Report, TargetReport};
use crate::sys::poll::{Epoll, Interest};

/// Bytes of an echo message: the ICMP header, a mark, the target and the number.
const LENGTH: usize = 8 + 4 + 4 + 8;
/// The mark by which we know our own.
const MARK: [u8; 4] = *b"buoy";
const BUFFER: usize = 2_048;

const V4: u64 = FIRST;
const V6: u64 = FIRST + 1;

struct Target {
    address: IpAddr,
    order: Order,
}

pub(super) struct Icmp {
    targets: Vec<Target>,
    v4: Socket,
    v6: Socket,
    deadline_ns: u64,
}

impl Icmp {
    pub(super) fn new(spec: &ClientSpec, epoll: &Epoll) -> Result<Self> {
        let v4 = open(Domain::IPV4, Protocol::ICMPV4)?;
        let v6 = open(Domain::IPV6, Protocol::ICMPV6)?;
        epoll.add(&v4, V4, Interest::Read)?;
        epoll.add(&v6, V6, Interest::Read)?;
        let targets = spec
            .targets
            .iter()
            .map(|target| Target {
                address: target.ip(),
                order: Order::new(),
            })
            .collect();
        Ok(Self {
            targets,
            v4,
            v6,
            deadline_ns: spec.deadline_ms * 1_000_000,
        })
    }

    fn send(&self, target: usize, number: u64) -> io::Result<()> {
        let address = self.targets[target].address;
        let socket = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        let message = echo_request(address.is_ipv4(), target, number);
        socket
            .send_to(&message, &SocketAddr::new(address, 0).into())
            .map(drop)
    }

    fn receive(&mut self, v4: bool) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER];
        loop {
            let socket = if v4 { &self.v4 } else { &self.v6 };
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                return;
            };
            // SAFETY: recv_from has initialised the first `length` bytes.
            let bytes = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length) };
            let from = from.as_socket().map(|address| address.ip());
            if let Some((target, number)) = echo_reply(v4, bytes)
                && let Some(target) = self.targets.get_mut(target)
                && from == Some(target.address)
            {
                target.order.finish(number, Outcome::Answered(0));
            }
        }
    }
}

impl Prober for Icmp {
    fn tick(&mut self, now: u64, _: &Epoll) {
        for target in 0..self.targets.len() {
            let order = &mut self.targets[target].order;
            order.expire(now.saturating_sub(self.deadline_ns));
            let number = order.start(now);
            if let Err(error) = self.send(target, number) {
                let failure = match error.raw_os_error() {
                    Some(libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => Failure::Local,
                    _ => Failure::Unreachable,
                };
                let order = &mut self.targets[target].order;
                order.finish(number, Outcome::Failed(failure));
            }
        }
    }

    fn ready(&mut self, token: u64, _: &Epoll) {
        self.receive(token == V4);
    }

    fn report(&self) -> Report {
        let judged = self
            .targets
            .iter()
            .map(|target| target.order.judged_until());
        Report {
            backends: vec!["echo".to_owned()],
            judged_until: judged.min().unwrap_or(0),
            longest_gap_ns: 0,
            targets: self
                .targets
                .iter()
                .map(|target| TargetReport {
                    target: target.address.to_string(),
                    runs: target.order.runs(),
                    forgotten: target.order.forgotten(),
                })
                .collect(),
        }
    }
}

fn open(domain: Domain, protocol: Protocol) -> Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))
        .context("open a raw socket for echo requests (needs root)")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn echo_request(v4: bool, target: usize, number: u64) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[0] = if v4 { 8 } else { 128 };
    message[8..12].copy_from_slice(&MARK);
    message[12..16].copy_from_slice(&u32::try_from(target).unwrap_or(u32::MAX).to_be_bytes());
    message[16..24].copy_from_slice(&number.to_be_bytes());
    // The kernel fills in the checksum of ICMPv6, which covers addresses that only it knows.
    if v4 {
        let mut sum: u32 = message
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum = !u16::try_from(sum).unwrap_or(0);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

/// The target and number of an answer to one of our requests. A raw IPv4 socket gives the IP header too.
fn echo_reply(v4: bool, bytes: &[u8]) -> Option<(usize, u64)> {
    let message = if v4 {
        bytes.get(usize::from(bytes.first()? & 0x0f) * 4..)?
    } else {
        bytes
    };
    let reply = if v4 { 0 } else { 129 };
    if *message.first()? != reply || message.get(8..12)? != MARK {
        return None;
    }
    let target = u32::from_be_bytes(message.get(12..16)?.try_into().ok()?);
    let number = u64::from_be_bytes(message.get(16..24)?.try_into().ok()?);
    Some((usize::try_from(target).ok()?, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_known_and_a_request_is_not() {
        let mut message = echo_request(false, 3, 99);
        assert_eq!(echo_reply(false, &message), None);
        message[0] = 129;
        assert_eq!(echo_reply(false, &message), Some((3, 99)));
        for length in 0..LENGTH {
            assert_eq!(echo_reply(false, &message[..length]), None);
        }
        let mut packet = vec![0x45; 20];
        let mut reply = echo_request(true, 1, 7);
        reply[0] = 0;
        packet.extend(reply);
        assert_eq!(echo_reply(true, &packet), Some((1, 7)));
    }
}

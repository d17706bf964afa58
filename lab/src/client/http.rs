//! The HTTP client: a new connection and one GET for each request, none waits for another.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::order::Order;
use super::{ClientSpec, FIRST, Failure, Outcome, Prober, Report, TargetReport};
use crate::sys::poll::{Epoll, Interest};

/// Longest answer that is read, bytes.
const MAX_ANSWER: usize = 2_048;
/// Most different backends that are told apart.
const MAX_BACKENDS: usize = 64;

struct Target {
    address: SocketAddr,
    request: String,
    order: Order,
}

struct Flight {
    target: usize,
    number: u64,
    started: u64,
    stream: TcpStream,
    sent: bool,
    answer: Vec<u8>,
}

pub(super) struct Http {
    targets: Vec<Target>,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    backends: Vec<String>,
    deadline_ns: u64,
}

enum Step {
    Wait,
    Over(Outcome),
}

impl Http {
    pub(super) fn new(spec: &ClientSpec) -> Self {
        let targets = spec
            .targets
            .iter()
            .map(|&address| Target {
                address,
                request: format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
                order: Order::new(),
            })
            .collect();
        Self {
            targets,
            flights: Vec::new(),
            free: Vec::new(),
            backends: Vec::new(),
            deadline_ns: spec.deadline_ms * 1_000_000,
        }
    }

    fn start(&mut self, target: usize, now: u64, epoll: &Epoll) {
        let number = self.targets[target].order.start(now);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        });
        let begun = connect(self.targets[target].address).and_then(|stream| {
            epoll.add(&stream, FIRST + slot as u64, Interest::Write)?;
            Ok(stream)
        });
        match begun {
            Ok(stream) => {
                self.flights[slot] = Some(Flight {
                    target,
                    number,
                    started: now,
                    stream,
                    sent: false,
                    answer: Vec::new(),
                });
            }
            Err(error) => {
                self.free.push(slot);
                let outcome = Outcome::Failed(failure(&error));
                self.targets[target].order.finish(number, outcome);
            }
        }
    }

    fn step(&mut self, slot: usize, epoll: &Epoll) -> io::Result<Step> {
        let Some(flight) = &mut self.flights[slot] else {
            return Ok(Step::Wait);
        };
        if !flight.sent {
            if let Some(error) = flight.stream.take_error()? {
                return Err(error);
            }
            let request = self.targets[flight.target].request.as_bytes();
            // A request this short fits any socket buffer, so it is written whole.
            flight.stream.write_all(request)?;
            flight.sent = true;
            epoll.modify(&flight.stream, FIRST + slot as u64, Interest::Read)?;
            return Ok(Step::Wait);
        }
        let mut chunk = [0; MAX_ANSWER];
        let ended = match flight.stream.read(&mut chunk) {
            Ok(0) => true,
            Ok(count) => {
                flight.answer.extend_from_slice(&chunk[..count]);
                false
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Wait),
            Err(error) => return Err(error),
        };
        match body(&flight.answer) {
            Some(name) => {
                let name = name.to_owned();
                Ok(Step::Over(self.answered(&name)))
            }
            None if ended || flight.answer.len() > MAX_ANSWER => {
                Ok(Step::Over(Outcome::Failed(Failure::BadAnswer)))
            }
            None => Ok(Step::Wait),
        }
    }

    fn answered(&mut self, name: &str) -> Outcome {
        let at = self.backends.iter().position(|known| known == name);
        let at = at.unwrap_or_else(|| {
            if self.backends.len() < MAX_BACKENDS {
                self.backends.push(name.to_owned());
            }
            self.backends.len() - 1
        });
        u8::try_from(at).map_or(Outcome::Failed(Failure::BadAnswer), Outcome::Answered)
    }

    fn close(&mut self, slot: usize) {
        // Closing the descriptor takes it out of the epoll set.
        if self.flights[slot].take().is_some() {
            self.free.push(slot);
        }
    }
}

impl Prober for Http {
    fn tick(&mut self, now: u64, epoll: &Epoll) {
        let latest = now.saturating_sub(self.deadline_ns);
        for slot in 0..self.flights.len() {
            if matches!(&self.flights[slot], Some(flight) if flight.started <= latest) {
                self.close(slot);
            }
        }
        for target in 0..self.targets.len() {
            self.targets[target].order.expire(latest);
            self.start(target, now, epoll);
        }
    }

    fn ready(&mut self, token: u64, epoll: &Epoll) {
        let Ok(slot) = usize::try_from(token - FIRST) else {
            return;
        };
        if slot >= self.flights.len() {
            return;
        }
        let outcome = match self.step(slot, epoll) {
            Ok(Step::Wait) => return,
            Ok(Step::Over(outcome)) => outcome,
            Err(error) => Outcome::Failed(failure(&error)),
        };
        if let Some(flight) = &self.flights[slot] {
            let order = &mut self.targets[flight.target].order;
            order.finish(flight.number, outcome);
        }
        self.close(slot);
    }

    fn report(&self) -> Report {
        let judged = self
            .targets
            .iter()
            .map(|target| target.order.judged_until());
        Report {
            backends: self.backends.clone(),
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

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // Closing sends a reset and leaves no TIME_WAIT behind: hundreds of connections a second would use up
    // the ports of the client.
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// The body of a complete answer with status 200, without the line end.
fn body(answer: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    if lines.next()?.split(' ').nth(1)? != "200" {
        return None;
    }
    let length: usize = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())?;
    (body.len() >= length).then(|| body[..length].trim_end())
}

fn failure(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Failure::Refused,
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN) => Failure::Unreachable,
        Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM) => {
            Failure::Local
        }
        Some(libc::ETIMEDOUT) => Failure::Timeout,
        _ => Failure::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_when_it_is_complete() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nn1\n";
        assert_eq!(body(answer), Some("n1"));
        for length in 0..answer.len() {
            assert_eq!(body(&answer[..length]), None, "{length} bytes");
        }
        assert_eq!(
            body(b"HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\nn1\n"),
            None
        );
    }
}

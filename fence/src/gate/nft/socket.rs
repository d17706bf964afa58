//! Transactions and questions to nf_tables on a blocking socket, one at a time.

use std::io;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

use super::message::{Batch, DUMP, HEADER, attribute};
use crate::sockets::{asking, late, set_option};

/// How often a dump that was changed underway is begun anew.
const DUMP_ATTEMPTS: u32 = 10;
/// The kernel writes no larger piece of a dump.
const RECEIVE_BYTES: usize = 64 * 1024;
/// What a transaction may be larger than without asking for more room, in bytes.
const SEND_BYTES: usize = 128 * 1024;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
/// Attributes follow the error code.
const ACK_ATTRIBUTES: u16 = 0x200;
/// The kernel's words in an error message.
const ERROR_WORDS: u16 = 1;

/// What the kernel said instead of doing it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) errno: Option<i32>,
    source: io::Error,
}

impl Refusal {
    pub(super) fn into_io(self) -> io::Error {
        self.source
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Refusal {
        Refusal {
            errno: None,
            source,
        }
    }
}

/// A socket of the network namespace of the thread that made it. With its end, tables that it owns are
/// nobody's.
pub(super) struct Netfilter {
    socket: Socket,
    batch: Batch,
    received: Vec<u8>,
    sequence: u32,
    /// Transactions so far, whether or not they were carried out.
    pub(super) transactions: u64,
    /// Its address, by which the kernel tells whose change something was.
    pub(super) port: u32,
    /// Name of the tables that it is about.
    pub(super) table: &'static str,
}

/// A transaction that the kernel has been handed: its first and last sequence number.
#[must_use]
pub(super) struct Posted {
    first: u32,
    last: u32,
}

pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Netfilter {
    pub(super) fn new(table: &'static str) -> io::Result<Netfilter> {
        let (socket, port) = asking(NETLINK_NETFILTER)?;
        Ok(Netfilter {
            socket,
            batch: Batch::new(table),
            received: Vec::with_capacity(RECEIVE_BYTES),
            sequence: 1,
            transactions: 0,
            port,
            table,
        })
    }

    /// Carries out everything that `fill` writes, or nothing of it; returns when the kernel has
    /// acknowledged it.
    pub(super) fn transact(&mut self, fill: impl FnOnce(&mut Batch)) -> Result<(), Refusal> {
        let posted = self.post(fill)?;
        self.confirm(posted)
    }

    /// Hands a transaction to the kernel, whose answer must be [read](Netfilter::confirm) before anything else.
    pub(super) fn post(&mut self, fill: impl FnOnce(&mut Batch)) -> Result<Posted, Refusal> {
        self.transactions += 1;
        let first = self.sequence;
        self.batch.restart(first);
        self.batch.begin();
        fill(&mut self.batch);
        let last = self.batch.end();
        self.sequence = self.batch.next_sequence();
        if self.batch.bytes().len() > SEND_BYTES {
            self.make_room(self.batch.bytes().len())?;
        }
        self.socket.send(self.batch.bytes(), 0)?;
        Ok(Posted { first, last })
    }

    /// Returns when the kernel has acknowledged what was posted.
    pub(super) fn confirm(&mut self, Posted { first, last }: Posted) -> Result<(), Refusal> {
        let mut refusal = None;
        loop {
            self.receive()?;
            for message in messages(&self.received) {
                let ours = message.sequence.wrapping_sub(first) <= last.wrapping_sub(first);
                if !ours || message.kind != NLMSG_ERROR {
                    continue;
                }
                if let Some(refused) = refused(&message) {
                    // The transaction as such was refused: nothing follows.
                    if message.sequence == first {
                        return Err(refused);
                    }
                    refusal.get_or_insert(refused);
                }
                if message.sequence == last {
                    return refusal.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Asks for all objects of a kind, in one unbroken picture; `each` sees their attributes, and begins anew
    /// after `restart`.
    pub(super) fn dump<T>(
        &mut self,
        kind: u8,
        family: u8,
        filter: impl Fn(&mut Batch),
        mut each: impl FnMut(&[u8], &mut Vec<T>),
    ) -> Result<Vec<T>, Refusal> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            if self.dump_once(kind, family, &filter, |row| each(row, &mut found))? {
                return Ok(found);
            }
        }
        Err(io::Error::other(format!(
            "what was read kept changing, {DUMP_ATTEMPTS} times over"
        ))
        .into())
    }

    fn dump_once(
        &mut self,
        kind: u8,
        family: u8,
        filter: &impl Fn(&mut Batch),
        mut each: impl FnMut(&[u8]),
    ) -> Result<bool, Refusal> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.batch.restart(sequence);
        self.batch.message(kind, DUMP, family, filter);
        self.socket.send(self.batch.bytes(), 0)?;
        let mut whole = true;
        loop {
            self.receive()?;
            for message in messages(&self.received).filter(|m| m.sequence == sequence) {
                whole &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => match refused(&message) {
                        // Changed underway, as newer kernels say it.
                        Some(r) if r.errno == Some(libc::EINTR) => return Ok(false),
                        Some(refusal) => return Err(refusal),
                        None => return Ok(whole),
                    },
                    // Behind the header of nfnetlink.
                    _ => each(message.payload.get(4..).unwrap_or(&[])),
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.received.clear();
            match self.socket.recv(&mut self.received, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(late(e)),
            }
        }
    }

    fn make_room(&self, bytes: usize) -> io::Result<()> {
        let size = libc::c_int::try_from(bytes.saturating_mul(2)).unwrap_or(libc::c_int::MAX);
        set_option(&self.socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &size)
    }
}

/// Messages of one datagram; a broken one ends them.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
        let half = |at: usize| Some(u16::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
        let length = word(0)? as usize;
        let message = Message {
            kind: half(4)?,
            flags: half(6)?,
            sequence: word(8)?,
            payload: rest.get(HEADER..length)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// What an error message means; `None` is the acknowledgement.
fn refused(message: &Message<'_>) -> Option<Refusal> {
    let code = message
        .payload
        .first_chunk()
        .map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
    if code == 0 {
        return None;
    }
    let errno = code.saturating_neg();
    let plain = io::Error::from_raw_os_error(errno);
    let words = message
        .payload
        .get(4 + HEADER..)
        .filter(|_| message.flags & ACK_ATTRIBUTES != 0)
        .and_then(|row| attribute(row, ERROR_WORDS))
        .map(|words| String::from_utf8_lossy(words.strip_suffix(&[0]).unwrap_or(words)));
    Some(Refusal {
        errno: Some(errno),
        source: match words {
            Some(words) => io::Error::other(format!("{plain}: {words}")),
            None => plain,
        },
    })
}

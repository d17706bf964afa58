//! The route netlink socket: batches of requests, dumps, and the kernel's own words when it refuses.

use std::fmt;
use std::io;

use netlink_packet_core::{
    NLA_TYPE_MASK, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use crate::sockets::{asking, late};

/// Requests sent by one system call. Their refusals, about 1 KiB of kernel memory each, must fit into
/// the default receive buffer of 208 KiB.
const BATCH: usize = 64;
/// How often a dump is begun anew because the kernel's tables changed underway.
const DUMP_ATTEMPTS: u32 = 10;
/// The kernel writes no larger piece of a dump.
pub(crate) const RECEIVE_BYTES: usize = 64 * 1024;
/// Length of a message's header, and of the request's header that an error message repeats.
const HEADER: usize = 16;
/// Attribute of an error message: its text.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The kernel said no.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Error number, e.g. `EPERM`.
    pub errno: i32,
    /// What the kernel added in words.
    pub words: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.errno).fmt(f)?;
        match &self.words {
            Some(words) => write!(f, ": {words}"),
            None => Ok(()),
        }
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        match refusal.words {
            None => io::Error::from_raw_os_error(refusal.errno),
            Some(_) => io::Error::other(refusal.to_string()),
        }
    }
}

/// One thing to be done: the message, and flags besides REQUEST and ACK.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

/// A blocking socket for requests, in the network namespace of the thread that opened it.
pub(crate) struct Requests {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// # Errors
    /// When the kernel gives no socket.
    pub(crate) fn open() -> io::Result<Requests> {
        let (socket, port) = asking(NETLINK_ROUTE)?;
        Ok(Requests {
            socket,
            port,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// This socket's address; events that it causes carry it (IPv4 addresses do, IPv6 addresses do not).
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Has all requests done in order and tells how each ended.
    ///
    /// # Errors
    /// When the socket fails; which requests were done is then unknown.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> io::Result<Vec<Result<(), Refusal>>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            self.batch_part(requests.by_ref().take(BATCH), &mut results)?;
        }
        Ok(results)
    }

    /// Only the last request asks for an acknowledgement: the kernel works in order and reports
    /// refusals anyway, so the last answer says that every request without one was done.
    fn batch_part(
        &mut self,
        requests: impl Iterator<Item = Request>,
        results: &mut Vec<Result<(), Refusal>>,
    ) -> io::Result<()> {
        let base = results.len();
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut last_at = 0;
        for request in requests {
            last_at = bytes.len();
            self.encode(request, &mut bytes);
            results.push(Ok(()));
        }
        let Some(flags) = bytes.get_mut(last_at + 6..last_at + 8) else {
            return Ok(());
        };
        let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&with_ack.to_ne_bytes());
        self.socket.send(&bytes, 0)?;
        let last = self.sequence;
        loop {
            let mut done = false;
            for message in self.receive()? {
                let at = message.sequence.wrapping_sub(first) as usize;
                let Some(result) = results.get_mut(base.saturating_add(at)) else {
                    // An answer to an earlier request that was given up.
                    continue;
                };
                if message.kind == NLMSG_ERROR {
                    *result = message.refusal().map_or(Ok(()), Err);
                    done |= message.sequence == last;
                }
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Asks for all objects of a kind, in one unbroken picture: the payloads of the answers.
    ///
    /// # Errors
    /// When the socket fails, the kernel refuses, or its tables never hold still.
    pub(crate) fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut bytes = Vec::new();
            let message = message.clone();
            let flags = NLM_F_DUMP;
            self.encode(Request { message, flags }, &mut bytes);
            self.socket.send(&bytes, 0)?;
            if let Some(answers) = self.dump_answers()? {
                return Ok(answers);
            }
        }
        Err(io::Error::other(format!(
            "the kernel's table kept changing while it was read, {DUMP_ATTEMPTS} times over"
        )))
    }

    /// `None` if the table changed underway.
    fn dump_answers(&mut self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let (mut answers, mut whole) = (Vec::new(), true);
        loop {
            let sequence = self.sequence;
            for message in self.receive()? {
                if message.sequence != sequence {
                    continue;
                }
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(whole.then_some(answers)),
                    NLMSG_ERROR => match message.refusal() {
                        Some(refusal) => return Err(refusal.into()),
                        None => return Ok(whole.then_some(answers)),
                    },
                    _ => answers.push(message.payload.to_vec()),
                }
            }
        }
    }

    fn encode(&mut self, request: Request, bytes: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | request.flags;
        header.sequence_number = self.sequence;
        let mut message =
            NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message));
        message.finalize();
        let at = bytes.len();
        bytes.resize(at + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[at..]);
    }

    fn receive(&mut self) -> io::Result<Messages<'_>> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0).map_err(late)?;
        Ok(Messages(&self.buffer))
    }
}

/// One message as it came, unparsed.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

impl Message<'_> {
    /// What an error message means; `None` is the acknowledgement.
    fn refusal(&self) -> Option<Refusal> {
        let code = self
            .payload
            .first_chunk()
            .map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
        if code == 0 {
            return None;
        }
        let told = NLM_F_ACK_TLVS | NLM_F_CAPPED;
        let rest = self.payload.get(4 + HEADER..);
        let words = rest
            .filter(|_| self.flags & told == told)
            .and_then(|rest| attributes(rest).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG))
            .map(|(_, text)| {
                let text = text.split(|b| *b == 0).next().unwrap_or(&[]);
                String::from_utf8_lossy(text).into_owned()
            });
        Some(Refusal {
            errno: code.saturating_neg(),
            words,
        })
    }
}

/// The messages of one datagram; a broken header ends it.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header: &[u8; HEADER] = self.0.first_chunk()?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = usize::try_from(word(0)).ok()?;
        let payload = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message {
            kind: half(4),
            flags: half(6),
            sequence: word(8),
            payload,
        })
    }
}

/// The attributes in a row (kind without its flags, value); a broken one ends it.
pub(crate) fn attributes(row: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = row;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn rename(index: u32) -> Request {
        let mut nobody = LinkMessage::default();
        nobody.header.index = index;
        Request {
            message: RouteNetlinkMessage::SetLink(nobody),
            flags: 0,
        }
    }

    #[test]
    fn a_batch_tells_refused_from_done_and_leaves_the_socket_usable() {
        let mut requests = Requests::open().expect("a socket");
        // More than one part, all refused (no such device, or not permitted).
        let many = vec![rename(i32::MAX as u32); BATCH + 3];
        let results = requests.batch(many).expect("answers");
        assert_eq!(results.len(), BATCH + 3);
        for result in results {
            let refusal = result.expect_err("no such device");
            assert!(
                [libc::ENODEV, libc::EPERM].contains(&refusal.errno),
                "{refusal}"
            );
        }
        assert!(requests.batch(vec![]).expect("nothing to do").is_empty());
        let links = requests
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .expect("links");
        assert!(!links.is_empty());
    }

    #[test]
    fn broken_messages_and_attributes_end_the_walk() {
        let mut whole = vec![0; 20];
        whole[..4].copy_from_slice(&20u32.to_ne_bytes());
        assert_eq!(Messages(&whole).count(), 1);
        assert_eq!(Messages(&whole[..19]).count(), 0);
        whole[..4].copy_from_slice(&3u32.to_ne_bytes());
        assert_eq!(Messages(&whole).count(), 0);

        let row = [
            &5u16.to_ne_bytes()[..],
            &7u16.to_ne_bytes(),
            &[1, 0, 0, 0],
            &6u16.to_ne_bytes(),
            &0x8009u16.to_ne_bytes(),
            &[2, 3],
        ]
        .concat();
        let all: Vec<_> = attributes(&row).collect();
        assert_eq!(all, [(7, &[1][..]), (9, &[2, 3][..])]);
        assert_eq!(attributes(&row[..13]).count(), 1);
        // A length of less than its own header would be read for ever.
        assert_eq!(attributes(&[0, 0, 1, 0, 0, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        payload.extend([9, 0, 1, 0]);
        payload.extend(b"nope\0");
        let message = Message {
            kind: NLMSG_ERROR,
            flags: NLM_F_ACK_TLVS | NLM_F_CAPPED,
            sequence: 1,
            payload: &payload,
        };
        let refusal = message.refusal().expect("an error");
        assert_eq!(
            (refusal.errno, refusal.words.as_deref()),
            (libc::EINVAL, Some("nope"))
        );
        assert!(refusal.to_string().ends_with(": nope"));
    }
}

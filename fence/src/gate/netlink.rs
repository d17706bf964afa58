//! Requests to rtnetlink on a blocking socket, one at a time; answers unparsed.

use std::fmt;
use std::io;

use netlink_packet_core::{
    NLA_TYPE_MASK, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    parse_string,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use crate::sockets::{asking, late};

/// How often a dump that was changed underway is begun anew.
const DUMP_ATTEMPTS: u32 = 10;
/// The kernel writes no larger piece of a dump.
const RECEIVE_BYTES: usize = 64 * 1024;
/// An attribute of an error message: its text.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A socket for requests, in the network namespace of the thread that made it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A message of an answer: what follows its header.
pub(super) struct Answer {
    pub(super) payload: Vec<u8>,
}

/// What the kernel said instead of doing it.
#[derive(Debug)]
pub(super) struct Refusal {
    source: io::Error,
    words: Option<String>,
}

impl Refusal {
    /// The error number, if the kernel gave one.
    pub(super) fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// With the kernel's own words, which cost the number.
    pub(super) fn into_io(self) -> io::Error {
        match self.words {
            Some(_) => io::Error::other(self.to_string()),
            None => self.source,
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Refusal {
        Refusal {
            source,
            words: None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.words {
            Some(words) => write!(f, "{}: {words}", self.source),
            None => self.source.fmt(f),
        }
    }
}

enum Step {
    More,
    End,
    Changed,
}

impl Netlink {
    pub(super) fn new() -> io::Result<Netlink> {
        let (socket, _) = asking(NETLINK_ROUTE)?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// Has something done; `flags` besides REQUEST and ACK.
    pub(super) fn act(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Refusal> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }

    /// Asks for one object.
    pub(super) fn get(&mut self, message: RouteNetlinkMessage) -> Result<Vec<Answer>, Refusal> {
        self.ask(message, NLM_F_ACK).map(|(answers, _)| answers)
    }

    /// Asks for all objects, in one unbroken picture.
    pub(super) fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<Answer>, Refusal> {
        for _ in 0..DUMP_ATTEMPTS {
            let (answers, whole) = self.ask(message.clone(), NLM_F_DUMP)?;
            if whole {
                return Ok(answers);
            }
        }
        Err(io::Error::other(format!(
            "what was read kept changing, {DUMP_ATTEMPTS} times over"
        ))
        .into())
    }

    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<Answer>, bool), Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let (mut answers, mut whole) = (Vec::new(), true);
        loop {
            let mut bytes = Vec::with_capacity(RECEIVE_BYTES);
            self.socket.recv(&mut bytes, 0).map_err(late)?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (step, length) = self.take(rest, &mut answers)?;
                match step {
                    Step::End => return Ok((answers, whole)),
                    Step::Changed => whole = false,
                    Step::More => {}
                }
                rest = rest.get(length..).unwrap_or(&[]);
            }
        }
    }

    /// Takes one message off `bytes`: what it means for the answer, and its padded length.
    fn take(&self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(Step, usize), Refusal> {
        let message =
            NetlinkBuffer::new_checked(bytes).map_err(|e| io::Error::other(e.to_string()))?;
        let length = (message.length() as usize).next_multiple_of(4);
        // An answer to an earlier request that was given up.
        if message.sequence_number() != self.sequence {
            return Ok((Step::More, length));
        }
        let interrupted = message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            NLMSG_ERROR => match refusal(message.payload(), message.flags()) {
                Some(refusal) => return Err(refusal),
                None => return Ok((Step::End, length)),
            },
            NLMSG_DONE => return Ok((Step::End, length)),
            _ => answers.push(Answer {
                payload: message.payload().to_vec(),
            }),
        }
        Ok((
            if interrupted {
                Step::Changed
            } else {
                Step::More
            },
            length,
        ))
    }
}

/// An error message's meaning; `None` is the acknowledgement.
fn refusal(payload: &[u8], flags: u16) -> Option<Refusal> {
    /// Length of the request's header, which is repeated behind the code.
    const REQUEST_HEADER: usize = 16;
    let code = payload
        .first_chunk()
        .map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
    if code == 0 {
        return None;
    }
    let attributes = payload
        .get(4 + REQUEST_HEADER..)
        .filter(|_| flags & NLM_F_ACK_TLVS != 0);
    let words = attribute(attributes.unwrap_or(&[]), NLMSGERR_ATTR_MSG)
        .and_then(|words| parse_string(words).ok());
    Some(Refusal {
        source: io::Error::from_raw_os_error(code.saturating_neg()),
        words,
    })
}

/// The first attribute of a kind in a row of attributes.
pub(super) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let this = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        if this == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::LinkMessage;

    #[test]
    fn says_what_the_kernel_says() {
        let mut netlink = Netlink::new().expect("a socket");
        let mut nobody = LinkMessage::default();
        nobody.header.index = i32::MAX as u32;
        let refusal = netlink
            .get(RouteNetlinkMessage::GetLink(nobody))
            .err()
            .expect("no such link");
        assert_eq!(refusal.errno(), Some(libc::ENODEV));
        // The socket is good for the next question.
        let links = netlink
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .expect("links");
        assert!(!links.is_empty());
    }

    #[test]
    fn attributes_are_found_and_broken_ones_end_the_search() {
        let kind = |k: u16| k.to_ne_bytes();
        let row = [
            &5u16.to_ne_bytes()[..],
            &kind(7),
            &[1, 0, 0, 0],
            &6u16.to_ne_bytes(),
            &kind(0x8009),
            &[2, 3],
        ];
        let row = row.concat();
        assert_eq!(attribute(&row, 7), Some(&[1][..]));
        assert_eq!(attribute(&row, 9), Some(&[2, 3][..]));
        assert_eq!(attribute(&row, 8), None);
        assert_eq!(attribute(&row[..9], 9), None);
        assert_eq!(attribute(&row[..13], 9), None);
        // A length of less than its own header would be read for ever.
        assert_eq!(attribute(&[0, 0, 1, 0, 0, 0, 1, 0], 9), None);
    }
}

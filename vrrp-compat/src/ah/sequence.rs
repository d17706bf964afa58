//! Sequence numbers of the authentication header: what is sent is believed, what is repeated is not.

use std::net::Ipv4Addr;

/// Where numbers begin again. keepalived sends none beyond the next one and then falls silent; when it becomes
/// owner the next time, it begins again at 1.
const END: u32 = 0xffff_fffd;
/// Senders that are remembered. Only those whose packets are authentic come here, so that is plenty.
const SENDERS: usize = 64;

/// The numbers of one virtual router: the next to send, and the last heard of each sender.
///
/// keepalived keeps a single number for both, and refuses every packet that is not above it, whoever sent it: what
/// leaves here has to be above all that any of its peers can have seen. The clock gives that across restarts
/// (keepalived itself counts from 1), as long as fewer than one packet a second was sent.
///
/// On receipt Buoy deliberately differs and looks at each sender alone: with keepalived's rule, of two owners the
/// one that has sent more never hears of the other.
#[derive(Clone, Default, Debug)]
pub struct Sequence {
    sent: u32,
    highest: u32,
    heard: Vec<(Ipv4Addr, u32)>,
}

/// A packet that was seen before, or is older than one that was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "sequence number {found} of {sender} in the authentication header, expected more than {last}: \
     a repeated packet, or the sender began to count again"
)]
pub struct Replay {
    /// Who sent it, or in whose name it was repeated.
    pub sender: Ipv4Addr,
    /// The highest number seen from there.
    pub last: u32,
    /// The number of this packet.
    pub found: u32,
}

impl Sequence {
    /// The number of the next packet: above all that were sent and heard, and not below the clock (seconds since
    /// 1970). After some 4.29 billion it begins again at the clock: peers may refuse that for a while, but an
    /// owner that falls silent would be worse.
    pub fn next(&mut self, unix_seconds: u64) -> u32 {
        let clock = u32::try_from(unix_seconds).unwrap_or(0).clamp(1, END);
        let above = self.sent.max(self.highest).saturating_add(1);
        self.sent = if above > END {
            self.highest = 0;
            clock
        } else {
            above.max(clock)
        };
        self.sent
    }

    /// Checks and notes the number of a packet that is authentic ([`super::open`]): it must be above the last one
    /// of the same sender. The first of a sender is believed, and so is every one after the end of the numbers.
    ///
    /// # Errors
    /// The number is not above the last one; nothing is noted then.
    pub fn check(&mut self, sender: Ipv4Addr, number: u32) -> Result<(), Replay> {
        match self.heard.iter_mut().find(|(s, _)| *s == sender) {
            Some((_, last)) if number <= *last && *last < END => {
                return Err(Replay {
                    sender,
                    last: *last,
                    found: number,
                });
            }
            Some((_, last)) => *last = number,
            None => self.remember(sender, number),
        }
        self.highest = self.highest.max(number);
        Ok(())
    }

    /// The next packet of this sender is believed whatever its number: it was silent for so long that it may have begun
    /// to count again.
    pub fn forget(&mut self, sender: Ipv4Addr) {
        self.heard.retain(|(s, _)| *s != sender);
    }

    /// The one with the lowest number has been silent the longest, if clocks agree at all; it makes room.
    fn remember(&mut self, sender: Ipv4Addr, number: u32) {
        if self.heard.len() < SENDERS {
            self.heard.push((sender, number));
        } else if let Some(oldest) = self.heard.iter_mut().min_by_key(|(_, last)| *last) {
            *oldest = (sender, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
    const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);

    #[test]
    fn numbers_grow_over_clock_sent_and_heard() {
        let mut numbers = Sequence::default();
        assert_eq!(numbers.next(1000), 1000);
        assert_eq!(numbers.next(1000), 1001, "two in a second");
        assert_eq!(numbers.next(900), 1002, "the clock went back");
        numbers.check(A, 5000).unwrap();
        assert_eq!(numbers.next(1001), 5001);
        assert_eq!(numbers.next(6000), 6000);
    }

    #[test]
    fn a_forgotten_sender_may_begin_again() {
        let mut numbers = Sequence::default();
        numbers.check(A, 10).unwrap();
        numbers.check(B, 10).unwrap();
        numbers.forget(A);
        numbers.check(A, 1).unwrap();
        numbers.check(B, 1).unwrap_err();
    }

    #[test]
    fn every_sender_has_to_grow() {
        let mut numbers = Sequence::default();
        numbers.check(A, 10).unwrap();
        for found in [10, 9, 0] {
            let refused = Replay {
                sender: A,
                last: 10,
                found,
            };
            assert_eq!(numbers.check(A, found), Err(refused));
        }
        numbers.check(A, 11).unwrap();
        numbers
            .check(B, 3)
            .expect("another sender counts for itself");
        let own = numbers.next(50);
        numbers
            .check(B, 4)
            .unwrap_or_else(|e| panic!("own number {own} counts: {e}"));
    }

    #[test]
    fn the_end_of_the_numbers_is_survived() {
        let mut numbers = Sequence::default();
        numbers.check(A, u32::MAX).unwrap();
        assert_eq!(numbers.next(1000), 1000, "begins again at the clock");
        assert_eq!(numbers.next(1000), 1001);
        numbers.check(A, 1).expect("keepalived begins again at 1");
        assert!(numbers.check(A, 1).is_err());
        assert_eq!(numbers.next(u64::MAX), 1002, "a clock beyond 2106");
    }

    #[test]
    fn a_clock_before_1970_gives_no_zero() {
        assert_eq!(Sequence::default().next(0), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let mut numbers = Sequence::default();
        for n in 0..1000 {
            numbers.check(Ipv4Addr::from(n), n + 1).unwrap();
        }
        assert_eq!(numbers.heard.len(), SENDERS);
        assert!(numbers.check(Ipv4Addr::from(999), 1000).is_err());
    }
}

//! Held addresses that the kernel does not take back: tried again for a while, then told to be lost.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;

/// Time between two attempts to put an address back that the kernel refused.
pub const RETRY_EVERY: Duration = Duration::from_millis(100);
/// An address that could not be put back for so long is told to be lost. Long enough for an interface that is being
/// configured, short beside a user's patience: the VIP is dark meanwhile, and another node could hold it.
pub const LOST_AFTER: Duration = Duration::from_secs(1);

/// What a refusal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// The first one: say it, and try again.
    First,
    /// Try again.
    Again,
    /// It has lasted for so long: the address is lost, and still tried again.
    Lost(Duration),
}

/// Since when each address is missing and refused.
#[derive(Default)]
pub(super) struct Absent(BTreeMap<IpAddr, Mono>);

impl Absent {
    /// The kernel refused to take an address back.
    pub(super) fn refused(&mut self, ip: IpAddr, now: Mono) -> Refused {
        match self.0.get(&ip) {
            None => {
                self.0.insert(ip, now);
                Refused::First
            }
            Some(since) if now.since(*since) < LOST_AFTER => Refused::Again,
            Some(since) => Refused::Lost(now.since(*since)),
        }
    }

    /// The address is there, or is not to be put back any more.
    pub(super) fn settled(&mut self, ip: IpAddr) {
        self.0.remove(&ip);
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains_key(&ip)
    }

    pub(super) fn all(&self) -> Vec<IpAddr> {
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn an_address_is_lost_after_a_while_and_an_interruption_begins_anew() {
        let mut absent = Absent::default();
        let at = Mono::from_millis;
        assert_eq!(absent.refused(IP, at(5_000)), Refused::First);
        assert_eq!(absent.refused(IP, at(5_999)), Refused::Again);
        let lost = Refused::Lost(Duration::from_millis(1_000));
        assert_eq!(absent.refused(IP, at(6_000)), lost);
        absent.settled(IP);
        assert_eq!(absent.refused(IP, at(6_100)), Refused::First);
        assert!(absent.contains(IP));
    }
}

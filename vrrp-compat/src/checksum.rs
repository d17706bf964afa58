//! The Internet checksum (RFC 1071), with the pseudo-headers of IPv4 and IPv6.

use std::net::IpAddr;

use crate::packet::IP_PROTOCOL;

/// One's complement sum, folded when asked for.
#[derive(Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd last one counts as the high half of a word.
    pub fn with(mut self, bytes: &[u8]) -> Self {
        let (pairs, rest) = bytes.as_chunks::<2>();
        for pair in pairs {
            self.0 += u64::from(u16::from_be_bytes(*pair));
        }
        if let [last] = rest {
            self.0 += u64::from(*last) << 8;
        }
        self
    }

    /// Adds the pseudo-header for a VRRP packet of `length` bytes: RFC 793 section 3.1 for IPv4 (as
    /// RFC 9568 section 5.2.8 uses it), RFC 8200 section 8.1 for IPv6.
    pub fn pseudo_header(self, source: IpAddr, destination: IpAddr, length: usize) -> Self {
        let sum = match source {
            IpAddr::V4(a) => self.with(&a.octets()),
            IpAddr::V6(a) => self.with(&a.octets()),
        };
        let mut sum = match destination {
            IpAddr::V4(a) => sum.with(&a.octets()),
            IpAddr::V6(a) => sum.with(&a.octets()),
        };
        sum.0 += length as u64 + u64::from(IP_PROTOCOL);
        sum
    }

    /// The checksum field that makes the whole sum zero.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        let sum = Sum::default().with(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn odd_length_pads_with_zero() {
        assert_eq!(
            Sum::default().with(&[1, 2, 3]).finish(),
            Sum::default().with(&[1, 2, 3, 0]).finish()
        );
    }
}

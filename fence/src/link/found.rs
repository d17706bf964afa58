//! Interfaces and addresses as the kernel describes them.

use std::net::IpAddr;

use crate::rtnl::attributes;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Interface index, 1 or larger; a new one when the interface is made anew.
    pub index: u32,
    /// Name, 1 to 15 bytes.
    pub name: String,
    /// Hardware address; `None` if it has none of 6 bytes.
    pub mac: Option<[u8; 6]>,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// The cable is good (`IFF_LOWER_UP`) and the interface operational (`IFF_RUNNING`).
    pub carrier: bool,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Hardware type (`ARPHRD_*`), e.g. [`ARPHRD_ETHER`](super::ARPHRD_ETHER).
    pub arphrd: u16,
    /// An XDP program sees, and may answer, packets before the packet gate does.
    pub xdp: bool,
}

impl Link {
    /// Whether packets can pass: up, and with a carrier.
    pub fn usable(&self) -> bool {
        self.up && self.carrier
    }

    /// Reads `struct ifinfomsg` and its attributes.
    pub(crate) fn parse(payload: &[u8]) -> Option<Link> {
        let header: &[u8; 16] = payload.first_chunk()?;
        let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let has = |bits: i32| flags & bits as u32 == bits as u32;
        let mut link = Link {
            index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            name: String::new(),
            mac: None,
            up: has(libc::IFF_UP),
            carrier: has(libc::IFF_LOWER_UP | libc::IFF_RUNNING),
            mtu: 0,
            arphrd: u16::from_ne_bytes([header[2], header[3]]),
            xdp: false,
        };
        for (kind, value) in attributes(&payload[16..]) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_ADDRESS => link.mac = value.try_into().ok(),
                IFLA_MTU => link.mtu = number(value).unwrap_or(0),
                // Nested; `XDP_ATTACHED_NONE` is 0.
                IFLA_XDP => {
                    link.xdp = attributes(value)
                        .any(|(kind, mode)| kind == IFLA_XDP_ATTACHED && mode != [0]);
                }
                _ => {}
            }
        }
        Some(link)
    }
}

/// An address that an interface carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundAddress {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Interface that carries it.
    pub ifindex: u32,
    /// The other end of a point-to-point link; otherwise the address itself.
    pub peer: IpAddr,
    /// IPv4 label.
    pub label: Option<String>,
    /// Scope (`RT_SCOPE_*`: 0 global, 253 link, 254 host).
    pub scope: u8,
    /// `IFA_F_*`.
    pub flags: u32,
    /// Remaining valid lifetime in seconds; `u32::MAX`: for ever.
    pub valid: u32,
    /// Remaining preferred lifetime in seconds; `u32::MAX`: for ever.
    pub preferred: u32,
}

impl FoundAddress {
    /// Reads `struct ifaddrmsg` and its attributes.
    pub(crate) fn parse(payload: &[u8]) -> Option<FoundAddress> {
        let header: &[u8; 8] = payload.first_chunk()?;
        let family = i32::from(header[0]);
        let (mut local, mut address, mut label) = (None, None, None);
        let mut flags = u32::from(header[2]);
        let (mut preferred, mut valid) = (u32::MAX, u32::MAX);
        for (kind, value) in attributes(&payload[8..]) {
            match kind {
                IFA_LOCAL => local = ip(family, value),
                IFA_ADDRESS => address = ip(family, value),
                IFA_LABEL => label = Some(text(value)),
                IFA_FLAGS => flags = number(value).unwrap_or(flags),
                IFA_CACHEINFO => {
                    preferred = number(value).unwrap_or(u32::MAX);
                    valid = value.get(4..).and_then(number).unwrap_or(u32::MAX);
                }
                _ => {}
            }
        }
        let ip = local.or(address)?;
        Some(FoundAddress {
            ip,
            prefix: header[1],
            ifindex: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            peer: address.unwrap_or(ip),
            label,
            scope: header[3],
            flags,
            valid,
            preferred,
        })
    }

    /// Whether `other` lies in this address's subnet. A host address (/32, /128) is no subnet.
    pub fn covers(&self, other: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => (32u8, u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => (128, v6.to_bits()),
        };
        let ((width, net), (other_width, other)) = (bits(self.peer), bits(other));
        if width != other_width || self.prefix >= width {
            return false;
        }
        let mask = match self.prefix {
            0 => 0,
            n => u128::MAX << (128 - u32::from(n)),
        };
        net & mask == other & mask
    }
}

fn text(value: &[u8]) -> String {
    let bytes = value.split(|b| *b == 0).next().unwrap_or(&[]);
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

fn ip(family: i32, value: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        libc::AF_INET6 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_messages_are_no_links_and_no_addresses() {
        assert_eq!(Link::parse(&[0; 15]), None);
        assert_eq!(FoundAddress::parse(&[2, 24, 0, 0]), None);
        // An IPv4 address of three bytes.
        let odd = [2, 24, 0, 0, 1, 0, 0, 0, 7, 0, 2, 0, 10, 0, 0, 0];
        assert_eq!(FoundAddress::parse(&odd), None);
    }
}

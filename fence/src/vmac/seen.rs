//! What a dump of interfaces says of macvlans and of what is below them.

use buoy_core::spec::VirtualLink;

use crate::rtnl::attributes;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IFALIAS: u16 = 20;
pub const IFLA_AF_SPEC: u16 = 26;
const IFLA_LINK_NETNSID: u16 = 37;
pub const AF_INET: u16 = libc::AF_INET as u16;
pub const IFLA_INET_CONF: u16 = 1;
/// `MACVLAN_MODE_BRIDGE`.
const BRIDGE: u32 = 4;

/// IPv4 settings of an interface, by the kernel's numbers (`IPV4_DEVCONF_*`).
pub const FORWARDING: u16 = 1;
pub const RP_FILTER: u16 = 8;
pub const ARP_ANNOUNCE: u16 = 18;
pub const ARP_IGNORE: u16 = 19;

const MARK: &str = "buoy virtual MAC";

/// What was there before, of an interface below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Before {
    pub arp_ignore: u32,
    pub arp_announce: u32,
}

impl Before {
    pub fn alias(self) -> String {
        let Before {
            arp_ignore,
            arp_announce,
        } = self;
        format!("{MARK}, below was arp_ignore={arp_ignore} arp_announce={arp_announce}")
    }

    fn read(alias: &str) -> Option<Before> {
        let words = alias.strip_prefix(MARK)?;
        let number = |key: &str| {
            let mut words = words.split([' ', ',']);
            words.find_map(|word| word.strip_prefix(key)?.parse().ok())
        };
        Some(Before {
            arp_ignore: number("arp_ignore=")?,
            arp_announce: number("arp_announce=")?,
        })
    }
}

/// An interface, as far as this goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    pub index: u32,
    pub name: String,
    mac: Option<[u8; 6]>,
    pub up: bool,
    pub kind: Option<String>,
    mode: Option<u32>,
    /// The interface below, unless it is in another network namespace.
    pub parent: Option<u32>,
    alias: Option<String>,
    /// IPv4 settings from number 1.
    conf: Vec<u32>,
}

impl Seen {
    pub fn parse(payload: &[u8]) -> Option<Seen> {
        let header: &[u8; 16] = payload.first_chunk()?;
        let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let mut seen = Seen {
            index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            up: flags & libc::IFF_UP as u32 != 0,
            ..Seen::default()
        };
        let mut elsewhere = false;
        for (kind, value) in attributes(&payload[16..]) {
            match kind {
                IFLA_IFNAME => seen.name = text(value),
                IFLA_ADDRESS => seen.mac = value.try_into().ok(),
                IFLA_LINK => seen.parent = number(value),
                IFLA_LINK_NETNSID => elsewhere = true,
                IFLA_IFALIAS => seen.alias = Some(text(value)),
                IFLA_LINKINFO => {
                    for (kind, value) in attributes(value) {
                        match kind {
                            IFLA_INFO_KIND => seen.kind = Some(text(value)),
                            IFLA_INFO_DATA => {
                                seen.mode = attributes(value)
                                    .find(|(kind, _)| *kind == IFLA_MACVLAN_MODE)
                                    .and_then(|(_, value)| number(value));
                            }
                            _ => {}
                        }
                    }
                }
                IFLA_AF_SPEC => {
                    let inet = attributes(value).find(|(kind, _)| *kind == AF_INET);
                    let conf = inet.and_then(|(_, inet)| {
                        attributes(inet).find(|(kind, _)| *kind == IFLA_INET_CONF)
                    });
                    if let Some((_, conf)) = conf {
                        seen.conf = conf.chunks_exact(4).filter_map(number).collect();
                    }
                }
                _ => {}
            }
        }
        if elsewhere {
            seen.parent = None;
        }
        Some(seen)
    }

    pub fn conf(&self, which: u16) -> u32 {
        let value = self.conf.get(usize::from(which) - 1);
        value.copied().unwrap_or(0)
    }

    fn is_macvlan(&self) -> bool {
        self.kind.as_deref() == Some("macvlan")
    }

    /// One that a daemon of this host made.
    pub fn is_ours(&self) -> bool {
        let marked = |alias: &String| alias.starts_with(MARK);
        self.is_macvlan() && self.alias.as_ref().is_some_and(marked)
    }

    pub fn is(&self, link: &VirtualLink, base: &Seen) -> bool {
        self.is_macvlan()
            && self.mode == Some(BRIDGE)
            && self.mac == Some(link.mac)
            && self.parent == Some(base.index)
    }

    pub fn before(&self) -> Option<Before> {
        self.alias.as_deref().and_then(Before::read)
    }
}

fn text(value: &[u8]) -> String {
    let bytes = value.split(|b| *b == 0).next().unwrap_or(&[]);
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// A netlink attribute, filled up to a multiple of four.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_tells_what_was_there_before() {
        let before = Before {
            arp_ignore: 0,
            arp_announce: 1,
        };
        assert_eq!(Before::read(&before.alias()), Some(before));
        assert_eq!(Before::read("uplink"), None);
        assert_eq!(Before::read(MARK), None);
        assert!(before.alias().len() < 256);
    }

    #[test]
    fn what_a_link_is_is_read_from_its_attributes() {
        let payload = |more: &[Vec<u8>]| [vec![0; 16], more.concat()].concat();
        let info = [
            attribute(IFLA_INFO_KIND, b"macvlan\0"),
            attribute(
                IFLA_INFO_DATA,
                &attribute(IFLA_MACVLAN_MODE, &BRIDGE.to_ne_bytes()),
            ),
        ];
        let conf: Vec<u8> = (1..=30u32).flat_map(u32::to_ne_bytes).collect();
        let family = attribute(AF_INET, &attribute(IFLA_INET_CONF, &conf));
        let mac = [0, 0, 0x5e, 0, 1, 51];
        let mut parts = vec![
            attribute(IFLA_IFNAME, b"vrrp.51.eth0\0"),
            attribute(IFLA_ADDRESS, &mac),
            attribute(IFLA_LINK, &2u32.to_ne_bytes()),
            attribute(IFLA_LINKINFO, &info.concat()),
            attribute(IFLA_AF_SPEC, &family),
        ];
        let link = VirtualLink {
            name: "vrrp.51.eth0".to_owned(),
            base: "eth0".to_owned(),
            mac,
        };
        let base = Seen {
            index: 2,
            ..Seen::default()
        };
        let seen = Seen::parse(&payload(&parts)).unwrap();
        assert_eq!(seen.conf(ARP_IGNORE), u32::from(ARP_IGNORE));
        assert!(seen.is(&link, &base) && !seen.is_ours());
        let other = VirtualLink {
            mac: [0, 0, 0x5e, 0, 1, 52],
            ..link.clone()
        };
        assert!(!seen.is(&other, &base));
        // Its index means nothing here.
        parts.push(attribute(IFLA_LINK_NETNSID, &[0; 4]));
        parts.push(attribute(IFLA_IFALIAS, MARK.as_bytes()));
        let seen = Seen::parse(&payload(&parts)).unwrap();
        assert!(!seen.is(&link, &base) && seen.is_ours());
    }
}

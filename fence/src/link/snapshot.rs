//! Whether a VIP may live on an interface, going by how the host is at one moment.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{ARPHRD_ETHER, ARPHRD_LOOPBACK, FoundAddress, Link};

/// Why a VIP cannot live on an interface of this host at this time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkFault {
    /// No interface of that name.
    #[error("interface {interface} is missing on this host (it has {present})")]
    Missing {
        /// The name looked for.
        interface: String,
        /// Names of those that are there, separated by commas.
        present: String,
    },
    /// The administrator has not set it up.
    #[error("interface {interface} is down (`ip link set {interface} up` sets it up)")]
    Down {
        /// Its name.
        interface: String,
    },
    /// Up, but no cable or no peer.
    #[error("interface {interface} has no carrier (cable, switch port or its lower device)")]
    NoCarrier {
        /// Its name.
        interface: String,
    },
    /// No hardware on which neighbours could be told about a VIP.
    #[error(
        "interface {interface} is not Ethernet (hardware type {arphrd}), so neighbours cannot be told where a \
         VIP is; expected an Ethernet-like interface, or the loopback interface"
    )]
    NotEthernet {
        /// Its name.
        interface: String,
        /// Its hardware type (`ARPHRD_*`).
        arphrd: u16,
    },
    /// No neighbour would look for the address on that link.
    #[error(
        "address {ip} is outside every prefix of interface {interface} (it has {prefixes}); give the interface \
         an address of that subnet, or the VIP another interface"
    )]
    OutsidePrefixes {
        /// The VIP's address.
        ip: IpAddr,
        /// Name of the interface.
        interface: String,
        /// The interface's prefixes, separated by commas.
        prefixes: String,
    },
}

/// Interfaces and addresses of this host, as they were at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Interfaces by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses of all interfaces, in the kernel's order.
    pub addresses: Vec<FoundAddress>,
}

impl Snapshot {
    /// The interface of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// Name of an interface, or its index where it has gone meanwhile.
    pub fn name(&self, ifindex: u32) -> String {
        let link = self.links.get(&ifindex);
        link.map_or_else(|| format!("#{ifindex}"), |link| link.name.clone())
    }

    /// Whether a VIP with these addresses may live on `interface` now, as far as the interface goes.
    ///
    /// # Errors
    /// The first fault found, in words for the operator.
    pub fn check(&self, interface: &str, vip: &[IpAddr]) -> Result<(), LinkFault> {
        let link = self.check_link(interface)?;
        if link.arphrd == ARPHRD_LOOPBACK {
            return Ok(());
        }
        let own = |a: &&FoundAddress| a.ifindex == link.index && !vip.contains(&a.ip);
        for ip in vip {
            let mut nets = self.addresses.iter().filter(own);
            if !nets.any(|a| a.covers(*ip)) {
                return Err(LinkFault::OutsidePrefixes {
                    ip: *ip,
                    interface: interface.to_owned(),
                    prefixes: self.prefixes(link.index, ip.is_ipv6(), vip),
                });
            }
        }
        Ok(())
    }

    /// The interface of that name, whatever its state.
    ///
    /// # Errors
    /// [`LinkFault::Missing`].
    pub fn present(&self, interface: &str) -> Result<&Link, LinkFault> {
        self.link(interface).ok_or_else(|| {
            let names: Vec<_> = self.links.values().map(|link| link.name.as_str()).collect();
            LinkFault::Missing {
                interface: interface.to_owned(),
                present: names.join(", "),
            }
        })
    }

    /// Whether any VIP may live on `interface` now.
    ///
    /// # Errors
    /// [`LinkFault`], never `OutsidePrefixes`.
    pub fn check_link(&self, interface: &str) -> Result<&Link, LinkFault> {
        let link = self.present(interface)?;
        let interface = interface.to_owned();
        if !link.up {
            return Err(LinkFault::Down { interface });
        }
        if !link.carrier {
            return Err(LinkFault::NoCarrier { interface });
        }
        match (link.arphrd, link.mac) {
            (ARPHRD_LOOPBACK, _) | (ARPHRD_ETHER, Some(_)) => Ok(link),
            (arphrd, _) => Err(LinkFault::NotEthernet { interface, arphrd }),
        }
    }

    fn prefixes(&self, ifindex: u32, v6: bool, except: &[IpAddr]) -> String {
        let own = self.addresses.iter().filter(|a| a.ifindex == ifindex);
        let own = own.filter(|a| a.ip.is_ipv6() == v6 && !except.contains(&a.ip));
        let all: Vec<_> = own.map(|a| format!("{}/{}", a.ip, a.prefix)).collect();
        match all.is_empty() {
            true => format!("no {} address", if v6 { "IPv6" } else { "IPv4" }),
            false => all.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ip: &str, prefix: u8, ifindex: u32) -> FoundAddress {
        let ip: IpAddr = ip.parse().expect("an address");
        FoundAddress {
            ip,
            prefix,
            ifindex,
            peer: ip,
            label: None,
            scope: 0,
            flags: 0,
            valid: u32::MAX,
            preferred: u32::MAX,
        }
    }

    fn host() -> Snapshot {
        let link = |index, name: &str, up, carrier, arphrd| Link {
            index,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, index as u8]),
            up,
            carrier,
            mtu: 1500,
            arphrd,
            xdp: false,
        };
        let links = [
            link(1, "lo", true, true, ARPHRD_LOOPBACK),
            link(2, "eth0", true, true, ARPHRD_ETHER),
            link(3, "eth1", false, false, ARPHRD_ETHER),
            link(4, "eth2", true, false, ARPHRD_ETHER),
            link(5, "tun0", true, true, 65534),
        ];
        Snapshot {
            links: links.into_iter().map(|l| (l.index, l)).collect(),
            addresses: vec![
                found("10.0.0.1", 24, 2),
                found("10.0.0.9", 32, 2),
                found("fd00::1", 64, 2),
            ],
        }
    }

    fn fault(interface: &str, ip: &str) -> String {
        let vip = [ip.parse().expect("an address")];
        match host().check(interface, &vip) {
            Ok(()) => "fine".to_owned(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn a_fault_says_what_is_wrong_with_which_interface() {
        assert_eq!(fault("eth0", "10.0.0.200"), "fine");
        assert_eq!(fault("eth0", "fd00::abcd"), "fine");
        assert_eq!(fault("lo", "192.0.2.1"), "fine");
        for (interface, ip, words) in [
            (
                "eth9",
                "10.0.0.2",
                "interface eth9 is missing on this host (it has lo, eth0",
            ),
            ("eth1", "10.0.0.2", "interface eth1 is down"),
            ("eth2", "10.0.0.2", "interface eth2 has no carrier"),
            (
                "tun0",
                "10.0.0.2",
                "interface tun0 is not Ethernet (hardware type 65534)",
            ),
            (
                "eth0",
                "10.0.1.2",
                "10.0.1.2 is outside every prefix of interface eth0 (it has 10.0.0.1/24, 10.0.0.9/32)",
            ),
            ("eth0", "fd01::2", "(it has fd00::1/64)"),
        ] {
            let said = fault(interface, ip);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_vip_is_no_reason_for_itself() {
        let mut host = host();
        let vip: IpAddr = "10.7.0.5".parse().expect("an address");
        host.addresses.push(found("10.7.0.5", 24, 2));
        assert!(matches!(
            host.check("eth0", &[vip]),
            Err(LinkFault::OutsidePrefixes { .. })
        ));
        host.addresses.push(found("10.7.0.1", 24, 2));
        assert_eq!(host.check("eth0", &[vip]), Ok(()));
    }

    #[test]
    fn prefixes_cover_their_subnet_only() {
        let covers = |ip: &str, prefix, other: &str| {
            found(ip, prefix, 1).covers(other.parse().expect("an address"))
        };
        assert!(covers("10.0.0.1", 25, "10.0.0.127"));
        assert!(!covers("10.0.0.1", 25, "10.0.0.128"));
        assert!(covers("10.0.0.1", 0, "192.0.2.1"));
        assert!(!covers("10.0.0.1", 32, "10.0.0.1"));
        assert!(covers("fe80::1", 64, "fe80::2"));
        assert!(!covers("fd00::1", 127, "fd00::2"));
        assert!(!covers("10.0.0.1", 0, "fd00::2"));
    }
}

//! Virtual MACs: which interface carries an address of a VIP.
//!
//! With a virtual MAC the addresses are on an interface of Buoy's own on top of the one that the VIP names (a macvlan),
//! so that neighbours find the same MAC wherever the VIP is. Everything that has to know where an address is asks
//! [`VipSpec::carrier_of`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::VipSpec;
use super::vrrp::VrrpMac;

/// Longest name of an interface, in bytes.
const NAME_MAX: usize = 15;

/// An interface that Buoy makes for the virtual MAC of a VIP.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VirtualLink {
    /// Its name, see [`virtual_link`].
    pub name: String,
    /// The interface below, which the VIP names.
    pub base: String,
    /// The virtual router's MAC (RFC 9568 section 7.3).
    pub mac: [u8; 6],
}

/// The interface of a virtual router: `vrrp.<vrid>.<base>`, for IPv6 `vrrp6.<vrid>.<base>`. Where that has more than 15
/// bytes, hexadecimal digits of the base name's hash (FNV-1a, 32 bits) stand for it, as many as there is room for.
pub fn virtual_link(base: &str, vrid: u8, v4: bool) -> VirtualLink {
    let (prefix, family) = if v4 { ("vrrp", 1) } else { ("vrrp6", 2) };
    let start = format!("{prefix}.{vrid}.");
    let room = NAME_MAX.saturating_sub(start.len());
    let tail = match base.len() <= room {
        true => base.to_owned(),
        false => {
            let mut digits = format!("{:08x}", hash(base.as_bytes()));
            digits.truncate(room);
            digits
        }
    };
    VirtualLink {
        name: start + &tail,
        base: base.to_owned(),
        mac: [0, 0, 0x5e, 0, family, vrid],
    }
}

fn hash(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step)
}

impl VipSpec {
    /// The interfaces that Buoy makes for the VIP, one for each family of its addresses; none without a virtual MAC.
    pub fn virtual_links(&self) -> BTreeSet<VirtualLink> {
        let links = self.addresses.iter().map(|a| self.virtual_link_of(a.ip));
        links.flatten().collect()
    }

    /// Name of the interface that carries an address of the VIP.
    pub fn carrier_of(&self, ip: IpAddr) -> String {
        let own = self.virtual_link_of(ip).map(|link| link.name);
        own.unwrap_or_else(|| self.interface.clone())
    }

    /// Every interface that packets of the VIP pass, and that therefore has to carry the packet gate.
    pub fn interfaces(&self) -> BTreeSet<String> {
        let own = self.virtual_links().into_iter().map(|link| link.name);
        own.chain([self.interface.clone()]).collect()
    }

    fn virtual_link_of(&self, ip: IpAddr) -> Option<VirtualLink> {
        let face = self.vrrp.as_ref().filter(|face| face.mac.is_virtual())?;
        Some(virtual_link(&self.interface, face.vrid, ip.is_ipv4()))
    }
}

impl VrrpMac {
    /// Is the VIP on an interface of its own, which has the virtual router's MAC?
    pub fn is_virtual(self) -> bool {
        self != VrrpMac::Interface
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::VrrpSpec;
    use crate::spec::testing::vip;

    #[test]
    fn names_fit_and_differ() {
        let name = |base: &str, vrid, v4| virtual_link(base, vrid, v4).name;
        assert_eq!(name("eth0", 51, true), "vrrp.51.eth0");
        assert_eq!(name("eth0", 51, false), "vrrp6.51.eth0");
        // Stored nowhere, but a successor must find what its predecessor made.
        assert_eq!(name("enp0s31f6np0", 51, true), "vrrp.51.3f04cbe");
        let bases = ["enp129s0f0np0", "enp129s0f1np1", "a23456789012345", "b0"];
        for v4 in [true, false] {
            for vrid in [1, 51, 255] {
                let names: BTreeSet<String> = bases.map(|b| name(b, vrid, v4)).into();
                assert_eq!(names.len(), bases.len());
                assert!(names.iter().all(|n| n.len() <= NAME_MAX), "{names:?}");
            }
        }
        assert_eq!(virtual_link("eth0", 51, true).mac, [0, 0, 0x5e, 0, 1, 51]);
        assert_eq!(virtual_link("eth0", 7, false).mac, [0, 0, 0x5e, 0, 2, 7]);
    }

    #[test]
    fn only_a_virtual_mac_moves_addresses_to_another_interface() {
        let mut spec = vip("web", &["192.0.2.1/24"]);
        let ip = spec.addresses[0].ip;
        let on = |spec: &VipSpec| (spec.carrier_of(ip), spec.interfaces().len());
        assert_eq!(on(&spec), ("eth0".to_owned(), 1));
        let mut face = VrrpSpec::new(51);
        spec.vrrp = Some(Box::new(face.clone()));
        assert_eq!(on(&spec), ("eth0".to_owned(), 1));
        for mac in [VrrpMac::Virtual, VrrpMac::VirtualXmitBase] {
            face.mac = mac;
            spec.vrrp = Some(Box::new(face.clone()));
            assert_eq!(on(&spec), ("vrrp.51.eth0".to_owned(), 2));
        }
    }
}

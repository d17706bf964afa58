//! Which addresses can be a VIP's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::VipAddress;
use super::{SpecError, family};

/// What is wrong with an address and its prefix length; `field` is `ip` or `prefix`.
pub(super) fn check(a: &VipAddress) -> Option<SpecError> {
    let max = if a.ip.is_ipv4() { 32 } else { 128 };
    if let Some((why, hint)) = unusable(a.ip) {
        return Some(SpecError::error(
            "ip",
            format!("{} cannot be a VIP's address: {why}", a.ip),
            hint,
        ));
    }
    if a.prefix == 0 || a.prefix > max {
        return Some(SpecError::error(
            "prefix",
            format!(
                "prefix length {} of {} is out of range, expected 1 to {max} for {}",
                a.prefix,
                a.ip,
                family(a.ip)
            ),
            format!("use the prefix length of the interface's own address, or {max}"),
        ));
    }
    let why = match a.ip {
        IpAddr::V4(ip) => reserved_v4(ip, a.prefix),
        IpAddr::V6(ip) => reserved_v6(ip, a.prefix),
    }?;
    Some(SpecError::error(
        "ip",
        format!("{}/{} cannot be a VIP's address: {why}", a.ip, a.prefix),
        "choose a host address of the network, or check the prefix length",
    ))
}

fn unusable(ip: IpAddr) -> Option<(&'static str, &'static str)> {
    match ip {
        IpAddr::V4(ip) => unusable_v4(ip),
        IpAddr::V6(ip) => unusable_v6(ip),
    }
}

fn unusable_v4(ip: Ipv4Addr) -> Option<(&'static str, &'static str)> {
    let choose = "choose a unicast address of the interface's network";
    if ip.octets()[0] == 0 {
        Some((
            "0.0.0.0/8 means \"this network\" (RFC 1122 section 3.2.1.3)",
            choose,
        ))
    } else if ip.is_loopback() {
        Some(("it is a loopback address and never leaves the host", choose))
    } else if ip.is_multicast() {
        Some(("it is a multicast address", choose))
    } else if ip.is_broadcast() {
        Some(("it is the broadcast address", choose))
    } else if ip.octets()[0] >= 240 {
        Some(("240.0.0.0/4 is reserved (RFC 1112 section 4)", choose))
    } else if ip.is_link_local() {
        Some((
            "169.254.0.0/16 is for addresses that hosts give themselves (RFC 3927 section 1.6)",
            choose,
        ))
    } else {
        None
    }
}

/// Link-local addresses (fe80::/10) are allowed: hosts take such an address of their router as their
/// default gateway, so the VIP of a router pair must be one (RFC 9568 section 5.2.9).
fn unusable_v6(ip: Ipv6Addr) -> Option<(&'static str, &'static str)> {
    let choose = "choose a unicast address of the interface's network";
    if ip.is_unspecified() {
        Some(("it is the unspecified address", choose))
    } else if ip.is_loopback() {
        Some((
            "it is the loopback address and never leaves the host",
            choose,
        ))
    } else if ip.is_multicast() {
        Some(("it is a multicast address", choose))
    } else if ip.to_ipv4_mapped().is_some() {
        Some((
            "it is an IPv4 address in IPv6 form (::ffff:0:0/96)",
            "write the IPv4 address itself",
        ))
    } else if ip.segments()[..6] == [0; 6] {
        Some(("::/96 is reserved (RFC 4291 section 2.5.5.1)", choose))
    } else {
        None
    }
}

fn reserved_v4(ip: Ipv4Addr, prefix: u8) -> Option<String> {
    // A /31 has no network and broadcast address (RFC 3021); a /32 is one host.
    if prefix > 30 {
        return None;
    }
    let host_bits = u32::MAX >> prefix;
    match u32::from(ip) & host_bits {
        0 => Some(format!("it is the address of the network /{prefix} itself")),
        h if h == host_bits => Some(format!(
            "it is the broadcast address of its network /{prefix}"
        )),
        _ => None,
    }
}

fn reserved_v6(ip: Ipv6Addr, prefix: u8) -> Option<String> {
    // A /127 joins two routers and has no anycast address (RFC 6164); a /128 is one host.
    if prefix > 126 {
        return None;
    }
    (u128::from(ip) & (u128::MAX >> prefix) == 0)
        .then(|| format!("it is the Subnet-Router anycast address of its network /{prefix} (RFC 4291 section 2.6.1)"))
}

//! Where the fields lie in a frame, and the numbers that stand in them.

// Frame layout: offsets from the start of the frame or of the network header.
pub(super) const ETHERTYPE_AT: i32 = 12;
pub(super) const ETHERNET_LEN: i32 = 14;
pub(super) const VLAN_TAG_LEN: i32 = 4;
pub(super) const ARP_SENDER: i32 = 14;
pub(super) const ARP_TARGET: i32 = 24;
pub(super) const IPV4_SOURCE: i32 = 12;
pub(super) const IPV4_DESTINATION: i32 = 16;
pub(super) const IPV6_LEN: i32 = 40;
pub(super) const IPV6_NEXT_HEADER: i16 = 6;
pub(super) const IPV6_SOURCE: i16 = 8;
pub(super) const IPV6_DESTINATION: i16 = 24;
/// In neighbour solicitations and advertisements (RFC 4861, 4.3 and 4.4).
pub(super) const ND_TARGET: i32 = 8;

pub(super) const ETH_P_IP: u16 = 0x0800;
pub(super) const ETH_P_ARP: u16 = 0x0806;
pub(super) const ETH_P_8021Q: u16 = 0x8100;
pub(super) const ETH_P_IPV6: u16 = 0x86dd;
pub(super) const ETH_P_8021AD: u16 = 0x88a8;

pub(super) const IPPROTO_FRAGMENT: i32 = 44;
pub(super) const IPPROTO_AH: i32 = 51;
pub(super) const IPPROTO_ICMPV6: i32 = 58;
/// Extension headers whose second byte counts units of 8 bytes after the first 8: hop-by-hop, routing,
/// destination options, mobility, HIP, shim6.
pub(super) const PLAIN_EXTENSIONS: [i32; 6] = [0, 43, 60, 135, 139, 140];
/// Fragment offset in the fragment header's second 16 bits.
pub(super) const FRAGMENT_OFFSET: u16 = 0xfff8;

pub(super) const NEIGHBOUR_SOLICITATION: i32 = 135;
pub(super) const NEIGHBOUR_ADVERTISEMENT: i32 = 136;

/// A 16-bit field in network order, as a load in host order sees it.
pub(super) const fn network(value: u16) -> i32 {
    value.to_be() as i32
}

//! What the kernel says of filters, qdiscs and devices, read no further than the gate needs.

use netlink_packet_core::{parse_string, parse_u32};
use netlink_packet_route::link::LinkLayerType;
use netlink_packet_route::tc::{TcBpfFlags, TcFilterBpf, TcHeader};

use super::{ETH_P_ALL, FILTER_HANDLE, FILTER_NAME, FILTER_PRIORITY};
use crate::gate::netlink::{Answer, attribute};

pub(super) const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TC_HEADER_LEN: usize = 20;

/// A filter as it was read back, of whatever kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::gate) struct Filter {
    pub(in crate::gate) kind: String,
    pub(in crate::gate) priority: u16,
    protocol: u16,
    pub(in crate::gate) handle: u32,
    pub(in crate::gate) name: Option<String>,
    pub(in crate::gate) program: Option<u32>,
    direct_action: bool,
}

impl Filter {
    /// In our place, under our name.
    pub(in crate::gate) fn is_ours(&self) -> bool {
        self.in_our_place() && self.name.as_deref() == Some(FILTER_NAME)
    }

    pub(super) fn in_our_place(&self) -> bool {
        self.kind == TcFilterBpf::KIND
            && self.priority == FILTER_PRIORITY
            && self.handle == FILTER_HANDLE
    }

    /// Ours, and does what it must with this program.
    pub(in crate::gate) fn enforces(&self, program: u32) -> bool {
        self.is_ours()
            && self.direct_action
            && self.protocol == ETH_P_ALL
            && self.program == Some(program)
    }
}

/// What an interface is called, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::gate) struct Device {
    pub(in crate::gate) name: String,
    pub(super) layer: LinkLayerType,
}

/// The fixed part of a tc message, and its attributes. Filters of others are never parsed further: an
/// option that we do not know must not keep us from seeing ours.
pub(super) fn tc_parts(answer: &Answer) -> Option<(TcHeader, &[u8])> {
    let header = TcHeader::parse(&answer.payload).ok()?;
    Some((header, answer.payload.get(TC_HEADER_LEN..)?))
}

/// An attribute that is a string.
pub(super) fn text(attributes: &[u8], kind: u16) -> Option<String> {
    attribute(attributes, kind).and_then(|value| parse_string(value).ok())
}

/// An attribute that is a number.
fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    attribute(attributes, kind).and_then(|value| parse_u32(value).ok())
}

/// A filter of an answer; `None` for what only announces a priority.
pub(super) fn parse_filter(answer: &Answer) -> Option<Filter> {
    const TCA_BPF_NAME: u16 = 7;
    const TCA_BPF_FLAGS: u16 = 8;
    const TCA_BPF_ID: u16 = 11;
    let (header, attributes) = tc_parts(answer)?;
    let kind = text(attributes, TCA_KIND)?;
    let handle = u32::from(header.handle);
    if handle == 0 {
        return None;
    }
    let bpf = kind == TcFilterBpf::KIND;
    let options = attribute(attributes, TCA_OPTIONS)
        .filter(|_| bpf)
        .unwrap_or(&[]);
    let flags = TcBpfFlags::from_bits_retain(number(options, TCA_BPF_FLAGS).unwrap_or(0));
    Some(Filter {
        // The upper half is the priority, the lower the protocol in network order.
        priority: (header.info >> 16) as u16,
        protocol: u16::from_be(header.info as u16),
        handle,
        name: text(options, TCA_BPF_NAME),
        program: number(options, TCA_BPF_ID),
        direct_action: flags.contains(TcBpfFlags::DirectAction),
        kind,
    })
}

/// The device of an answer (`struct ifinfomsg`, then attributes).
pub(super) fn parse_device(answer: &Answer) -> Option<Device> {
    const LINK_HEADER_LEN: usize = 16;
    const LINK_TYPE: usize = 2;
    const IFLA_IFNAME: u16 = 3;
    let layer = u16::from_ne_bytes(*answer.payload.get(LINK_TYPE..)?.first_chunk()?);
    let name = text(answer.payload.get(LINK_HEADER_LEN..)?, IFLA_IFNAME)?;
    Some(Device {
        name,
        layer: layer.into(),
    })
}

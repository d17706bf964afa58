//! clsact and its filters: create, replace in one atomic step, read back, delete.
//!
//! The filter has priority 1, so no other priority comes before it, and a handle of its own, so that
//! other bpf filters of priority 1 can stand beside it. It holds program and tables itself: it stays in
//! force when the process ends.

use std::os::fd::RawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkLayerType, LinkMessage};
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
    TcOption, TcU32OptionFlags,
};

use super::netlink::{Netlink, Refusal};
use super::program::Direction;
use super::{GateError, Preceding};

mod parse;

pub(super) use parse::{Device, Filter};
use parse::{TCA_KIND, parse_device, parse_filter, tc_parts, text};

/// Name of our filters; what carries another is not touched.
pub(super) const FILTER_NAME: &str = "buoy";
/// `BUOY`, so that the handles 1, 2, 3 that others choose are free for them.
const FILTER_HANDLE: u32 = 0x4255_4f59;
const FILTER_PRIORITY: u16 = 1;
const CLSACT: &str = "clsact";
const ETH_P_ALL: u16 = 0x0003;

const CLSACT_HANDLE: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};

fn parent(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle {
        major: 0xffff,
        minor,
    }
}

/// tc on one network namespace: that of the thread that made it.
pub(super) struct Tc {
    netlink: Netlink,
}

impl Tc {
    pub(super) fn new() -> Result<Tc, GateError> {
        let netlink = Netlink::new().map_err(|e| GateError::kernel("open a netlink socket", e))?;
        Ok(Tc { netlink })
    }

    /// The device of an index; `None` if it is gone.
    pub(super) fn device(&mut self, ifindex: u32) -> Result<Option<Device>, GateError> {
        let mut ask = LinkMessage::default();
        ask.header.index = ifindex;
        let answers = match self.netlink.get(RouteNetlinkMessage::GetLink(ask)) {
            Ok(answers) => answers,
            Err(e) if e.errno() == Some(libc::ENODEV) => return Ok(None),
            Err(e) => return Err(failed(format!("look at interface {ifindex}"), e)),
        };
        Ok(answers.iter().find_map(parse_device))
    }

    /// Refuses a device that is gone or whose frames do not begin with an Ethernet header.
    pub(super) fn ethernet(&mut self, ifindex: u32) -> Result<Device, GateError> {
        let Some(device) = self.device(ifindex)? else {
            return Err(GateError::Interface {
                interface: format!("#{ifindex}"),
                problem: "there is no such interface (any more)".to_string(),
                remedy: "the VIP cannot be used until it is back".to_string(),
            });
        };
        if !matches!(device.layer, LinkLayerType::Ether | LinkLayerType::Loopback) {
            return Err(GateError::Interface {
                problem: format!(
                    "its frames have no Ethernet header (link type {:?}), which the packet gate looks at",
                    device.layer
                ),
                remedy:
                    "use an Ethernet, bond, bridge, VLAN, macvlan or veth interface for the VIP"
                        .to_string(),
                interface: device.name,
            });
        }
        Ok(device)
    }

    /// Puts a clsact qdisc on the device; true if it was not there.
    pub(super) fn add_clsact(&mut self, ifindex: u32, device: &Device) -> Result<bool, GateError> {
        let mut qdisc = message(ifindex, CLSACT_HANDLE, TcHandle::CLSACT, 0);
        qdisc.attributes.push(TcAttribute::Kind(CLSACT.to_string()));
        match self.netlink.act(
            RouteNetlinkMessage::NewQueueDiscipline(qdisc),
            NLM_F_CREATE | NLM_F_EXCL,
        ) {
            Ok(()) => return Ok(true),
            Err(e) if e.errno() == Some(libc::EEXIST) => {}
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                return Err(GateError::Unavailable {
                    action: format!("put a clsact qdisc on {}", device.name),
                    problem: format!("this kernel cannot ({e})"),
                    remedy: "load the modules sch_ingress and cls_bpf (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)"
                        .to_string(),
                });
            }
            Err(e) => return Err(failed(format!("put a clsact qdisc on {}", device.name), e)),
        }
        match self.ingress_qdisc(ifindex)? {
            Some(kind) if kind != CLSACT => Err(GateError::Interface {
                interface: device.name.clone(),
                problem: format!(
                    "it has a qdisc of kind `{kind}`, which holds filters one way only, where clsact has to be"
                ),
                remedy: format!(
                    "move its filters to clsact: `tc qdisc del dev {0} ingress`, `tc qdisc add dev {0} clsact`",
                    device.name
                ),
            }),
            _ => Ok(false),
        }
    }

    /// Kind of the qdisc in clsact's place.
    fn ingress_qdisc(&mut self, ifindex: u32) -> Result<Option<String>, GateError> {
        let ask = message(ifindex, TcHandle::UNSPEC, TcHandle::UNSPEC, 0);
        let answers = self
            .netlink
            .dump(RouteNetlinkMessage::GetQueueDiscipline(ask))
            .map_err(|e| failed(format!("list the qdiscs of interface {ifindex}"), e))?;
        Ok(answers
            .iter()
            .filter_map(tc_parts)
            .find_map(|(header, attributes)| {
                let here =
                    header.index.cast_unsigned() == ifindex && header.parent == TcHandle::CLSACT;
                here.then(|| text(attributes, TCA_KIND)).flatten()
            }))
    }

    /// Removes clsact if no filter is left in it; true if it went.
    pub(super) fn remove_empty_clsact(&mut self, ifindex: u32) -> Result<bool, GateError> {
        for direction in Direction::BOTH {
            if !self.filters(ifindex, direction)?.is_empty() {
                return Ok(false);
            }
        }
        let mut qdisc = message(ifindex, CLSACT_HANDLE, TcHandle::CLSACT, 0);
        qdisc.attributes.push(TcAttribute::Kind(CLSACT.to_string()));
        match self
            .netlink
            .act(RouteNetlinkMessage::DelQueueDiscipline(qdisc), 0)
        {
            Ok(()) => Ok(true),
            Err(e) if gone(&e) => Ok(false),
            Err(e) => Err(failed(
                format!("remove the clsact qdisc of interface {ifindex}"),
                e,
            )),
        }
    }

    /// Puts our filter there, or in the place of our filter that is there, in one atomic step.
    pub(super) fn replace(
        &mut self,
        ifindex: u32,
        device: &Device,
        direction: Direction,
        program: RawFd,
    ) -> Result<(), GateError> {
        let mut filter = filter_message(ifindex, direction);
        filter.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(FILTER_NAME.to_string())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
            // A card must not take it over: it does not know our tables.
            TcOption::Bpf(TcFilterBpfOption::FlagsGeneric(TcU32OptionFlags::SkipHw)),
        ]));
        let action = || format!("put its {} filter on {}", direction.name(), device.name);
        self.netlink
            .act(
                RouteNetlinkMessage::NewTrafficFilter(filter),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .map_err(|e| failed(action(), e))
    }

    /// Before [`Tc::replace`]: refuses when somebody else holds our place, or priority 1 with another kind of filter.
    pub(super) fn check_place(
        &mut self,
        ifindex: u32,
        device: &Device,
        direction: Direction,
    ) -> Result<(), GateError> {
        let filters = self.filters(ifindex, direction)?;
        let taken = |f: &&Filter| {
            (f.in_our_place() && !f.is_ours())
                || (f.priority == FILTER_PRIORITY && f.kind != TcFilterBpf::KIND)
        };
        let Some(other) = filters.iter().find(taken) else {
            return Ok(());
        };
        Err(GateError::Interface {
            interface: device.name.clone(),
            problem: format!(
                "a `{}` filter has priority {FILTER_PRIORITY} on {}, and the packet gate must come before every \
                 other filter",
                other.kind,
                direction.name()
            ),
            remedy: format!(
                "give that filter a later priority (`tc filter show dev {} {}`)",
                device.name,
                direction.name()
            ),
        })
    }

    /// Deletes our filter; false if it was not there.
    pub(super) fn delete(&mut self, ifindex: u32, direction: Direction) -> Result<bool, GateError> {
        if !self
            .filters(ifindex, direction)?
            .iter()
            .any(Filter::is_ours)
        {
            return Ok(false);
        }
        match self.netlink.act(
            RouteNetlinkMessage::DelTrafficFilter(filter_message(ifindex, direction)),
            0,
        ) {
            Ok(()) => Ok(true),
            Err(e) if gone(&e) => Ok(false),
            Err(e) => Err(failed(
                format!(
                    "delete its {} filter on interface {ifindex}",
                    direction.name()
                ),
                e,
            )),
        }
    }

    /// All filters of one direction, in the order in which packets meet them. None where the interface
    /// or clsact is gone.
    pub(super) fn filters(
        &mut self,
        ifindex: u32,
        direction: Direction,
    ) -> Result<Vec<Filter>, GateError> {
        let ask = message(ifindex, TcHandle::UNSPEC, parent(direction), 0);
        match self
            .netlink
            .dump(RouteNetlinkMessage::GetTrafficFilter(ask))
        {
            Ok(answers) => Ok(answers.iter().filter_map(parse_filter).collect()),
            Err(e) if gone(&e) => Ok(Vec::new()),
            Err(e) => Err(failed(
                format!(
                    "list the {} filters of interface {ifindex}",
                    direction.name()
                ),
                e,
            )),
        }
    }

    /// Filters that packets meet before ours.
    pub(super) fn preceding(&mut self, ifindex: u32) -> Result<Vec<Preceding>, GateError> {
        let mut found = Vec::new();
        for direction in Direction::BOTH {
            let filters = self.filters(ifindex, direction)?;
            let ours = filters
                .iter()
                .position(Filter::is_ours)
                .unwrap_or(filters.len());
            found.extend(filters.into_iter().take(ours).map(|f| Preceding {
                direction: direction.name(),
                kind: f.kind,
                priority: f.priority,
                handle: f.handle,
                name: f.name,
            }));
        }
        Ok(found)
    }
}

/// What a vanished device, qdisc or filter answers.
fn gone(refusal: &Refusal) -> bool {
    matches!(refusal.errno(), Some(libc::ENODEV | libc::ENOENT))
}

fn failed(action: String, refusal: Refusal) -> GateError {
    if refusal.errno() == Some(libc::EPERM) {
        return GateError::Unavailable {
            action,
            problem: "netlink is not permitted".to_string(),
            remedy: "run buoy as root or with `AmbientCapabilities=CAP_NET_ADMIN`".to_string(),
        };
    }
    GateError::kernel(action, refusal.into_io())
}

fn message(ifindex: u32, handle: TcHandle, parent: TcHandle, info: u32) -> TcMessage {
    let header = TcHeader {
        index: ifindex.cast_signed(),
        handle,
        parent,
        info,
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, Vec::new())
}

fn filter_message(ifindex: u32, direction: Direction) -> TcMessage {
    let info = u32::from(FILTER_PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
    let mut filter = message(ifindex, FILTER_HANDLE.into(), parent(direction), info);
    filter
        .attributes
        .push(TcAttribute::Kind(TcFilterBpf::KIND.to_string()));
    filter
}

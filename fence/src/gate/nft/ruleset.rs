//! The rules: which packets belong to a managed address, and who judges them.
//!
//! Each family has a table of its own with the same sets, because a rule sees those of its table only:
//!
//! | set | holds |
//! | --- | --- |
//! | `managed4`, `managed6` | every managed address |
//! | `slot4-N`, `slot6-N` | the addresses that rest on lease slot N |
//! | `armed` | rounds that are not over; the kernel takes each out when its time ends |
//! | `interfaces` | interfaces that carry the gate |
//! | `over4`, `over6`, `shut4`, `shut6` | managed addresses, each with a counter of drops |
//!
//! A packet whose VIP side is in `managed` goes to a chain that judges it ([`super::judges`]): it passes if its address rests
//! on a slot and the round of that slot is in `armed`; whatever is missing on that way is a drop. `managed` itself changes
//! only when an address is fenced or forgotten: while an element is replaced, kernels before 6.17 may miss both for a
//! moment, and a packet would pass.
//!
//! The VIP side is that of the eBPF gate ([`super::super::program`]), with one difference: an ARP packet that
//! comes in from a managed address passes whatever it asks, as nf_tables cannot compare two fields. What this
//! machine answers is dropped on its way out.
//!
//! `nft` 1.0.6 must be able to list all of it. It aborts where the key of a lookup comes from an immediate or
//! from another lookup, and shows a field by its name only behind a rule's own look at the protocol. Words of its language
//! (`devices`, `arp`) are no names there.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fmt::{self, Display};

use super::message::{APPEND, ARP, Batch, CREATE, ELEMENTS, INET, NETDEV, NEW_CHAIN, NEW_ELEMENT};
use super::message::{DEL_ELEMENT, NEW_RULE, NEW_SET};
use super::rounds::RoundId;
use super::rule::{
    ADDRESS, ADVERTISEMENT, ARP_SENDER, ARP_TARGET, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6,
    FRAME_ARP_SENDER, FRAME_IPV4_SOURCE, FRAME_IPV6_SOURCE, FRAME_ND_TARGET, FRAME_ND_TYPE,
    FRAME_NEXT_HEADER, FRAME_TYPE, ICMPV6, IPV4_DESTINATION, IPV4_SOURCE, IPV6_DESTINATION,
    IPV6_SOURCE, JUMP, Meta, ND_TARGET, ND_TYPE, NFPROTO_IPV4, NFPROTO_IPV6, RETURN, Rule, SCRATCH,
    SOLICITATION, UNSPECIFIED,
};
use crate::gate::SlotId;
use crate::plant;

/// Name of the tables.
pub(super) const TABLE: &str = "buoy";

/// A name with a number: `slot-3`. It is written without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Numbered(pub(super) &'static str, pub(super) u32);

impl Display for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Numbered {
    /// The number in a name of ours.
    pub(super) fn of(begin: &'static str, name: &str) -> Option<u32> {
        let number = name.strip_prefix(begin)?.strip_prefix('-')?.parse().ok()?;
        // `slot-03` and `slot-+3` are other names.
        (Numbered(begin, number).to_string() == name).then_some(number)
    }
}

/// Chain of an interface's outgoing frames.
pub(super) fn egress_chain(ifindex: u32) -> Numbered {
    Numbered(EGRESS, ifindex)
}

/// Begin of its name.
pub(super) const EGRESS: &str = "egress";
/// Begin of the name of a lease slot's chain.
pub(super) const SLOT: &str = "slot";

/// Names of the sets of one address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sets {
    pub(super) managed: &'static str,
    /// Begin of the names of the sets of lease slots.
    slot: &'static str,
    pub(super) over: &'static str,
    pub(super) shut: &'static str,
    key: u32,
    key_type: u32,
}

pub(super) const SETS4: Sets = Sets {
    managed: "managed4",
    slot: "slot4",
    over: "over4",
    shut: "shut4",
    key: 4,
    key_type: 7,
};
pub(super) const SETS6: Sets = Sets {
    managed: "managed6",
    slot: "slot6",
    over: "over6",
    shut: "shut6",
    key: 16,
    key_type: 8,
};
pub(super) const ARMED: &str = "armed";
pub(super) const INTERFACES: &str = "interfaces";
/// Who made the tables ([`super::mark`]).
pub(super) const MAKER: &str = "maker";

impl Sets {
    /// The set of the addresses that rest on a lease slot.
    pub(super) fn slot(self, slot: SlotId) -> Numbered {
        Numbered(self.slot, slot)
    }

    /// The lease slot that a set of this name is about.
    pub(super) fn slot_of(self, name: &str) -> Option<SlotId> {
        Numbered::of(self.slot, name)
    }
}

/// Sets of a family, by address family.
pub(super) fn sets(family: u8) -> &'static [Sets] {
    match family {
        ARP => &[SETS4],
        _ => &[SETS4, SETS6],
    }
}

// Types of data, for those who list the tables: mark, interface index.
const TYPE_MARK: u32 = 19;
const TYPE_IFINDEX: u32 = 20;

// User data, as libnftnl writes them: a rule's comment; the order of the bytes of a set's keys.
const COMMENT: u8 = 0;
const KEY_ORDER: u8 = 0;
const HOST_ORDER: u32 = 1;

// Flags of a set.
const TIMEOUT: u32 = 0x10;
/// How often the kernel frees rounds that are over, in milliseconds. Lookups do not wait for it.
const GC_INTERVAL: u32 = 1_000;

// Hooks and priorities: before connection tracking and address translation on the way in, after them on the way out.
const INET_PREROUTING: u32 = 0;
const INET_POSTROUTING: u32 = 4;
const ARP_IN: u32 = 0;
const ARP_OUT: u32 = 1;
const NETDEV_EGRESS: u32 = 1;
const FIRST: i32 = -450;
const LAST: i32 = 1_000;
const NF_ACCEPT: u32 = 1;

/// Writes one family's table, piece by piece.
pub(super) struct Writer<'a> {
    pub(super) batch: &'a mut Batch,
    pub(super) family: u8,
    /// Sets made in this table in this transaction: the kernel wants each numbered.
    made: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(batch: &'a mut Batch, family: u8) -> Writer<'a> {
        let made = 0;
        Writer {
            batch,
            family,
            made,
        }
    }

    /// Sets, chains and rules of a table that has just been made, with lease slots and the rounds that
    /// they rest on; nothing is managed.
    pub(super) fn fixed(&mut self, slots: &BTreeSet<SlotId>, rests: &[RoundId]) {
        for sets in sets(self.family) {
            self.addresses(sets.managed, *sets, false);
            self.addresses(sets.over, *sets, true);
            self.addresses(sets.shut, *sets, true);
        }
        self.set(ARMED, TIMEOUT, (TYPE_MARK, 4), false);
        if self.family != NETDEV {
            self.set(INTERFACES, 0, (TYPE_IFINDEX, 4), false);
        }
        self.tail();
        for slot in slots {
            self.make_slot(*slot, rests[*slot as usize]);
        }
        self.make_judges(slots);
        match self.family {
            INET => self.inet(),
            ARP => self.arp(),
            _ => self.frames(),
        }
    }

    /// A set of addresses.
    pub(super) fn addresses(&mut self, name: impl Display, sets: Sets, counts: bool) {
        self.set(name, 0, (sets.key_type, sets.key), counts);
    }

    /// A set of numbers.
    pub(super) fn numbers(&mut self, name: &str) {
        self.set(name, 0, (TYPE_MARK, 4), false);
    }

    fn set(&mut self, name: impl Display, flags: u32, (kind, length): (u32, u32), counts: bool) {
        self.made += 1;
        let id = self.made;
        self.batch.message(NEW_SET, CREATE, self.family, |b| {
            b.table();
            b.text(2, name);
            b.number(3, flags);
            b.number(4, kind);
            b.number(5, length);
            b.number(10, id);
            if flags & TIMEOUT != 0 {
                b.number(12, GC_INTERVAL);
            }
            if [TYPE_MARK, TYPE_IFINDEX].contains(&kind) {
                b.user_data(13, KEY_ORDER, &HOST_ORDER.to_ne_bytes());
            }
            if counts {
                b.nest(17, |b| {
                    b.text(1, "counter");
                    b.nest(2, |_| {});
                });
            }
        });
    }

    pub(super) fn chain(&mut self, name: impl Display, hook: Option<(u32, i32, Option<&str>)>) {
        self.batch.message(NEW_CHAIN, CREATE, self.family, |b| {
            b.table();
            b.text(3, name);
            if let Some((number, priority, device)) = hook {
                b.nest(4, |b| {
                    b.number(1, number);
                    b.number(2, priority.cast_unsigned());
                    if let Some(device) = device {
                        b.text(3, device);
                    }
                });
                b.number(5, NF_ACCEPT);
                b.text(7, "filter");
            }
        });
    }

    pub(super) fn rule(&mut self, chain: impl Display, write: impl FnOnce(&mut Rule<'_>)) {
        self.commented_rule(chain, None, write);
    }

    /// A rule with a word for those who list it.
    pub(super) fn commented_rule(
        &mut self,
        chain: impl Display,
        comment: Option<&CStr>,
        write: impl FnOnce(&mut Rule<'_>),
    ) {
        self.batch
            .message(NEW_RULE, CREATE | APPEND, self.family, |b| {
                b.table();
                b.text(2, chain);
                b.nest(4, |b| write(&mut Rule(b)));
                if let Some(comment) = comment {
                    b.user_data(7, COMMENT, comment.to_bytes_with_nul());
                }
            });
    }

    fn inet(&mut self) {
        let way = |incoming| match incoming {
            true => ("in", Meta::InterfaceIn),
            false => ("out", Meta::InterfaceOut),
        };
        self.chain("in", Some((INET_PREROUTING, FIRST, None)));
        self.chain("out", Some((INET_POSTROUTING, LAST, None)));
        for (incoming, address, judge) in [
            (true, IPV4_DESTINATION, "in4"),
            (false, IPV4_SOURCE, "out4"),
        ] {
            let (chain, interface) = way(incoming);
            self.rule(chain, |r| {
                r.meta_is(Meta::NetworkFamily, NFPROTO_IPV4);
                r.load(address, ADDRESS);
                r.member(SETS4.managed, ADDRESS);
                r.meta(interface, SCRATCH);
                r.member(INTERFACES, SCRATCH);
                r.go(JUMP, judge);
            });
        }
        for (incoming, address, judge) in [
            (true, IPV6_DESTINATION, "in6"),
            (false, IPV6_SOURCE, "out6"),
        ] {
            let (chain, interface) = way(incoming);
            self.rule(chain, |r| {
                r.meta_is(Meta::NetworkFamily, NFPROTO_IPV6);
                r.load(address, ADDRESS);
                r.member(SETS6.managed, ADDRESS);
                r.meta(interface, SCRATCH);
                r.member(INTERFACES, SCRATCH);
                r.go(JUMP, judge);
            });
        }
        // A solicitation that goes out claims its target only where it has no source (DAD).
        for (incoming, kind, from) in [
            (true, SOLICITATION, None),
            (false, ADVERTISEMENT, None),
            (false, SOLICITATION, Some(UNSPECIFIED)),
        ] {
            let (chain, interface) = way(incoming);
            self.rule(chain, |r| {
                r.meta_is(Meta::NetworkFamily, NFPROTO_IPV6);
                r.meta_is(Meta::Transport, ICMPV6);
                r.field_is(ND_TYPE, kind);
                if let Some(source) = from {
                    r.field_is(IPV6_SOURCE, source);
                }
                r.load(ND_TARGET, ADDRESS);
                r.member(SETS6.managed, ADDRESS);
                r.meta(interface, SCRATCH);
                r.member(INTERFACES, SCRATCH);
                r.go(JUMP, "nd");
            });
        }
    }

    fn arp(&mut self) {
        self.chain("in", Some((ARP_IN, FIRST, None)));
        // The owner of a VIP announces it, or asks: neighbour tables have to follow a VIP's move.
        self.rule("in", |r| {
            r.load(ARP_SENDER, ADDRESS);
            r.member(SETS4.managed, ADDRESS);
            r.verdict(RETURN);
        });
        self.chain("out", Some((ARP_OUT, LAST, None)));
        for (chain, address, interface, judge) in [
            ("in", ARP_TARGET, Meta::InterfaceIn, "asked"),
            ("out", ARP_SENDER, Meta::InterfaceOut, "said"),
        ] {
            self.rule(chain, |r| {
                r.load(address, ADDRESS);
                r.member(SETS4.managed, ADDRESS);
                r.meta(interface, SCRATCH);
                r.member(INTERFACES, SCRATCH);
                r.go(JUMP, judge);
            });
        }
    }

    /// Whole frames on their way out, whoever made them: raw sockets pass by the other families.
    fn frames(&mut self) {
        self.chain(EGRESS, None);
        for (kind, address, managed, judge) in [
            (ETHERTYPE_ARP, FRAME_ARP_SENDER, SETS4.managed, "said"),
            (ETHERTYPE_IPV4, FRAME_IPV4_SOURCE, SETS4.managed, "out4"),
            (ETHERTYPE_IPV6, FRAME_IPV6_SOURCE, SETS6.managed, "out6"),
        ] {
            self.rule(EGRESS, |r| {
                r.field_is(FRAME_TYPE, kind);
                r.load(address, ADDRESS);
                r.member(managed, ADDRESS);
                r.go(JUMP, judge);
            });
        }
        for (kind, from) in [(ADVERTISEMENT, None), (SOLICITATION, Some(UNSPECIFIED))] {
            self.rule(EGRESS, |r| {
                r.field_is(FRAME_TYPE, ETHERTYPE_IPV6);
                r.field_is(FRAME_NEXT_HEADER, ICMPV6);
                r.field_is(FRAME_ND_TYPE, kind);
                if let Some(source) = from {
                    r.field_is(FRAME_IPV6_SOURCE, source);
                }
                r.load(FRAME_ND_TARGET, ADDRESS);
                r.member(SETS6.managed, ADDRESS);
                r.go(JUMP, "nd");
            });
        }
    }

    /// An interface carries the gate.
    pub(super) fn device(&mut self, ifindex: u32, name: &str) {
        // Not in the tables of the self-test, which would refuse to start.
        plant!(NeverArmed => if self.batch.table == TABLE { return });
        if self.family != NETDEV {
            self.elements(
                NEW_ELEMENT,
                CREATE,
                INTERFACES,
                [ifindex.to_ne_bytes()].iter(),
                |_, _| {},
            );
            return;
        }
        let chain = egress_chain(ifindex);
        self.chain(chain, Some((NETDEV_EGRESS, LAST, Some(name))));
        self.rule(chain, |r| r.go(JUMP, EGRESS));
    }

    /// Puts elements into a set or takes them out; `rest` writes what follows a key.
    pub(super) fn elements<K: AsRef<[u8]>>(
        &mut self,
        kind: u8,
        flags: u16,
        set: impl Display + Copy,
        mut keys: impl Iterator<Item = K>,
        rest: impl Fn(&mut Batch, &K),
    ) {
        let mut key = keys.next();
        while key.is_some() {
            self.batch.message(kind, flags, self.family, |b| {
                b.table();
                b.text(2, set);
                b.nest(3, |b| {
                    for _ in 0..ELEMENTS {
                        let Some(this) = key.take() else { break };
                        b.nest(1, |b| {
                            b.nest(1, |b| b.raw(1, this.as_ref()));
                            rest(b, &this);
                        });
                        key = keys.next();
                    }
                });
            });
        }
    }

    /// Takes everything out of a set.
    pub(super) fn empty(&mut self, set: impl Display) {
        self.batch.message(DEL_ELEMENT, 0, self.family, |b| {
            b.table();
            b.text(2, set);
        });
    }
}

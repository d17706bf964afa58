//! The parts of a rule: fields of packets, conditions, verdicts.

use std::fmt::Display;

use super::message::Batch;

// Registers of 16 bytes.
pub(super) const ADDRESS: u32 = 1;
pub(super) const SCRATCH: u32 = 2;
pub(super) const VERDICT: u32 = 0;

// Verdicts.
pub(super) const DROP: i32 = 0;
pub(super) const RETURN: i32 = -5;
pub(super) const GOTO: i32 = -4;
pub(super) const JUMP: i32 = -3;

// Comparisons.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// Keys of packet metadata.
#[derive(Clone, Copy)]
pub(super) enum Meta {
    Mark = 3,
    InterfaceIn = 4,
    InterfaceOut = 5,
    NetworkFamily = 15,
    Transport = 16,
}

/// Where a field of a packet is: from the link, network or transport header on.
#[derive(Clone, Copy)]
pub(super) struct Field {
    base: u32,
    at: u32,
    length: u32,
}

pub(super) const LINK: u32 = 0;
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;

const fn field(base: u32, at: u32, length: u32) -> Field {
    Field { base, at, length }
}

// RFC 791, RFC 8200, RFC 826, RFC 4861 4.3 and 4.4; from the network or transport header on.
pub(super) const IPV4_SOURCE: Field = field(NETWORK, 12, 4);
pub(super) const IPV4_DESTINATION: Field = field(NETWORK, 16, 4);
pub(super) const IPV6_SOURCE: Field = field(NETWORK, 8, 16);
pub(super) const IPV6_DESTINATION: Field = field(NETWORK, 24, 16);
pub(super) const ARP_SENDER: Field = field(NETWORK, 14, 4);
pub(super) const ARP_TARGET: Field = field(NETWORK, 24, 4);
pub(super) const ND_TYPE: Field = field(TRANSPORT, 0, 1);
pub(super) const ND_TARGET: Field = field(TRANSPORT, 8, 16);
// The same in a whole Ethernet frame: a raw socket may say of it what it likes.
pub(super) const FRAME_TYPE: Field = field(LINK, 12, 2);
pub(super) const FRAME_ARP_SENDER: Field = field(LINK, 28, 4);
pub(super) const FRAME_IPV4_SOURCE: Field = field(LINK, 26, 4);
pub(super) const FRAME_IPV6_SOURCE: Field = field(LINK, 22, 16);
pub(super) const FRAME_NEXT_HEADER: Field = field(LINK, 20, 1);
pub(super) const FRAME_ND_TYPE: Field = field(LINK, 54, 1);
pub(super) const FRAME_ND_TARGET: Field = field(LINK, 62, 16);

pub(super) const NFPROTO_IPV4: &[u8] = &[2];
pub(super) const NFPROTO_IPV6: &[u8] = &[10];
pub(super) const ICMPV6: &[u8] = &[58];
pub(super) const SOLICITATION: &[u8] = &[135];
pub(super) const ADVERTISEMENT: &[u8] = &[136];
pub(super) const UNSPECIFIED: &[u8] = &[0; 16];
pub(super) const ETHERTYPE_ARP: &[u8] = &[0x08, 0x06];
pub(super) const ETHERTYPE_IPV4: &[u8] = &[0x08, 0x00];
pub(super) const ETHERTYPE_IPV6: &[u8] = &[0x86, 0xdd];

/// The conditions and the action of one rule.
pub(super) struct Rule<'a>(pub(super) &'a mut Batch);

impl Rule<'_> {
    pub(super) fn expression(&mut self, name: &str, attributes: impl FnOnce(&mut Batch)) {
        self.0.nest(1, |b| {
            b.text(1, name);
            b.nest(2, attributes);
        });
    }

    pub(super) fn load(&mut self, field: Field, register: u32) {
        self.expression("payload", |b| {
            b.number(1, register);
            b.number(2, field.base);
            b.number(3, field.at);
            b.number(4, field.length);
        });
    }

    pub(super) fn meta(&mut self, key: Meta, register: u32) {
        self.expression("meta", |b| {
            b.number(2, key as u32);
            b.number(1, register);
        });
    }

    fn compare(&mut self, register: u32, how: u32, value: &[u8]) {
        self.expression("cmp", |b| {
            b.number(1, register);
            b.number(2, how);
            b.nest(3, |b| b.raw(1, value));
        });
    }

    pub(super) fn field_is(&mut self, field: Field, value: &[u8]) {
        self.load(field, SCRATCH);
        self.compare(SCRATCH, EQUAL, value);
    }

    pub(super) fn meta_is(&mut self, key: Meta, value: &[u8]) {
        self.meta(key, SCRATCH);
        self.compare(SCRATCH, EQUAL, value);
    }

    pub(super) fn meta_is_not(&mut self, key: Meta, value: &[u8]) {
        self.meta(key, SCRATCH);
        self.compare(SCRATCH, NOT_EQUAL, value);
    }

    /// Puts a number into a register, as a packet's mark of which no bit is kept: `nft` 1.0.6 cannot list a lookup
    /// of what an immediate or another lookup left in a register.
    pub(super) fn constant(&mut self, value: u32, register: u32) {
        self.meta(Meta::Mark, register);
        self.expression("bitwise", |b| {
            b.number(1, register);
            b.number(2, register);
            b.number(3, 4);
            b.nest(4, |b| b.raw(1, &[0; 4]));
            b.nest(5, |b| b.raw(1, &value.to_ne_bytes()));
        });
    }

    /// Goes on only with a member of the set.
    pub(super) fn member(&mut self, set: impl Display, register: u32) {
        self.expression("lookup", |b| {
            b.text(1, set);
            b.number(2, register);
        });
    }

    pub(super) fn verdict(&mut self, code: i32) {
        self.decide(code, None::<&str>);
    }

    pub(super) fn go(&mut self, code: i32, chain: impl Display) {
        self.decide(code, Some(chain));
    }

    fn decide(&mut self, code: i32, chain: Option<impl Display>) {
        self.expression("immediate", |b| {
            b.number(1, VERDICT);
            b.nest(2, |b| {
                b.nest(2, |b| {
                    b.number(1, code.cast_unsigned());
                    if let Some(chain) = chain {
                        b.text(2, chain);
                    }
                });
            });
        });
    }
}

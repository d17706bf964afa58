//! The chains that judge packets of managed addresses.
//!
//! ```text
//! chain in4    { ip daddr @slot4-1 goto slot-1     one such rule for each slot that stands
//!                ip daddr @shut4 drop              counts
//!                drop }
//! chain slot-1 { K @armed return                   the slot's round is not over: on with the next rule of the
//!                                                  chain that jumped to `in4`
//!                goto over }
//! chain over   { ip daddr @over4 drop ..           counts
//!                drop }
//! ```
//!
//! To move a slot to another round, its chain is written anew in one transaction. A packet sees the rules of one
//! generation only, so a lease that lives misses nothing. A slot without a round has `goto over` only.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fmt::Display;

use super::message::{
    ARP, Attributes, DEL_CHAIN, DEL_RULE, DEL_SET, INET, attribute, number, text,
};
use super::rounds::{NO_ROUND, RoundId};
use super::rule::{
    ADDRESS, ARP_SENDER, ARP_TARGET, DROP, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6,
    FRAME_ARP_SENDER, FRAME_IPV4_SOURCE, FRAME_IPV6_SOURCE, FRAME_ND_TARGET, FRAME_NEXT_HEADER,
    FRAME_TYPE, Field, GOTO, ICMPV6, IPV4_DESTINATION, IPV4_SOURCE, IPV6_DESTINATION, IPV6_SOURCE,
    Meta, ND_TARGET, NFPROTO_IPV4, NFPROTO_IPV6, RETURN, Rule, VERDICT,
};
use super::ruleset::{ARMED, Numbered, SETS4, SETS6, SLOT, Sets, Writer, sets};
use crate::gate::SlotId;

/// Chain of the packets whose lease is over.
pub(super) const OVER: &str = "over";

/// For those who list the tables.
const WHY_A_MARK: &CStr = c"a constant: the round that the slot rests on";

/// An interface's index that stands for none.
const NO_INTERFACE: &[u8] = &[0; 4];

/// A chain that judges packets by one of their addresses.
struct Judge {
    chain: &'static str,
    sets: Sets,
    address: Field,
    /// What the packets are anyway; said again, so that `nft` shows the field by its name.
    network: Option<&'static [u8]>,
}

const fn judge(
    chain: &'static str,
    sets: Sets,
    address: Field,
    network: Option<&'static [u8]>,
) -> Judge {
    Judge {
        chain,
        sets,
        address,
        network,
    }
}

const PACKETS: &[Judge] = &[
    judge("in4", SETS4, IPV4_DESTINATION, Some(NFPROTO_IPV4)),
    judge("out4", SETS4, IPV4_SOURCE, Some(NFPROTO_IPV4)),
    judge("in6", SETS6, IPV6_DESTINATION, Some(NFPROTO_IPV6)),
    judge("out6", SETS6, IPV6_SOURCE, Some(NFPROTO_IPV6)),
    judge("nd", SETS6, ND_TARGET, None),
];
const QUESTIONS: &[Judge] = &[
    judge("asked", SETS4, ARP_TARGET, None),
    judge("said", SETS4, ARP_SENDER, None),
];
const FRAMES: &[Judge] = &[
    judge("said", SETS4, FRAME_ARP_SENDER, None),
    judge("out4", SETS4, FRAME_IPV4_SOURCE, None),
    judge("out6", SETS6, FRAME_IPV6_SOURCE, None),
    judge("nd", SETS6, FRAME_ND_TARGET, None),
];

impl Judge {
    fn load(&self, r: &mut Rule<'_>) {
        if let Some(network) = self.network {
            r.meta_is(Meta::NetworkFamily, network);
        }
        r.load(self.address, ADDRESS);
    }
}

/// A lease slot's chain.
fn slot_chain(slot: SlotId) -> Numbered {
    Numbered(SLOT, slot)
}

impl Writer<'_> {
    fn judges(&self) -> &'static [Judge] {
        match self.family {
            INET => PACKETS,
            ARP => QUESTIONS,
            _ => FRAMES,
        }
    }

    /// The chains that judge, in a table that has just been made.
    pub(super) fn make_judges(&mut self, slots: &BTreeSet<SlotId>) {
        for judge in self.judges() {
            self.chain(judge.chain, None);
            self.judge(judge, slots);
        }
    }

    /// From now on these are the slots that stand.
    pub(super) fn replace_judges(&mut self, slots: &BTreeSet<SlotId>) {
        for judge in self.judges() {
            self.flush(judge.chain);
            self.judge(judge, slots);
        }
    }

    fn judge(&mut self, judge: &Judge, slots: &BTreeSet<SlotId>) {
        for slot in slots {
            self.rule(judge.chain, |r| {
                judge.load(r);
                r.member(judge.sets.slot(*slot), ADDRESS);
                r.go(GOTO, slot_chain(*slot));
            });
        }
        self.rule(judge.chain, |r| {
            judge.load(r);
            r.member(judge.sets.shut, ADDRESS);
            r.verdict(DROP);
        });
        self.rule(judge.chain, |r| r.verdict(DROP));
    }

    /// Sets and chain of a lease slot.
    pub(super) fn make_slot(&mut self, slot: SlotId, round: RoundId) {
        for sets in sets(self.family) {
            self.addresses(sets.slot(slot), *sets, false);
        }
        self.chain(slot_chain(slot), None);
        self.slot(slot, round);
    }

    /// From now on the slot rests on this round.
    pub(super) fn move_slot(&mut self, slot: SlotId, round: RoundId) {
        self.flush(slot_chain(slot));
        self.slot(slot, round);
    }

    fn slot(&mut self, slot: SlotId, round: RoundId) {
        if round != NO_ROUND {
            self.commented_rule(slot_chain(slot), Some(WHY_A_MARK), |r| {
                r.constant(round, ADDRESS);
                r.member(ARMED, ADDRESS);
                r.verdict(RETURN);
            });
        }
        self.rule(slot_chain(slot), |r| r.go(GOTO, OVER));
    }

    /// Removes a lease slot on which no address rests and to which no rule leads.
    pub(super) fn remove_slot(&mut self, slot: SlotId) {
        self.flush(slot_chain(slot));
        self.batch.message(DEL_CHAIN, 0, self.family, |b| {
            b.table();
            b.text(3, slot_chain(slot));
        });
        for sets in sets(self.family) {
            self.batch.message(DEL_SET, 0, self.family, |b| {
                b.table();
                b.text(2, sets.slot(slot));
            });
        }
    }

    /// Counts a packet for the address whose lease is over, and drops it. The chain that judged it is not
    /// known here: a packet that belongs to two managed addresses may be counted for the other.
    pub(super) fn tail(&mut self) {
        self.chain(OVER, None);
        let family = self.family;
        let mut count = |sets: Sets, address, when: &dyn Fn(&mut Rule<'_>)| {
            self.rule(OVER, |r| {
                when(r);
                r.load(address, ADDRESS);
                r.member(sets.over, ADDRESS);
                r.verdict(DROP);
            });
        };
        let incoming = |r: &mut Rule<'_>| r.meta_is(Meta::InterfaceOut, NO_INTERFACE);
        let outgoing = |r: &mut Rule<'_>| r.meta_is_not(Meta::InterfaceOut, NO_INTERFACE);
        match family {
            INET => {
                for (network, sets, source, destination) in [
                    (NFPROTO_IPV4, SETS4, IPV4_SOURCE, IPV4_DESTINATION),
                    (NFPROTO_IPV6, SETS6, IPV6_SOURCE, IPV6_DESTINATION),
                ] {
                    count(sets, destination, &|r| {
                        incoming(r);
                        r.meta_is(Meta::NetworkFamily, network);
                    });
                    count(sets, source, &|r| {
                        outgoing(r);
                        r.meta_is(Meta::NetworkFamily, network);
                    });
                }
                count(SETS6, ND_TARGET, &|r| {
                    r.meta_is(Meta::NetworkFamily, NFPROTO_IPV6);
                    r.meta_is(Meta::Transport, ICMPV6);
                });
            }
            ARP => {
                count(SETS4, ARP_TARGET, &incoming);
                count(SETS4, ARP_SENDER, &outgoing);
            }
            _ => {
                for (kind, sets, source) in [
                    (ETHERTYPE_ARP, SETS4, FRAME_ARP_SENDER),
                    (ETHERTYPE_IPV4, SETS4, FRAME_IPV4_SOURCE),
                    (ETHERTYPE_IPV6, SETS6, FRAME_IPV6_SOURCE),
                ] {
                    count(sets, source, &|r| r.field_is(FRAME_TYPE, kind));
                }
                count(SETS6, FRAME_ND_TARGET, &|r| {
                    r.field_is(FRAME_TYPE, ETHERTYPE_IPV6);
                    r.field_is(FRAME_NEXT_HEADER, ICMPV6);
                });
            }
        }
        self.rule(OVER, |r| r.verdict(DROP));
    }

    /// Removes a chain's rules.
    fn flush(&mut self, chain: impl Display) {
        self.batch.message(DEL_RULE, 0, self.family, |b| {
            b.table();
            b.text(2, chain);
        });
    }
}

/// The round that a slot rests on by its chain's rules, as the kernel writes them; `None` for rules that are not ours.
pub(super) fn round_of(rules: &[Vec<u8>]) -> Option<RoundId> {
    let (pass, over) = match rules {
        [over] => (None, over),
        [pass, over] => (Some(pass), over),
        _ => return None,
    };
    let [(b"immediate", over)] = expressions(over)?[..] else {
        return None;
    };
    if verdict(over)? != (GOTO, Some(OVER)) {
        return None;
    }
    pass.map_or(Some(NO_ROUND), |pass| round_in(pass))
}

fn round_in(rule: &[u8]) -> Option<RoundId> {
    let [
        (b"meta", meta),
        (b"bitwise", bitwise),
        (b"lookup", lookup),
        (b"immediate", end),
    ] = expressions(rule)?[..]
    else {
        return None;
    };
    let data = |row, kind| attribute(attribute(row, kind)?, 1);
    let round = RoundId::from_ne_bytes(data(bitwise, 5)?.try_into().ok()?);
    let ours = number(meta, 1) == Some(ADDRESS)
        && number(meta, 2) == Some(Meta::Mark as u32)
        && [1, 2].iter().all(|k| number(bitwise, *k) == Some(ADDRESS))
        && number(bitwise, 3) == Some(4)
        && data(bitwise, 4) == Some(&[0; 4])
        // The plain operation, and a member instead of what is none.
        && number(bitwise, 6).unwrap_or(0) == 0
        && text(lookup, 1) == Some(ARMED)
        && number(lookup, 2) == Some(ADDRESS)
        && number(lookup, 5).unwrap_or(0) == 0
        && verdict(end)? == (RETURN, None)
        && round != NO_ROUND;
    ours.then_some(round)
}

/// Names of a rule's expressions, and their attributes.
fn expressions(rule: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let one = |(kind, row)| {
        let name = text(row, 1).filter(|_| kind == 1)?;
        Some((name.as_bytes(), attribute(row, 2)?))
    };
    Attributes(rule).map(one).collect()
}

fn verdict(immediate: &[u8]) -> Option<(i32, Option<&str>)> {
    number(immediate, 1).filter(|register| *register == VERDICT)?;
    let verdict = attribute(attribute(immediate, 2)?, 2)?;
    let code = number(verdict, 1)?.cast_signed();
    Some((code, text(verdict, 2)))
}

#[cfg(test)]
mod tests {
    use super::super::message::{Batch, HEADER};
    use super::*;

    /// The expressions of rules as they are sent.
    fn sent(write: impl FnOnce(&mut Writer<'_>)) -> Vec<Vec<u8>> {
        let mut batch = Batch::new("buoy");
        batch.restart(1);
        write(&mut Writer::new(&mut batch, INET));
        let mut rest = batch.bytes();
        let mut rules = Vec::new();
        while let Some(length) = rest.first_chunk() {
            let length = u32::from_ne_bytes(*length) as usize;
            let row = attribute(&rest[HEADER + 4..length], 4).unwrap();
            rules.push(row.to_vec());
            rest = &rest[length.next_multiple_of(4)..];
        }
        rules
    }

    #[test]
    fn a_slots_round_is_read_off_its_rules() {
        for round in [NO_ROUND, 7, 0x0102_0304] {
            assert_eq!(round_of(&sent(|w| w.slot(3, round))), Some(round));
        }
    }

    #[test]
    fn other_rules_are_not_ours() {
        let [pass, over] = &sent(|w| w.slot(3, 7))[..] else {
            panic!("two rules");
        };
        let constant = |r: &mut Rule<'_>| r.constant(7, ADDRESS);
        let bits = |operation, mask: [u8; 4]| {
            move |r: &mut Rule<'_>| {
                r.meta(Meta::Mark, ADDRESS);
                r.expression("bitwise", |b| {
                    b.number(1, ADDRESS);
                    b.number(2, ADDRESS);
                    b.number(3, 4);
                    b.nest(4, |b| b.raw(1, &mask));
                    b.nest(5, |b| b.raw(1, &7u32.to_ne_bytes()));
                    b.number(6, operation);
                });
            }
        };
        let lookup = |set: &'static str, flags| {
            move |r: &mut Rule<'_>| {
                r.expression("lookup", |b| {
                    b.text(1, set);
                    b.number(2, ADDRESS);
                    b.number(5, flags);
                });
            }
        };
        type Part<'a> = &'a dyn Fn(&mut Rule<'_>);
        let rule = |parts: &[Part<'_>]| {
            let rules = sent(|w| w.rule("slot-3", |r| parts.iter().for_each(|part| part(r))));
            rules[0].clone()
        };
        let (armed, back) = (lookup(ARMED, 0), |r: &mut Rule<'_>| r.verdict(RETURN));
        let ours = rule(&[&bits(0, [0; 4]), &armed, &back]);
        assert_eq!(
            round_of(&[ours, over.clone()]),
            Some(7),
            "as newer kernels write it"
        );

        for other in [
            rule(&[&constant, &lookup("interfaces", 0), &back]),
            rule(&[&constant, &lookup(ARMED, 1), &back]),
            rule(&[&constant, &armed, &|r| r.verdict(DROP)]),
            rule(&[&constant, &armed, &|r| r.go(GOTO, OVER)]),
            rule(&[&constant, &back]),
            rule(&[&armed, &back]),
            rule(&[&back]),
            rule(&[&bits(1, [0; 4]), &armed, &back]),
            rule(&[&bits(0, [0, 0, 0, 1]), &armed, &back]),
            rule(&[&|r| r.constant(NO_ROUND, ADDRESS), &armed, &back]),
            rule(&[&constant, &armed, &back, &back]),
            over.clone(),
            Vec::new(),
        ] {
            assert_eq!(round_of(&[other, over.clone()]), None);
        }
        for other in [
            rule(&[&|r| r.go(GOTO, "in4")]),
            rule(&[&|r| r.verdict(RETURN)]),
            pass.clone(),
        ] {
            assert_eq!(round_of(&[pass.clone(), other]), None);
        }
        for others in [vec![], vec![pass], vec![over, pass], vec![pass, over, over]] {
            let others: Vec<_> = others.into_iter().cloned().collect();
            assert_eq!(round_of(&others), None);
        }
    }
}

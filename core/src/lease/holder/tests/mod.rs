//! Tests of the holder: a holder with voters that answer as a test says.

mod kept;
mod rounds;
mod rules;
mod slots;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use crate::ids::Incarnation;
use crate::lease::messages::{Claim, Claims, Pending, Verdict};

const LEASE: u64 = 300;
const RENEW: u64 = 75;
const RETRY: u64 = 25;

fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
}

fn name(vip: &str) -> VipName {
    vip.parse().unwrap()
}

fn membership(index: u64, halves: &[&[u64]]) -> Membership {
    let half = |h: &&[u64]| h.iter().map(|n| NodeId(*n)).collect::<BTreeSet<_>>();
    Membership {
        id: ConfigId { term: 1, index },
        halves: halves.iter().map(half).collect(),
    }
}

/// An assignment: VIP, epoch, addresses.
type Assigned<'a> = (&'a str, u64, &'a [u8]);

fn view(membership: Membership, assigned: &[Assigned<'_>]) -> HolderView {
    let wanted = |(vip, epoch, addresses): &Assigned<'_>| Wanted {
        vip: name(vip),
        epoch: Epoch(*epoch),
        addresses: addresses.iter().map(|a| address(*a)).collect(),
    };
    HolderView {
        membership,
        assignments: assigned.iter().map(wanted).collect(),
    }
}

/// What a voter is made to say.
#[derive(Clone, Copy)]
enum Say<'a> {
    /// All granted.
    Yes,
    /// All but these addresses, which wait.
    NotYet(&'a [u8]),
    /// All but this address, which is denied under this epoch.
    No(u8, u64),
    Refused,
    UnknownRev,
}

/// A holder on node 1, and what it sent.
struct Rig {
    holder: Holder,
    sent: Vec<(u64, Renew)>,
}

impl Rig {
    /// With voters 1 to 3 and these assignments, at time 0.
    fn new(assigned: &[Assigned<'_>]) -> (Self, Vec<String>) {
        let me = Session {
            node: NodeId(1),
            incarnation: Incarnation(7),
        };
        let params = HolderParams {
            lease: Duration::from_millis(LEASE),
            gate_margin: Duration::ZERO,
            renew_every: Duration::from_millis(RENEW),
            retry_after: Duration::from_millis(RETRY),
        };
        let mut rig = Rig {
            holder: Holder::new(me, params),
            sent: Vec::new(),
        };
        let effects = rig.applied(0, membership(1, &[&[1, 2, 3]]), assigned);
        (rig, effects)
    }

    /// With one VIP "a" (epoch 5, address 1) that voters 1 and 2 have granted at time 0.
    fn active() -> Self {
        let (mut rig, _) = Rig::new(&[("a", 5, &[1])]);
        rig.answer(0, 1, Say::Yes);
        assert_eq!(
            rig.answer(0, 2, Say::Yes),
            ["deadline 1 300", "open a 5 in 1"]
        );
        rig
    }

    /// Advances the holder; effects in short, renewals are kept in `sent`.
    fn handle(&mut self, at: u64, event: HolderEvent) -> Vec<String> {
        let mut effects = Vec::new();
        self.holder
            .handle(Mono::from_millis(at), event, &mut effects);
        let sent = &mut self.sent;
        let short = effects.into_iter().map(|e| match e {
            HolderEffect::Send { to, renew, until } => {
                assert_eq!(until, Mono::from_millis(at + LEASE));
                let full = matches!(renew.claims, Claims::Full { .. });
                sent.push((to.0, renew));
                format!("send {to}{}", if full { " full" } else { "" })
            }
            HolderEffect::Deadline { slot, at } => {
                format!("deadline {} {}", slot.0, at.0 / 1_000_000)
            }
            HolderEffect::Open {
                vip, epoch, slot, ..
            } => format!("open {vip} {epoch} in {}", slot.0),
            HolderEffect::Remap {
                vip, epoch, slot, ..
            } => format!("remap {vip} {epoch} to {}", slot.0),
            HolderEffect::Shut {
                vip, epoch, reason, ..
            } => format!("shut {vip} {epoch}: {reason:?}"),
            HolderEffect::GaveUp { vip, epoch, .. } => format!("gave up {vip} {epoch}"),
        });
        short.collect()
    }

    fn tick(&mut self, at: u64) -> Vec<String> {
        self.handle(at, HolderEvent::Tick)
    }

    fn applied(&mut self, at: u64, m: Membership, assigned: &[Assigned<'_>]) -> Vec<String> {
        self.handle(at, HolderEvent::Applied(view(m, assigned)))
    }

    /// The newest renewal sent to a voter.
    fn newest(&self, voter: u64) -> Renew {
        let of = self.sent.iter().rev().find(|(to, _)| *to == voter);
        of.expect("something was sent to this voter").1.clone()
    }

    /// The voter answers the newest renewal sent to it.
    fn answer(&mut self, at: u64, voter: u64, say: Say<'_>) -> Vec<String> {
        let renew = self.newest(voter);
        self.answer_to(at, voter, &renew, say)
    }

    fn answer_to(&mut self, at: u64, voter: u64, renew: &Renew, say: Say<'_>) -> Vec<String> {
        let claims = |denied, pending| Verdict::Claims {
            rev: renew.claims.rev(),
            denied,
            pending,
        };
        let verdict = match say {
            Say::Yes => claims(vec![], vec![]),
            Say::NotYet(addresses) => {
                let wait = Duration::from_millis(40);
                let pending = |a: &u8| Pending {
                    address: address(*a),
                    wait,
                };
                claims(vec![], addresses.iter().map(pending).collect())
            }
            Say::No(a, epoch) => claims(
                vec![Claim {
                    address: address(a),
                    epoch: Epoch(epoch),
                }],
                vec![],
            ),
            Say::Refused => Verdict::Refused,
            Say::UnknownRev => Verdict::UnknownRev,
        };
        let answer = Answer {
            voter: NodeId(voter),
            session: renew.session,
            seq: renew.seq,
            config: renew.config,
            verdict,
        };
        self.handle(at, HolderEvent::Answer(answer))
    }

    fn lowered(&mut self, at: u64, vip: &str, epoch: u64) -> Vec<String> {
        self.lowered_but(at, vip, epoch, &[])
    }

    /// Lowered, and these addresses were kept.
    fn lowered_but(&mut self, at: u64, vip: &str, epoch: u64, kept: &[u8]) -> Vec<String> {
        self.handle(
            at,
            HolderEvent::Lowered {
                vip: name(vip),
                epoch: Epoch(epoch),
                kept: kept.iter().map(|a| address(*a)).collect(),
            },
        )
    }

    /// What the newest renewal to a voter claims: (address, epoch).
    fn claimed(&self, voter: u64) -> Vec<(u8, u64)> {
        let Claims::Full { claims, .. } = self.newest(voter).claims else {
            panic!("the newest renewal names no list")
        };
        let last_byte = |a: IpAddr| {
            if let IpAddr::V4(v4) = a {
                v4.octets()[3]
            } else {
                0
            }
        };
        claims
            .iter()
            .map(|c| (last_byte(c.address), c.epoch.0))
            .collect()
    }

    /// Phases in order of name and epoch.
    fn phases(&self) -> Vec<(String, u64, Phase)> {
        self.holder
            .status()
            .map(|s| (s.vip.to_string(), s.epoch.0, s.phase))
            .collect()
    }
}

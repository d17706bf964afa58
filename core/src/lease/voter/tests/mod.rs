//! Tests of the voter: a voter with its log, and ways to write renewals and answers down.

mod bounds;
mod longest;
mod rules;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::lease::messages::{Claim, Claims, Verdict};
use crate::membership::{ConfigId, Membership};

const LEASE: Duration = Duration::from_millis(300);
/// `L_voter` of [`LEASE`].
const PROMISE: u64 = 323;

fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
}

fn session(node: u64, incarnation: u64) -> Session {
    Session {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
    }
}

fn config(index: u64) -> ConfigId {
    ConfigId { term: 1, index }
}

/// A log whose membership entry has index `index`, with assignments (address, node, epoch).
fn log(index: u64, voters: &[u64], assigned: &[(u8, u64, u64)]) -> Arc<LogView> {
    let half: BTreeSet<NodeId> = voters.iter().map(|n| NodeId(*n)).collect();
    Arc::new(LogView {
        membership: Membership {
            id: config(index),
            halves: vec![half],
        },
        assigned: assigned
            .iter()
            .map(|(a, n, e)| (address(*a), (NodeId(*n), Epoch(*e))))
            .collect(),
        ..LogView::default()
    })
}

fn claims(list: &[(u8, u64)]) -> Vec<Claim> {
    list.iter()
        .map(|(a, e)| Claim {
            address: address(*a),
            epoch: Epoch(*e),
        })
        .collect()
}

/// A voter with id 1 that was asked by nodes 1 to 3.
struct Rig {
    voter: Voter,
    log: Arc<LogView>,
}

impl Rig {
    fn new(quarantine_ms: u64, log: Arc<LogView>) -> Self {
        let allowance = Allowance {
            max_drift_ppm: 10_000,
            guard: Duration::from_millis(20),
        };
        let durable = Duration::from_millis(quarantine_ms);
        let mut voter = Voter::new(NodeId(1), allowance, Mono::ZERO, durable, LEASE);
        voter.handle(
            Mono::ZERO,
            VoterEvent::MaxRaised(Duration::from_millis(PROMISE)),
            &mut Vec::new(),
        );
        Rig { voter, log }
    }

    fn handle(&mut self, at: u64, event: VoterEvent) -> Vec<VoterEffect> {
        let mut effects = Vec::new();
        self.voter
            .handle(Mono::from_millis(at), event, &mut effects);
        effects
    }

    fn send(&mut self, at: u64, renew: Renew) -> Vec<VoterEffect> {
        let log = self.log.clone();
        self.handle(at, VoterEvent::Renew { renew, log })
    }

    /// A renewal with the whole list (revision = seq); the answer to it.
    fn renew(&mut self, at: u64, who: Session, seq: u64, list: &[(u8, u64)]) -> Answer {
        let effects = self.send(at, full(who, seq, list));
        answer_to(&effects, who, seq).expect("a renewal is answered")
    }

    fn set_log(&mut self, at: u64, log: Arc<LogView>) -> Vec<VoterEffect> {
        self.log = log.clone();
        self.handle(at, VoterEvent::Log(log))
    }

    /// Live promises as (address, node, epoch, end in ms).
    fn promises(&self, at: u64) -> Vec<(u8, u64, u64, u64)> {
        let last_byte = |a: IpAddr| {
            if let IpAddr::V4(v4) = a {
                v4.octets()[3]
            } else {
                0
            }
        };
        let promises = self.voter.promises(Mono::from_millis(at));
        promises
            .map(|(a, s, e, u)| (last_byte(a), s.node.0, e.0, u.0 / 1_000_000))
            .collect()
    }
}

fn full(who: Session, seq: u64, list: &[(u8, u64)]) -> Renew {
    let claims = Claims::Full {
        rev: seq,
        claims: claims(list),
    };
    Renew {
        session: who,
        seq,
        config: config(1),
        lease: LEASE,
        claims,
    }
}

fn same(who: Session, seq: u64, rev: u64) -> Renew {
    Renew {
        claims: Claims::Same { rev },
        ..full(who, seq, &[])
    }
}

fn answer_to(effects: &[VoterEffect], who: Session, seq: u64) -> Option<Answer> {
    let mut answers = effects.iter().filter_map(|e| match e {
        VoterEffect::Answer(a) if a.session == who && a.seq == seq => Some(a.clone()),
        _ => None,
    });
    let answer = answers.next()?;
    assert_eq!(answers.next(), None, "answered twice");
    Some(answer)
}

/// What an answer says of `n` claims: G granted, D denied, P pending with its wait in ms.
fn short(answer: &Answer, list: &[(u8, u64)]) -> Vec<String> {
    let Verdict::Claims {
        denied, pending, ..
    } = &answer.verdict
    else {
        return vec![format!("{:?}", answer.verdict)];
    };
    let of = |claim: &Claim| {
        let waits = pending.iter().find(|p| p.address == claim.address);
        match waits {
            Some(p) => format!("P{}", p.wait.as_millis()),
            None if denied.contains(claim) => "D".to_owned(),
            None => "G".to_owned(),
        }
    };
    claims(list).iter().map(of).collect()
}

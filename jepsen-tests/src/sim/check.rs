//! The invariants, looked at after every step that could break one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::lease::holder::Phase;
use buoy_core::lease::{Claim, Claims, LogView, Renew, Voter};
use buoy_core::{ConfigId, Epoch, Membership, Mono, NodeId, Session, VipName};

use super::FASTEST_PPM;
use super::bugs::true_epoch;
use super::clock::True;
use super::config::Invariant;
use super::node::{Node, Resting};

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which invariant.
    pub invariant: Invariant,
    /// When, in true time.
    pub at: True,
    /// What was seen.
    pub text: String,
    /// The last things that happened, if they were traced.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "{:?} violated at {:.3} ms: {}",
            self.invariant,
            self.at as f64 / 1e6,
            self.text
        )
    }
}

/// What a voter has promised: address to session, epoch and end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promises(BTreeMap<IpAddr, (Session, Epoch, Mono)>);

impl Promises {
    /// Of this voter, at present.
    pub fn of(voter: &Voter) -> Self {
        let promises = voter.promises(Mono::ZERO);
        Self(
            promises
                .map(|(a, s, e, until)| (a, (s, e, until)))
                .collect(),
        )
    }
}

/// What the checks remember.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    checked: BTreeSet<Invariant>,
    /// Addresses whose gate was opened, by which session, under which epoch.
    pub(super) opened: BTreeSet<(Session, IpAddr, Epoch)>,
    /// Largest epoch under which an address was ever active, and where.
    active: BTreeMap<IpAddr, (Epoch, NodeId)>,
    /// Deadlines that were found to rest on promises, and the membership counted under.
    verified: BTreeMap<(Session, VipName, Epoch), (Mono, Membership)>,
    /// What each session claimed last, and what it claimed before and no more.
    claims: BTreeMap<Session, (u64, BTreeSet<Claim>, BTreeSet<Claim>)>,
    /// Memberships, and when they were committed.
    memberships: Vec<(ConfigId, True)>,
    /// The first violation.
    pub found: Option<Violation>,
}

impl Checker {
    /// Looks at these invariants only.
    pub fn new(checked: &[Invariant]) -> Self {
        Self {
            checked: checked.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// Is the invariant looked at?
    pub fn looks_at(&self, invariant: Invariant) -> bool {
        self.checked.contains(&invariant)
    }

    /// Records a violation, if it is looked at and the first.
    pub fn fail(&mut self, invariant: Invariant, at: True, text: impl FnOnce() -> String) {
        if self.found.is_none() && self.looks_at(invariant) {
            self.found = Some(Violation {
                invariant,
                at,
                text: text(),
                trace: Vec::new(),
            });
        }
    }

    /// The gate of node `n` was written: S1, S2.
    pub fn gate_written(&mut self, nodes: &[Node], n: usize, now: True) {
        let here = &nodes[n];
        let local = here.read(now);
        for resting in here.resting() {
            let Resting { address, end, .. } = resting;
            if local >= end {
                continue;
            }
            self.gate_rests_on_promises(nodes, here, now, resting, "");
            let epoch = true_epoch(resting.holding.2);
            for other in nodes.iter().filter(|o| o.id != here.id) {
                if other.answers(address, now) {
                    self.fail(Invariant::S1, now, || {
                        let until = here.clock.when(end).saturating_sub(now) as f64 / 1e6;
                        format!(
                            "{address} passes on node {} (epoch {epoch}, for {until:.3} ms more) and on node {}",
                            here.id, other.id
                        )
                    });
                }
            }
            let newest = self.active.entry(address).or_insert((epoch, here.id));
            let seen = *newest;
            if seen.0 < epoch {
                *newest = (epoch, here.id);
            } else if seen.0 > epoch || seen.1 != here.id {
                self.fail(Invariant::S2, now, || {
                    format!(
                        "{address} became active on node {} under epoch {epoch}, after epoch {} on node {}",
                        here.id, seen.0, seen.1
                    )
                });
            }
        }
    }

    /// S3 and S6 as the kernel sees it: how long the gate really stays open for an address, whatever the holder
    /// counts, and whether or not its process lives.
    fn gate_rests_on_promises(
        &mut self,
        nodes: &[Node],
        here: &Node,
        now: True,
        resting: Resting<'_>,
        because: &str,
    ) {
        let Resting {
            address, holding, ..
        } = resting;
        let (session, _, epoch) = holding;
        let process = here.process.as_ref().filter(|p| p.session == *session);
        let verified = self.verified.get(holding).cloned();
        let counted = verified.or_else(|| Some((Mono::ZERO, process?.counted_under.clone())));
        let Some((deadline, membership)) = counted else {
            return;
        };
        let end = here.clock.when(resting.end);
        if let Some(process) = process
            && resting.end > deadline
        {
            // A leader waits for what was promised, which is what the node named.
            let named = process.lease + here.gate.kind().margin();
            self.ends_with_its_membership(here, &membership, named, end, now);
        }
        if self.looks_at(Invariant::S3)
            && !supported(
                nodes,
                *session,
                &membership,
                now,
                end,
                address,
                true_epoch(*epoch),
            )
        {
            self.fail(Invariant::S3, now, || {
                let more = end.saturating_sub(now) as f64 / 1e6;
                format!(
                    "the gate of node {} is open for {address} (epoch {epoch}) for {more:.3} ms more, \
                     longer than any majority promised{because}",
                    here.id
                )
            });
        }
    }

    /// A membership was committed: S6. The one before was committed at least `wait` (as the leader's
    /// clock counts, which may run too fast) earlier.
    pub fn membership_committed(&mut self, id: ConfigId, wait: Duration, now: True) {
        let wait = wait.as_nanos() as True * 1_000_000 / (1_000_000 + FASTEST_PPM);
        if let Some((before, at)) = self.memberships.last().copied()
            && now < at + wait
        {
            self.fail(Invariant::S6, now, || {
                format!(
                    "membership {} was committed {:.3} ms after {}; leases that were counted under the \
                     one before that may still run",
                    id.index,
                    (now - at) as f64 / 1e6,
                    before.index
                )
            });
        }
        self.memberships.push((id, now));
    }

    /// S6: a lease that was counted under a membership ends at most its length after the next one was
    /// committed; that is what a leader relies on when it waits before it proposes another.
    fn ends_with_its_membership(
        &mut self,
        here: &Node,
        membership: &Membership,
        length: Duration,
        end: True,
        now: True,
    ) {
        let counted = membership.id;
        let next = self
            .memberships
            .iter()
            .find(|(id, _)| id.index > counted.index);
        let Some((next, committed)) = next.copied() else {
            return;
        };
        if end > committed + length.as_nanos() as True {
            self.fail(Invariant::S6, now, || {
                let late = (end - committed) as f64 / 1e6;
                format!(
                    "node {} counts under membership {} until {late:.3} ms after {} was committed",
                    here.id, counted.index, next.index
                )
            });
        }
    }

    /// The holder of node `n` was advanced at its clock's `reading`: S3. The deadlines that grew must
    /// rest on promises of a majority of the voters that it counts under; what is over is not active.
    pub fn holder_advanced(&mut self, nodes: &[Node], n: usize, now: True, reading: Mono) {
        let here = &nodes[n];
        let Some(process) = &here.process else { return };
        for vip in process.holder.status().filter(|v| v.phase == Phase::Active) {
            let Some(deadline) = vip.deadline else {
                continue;
            };
            if deadline <= reading {
                self.fail(Invariant::Rule, now, || {
                    format!("node {} keeps {} after its lease is over", here.id, vip.vip)
                });
            }
            let key = (process.session, vip.vip.clone(), vip.epoch);
            if self.verified.get(&key).is_some_and(|(d, _)| *d >= deadline) {
                continue;
            }
            self.verified
                .insert(key, (deadline, process.counted_under.clone()));
            let end = here.clock.when(deadline);
            if end <= now {
                // Over before it was counted (the process was stopped in between): opens nothing.
                continue;
            }
            self.ends_with_its_membership(here, &process.counted_under, process.lease, end, now);
            for address in vip.addresses {
                if !supported(
                    nodes,
                    process.session,
                    &process.counted_under,
                    now,
                    end,
                    *address,
                    true_epoch(vip.epoch),
                ) {
                    self.fail(Invariant::S3, now, || {
                        format!(
                            "node {} counts on {address} (epoch {}) for {:.3} ms more, which no majority of {:?} promised",
                            here.id,
                            vip.epoch,
                            end.saturating_sub(now) as f64 / 1e6,
                            process.counted_under.halves,
                        )
                    });
                }
            }
        }
    }

    /// A voter was advanced, with `log` as the newest view that it was given: superseded promises are
    /// not extended, and new ones are for the last assignment.
    pub fn voter_advanced(&mut self, voter: &Voter, before: &Promises, log: &LogView, now: True) {
        for (address, session, epoch, until) in voter.promises(Mono::ZERO) {
            let claim = Claim { address, epoch };
            let old = before
                .0
                .get(&address)
                .filter(|(s, e, _)| (*s, *e) == (session, epoch));
            let grew = old.is_none_or(|(.., end)| *end < until);
            let wrong = if old.is_some_and(|(.., end)| *end > until) {
                "moved back"
            } else if grew && log.supersedes(&claim) {
                "superseded"
            } else if old.is_none() && !log.assigns(&claim, session.node) {
                "not the last of its log"
            } else {
                continue;
            };
            self.fail(Invariant::Rule, now, || {
                format!("a voter promises {address} to {session:?} under epoch {epoch}, which is {wrong}")
            });
        }
    }

    /// A voter was advanced or started: every deadline that rests on its promises must still rest on
    /// what it promises now, or on its quarantine.
    pub fn voter_changed(&mut self, nodes: &[Node], n: usize, now: True) {
        let because = format!(
            "; voter {} does not keep (after a restart: wait for) what it had promised",
            nodes[n].id
        );
        for here in nodes {
            let local = here.read(now);
            for resting in here.resting().filter(|r| r.end > local) {
                self.gate_rests_on_promises(nodes, here, now, resting, &because);
            }
            let Some(process) = &here.process else {
                continue;
            };
            for vip in process.holder.status().filter(|v| v.phase == Phase::Active) {
                let key = (process.session, vip.vip.clone(), vip.epoch);
                let Some((deadline, membership)) = self.verified.get(&key) else {
                    continue;
                };
                let end = here.clock.when(*deadline);
                let epoch = true_epoch(vip.epoch);
                let rests =
                    |a: &IpAddr| supported(nodes, process.session, membership, now, end, *a, epoch);
                if end > now && !vip.addresses.iter().all(rests) {
                    self.fail(Invariant::S3, now, || {
                        let more = end.saturating_sub(now) as f64 / 1e6;
                        format!(
                            "node {} counts on {} for {more:.3} ms more; voter {} does not \
                             keep (after a restart: wait for) what it had promised",
                            here.id, vip.vip, nodes[n].id
                        )
                    });
                    return;
                }
            }
        }
    }

    /// A renewal is about to leave node `n`: S4 (what it does not claim is shut), and claims are of
    /// committed assignments, no epoch twice.
    pub fn renewal_sent(&mut self, here: &Node, renew: &Renew, now: True) {
        let Claims::Full { rev, claims } = &renew.claims else {
            return;
        };
        if let Some(claim) = claims.iter().find(|c| c.epoch.0 > here.raft.commit as u64) {
            self.fail(Invariant::Rule, now, || {
                let (address, epoch) = (claim.address, claim.epoch);
                format!(
                    "node {} claims {address} under epoch {epoch}, which is not committed",
                    here.id
                )
            });
        }
        let open = here.resting().map(|r| (r.address, "its gate is shut"));
        let present = here.addresses.iter().map(|a| (*a, "it is removed"));
        let told = here
            .announced
            .iter()
            .map(|a| (*a, "it is announced no more"));
        for (address, what) in open.chain(present).chain(told) {
            if !claims.iter().any(|c| c.address == address) {
                self.fail(Invariant::S4, now, || {
                    format!("node {} releases {address} before {what}", here.id)
                });
            }
        }
        let entry = self.claims.entry(renew.session).or_default();
        if *rev <= entry.0 {
            return;
        }
        let claims: BTreeSet<Claim> = claims.iter().copied().collect();
        let gone: Vec<Claim> = entry.1.difference(&claims).copied().collect();
        entry.2.extend(gone);
        let again = claims.intersection(&entry.2).next().copied();
        (entry.0, entry.1) = (*rev, claims);
        if let Some(claim) = again {
            self.fail(Invariant::Rule, now, || {
                format!(
                    "node {} claims {} again under epoch {}",
                    here.id, claim.address, claim.epoch
                )
            });
        }
    }
}

/// Do promises of a majority of the voters last until `end`?
fn supported(
    nodes: &[Node],
    session: Session,
    counted_under: &Membership,
    now: True,
    end: True,
    address: IpAddr,
    epoch: Epoch,
) -> bool {
    let kept = |v: NodeId| {
        let voter = nodes.iter().find(|x| x.id == v)?;
        (support(voter, now, address, session, epoch) >= end).then_some(())
    };
    counted_under.quorum_value(kept).is_some()
}

/// Until when (true time) a voter supports nobody but the session for the address.
fn support(voter: &Node, now: True, address: IpAddr, session: Session, epoch: Epoch) -> True {
    // A voter that is down begins with a quarantine, whenever it begins.
    let Some(process) = &voter.process else {
        return True::MAX;
    };
    let quarantine = voter.clock.when(process.voter.quarantine_until());
    let mine = |(a, s, e, _): &(IpAddr, Session, Epoch, Mono)| {
        *a == address && *s == session && *e == epoch
    };
    let promise = process.voter.promises(voter.read(now)).find(mine);
    promise
        .map_or(0, |(.., until)| voter.clock.when(until))
        .max(quarantine)
}

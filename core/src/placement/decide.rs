//! Decides for each unit whether it moves, waits or stays.
//!
//! First the units that must move are placed, one after the other, each seeing where the ones before
//! it went. Then preempting units move to better nodes until none wants to. That ends: each such move
//! improves (pin, number of avoiding pairs on one node, priority) of the whole, in this order, because
//! avoiding counts for both sides; and a unit without an owner is placed only once.

use std::collections::BTreeMap;

use super::obstacle::Obstacle;
use super::picture::{Board, Picture, Standing, Unit};
use super::reasons::{difference, others};
use super::words::span;
use crate::ids::{NodeId, VipName};
use crate::state::{Cause, Move, Vip};
use crate::time::Mono;

/// Rounds of preemption in one plan. The next plan goes on where this one stopped.
const MAX_ROUNDS: usize = 64;

/// What becomes of a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Nothing is in the way of the present owner.
    Stays,
    /// It moves, or gets a new epoch.
    Moves,
    /// It should leave its owner, or needs a first one, and no node is eligible.
    Stuck,
    /// It will be looked at again at this time; the words say what for.
    Waits(Mono, String),
}

/// Why a VIP moves, whatever its target.
pub(super) type Why = (Cause, String);

/// What was decided for all units.
pub(super) struct Decided<'p, 'a> {
    pub(super) picture: &'p Picture<'a>,
    pub(super) board: Board<'a>,
    /// VIPs that move, and those that get a new epoch where they are.
    moving: BTreeMap<&'a VipName, Why>,
    /// One for each unit, in the same order.
    pub(super) fates: Vec<Fate>,
}

/// Decides for everything.
pub(super) fn decide<'p, 'a>(picture: &'p Picture<'a>) -> Decided<'p, 'a> {
    let fates = vec![Fate::Stays; picture.units.len()];
    let mut d = Decided {
        picture,
        board: picture.board(),
        moving: BTreeMap::new(),
        fates,
    };
    for (i, unit) in picture.units.iter().enumerate() {
        d.fates[i] = d.settle(unit);
    }
    d.improve();
    d
}

impl<'a> Decided<'_, 'a> {
    /// The moves, in order of unit and name.
    pub(super) fn moves(&self) -> Vec<Move> {
        let members = self
            .picture
            .units
            .iter()
            .flat_map(|u| u.members.iter().map(move |v| (u, *v)));
        members
            .filter_map(|(unit, vip)| self.move_of(unit, vip))
            .collect()
    }

    /// The move of one VIP, if it moves.
    pub(super) fn move_of(&self, unit: &Unit<'a>, vip: &'a Vip) -> Option<Move> {
        let (cause, why) = self.moving.get(&vip.spec.name)?;
        let to = self.board.owner(&vip.spec.name)?;
        // Back where it was, there is nothing to do, unless it needs a new epoch all the same.
        let (cause, why) = if Some(to) == vip.owner() {
            self.given_up(vip)?
        } else {
            (*cause, why.clone())
        };
        Some(Move {
            vip: vip.spec.name.clone(),
            expected: vip.epoch(),
            to: Some(to),
            cause,
            evidence: format!("{why}; {}", self.choice(unit, to)),
            pin: None,
        })
    }

    /// The earliest later time at which time alone changes something: an owner falls silent, or a wait ends.
    pub(super) fn recheck_at(&self) -> Option<Mono> {
        let p = self.picture;
        let owners = p
            .units
            .iter()
            .flat_map(|u| &u.members)
            .filter_map(|v| p.silent_at(v.owner()?));
        let waits = self.fates.iter().filter_map(|f| match f {
            Fate::Waits(until, _) => Some(*until),
            _ => None,
        });
        owners.chain(waits).filter(|at| *at > p.params.now).min()
    }

    /// Preemption, round by round, until nothing moves any more.
    fn improve(&mut self) {
        let units = &self.picture.units;
        let mut waits = BTreeMap::new();
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            // What a unit waited for in an earlier round may not be better any more.
            waits.clear();
            for (i, unit) in units.iter().enumerate() {
                // What others did may have settled what a unit without an owner waited for.
                if unit
                    .members
                    .iter()
                    .all(|v| self.board.owner(&v.spec.name).is_none())
                {
                    self.fates[i] = self.place(unit);
                    moved |= self.fates[i] == Fate::Moves;
                }
                match self.preempt(unit) {
                    Some(Fate::Moves) => {
                        moved = true;
                        self.fates[i] = Fate::Moves;
                    }
                    Some(wait) => {
                        waits.insert(i, wait);
                    }
                    None => {}
                }
            }
            if !moved {
                break;
            }
        }
        for (i, wait) in waits {
            if self.fates[i] == Fate::Stays {
                self.fates[i] = wait;
            }
        }
    }

    /// Moves a unit that must move.
    fn settle(&mut self, unit: &Unit<'a>) -> Fate {
        if unit.members.iter().all(|v| v.owner().is_none()) {
            return self.place(unit);
        }
        let Some(owner) = self.board.sole_owner(unit) else {
            return self.join(unit);
        };
        if self.picture.is_displaced(unit, owner) {
            let Some(target) = self.best(unit, None) else {
                return Fate::Stuck;
            };
            for vip in &unit.members {
                let why = self.displaced(unit, vip, owner);
                self.moving.insert(&vip.spec.name, why);
            }
            self.give(unit, target);
            return Fate::Moves;
        }
        self.renew(unit, owner)
    }

    /// A unit without any owner.
    fn place(&mut self, unit: &Unit<'a>) -> Fate {
        let Some(target) = self.best(unit, None) else {
            return Fate::Stuck;
        };
        if let Some(better) = self.expected(unit, target) {
            let ends = self.picture.patience_ends();
            let left = span(ends.since(self.picture.params.now));
            let until = self
                .picture
                .silent_at(better)
                .map_or(ends, |at| at.min(ends));
            let (better, target) = (self.picture.call(better), self.picture.call(target));
            return Fate::Waits(
                until,
                format!("{better} ranks above {target} and may be heard within {left}"),
            );
        }
        for vip in &unit.members {
            self.moving
                .insert(&vip.spec.name, (Cause::Placement, "no owner".to_owned()));
        }
        self.give(unit, target);
        Fate::Moves
    }

    /// A node that may be heard soon and would then be chosen before `target`.
    fn expected(&self, unit: &Unit<'a>, target: NodeId) -> Option<NodeId> {
        let p = self.picture;
        if p.params.now >= p.patience_ends() {
            return None;
        }
        let rank = |node: NodeId| {
            (
                p.standing(unit, node, &self.board),
                self.board.others(node, unit),
            )
        };
        let soon = |node: &NodeId| {
            let all = p.unit_obstacles(unit, *node);
            !all.is_empty() && !all.iter().any(Obstacle::displaces)
        };
        let better = p
            .nodes
            .keys()
            .copied()
            .filter(soon)
            .filter(|n| rank(*n) < rank(target));
        better.min_by_key(|n| (rank(*n), *n))
    }

    /// VIPs of one unit on several nodes, or on none.
    fn join(&mut self, unit: &Unit<'a>) -> Fate {
        let p = self.picture;
        let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
        for owner in unit
            .members
            .iter()
            .filter_map(|v| self.board.owner(&v.spec.name))
        {
            *held.entry(owner).or_default() += 1;
        }
        // A holder that is merely not known yet may turn out to be the one to join.
        let unknown = |n: &NodeId| !p.is_eligible(unit, *n) && !p.is_displaced(unit, *n);
        let wait = p.params.now < p.patience_ends();
        if let Some(node) = held.keys().copied().find(unknown).filter(|_| wait) {
            let why = format!("{} is not known well enough yet", p.call(node));
            return Fate::Waits(p.patience_ends(), why);
        }
        let joinable = held.iter().filter(|(n, _)| p.is_eligible(unit, **n));
        let most = joinable.min_by_key(|(n, count)| {
            (
                std::cmp::Reverse(**count),
                p.standing(unit, **n, &self.board),
                **n,
            )
        });
        let Some(target) = most.map(|(n, _)| *n).or_else(|| self.best(unit, None)) else {
            return Fate::Stuck;
        };
        for vip in &unit.members {
            let why = match self.board.owner(&vip.spec.name) {
                Some(owner) if owner == target => self.given_up(vip),
                Some(owner) => Some(self.displaced(unit, vip, owner)),
                None => Some((
                    Cause::Placement,
                    format!("no owner; must be with {}", others(unit, vip)),
                )),
            };
            if let Some(why) = why {
                self.moving.insert(&vip.spec.name, why);
            }
        }
        self.give(unit, target);
        Fate::Moves
    }

    /// A unit whose owner is fine, but may have given up an epoch.
    fn renew(&mut self, unit: &Unit<'a>, owner: NodeId) -> Fate {
        let lost: Vec<(&'a VipName, Why)> = unit
            .members
            .iter()
            .filter_map(|v| Some((&v.spec.name, self.given_up(v)?)))
            .collect();
        let Some((first, (_, why))) = lost.first() else {
            return Fate::Stays;
        };
        let Some(target) = self.best(unit, Some(owner)) else {
            return Fate::Stuck;
        };
        if target != owner {
            for vip in &unit.members {
                let why = (Cause::Group, format!("moves together with {first}: {why}"));
                self.moving.insert(&vip.spec.name, why);
            }
            self.give(unit, target);
        }
        self.moving.extend(lost);
        Fate::Moves
    }

    /// Moves a preempting unit to a better node. `None`: it does not want to.
    fn preempt(&mut self, unit: &Unit<'a>) -> Option<Fate> {
        let delay = unit.preempt?;
        let p = self.picture;
        let owner = self.board.sole_owner(unit)?;
        let target = self.best(unit, Some(owner)).filter(|t| *t != owner)?;
        let (new, old) = (
            p.standing(unit, target, &self.board),
            p.standing(unit, owner, &self.board),
        );
        if new >= old {
            return None;
        }
        let better = difference(p, &new, target, &old, owner);
        let well_since = p.nodes.get(&target)?.health.and_then(|h| h.well_since);
        if !delay.is_zero() {
            let at = well_since? + delay;
            if at > p.params.now {
                let left = span(at.since(p.params.now));
                // Should it fall silent meanwhile, another one may be the better node.
                let until = p.silent_at(target).map_or(at, |silent| silent.min(at));
                return Some(Fate::Waits(
                    until,
                    format!("{better}; it preempts in {left}"),
                ));
            }
        }
        let well = well_since.map(|since| {
            format!(
                ", well for {} (delay {})",
                span(p.params.now.since(since)),
                span(delay)
            )
        });
        for vip in &unit.members {
            let why = (
                Cause::Preempted,
                format!("{better}{}", well.as_deref().unwrap_or_default()),
            );
            // A VIP that had to move in any case still moves for that reason.
            let entry = self
                .moving
                .entry(&vip.spec.name)
                .or_insert_with(|| why.clone());
            if entry.0 == Cause::Preempted {
                *entry = why;
            }
        }
        self.give(unit, target);
        Some(Fate::Moves)
    }

    fn give(&mut self, unit: &Unit<'a>, to: NodeId) {
        for vip in &unit.members {
            self.board.give(&vip.spec.name, to);
        }
    }

    /// The node that is chosen; `owner` is preferred among equals.
    fn best(&self, unit: &Unit<'a>, owner: Option<NodeId>) -> Option<NodeId> {
        self.picture
            .eligible(unit)
            .min_by_key(|n| rank(self.picture, unit, *n, owner, &self.board))
    }
}

/// Order in which nodes are chosen; smaller is better.
pub(super) fn rank<'a>(
    picture: &Picture<'a>,
    unit: &Unit<'a>,
    node: NodeId,
    owner: Option<NodeId>,
    board: &Board<'a>,
) -> (Standing, bool, usize, NodeId) {
    (
        picture.standing(unit, node, board),
        owner != Some(node),
        board.others(node, unit),
        node,
    )
}

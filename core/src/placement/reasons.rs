//! Why VIPs move, in words with figures.

use super::decide::{Decided, Why};
use super::obstacle::Obstacle;
use super::picture::{Picture, Standing, Unit};
use super::words::{list, vips};
use crate::health::UNFENCED;
use crate::ids::NodeId;
use crate::state::{Cause, Vip};

impl<'a> Decided<'_, 'a> {
    pub(super) fn given_up(&self, vip: &'a Vip) -> Option<Why> {
        let why = self.picture.gave_up(vip)?;
        let owner = self.picture.call(vip.owner()?);
        let cause = cause_of_giving_up(why);
        Some((
            cause,
            format!("{owner} gave up epoch {}: {why}", vip.epoch()),
        ))
    }

    /// Why a VIP leaves its owner: the owner's obstacle for it, or else for the VIPs that it is with.
    pub(super) fn displaced(&self, unit: &Unit<'a>, vip: &'a Vip, owner: NodeId) -> Why {
        let p = self.picture;
        let name = p.call(owner);
        let certain = |all: Vec<Obstacle<'a>>| all.into_iter().find(Obstacle::displaces);
        if let Some(o) = certain(p.obstacles(vip, owner)) {
            return (o.cause(), format!("{name} {o}"));
        }
        match certain(p.unit_obstacles(unit, owner)) {
            Some(o) => (
                Cause::Group,
                format!("must be with {}; {name} {o}", others(unit, vip)),
            ),
            None => (Cause::Group, format!("must be with {}", others(unit, vip))),
        }
    }

    /// Why the target and no other.
    pub(super) fn choice(&self, unit: &Unit<'a>, target: NodeId) -> String {
        let p = self.picture;
        let Standing {
            unpinned,
            foes,
            priority,
        } = p.standing(unit, target, &self.board);
        let mut facts = vec![format!("priority {}", priority.0)];
        if !unpinned {
            facts.insert(0, "pinned by an operator".to_owned());
        }
        if foes > 0 {
            facts.push(format!("{} it avoids", vips(foes)));
        }
        facts.push(format!("{} beside", vips(self.board.others(target, unit))));
        let name = p.call(target);
        match p.eligible(unit).count() {
            0 | 1 => format!("{name} is the only eligible node ({})", facts.join(", ")),
            n => format!(
                "{name} is first of {n} eligible nodes ({})",
                facts.join(", ")
            ),
        }
    }
}

/// The cause of a new epoch after the owner gave the last one up.
pub(super) fn cause_of_giving_up(why: &str) -> Cause {
    match why.starts_with(UNFENCED) {
        true => Cause::Unfenced,
        false => Cause::LeaseLost,
    }
}

/// In what the standing of `a` is better than that of `b`, in words.
pub(super) fn difference(
    picture: &Picture<'_>,
    new: &Standing,
    a: NodeId,
    old: &Standing,
    b: NodeId,
) -> String {
    let (a, b) = (picture.call(a), picture.call(b));
    if new.unpinned != old.unpinned {
        format!("{a} ranks above {b}: an operator pinned it")
    } else if new.foes != old.foes {
        format!(
            "{a} ranks above {b}: it holds {} to avoid, {b} holds {}",
            vips(new.foes),
            old.foes
        )
    } else {
        format!(
            "{a} ranks above {b}: priority {} against {}",
            new.priority.0, old.priority.0
        )
    }
}

/// The other members of the VIP's unit.
pub(super) fn others(unit: &Unit<'_>, vip: &Vip) -> String {
    list(
        unit.members
            .iter()
            .map(|v| &v.spec.name)
            .filter(|n| **n != vip.spec.name),
    )
}

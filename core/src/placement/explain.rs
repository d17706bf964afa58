//! The planner's verdicts in words, for one VIP.

use super::decide::{Decided, Fate, decide, rank};
use super::frozen::revival;
use super::picture::{Board, NodeFacts, Picture, Unit};
use super::reasons::difference;
use super::words::{list, span, vips};
use super::{Candidate, Explanation, PlanParams};
use crate::health::HealthView;
use crate::ids::{NodeId, VipName};
use crate::state::{State, Vip};

/// Why a VIP is where it is, and what automatic placement would do; `None`: there is no such VIP.
///
/// Every node can be asked; the leader's records are the ones that decide.
pub fn explain(
    state: &State,
    health: &HealthView,
    params: &PlanParams,
    vip: &VipName,
) -> Option<Explanation> {
    let vip = state.vips.get(vip)?;
    let picture = Picture::new(state, health, params);
    let at = picture
        .units
        .iter()
        .position(|u| u.members.iter().any(|v| v.spec.name == vip.spec.name));
    let alone = Unit {
        members: vec![vip],
        pinned: vip.pinned,
        preempt: None,
        foes: Vec::new(),
    };
    let (unit, fate_at) = match at {
        Some(i) => (&picture.units[i], Some(i)),
        None => (&alone, None),
    };
    let decided = decide(&picture);
    let teller = Teller {
        picture: &picture,
        board: picture.board(),
        unit,
        vip,
    };
    Some(Explanation {
        vip: vip.spec.name.clone(),
        group: unit.members.iter().map(|v| v.spec.name.clone()).collect(),
        candidates: teller.candidates(),
        why: teller.why(),
        next: teller.next(&decided, fate_at.map(|i| &decided.fates[i])),
    })
}

struct Teller<'p, 'a> {
    picture: &'p Picture<'a>,
    /// As the state has it.
    board: Board<'a>,
    unit: &'p Unit<'a>,
    vip: &'a Vip,
}

impl<'a> Teller<'_, 'a> {
    fn candidates(&self) -> Vec<Candidate> {
        let p = self.picture;
        let owner = self.vip.owner();
        let mut eligible: Vec<NodeId> = p.eligible(self.unit).collect();
        eligible.sort_by_key(|n| rank(p, self.unit, *n, owner, &self.board));
        let others = p.nodes.keys().copied().filter(|n| !eligible.contains(n));
        let order: Vec<NodeId> = eligible.iter().copied().chain(others).collect();
        order
            .iter()
            .enumerate()
            .filter_map(|(i, id)| self.candidate(*id, (i < eligible.len()).then_some(i + 1)))
            .collect()
    }

    fn candidate(&self, node: NodeId, rank: Option<usize>) -> Option<Candidate> {
        let facts = self.picture.nodes.get(&node)?;
        let owner = self.vip.owner() == Some(node);
        let mut reasons = Vec::new();
        if owner {
            reasons.push(format!("assigned with epoch {}", self.vip.epoch()));
            if let Some(why) = self.picture.gave_up(self.vip) {
                reasons.push(format!("gave that epoch up: {why}"));
            }
        }
        match rank {
            Some(rank) => self.strengths(node, facts, rank, &mut reasons),
            None => reasons.extend(
                self.picture
                    .unit_obstacles(self.unit, node)
                    .iter()
                    .map(|o| o.to_string()),
            ),
        }
        Some(Candidate {
            node,
            name: facts.name.clone(),
            owner,
            eligible: rank.is_some(),
            priority: self.vip.spec.placement.priority_of(facts.name),
            rank,
            pinned: self.unit.pinned == Some(node),
            reasons,
        })
    }

    /// What speaks for an eligible node, and why it is not the owner all the same.
    fn strengths(
        &self,
        node: NodeId,
        facts: &NodeFacts<'a>,
        rank: usize,
        reasons: &mut Vec<String>,
    ) {
        let p = self.picture;
        if node == p.params.me {
            reasons.push("is the node that looks".to_owned());
        } else if let Some(at) = facts.health.and_then(|h| h.last_heard) {
            reasons.push(format!("heard {} ago", span(p.params.now.since(at))));
        }
        let standing = p.standing(self.unit, node, &self.board);
        if !standing.unpinned {
            reasons.push("pinned by an operator".to_owned());
        }
        let foes = self
            .unit
            .foes
            .iter()
            .filter(|f| self.board.owner(f) == Some(node));
        let foes = list(foes);
        if !foes.is_empty() {
            reasons.push(format!("holds {foes}, to be avoided if possible"));
        }
        let of = if self.unit.members.len() == 1 {
            ""
        } else {
            " for the whole group"
        };
        reasons.push(format!("priority {}{of}", standing.priority.0));
        reasons.push(format!(
            "{} beside",
            vips(self.board.others(node, self.unit))
        ));
        let Some(owner) = self.vip.owner().filter(|o| *o != node) else {
            return;
        };
        let there = p.standing(self.unit, owner, &self.board);
        if standing >= there {
            reasons.push(format!("ranks {rank}: no better than {}", p.call(owner)));
        } else {
            let mut words = difference(p, &standing, node, &there, owner);
            match self.unit.preempt {
                None => words.push_str(", but the VIP is sticky"),
                Some(delay) if !delay.is_zero() => {
                    words.push_str(&format!(
                        ", and preempts when it has been well for {}",
                        span(delay)
                    ));
                }
                Some(_) => {}
            }
            reasons.push(words);
        }
    }

    fn why(&self) -> String {
        let name = &self.vip.spec.name;
        if let Some(evidence) = &self.vip.yielded {
            return format!("{name} is left to a router outside the group: {evidence}");
        }
        let Some(a) = &self.vip.assignment else {
            return format!("{name} has no owner");
        };
        let owner = self.picture.call(a.node);
        let mine = |e: &&crate::state::Event| {
            e.vip.as_ref() == Some(name) && e.epoch == Some(a.epoch) && e.index == a.epoch.0
        };
        let evidence = self
            .picture
            .state
            .history
            .iter()
            .rev()
            .find(mine)
            .map(|e| e.evidence.as_str());
        let evidence = evidence.unwrap_or("the history does not reach back to that");
        format!("{owner} owns {name} with epoch {}: {evidence}", a.epoch)
    }

    fn next(&self, decided: &Decided<'_, 'a>, fate: Option<&Fate>) -> String {
        let p = self.picture;
        if p.state.settings.frozen {
            if let Some(m) = revival(p, self.vip) {
                let to = m.to.map(|n| p.call(n)).unwrap_or_default();
                return format!("a new epoch on {to} now: {}", m.evidence);
            }
            return "nothing: automatic placement is frozen, so it moves only by command"
                .to_owned();
        }
        let Some(fate) = fate else {
            return "nothing: it is not placed until it is taken back".to_owned();
        };
        if let Some(m) = decided.move_of(self.unit, self.vip) {
            let to = m.to.map(|n| p.call(n)).unwrap_or_default();
            return format!("assign it to {to} now: {}", m.evidence);
        }
        let owner = self.vip.owner().map(|o| p.call(o));
        match (fate, owner) {
            (Fate::Waits(_, why), Some(owner)) => format!("leave it on {owner} for now: {why}"),
            (Fate::Waits(_, why), None) => format!("wait before giving it an owner: {why}"),
            (Fate::Stuck, None) => format!("nothing: no node is eligible for {}", self.whole()),
            (Fate::Stuck, Some(owner)) => format!(
                "leave it on {owner}, although that is not good: no other node is eligible for {}",
                self.whole()
            ),
            (_, Some(owner)) => format!("nothing: it stays on {owner}"),
            (_, None) => "nothing".to_owned(),
        }
    }

    fn whole(&self) -> String {
        list(self.unit.members.iter().map(|v| &v.spec.name))
    }
}

//! Where each VIP should be, decided from the replicated state and the health of the nodes; and why.
//!
//! [`plan`] is pure: the same state, health and time give the same moves. The leader proposes them in
//! one log entry. [`explain`] tells people the same thing from the same verdicts.
//!
//! # Who may hold a VIP
//!
//! A node is *eligible* unless there is an obstacle: it is a witness, drained, silent, gives the VIP
//! priority 0, or reports a fault of itself or for the VIP. Two more obstacles pass by themselves: it
//! was not heard *yet*, or has sent no report yet. They keep a node from being chosen, but never take a
//! VIP away from it. VIPs that `colocate_with` joins are one *group*: its owner must be eligible for all
//! of them, they move together, and a priority of the group is the sum of theirs.
//!
//! # Who is chosen
//!
//! In this order: the node that an operator pinned the VIP to; a node that holds fewer VIPs that it
//! avoids (so avoiding is a wish and not a condition); the higher priority; the present owner; the fewest
//! VIPs; the smallest id.
//!
//! # When a VIP moves
//!
//! - It has no owner. For a while after this node's start, better nodes that it has not heard yet are
//!   waited for, so that the order in which machines boot decides nothing.
//! - Its owner has an obstacle that does not pass by itself, *and* another node is eligible. Else it
//!   stays: moving it would help nobody, and a silent owner may still be serving it.
//! - Its owner gave up the epoch. The VIP is dark then, so it goes to the best node, which may be the
//!   same one. A node that cannot hold a VIP for a lasting reason of its own must say so in
//!   `vip_faults` as well: it would be chosen again and again otherwise.
//! - It is not sticky, another node ranks higher by pin, avoidance or priority (never by the number of VIPs),
//!   and has been well for `preempt_delay`. A group preempts if one of its VIPs does, after the
//!   longest of the delays.
//! - The VIPs of a group are on different nodes: they join the node that holds most of them.
//!
//! Nothing moves while placement is frozen; a VIP whose owner gave up its epoch then gets a new one in
//! place, if its owner can hold it. A yielded VIP is not placed. What is planned is stable:
//! planning again after the moves gives no moves.

use crate::health::HealthView;
use crate::ids::{NodeId, NodeName, VipName};
use crate::spec::timing::Timing;
use crate::state::{Move, State};
use crate::time::Mono;

mod decide;
mod explain;
mod frozen;
mod obstacle;
mod picture;
mod reasons;
mod words;
mod yields;

pub use explain::explain;
pub use yields::yields;

/// What planning needs beside the state and the health.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanParams {
    /// Timings in force.
    pub timing: Timing,
    /// The time of planning.
    pub now: Mono,
    /// The node that plans; it never counts as silent.
    pub me: NodeId,
    /// When its daemon began to listen: a node that it has never heard is silent only when it has
    /// listened for long enough.
    pub started: Mono,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Moves for one [`crate::state::Command::Assign`]; empty: nothing to do.
    pub moves: Vec<Move>,
    /// The earliest later time at which the plan may change although state and health do not; `None`: never.
    pub recheck_at: Option<Mono>,
}

/// Why a VIP is where it is, and what would happen to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Which VIP.
    pub vip: VipName,
    /// The VIPs that must be on one node with it, itself included, in order of name.
    pub group: Vec<VipName>,
    /// Every node: eligible ones in the order in which they would be chosen, then the others by id.
    pub candidates: Vec<Candidate>,
    /// Why its owner is its owner, or why it has none. One sentence.
    pub why: String,
    /// What automatic placement would do with it now, or later. One sentence.
    pub next: String,
}

/// One node as a possible owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The VIP is assigned to it.
    pub owner: bool,
    /// It could be given the VIP, and all of its group.
    pub eligible: bool,
    /// Its priority for this VIP; 0: never.
    pub priority: u8,
    /// Place in the order of eligible nodes, from 1; `None`: not eligible.
    pub rank: Option<usize>,
    /// An operator moved the VIP there; it ranks first.
    pub pinned: bool,
    /// Why it is, or is not, the owner.
    pub reasons: Vec<String>,
}

/// Which VIPs move, where to, and why.
pub fn plan(state: &State, health: &HealthView, params: &PlanParams) -> Plan {
    let picture = picture::Picture::new(state, health, params);
    if state.settings.frozen {
        let vips = state.vips.values();
        return Plan {
            moves: vips.filter_map(|v| frozen::revival(&picture, v)).collect(),
            recheck_at: None,
        };
    }
    let decided = decide::decide(&picture);
    Plan {
        moves: decided.moves(),
        recheck_at: decided.recheck_at(),
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

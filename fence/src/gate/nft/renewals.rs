//! What a renewal does: the kernel counts before it leaves, and slots move after the answers.

use buoy_core::Mono;

use super::failed;
use super::message::{CREATE, EXCL, NEW_ELEMENT};
use super::rounds::{NO_ROUND, Round};
use super::ruleset::{ARMED, Writer};
use super::tables::Tables;
use crate::clock::boottime;
use crate::fault_point;
use crate::gate::{GateError, SlotId};

impl Tables {
    /// Lets the kernel begin to count for a renewal that is about to leave.
    pub(super) fn arm(&mut self, until: Mono) -> Result<(), GateError> {
        if !self.is_made() {
            return Ok(());
        }
        let Some((round, millis)) = self.rounds.plan(until, boottime()) else {
            return Ok(());
        };
        let (features, mark) = (self.features, self.mark);
        fault_point!("nft.arm.planned");
        let posted = self.nl.post(|b| {
            mark.demand(b);
            for family in features.families() {
                let keys = std::iter::once(round.id.to_ne_bytes());
                Writer::new(b, family).elements(NEW_ELEMENT, CREATE | EXCL, ARMED, keys, |b, _| {
                    b.raw(4, &millis.to_be_bytes());
                });
            }
        });
        fault_point!("nft.arm.posted");
        let armed = posted.and_then(|posted| self.nl.confirm(posted));
        armed.map_err(|e| failed("arm a renewal", e))?;
        fault_point!("nft.arm.confirmed");
        self.rounds.armed(round);
        Ok(())
    }

    /// Moves slots to the rounds that their deadlines rest on.
    pub(super) fn advance(&mut self, deadlines: &[(SlotId, Mono)]) -> Result<(), GateError> {
        const NONE: Round = Round {
            id: NO_ROUND,
            until: Mono::ZERO,
        };
        let (rounds, rests, moves) = (&self.rounds, &self.rests, &mut self.moves);
        moves.clear();
        for (slot, at) in deadlines {
            let round = rounds.for_deadline(*at).unwrap_or(NONE);
            // Named twice: the last word counts.
            moves.retain(|(s, _)| s != slot);
            if rests[*slot as usize] != round.id {
                moves.push((*slot, round));
            }
        }
        if !moves.is_empty() && self.expected.is_some() {
            let (features, mark) = (self.features, self.mark);
            let (standing, moves) = (&self.standing, &self.moves);
            // The others get their chain with the first address that rests on them.
            let chains = || moves.iter().filter(|(slot, _)| standing.contains(slot));
            if chains().next().is_some() {
                fault_point!("nft.move.planned");
                let posted = self.nl.post(|b| {
                    mark.demand(b);
                    for family in features.families() {
                        let mut w = Writer::new(b, family);
                        for (slot, round) in chains() {
                            w.move_slot(*slot, round.id);
                        }
                    }
                });
                fault_point!("nft.move.posted");
                let moved = posted.and_then(|posted| self.nl.confirm(posted));
                moved.map_err(|e| failed("move deadlines", e))?;
                fault_point!("nft.move.confirmed");
            }
        }
        for (slot, round) in &self.moves {
            self.rests[*slot as usize] = round.id;
            self.deadlines.store(*slot, round.until)?;
            fault_point!("nft.move.noted");
        }
        Ok(())
    }
}

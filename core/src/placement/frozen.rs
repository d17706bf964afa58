//! What is still done while placement is frozen: a VIP whose epoch was given up comes up again where it is.
//!
//! That is no move: without a new epoch it would stay dark, on the very node that froze it in place.

use super::picture::Picture;
use super::reasons::cause_of_giving_up;
use crate::state::{Move, Vip};

/// The new epoch of a VIP on its present owner. `None`: it has not lost its lease, or its owner cannot hold it.
pub(super) fn revival(picture: &Picture<'_>, vip: &Vip) -> Option<Move> {
    let owner = vip.owner()?;
    let why = picture.gave_up(vip)?;
    if vip.yielded.is_some() || !picture.obstacles(vip, owner).is_empty() {
        return None;
    }
    let name = picture.call(owner);
    Some(Move {
        vip: vip.spec.name.clone(),
        expected: vip.epoch(),
        to: Some(owner),
        cause: cause_of_giving_up(why),
        evidence: format!(
            "{name} gave up epoch {}: {why}; placement is frozen, so it comes up again where it was",
            vip.epoch()
        ),
        pin: None,
    })
}

//! Whether a VIP that goes down may have a newer epoch at the same node.

use std::net::IpAddr;
use std::time::Duration;

use crate::ids::{Epoch, NodeId};
use crate::lease::LogView;
use crate::lease::holder::DownReason;

/// A stop has no more time than this.
const LONGEST: Duration = Duration::from_millis(500);

/// May a VIP that went down have a newer epoch at this node?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Again {
    /// No.
    No,
    /// A voter knows of a later assignment, and this node's log does not hold it yet.
    Unknown,
    /// So this node's log says; it may not be applied yet.
    Logged,
}

impl Again {
    /// By the log of the node `me`, when the `epoch` of a VIP with these addresses ends.
    pub fn of(
        log: &LogView,
        me: NodeId,
        epoch: Epoch,
        addresses: &[IpAddr],
        reason: &DownReason,
    ) -> Again {
        let denied = matches!(reason, DownReason::Denied { .. });
        if !denied && *reason != DownReason::Unassigned {
            return Again::No;
        }
        let words = addresses.iter().filter_map(|a| log.assigned.get(a));
        match words.filter(|(node, _)| *node == me).map(|(_, e)| *e).max() {
            Some(newest) if newest > epoch => Again::Logged,
            Some(_) if denied => Again::Unknown,
            _ => Again::No,
        }
    }

    /// How long the newer epoch may take to be applied, as the VIP is not released meanwhile.
    ///
    /// What the log says is applied once it is committed, and until then nobody else may have the VIP; after a lease the
    /// promises to the old epoch have run out anyway. What the log does not hold reaches a node that hears its leader
    /// with the next heartbeat; one that does not may be in the way of another owner.
    pub fn patience(self, lease: Duration, heartbeat: Duration) -> Duration {
        match self {
            Again::No => Duration::ZERO,
            Again::Unknown => heartbeat.min(LONGEST),
            Again::Logged => lease.min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_log_tells_an_edit_from_a_move() {
        let (me, other, by) = (NodeId(1), NodeId(2), NodeId(3));
        let all = [1, 2].map(|n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n)));
        let denied = DownReason::Denied { by };
        let cases = [
            (
                "edited",
                vec![(me, 9), (me, 9)],
                Again::Logged,
                Again::Logged,
            ),
            (
                "one taken away",
                vec![(me, 9)],
                Again::Logged,
                Again::Logged,
            ),
            ("moved", vec![(other, 9), (other, 9)], Again::No, Again::No),
            ("deleted", vec![], Again::No, Again::No),
            (
                "not heard of",
                vec![(me, 5), (me, 5)],
                Again::Unknown,
                Again::No,
            ),
        ];
        for (what, words, when_denied, when_unassigned) in cases {
            let assigned = all
                .into_iter()
                .zip(words.into_iter().map(|(n, e)| (n, Epoch(e))));
            let log = LogView {
                assigned: assigned.collect(),
                ..LogView::default()
            };
            let of = |reason: &DownReason| Again::of(&log, me, Epoch(5), &all, reason);
            assert_eq!(of(&denied), when_denied, "{what}");
            assert_eq!(of(&DownReason::Unassigned), when_unassigned, "{what}");
            for reason in [
                DownReason::Expired,
                DownReason::Stopping,
                DownReason::NoSlot,
                DownReason::GivenUp(String::new()),
            ] {
                assert_eq!(of(&reason), Again::No, "{what} {reason:?}");
            }
        }
    }
}

//! Who votes: the Raft membership as the leases see it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// Log id of a Raft membership entry ("config id" in docs/leases.md).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct ConfigId {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Its log index.
    pub index: u64,
}

/// The voter sets of one membership entry: one set, or two while a joint configuration lasts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Which entry.
    pub id: ConfigId,
    /// A majority of *each* set is a quorum. Empty: no quorum is possible.
    pub halves: Vec<BTreeSet<NodeId>>,
}

impl Membership {
    /// Does `node` vote in any of the sets?
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.halves.iter().any(|h| h.contains(&node))
    }

    /// All voters, each once, in order.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.halves.iter().flatten().copied().collect()
    }

    /// The largest value that a quorum reaches: `value(v)` is what voter `v` has reached (`None`:
    /// nothing). `None` when no quorum has reached anything.
    pub fn quorum_value<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> Option<T>) -> Option<T> {
        if self.halves.is_empty() {
            return None;
        }
        let mut lowest: Option<T> = None;
        for half in &self.halves {
            if half.is_empty() {
                return None;
            }
            let mut reached: Vec<T> = half.iter().filter_map(|v| value(*v)).collect();
            reached.sort_unstable_by(|a, b| b.cmp(a));
            let here = *reached.get(half.len() / 2)?;
            lowest = Some(lowest.map_or(here, |l| l.min(here)));
        }
        lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|i| NodeId(*i)).collect()
    }
    fn ask(halves: &[&[u64]], values: &[(u64, u64)]) -> Option<u64> {
        let m = Membership {
            id: ConfigId::default(),
            halves: halves.iter().map(|h| set(h)).collect(),
        };
        m.quorum_value(|n| values.iter().find(|(i, _)| *i == n.0).map(|(_, v)| *v))
    }

    #[test]
    fn majority_of_each_half() {
        assert_eq!(ask(&[&[1, 2, 3]], &[(1, 9), (2, 5)]), Some(5));
        assert_eq!(ask(&[&[1, 2, 3]], &[(1, 9)]), None);
        assert_eq!(
            ask(&[&[1, 2, 3, 4]], &[(1, 9), (2, 8)]),
            None,
            "half is no majority"
        );
        assert_eq!(
            ask(&[&[1, 2, 3], &[4, 5, 6]], &[(1, 9), (2, 8), (4, 3), (5, 2)]),
            Some(2)
        );
        assert_eq!(
            ask(&[&[1, 2, 3], &[4, 5, 6]], &[(1, 9), (2, 8), (3, 8)]),
            None
        );
        assert_eq!(
            ask(&[&[1]], &[(1, 4), (2, 99)]),
            Some(4),
            "learners never count"
        );
        assert_eq!(ask(&[], &[(1, 4)]), None);
    }
}

//! Joint majorities over voters that are numbered by their place in the membership.

use crate::ids::NodeId;
use crate::membership::Membership;

/// Most voters that are counted; one bit each. Further voters never count towards a majority.
pub const MAX_VOTERS: usize = 64;

/// Voters as a set of bits: bit `i` is voter `i` of [`Quorum::voters`].
pub type VoterSet = u64;

/// A membership, prepared so that counting a majority allocates nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Quorum {
    voters: Vec<NodeId>,
    /// Members of each half, and how many of them are a majority.
    halves: Vec<(VoterSet, usize)>,
}

impl Quorum {
    /// Prepares a membership.
    pub fn new(membership: &Membership) -> Self {
        let voters: Vec<NodeId> = membership.voters().into_iter().take(MAX_VOTERS).collect();
        let bit = |node: &NodeId| voters.binary_search(node).map_or(0, |i| 1 << i);
        let halves = membership.halves.iter();
        let halves = halves
            .map(|h| (h.iter().map(bit).sum(), h.len() / 2 + 1))
            .collect();
        Self { voters, halves }
    }

    /// All voters, in order.
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Number of a voter; `None`: it does not vote (learners never do).
    pub fn number(&self, node: NodeId) -> Option<usize> {
        self.voters.binary_search(&node).ok()
    }

    /// The nodes of a set.
    pub fn nodes(&self, set: VoterSet) -> impl Iterator<Item = NodeId> + '_ {
        let numbered = self.voters.iter().enumerate();
        numbered
            .filter(move |(i, _)| set >> i & 1 == 1)
            .map(|(_, node)| *node)
    }

    /// The largest value that a majority of each half has reached, of the voters in `among`:
    /// `value(i)` is what voter `i` has reached. `None`: no such majority.
    pub fn reached<T>(&self, among: VoterSet, value: impl Fn(usize) -> Option<T>) -> Option<T>
    where
        T: Ord + Copy + Default,
    {
        let mut lowest: Option<T> = None;
        for (members, need) in &self.halves {
            let mut values = [T::default(); MAX_VOTERS];
            let mut count = 0;
            let mut left = members & among;
            while left != 0 {
                let i = left.trailing_zeros() as usize;
                left &= left - 1;
                if let Some(v) = value(i) {
                    values[count] = v;
                    count += 1;
                }
            }
            if count < *need {
                return None;
            }
            values[..count].sort_unstable_by(|a, b| b.cmp(a));
            let here = values[need - 1];
            lowest = Some(lowest.map_or(here, |l| l.min(here)));
        }
        lowest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::membership::ConfigId;

    #[test]
    fn agrees_with_the_membership() {
        let sets: Vec<Vec<BTreeSet<NodeId>>> = [
            vec![vec![1, 2, 3]],
            vec![vec![1, 2, 3, 4]],
            vec![vec![7]],
            vec![vec![1, 2, 3], vec![4, 5, 6]],
            vec![vec![1, 2, 3], vec![2, 3, 9]],
            vec![vec![1, 2], vec![]],
            vec![],
        ]
        .into_iter()
        .map(|halves| {
            halves
                .into_iter()
                .map(|h: Vec<u64>| h.into_iter().map(NodeId).collect())
                .collect()
        })
        .collect();
        for halves in sets {
            let m = Membership {
                id: ConfigId::default(),
                halves,
            };
            let q = Quorum::new(&m);
            for seed in 0..500_u64 {
                let value = |n: NodeId| {
                    let x = (seed ^ n.0 << 7).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
                    (!x.is_multiple_of(3)).then_some(x % 8)
                };
                let by_number = |i: usize| value(q.voters()[i]);
                assert_eq!(
                    q.reached(VoterSet::MAX, by_number),
                    m.quorum_value(value),
                    "{m:?}"
                );
            }
        }
    }

    #[test]
    fn voters_beyond_the_bound_never_count() {
        let half: BTreeSet<NodeId> = (0..130).map(NodeId).collect();
        let q = Quorum::new(&Membership {
            id: ConfigId::default(),
            halves: vec![half],
        });
        assert_eq!(q.voters().len(), MAX_VOTERS);
        assert_eq!(
            q.reached(VoterSet::MAX, |_| Some(1)),
            None,
            "64 of 130 is no majority"
        );
    }
}

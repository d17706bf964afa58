//! The nodes that a configuration lists, to be compared with another node's.
//!
//! Each node forms the cluster from its own file, as the first entry of its log. Raft takes these entries
//! for one and the same; two different ones could make two majorities that do not intersect.

use std::collections::BTreeSet;

use buoy_core::spec::NodeSpec;

/// Ids and names, in one text: `1=alpha 2=beta`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NodeList(String);

impl NodeList {
    pub(super) fn new(nodes: &[NodeSpec]) -> Self {
        let mut nodes: Vec<_> = nodes.iter().map(|n| (n.id, &n.name)).collect();
        nodes.sort();
        let words: Vec<_> = nodes
            .iter()
            .map(|(id, name)| format!("{id}={name}"))
            .collect();
        Self(words.join(" "))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// How the list of another node differs from this one, in words; `None`: it does not.
    pub(super) fn difference(&self, theirs: &[u8]) -> Option<String> {
        if theirs == self.as_bytes() {
            return None;
        }
        let theirs = String::from_utf8_lossy(theirs);
        let mine: BTreeSet<_> = self.0.split(' ').collect();
        let theirs: BTreeSet<_> = theirs.split(' ').collect();
        let only = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| {
            let words: Vec<_> = a.difference(b).copied().collect();
            match words.is_empty() {
                true => "nothing".to_owned(),
                false => words.join(", "),
            }
        };
        Some(format!(
            "only this node lists {}, only the caller lists {}",
            only(&mine, &theirs),
            only(&theirs, &mine)
        ))
    }
}

#[cfg(test)]
mod tests {
    use buoy_core::NodeId;
    use buoy_core::spec::Role;

    use super::*;

    fn list(nodes: &[(u64, &str, u16)]) -> NodeList {
        let spec = |(id, name, port): &(u64, &str, u16)| NodeSpec {
            id: NodeId(*id),
            name: name.parse().unwrap(),
            address: ([192, 0, 2, 1], *port).into(),
            role: Role::Member,
        };
        NodeList::new(&nodes.iter().map(spec).collect::<Vec<_>>())
    }

    #[test]
    fn order_and_addresses_do_not_matter() {
        let a = list(&[(1, "a", 1), (2, "b", 1)]);
        let b = list(&[(2, "b", 7), (1, "a", 8)]);
        assert_eq!(a.difference(b.as_bytes()), None);
    }

    #[test]
    fn a_difference_is_named() {
        let here = list(&[(1, "a", 1), (2, "b", 1), (3, "c", 1)]);
        let there = list(&[(1, "a", 1), (2, "c", 1)]);
        let words = here.difference(there.as_bytes()).unwrap();
        assert!(words.contains("only this node lists 2=b, 3=c"), "{words}");
        assert!(words.contains("only the caller lists 2=c"), "{words}");
        let fewer = list(&[(1, "a", 1), (2, "b", 1)]);
        let words = here.difference(fewer.as_bytes()).unwrap();
        assert!(words.contains("only the caller lists nothing"), "{words}");
    }
}

//! Groups of VIPs that must be on one node.
//!
//! `colocate_with` works both ways and through others: when `a` names `b` and `b` names `c`, all
//! three are one group. Naming each other in a circle is therefore no contradiction.

use std::collections::BTreeMap;

use super::VipSpec;
use crate::ids::VipName;

/// The groups that the VIPs form, each in order of name, in order of their first names. A VIP that is
/// with no other is a group of one. Names of VIPs that do not exist are ignored.
pub fn groups<'a>(specs: impl IntoIterator<Item = &'a VipSpec>) -> Vec<Vec<&'a VipSpec>> {
    let specs: BTreeMap<&VipName, &VipSpec> = specs.into_iter().map(|s| (&s.name, s)).collect();
    let place: BTreeMap<&VipName, usize> = specs.keys().enumerate().map(|(i, n)| (*n, i)).collect();
    let mut parent: Vec<usize> = (0..specs.len()).collect();
    for (i, spec) in specs.values().enumerate() {
        for other in &spec.placement.colocate_with {
            if let Some(j) = place.get(other) {
                let (a, b) = (root(&mut parent, i), root(&mut parent, *j));
                // The smaller index stays root, so that groups come out in order of their first name.
                parent[a.max(b)] = a.min(b);
            }
        }
    }
    let mut grouped: BTreeMap<usize, Vec<&VipSpec>> = BTreeMap::new();
    for (i, spec) in specs.values().enumerate() {
        grouped.entry(root(&mut parent, i)).or_default().push(spec);
    }
    grouped.into_values().collect()
}

fn root(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::testing::vip;

    #[test]
    fn naming_works_both_ways_and_through_others() {
        let mut specs: Vec<VipSpec> = (1..=6).map(|i| vip(&format!("v{i}"), &[])).collect();
        let mut with = |i: usize, other: &str| {
            specs[i - 1]
                .placement
                .colocate_with
                .insert(other.parse().unwrap());
        };
        with(1, "v5");
        with(5, "v1");
        with(5, "v3");
        with(6, "v2");
        with(2, "gone");
        let names: Vec<Vec<&str>> = groups(&specs)
            .iter()
            .map(|g| g.iter().map(|s| s.name.as_str()).collect())
            .collect();
        assert_eq!(
            names,
            [vec!["v1", "v3", "v5"], vec!["v2", "v6"], vec!["v4"]]
        );
    }
}

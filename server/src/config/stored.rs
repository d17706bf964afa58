//! What the file says of nodes against what the cluster has stored since its first start.

use buoy_core::spec::{NodeSpec, Role};
use buoy_core::state::State;

use super::Config;

/// What holds about nodes of a running cluster, for messages.
pub(super) const NODES_STAY: &str = "the nodes of a cluster are those of its first start, and neither SIGHUP nor a restart takes changes over: undo the change in the file, or form a new cluster (another cluster.name, empty data directories on all nodes)";

/// A node as messages show it: `n1 10.0.0.1:7400 member`.
pub(super) fn show_node(n: &NodeSpec) -> String {
    let role = match n.role {
        Role::Witness => "witness",
        Role::Member => "member",
    };
    format!("{} {} {role}", n.name, n.address)
}

/// Every difference between the nodes of the file and those of the cluster, in words. Empty while the
/// cluster has stored none.
pub fn differences(config: &Config, state: &State) -> Vec<String> {
    if !state.bootstrapped {
        return Vec::new();
    }
    let mut found = Vec::new();
    for n in &config.nodes {
        match state.nodes.get(&n.id).map(|stored| &stored.spec) {
            Some(stored) if stored == n => {}
            Some(stored) => found.push(format!(
                "cluster.node[{}] is {} in the file, but {} in the cluster",
                n.id,
                show_node(n),
                show_node(stored)
            )),
            None => found.push(format!(
                "cluster.node[{}] ({}) is in the file, but not in the cluster",
                n.id,
                show_node(n)
            )),
        }
    }
    let listed = |id| config.nodes.iter().any(|n| n.id == id);
    for stored in state.nodes.values().filter(|s| !listed(s.spec.id)) {
        found.push(format!(
            "cluster.node[{}] ({}) is in the cluster, but not in the file",
            stored.spec.id,
            show_node(&stored.spec)
        ));
    }
    found
        .into_iter()
        .map(|what| format!("{what}: {NODES_STAY}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use buoy_core::state::Node;

    use super::super::EXAMPLE;
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(Path::new("f.toml"), text.as_bytes()).unwrap()
    }

    fn stored(config: &Config) -> State {
        let node = |spec: &NodeSpec| Node {
            spec: spec.clone(),
            drained: None,
            joined: true,
        };
        State {
            bootstrapped: true,
            nodes: config.nodes.iter().map(|n| (n.id, node(n))).collect(),
            ..State::default()
        }
    }

    #[test]
    fn each_difference_is_named() {
        let config = parse(EXAMPLE);
        let state = stored(&config);
        assert_eq!(differences(&config, &state), [""; 0]);
        assert_eq!(
            differences(&config, &State::default()),
            [""; 0],
            "the cluster has not formed yet"
        );
        let other = parse(
            &EXAMPLE
                .replace("192.168.192.12:7400", "192.168.192.99:7400")
                .replace("id = 3", "id = 4"),
        );
        let found = differences(&other, &state);
        assert_eq!(found.len(), 3, "{found:?}");
        for (line, words) in found.iter().zip([
            "n2 192.168.192.99:7400 member in the file, but n2 192.168.192.12:7400 member in the cluster",
            "cluster.node[4]",
            "is in the cluster, but not in the file",
        ]) {
            assert!(line.contains(words) && line.contains(NODES_STAY), "{line}");
        }
    }
}

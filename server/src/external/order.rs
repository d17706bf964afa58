//! What a run of the program is told: whom to fence, and which VIPs are taken from it.

use std::collections::BTreeMap;
use std::ffi::OsString;

use buoy_core::{Epoch, NodeId, NodeName, VipName};

/// Longest list of names in one variable, in bytes: the kernel takes no longer ones than 128 KiB.
const MAX_NAMES: usize = 64 << 10;

/// Whom to fence, and for which takeover: the victim, and the epoch that all VIPs of one log entry have in common.
pub type RunId = (NodeName, Epoch);

/// The order of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// The node that fell silent, and the new epoch.
    pub id: RunId,
    /// What this node takes from it, and the epochs under which the victim had it.
    pub vips: BTreeMap<VipName, Epoch>,
}

/// Who runs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Runner {
    /// Name of the cluster.
    pub cluster: String,
    /// This node.
    pub node: NodeName,
    /// Its id.
    pub id: NodeId,
    /// Ids of all nodes.
    pub ids: BTreeMap<NodeName, NodeId>,
}

impl Order {
    /// The epoch under which the victim had what it got last. It may have shown it to others as fencing token, and no
    /// larger one.
    fn victim_epoch(&self) -> Epoch {
        self.vips.values().max().copied().unwrap_or_default()
    }

    /// The arguments behind those of the configuration.
    pub fn arguments(&self) -> [String; 2] {
        [self.id.0.to_string(), self.id.1.to_string()]
    }

    /// The environment; there is no other.
    pub fn environment(&self, by: &Runner) -> Vec<(&'static str, OsString)> {
        let (victim, epoch) = &self.id;
        let mut all = vec![
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            ),
            ("BUOY_CLUSTER", by.cluster.clone()),
            ("BUOY_NODE", by.node.to_string()),
            ("BUOY_NODE_ID", by.id.to_string()),
            ("BUOY_VICTIM", victim.to_string()),
            ("BUOY_VICTIM_EPOCH", self.victim_epoch().to_string()),
            ("BUOY_EPOCH", epoch.to_string()),
        ];
        if let Some(id) = by.ids.get(victim) {
            all.push(("BUOY_VICTIM_ID", id.to_string()));
        }
        let names: Vec<&str> = self.vips.keys().map(VipName::as_str).collect();
        let names = names.join(" ");
        if names.len() <= MAX_NAMES {
            all.push(("BUOY_VIPS", names));
        }
        all.into_iter().map(|(k, v)| (k, v.into())).collect()
    }

    /// Standard input: a line for each VIP, with the victim's epoch and the new one.
    pub fn input(&self) -> String {
        let line = |(vip, before): (&VipName, &Epoch)| format!("{vip} {before} {}\n", self.id.1);
        self.vips.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(vips: &[(&str, u64)]) -> Order {
        let vips = vips
            .iter()
            .map(|(vip, e)| (vip.parse().unwrap(), Epoch(*e)));
        Order {
            id: ("n1".parse().unwrap(), Epoch(17)),
            vips: vips.collect(),
        }
    }

    fn runner() -> Runner {
        Runner {
            cluster: "prod".to_owned(),
            node: "n2".parse().unwrap(),
            id: NodeId(2),
            ids: [("n1".parse().unwrap(), NodeId(1))].into(),
        }
    }

    #[test]
    fn one_run_is_told_of_all_vips() {
        let order = order(&[("web-a", 5), ("web-b", 12)]);
        assert_eq!(order.arguments(), ["n1", "17"]);
        assert_eq!(order.input(), "web-a 5 17\nweb-b 12 17\n");
        let env: BTreeMap<_, _> = order.environment(&runner()).into_iter().collect();
        for (name, value) in [
            ("BUOY_CLUSTER", "prod"),
            ("BUOY_NODE", "n2"),
            ("BUOY_NODE_ID", "2"),
            ("BUOY_VICTIM", "n1"),
            ("BUOY_VICTIM_ID", "1"),
            ("BUOY_VICTIM_EPOCH", "12"),
            ("BUOY_EPOCH", "17"),
            ("BUOY_VIPS", "web-a web-b"),
        ] {
            assert_eq!(env[name], value, "{name}");
        }
    }

    #[test]
    fn a_list_that_no_variable_can_hold_is_on_standard_input_alone() {
        let names: Vec<String> = (0..5_000).map(|n| format!("{n:0>30}")).collect();
        let vips: Vec<(&str, u64)> = names.iter().map(|n| (n.as_str(), 3)).collect();
        let order = order(&vips);
        let env = order.environment(&runner());
        assert!(!env.iter().any(|(name, _)| *name == "BUOY_VIPS"));
        assert_eq!(order.input().lines().count(), 5_000);
    }
}

//! Where VIPs are, once what was asked of them has come to pass.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buoy_core::VipName;
use buoy_proto::v1::Vip;
use tokio::time::Instant;

use super::all;
use crate::connect::Node;
use crate::error::Failure;
use crate::status::vip_is_healthy;
use crate::text::node_name;

/// Longest wait for VIPs to be up.
const LIMIT: Duration = Duration::from_secs(2);
/// How often the node is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Where a VIP is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Name of its owner.
    pub owner: Option<String>,
    /// Epoch of the assignment; 0 without one.
    pub epoch: u64,
    /// Why it is not up; `None`: it is.
    pub problem: Option<String>,
}

impl Place {
    fn of(vip: &Vip) -> Place {
        let ownership = vip.ownership.clone().unwrap_or_default();
        let problem = match (vip_is_healthy(vip), vip.problem.is_empty()) {
            (true, _) => None,
            (false, true) => Some("its owner does not hold the lease yet".to_owned()),
            (false, false) => Some(vip.problem.clone()),
        };
        Place {
            owner: ownership.owner.as_ref().map(|o| node_name(Some(o))),
            epoch: ownership.epoch,
            problem,
        }
    }

    /// In words, for people.
    pub fn words(&self, vip: &VipName) -> String {
        let owner = match &self.owner {
            Some(owner) => format!("{owner} owns it, epoch {}", self.epoch),
            None => "nobody owns it".to_owned(),
        };
        match &self.problem {
            None => owner,
            Some(why) => {
                format!("{owner}, but it is not up: {why}; `buoy vip explain {vip}` says more")
            }
        }
    }
}

/// Waits until these VIPs are up, as the node sees it, but for 2 s at most; one that was deleted meanwhile is left out.
pub async fn places(
    node: &Node,
    names: &BTreeSet<VipName>,
) -> Result<BTreeMap<VipName, Place>, Failure> {
    let end = Instant::now() + LIMIT;
    loop {
        let vips = all(node).await?.vips;
        let named = vips.iter().filter_map(|vip| {
            let name: VipName = vip.spec.as_ref()?.name.parse().ok()?;
            names.contains(&name).then(|| (name, Place::of(vip)))
        });
        let places: BTreeMap<VipName, Place> = named.collect();
        if places.values().all(|place| place.problem.is_none()) || Instant::now() >= end {
            return Ok(places);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use buoy_proto::v1::{LeaseState, NodeRef, VipOwnership};

    use super::*;

    fn vip(owner: Option<&str>, lease: LeaseState, problem: &str) -> Vip {
        let owner = owner.map(|name| NodeRef {
            name: name.to_owned(),
            id: 1,
        });
        let ownership = VipOwnership {
            owner,
            epoch: 7,
            lease_state: lease.into(),
            ..VipOwnership::default()
        };
        Vip {
            ownership: Some(ownership),
            problem: problem.to_owned(),
            ..Vip::default()
        }
    }

    #[test]
    fn it_is_said_where_a_vip_is_or_why_it_is_not_up() {
        let name: VipName = "web".parse().unwrap();
        let words = |vip: &Vip| Place::of(vip).words(&name);
        assert_eq!(
            words(&vip(Some("n1"), LeaseState::Held, "")),
            "n1 owns it, epoch 7"
        );
        let pending = words(&vip(Some("n1"), LeaseState::Pending, ""));
        assert!(
            pending.contains("not up: its owner does not hold"),
            "{pending}"
        );
        let nobody = words(&vip(None, LeaseState::None, "no node can hold it"));
        assert!(
            nobody.contains("nobody owns it, but it is not up: no node can"),
            "{nobody}"
        );
        assert!(nobody.contains("buoy vip explain web"), "{nobody}");
    }
}

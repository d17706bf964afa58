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
    /// Why it is not up; `None`: it is, or it is where it should be, outside the group.
    pub problem: Option<String>,
    /// The router outside that it is left to.
    pub yielded: Option<String>,
}

impl Place {
    fn of(vip: &Vip) -> Place {
        let ownership = vip.ownership.clone().unwrap_or_default();
        let problem = match (vip_is_healthy(vip), vip.problem.is_empty()) {
            (true, _) => None,
            _ if vip.yielded.is_some() => None,
            (false, true) => Some("its owner does not hold the lease yet".to_owned()),
            (false, false) => Some(vip.problem.clone()),
        };
        Place {
            owner: ownership.owner.as_ref().map(|o| node_name(Some(o))),
            epoch: ownership.epoch,
            problem,
            yielded: vip.yielded.clone(),
        }
    }

    /// In words, for people.
    pub fn words(&self, vip: &VipName) -> String {
        if let Some(why) = &self.yielded {
            return format!("the group leaves it to another router: {why}");
        }
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

/// How long a VIP may take: one with a VRRP face first listens whether a router outside is master, for three of its
/// intervals and the skew time (RFC 9568 section 6.1), which is a second at most in version 2 and an interval in version 3.
fn limit(vip: &Vip) -> Duration {
    let face = vip.spec.as_ref().and_then(|s| s.vrrp.as_ref());
    let listens = face.map_or(Duration::ZERO, |face| {
        let interval = Duration::from_millis(face.interval_ms());
        interval.saturating_mul(3) + interval.max(Duration::from_secs(1))
    });
    LIMIT + listens
}

/// Waits until these VIPs are up, or left to a router outside, as the node sees it, but for a bounded time
/// ([`limit`]); one that was deleted meanwhile is left out.
pub async fn places(
    node: &Node,
    names: &BTreeSet<VipName>,
) -> Result<BTreeMap<VipName, Place>, Failure> {
    let began = Instant::now();
    loop {
        let vips = all(node).await?.vips;
        let mut places: BTreeMap<VipName, Place> = BTreeMap::new();
        let mut settled = true;
        for vip in &vips {
            let name = vip.spec.as_ref().and_then(|s| s.name.parse().ok());
            if let Some(name) = name.filter(|name| names.contains(name)) {
                let place = Place::of(vip);
                settled &= place.problem.is_none() || began.elapsed() >= limit(vip);
                places.insert(name, place);
            }
        }
        if settled {
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
    fn a_vip_with_a_face_may_take_longer() {
        let spec = |vrrp| buoy_proto::v1::VipSpec {
            vrrp,
            ..Default::default()
        };
        let of = |vrrp| {
            limit(&Vip {
                spec: Some(spec(vrrp)),
                ..Vip::default()
            })
        };
        assert_eq!(of(None), LIMIT);
        let face = |interval_ms| {
            Some(buoy_proto::v1::Vrrp {
                interval_ms: Some(interval_ms),
                ..Default::default()
            })
        };
        assert_eq!(of(face(1000)), LIMIT + Duration::from_secs(4));
        assert_eq!(of(face(100)), LIMIT + Duration::from_millis(1300));
    }

    #[test]
    fn a_vip_that_is_left_to_another_router_is_where_it_should_be() {
        let mut left = vip(None, LeaseState::None, "left to a router outside");
        left.yielded = Some("held by 192.0.2.9".to_owned());
        let place = Place::of(&left);
        assert_eq!(place.problem, None);
        let words = place.words(&"web".parse().unwrap());
        assert!(
            words.contains("leaves it to another router: held by 192.0.2.9"),
            "{words}"
        );
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

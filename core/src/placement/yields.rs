//! VIPs with a VRRP face: when the group leaves one to a router outside, and when it takes it back.

use std::collections::BTreeMap;

use super::PlanParams;
use super::picture::Picture;
use crate::health::{HealthView, Hearing};
use crate::ids::{NodeId, VipName};
use crate::spec::groups::groups;
use crate::state::{State, Vip};

/// Which VIPs are to be yielded (with what was seen) or taken back, for one [`crate::state::Command::Yields`].
///
/// A VIP is yielded when one node that is heard says that a router outside outranks the group. It is taken
/// back when a node that is heard says that none does, and none says otherwise. Of VIPs that must be on one node,
/// all that have a face go together, as in keepalived's sync groups. While placement is frozen none is taken
/// back; yielding goes on, because two routers would hold the addresses else.
pub fn yields(
    state: &State,
    health: &HealthView,
    params: &PlanParams,
) -> Vec<(VipName, Option<String>)> {
    let faced = |v: &&Vip| v.spec.vrrp.is_some() || v.yielded.is_some();
    if !state.vips.values().any(|v| faced(&v)) {
        return Vec::new();
    }
    let picture = Picture::new(state, health, params);
    let mut wanted = Vec::new();
    for group in groups(state.vips.values().map(|v| &v.spec)) {
        let vips = || group.iter().filter_map(|s| state.vips.get(&s.name));
        let verdict = judge(&picture, vips().filter(|v| v.spec.vrrp.is_some()), health);
        for vip in vips().filter(faced) {
            let name = vip.spec.name.clone();
            match &verdict {
                // A VIP whose face was taken away is nobody else's.
                _ if vip.spec.vrrp.is_none() => wanted.push((name, None)),
                Verdict::Yield(evidence) if vip.yielded.as_ref() != Some(evidence) => {
                    wanted.push((name, Some(evidence.clone())));
                }
                Verdict::TakeBack if vip.yielded.is_some() && !state.settings.frozen => {
                    wanted.push((name, None));
                }
                _ => {}
            }
        }
    }
    wanted
}

enum Verdict {
    Yield(String),
    TakeBack,
    /// Nobody can tell.
    Stays,
}

fn judge<'a>(
    picture: &Picture<'_>,
    vips: impl Iterator<Item = &'a Vip>,
    health: &HealthView,
) -> Verdict {
    let heard: BTreeMap<NodeId, _> = health
        .iter()
        .filter(|(id, _)| picture.nodes.contains_key(id))
        .filter(|(id, _)| {
            let silent = picture.silent_at(**id);
            silent.is_none_or(|at| at > picture.params.now)
        })
        .filter_map(|(id, h)| Some((*id, &h.report.as_ref()?.vrrp)))
        .collect();
    let mut clear = true;
    for vip in vips {
        let mut one_is_clear = false;
        for hears in heard.values() {
            match hears.get(&vip.spec.name) {
                Some(Hearing::Outranked(by)) => {
                    // Not who heard it: that changes while nothing else does.
                    return Verdict::Yield(format!("{} is held by {by}", vip.spec.name));
                }
                Some(Hearing::Clear) => one_is_clear = true,
                Some(Hearing::Unsure) | None => {}
            }
        }
        clear &= one_is_clear;
    }
    match clear {
        true => Verdict::TakeBack,
        false => Verdict::Stays,
    }
}

#[cfg(test)]
#[path = "yields_tests.rs"]
mod tests;

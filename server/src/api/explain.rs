//! Why each node is, or is not, the owner of a VIP: the planner's own words.

use buoy_core::VipName;
use buoy_core::placement::{self, Candidate};
use buoy_core::state::State;
use buoy_proto::v1::{self, ExplainResponse};
use tonic::Status;

use super::ApiContext;
use super::view::{Look, find_vip, node_ref};
use crate::peer::leader;

/// By the records of this node. It asks nobody, so that it answers also while nothing else works.
pub(super) async fn explain(context: &ApiContext, vip: &str) -> Result<ExplainResponse, Status> {
    let look = Look::take(context).await;
    let state = context.reader.read();
    let found = find_vip(&state, vip)?;
    let explained = placement::explain(&state, &look.health, &look.params, &found.spec.name);
    let explained =
        explained.ok_or_else(|| Status::internal("the planner does not know the VIP"))?;
    Ok(ExplainResponse {
        vip: Some(look.vip(&state, found)),
        candidates: explained.candidates.iter().map(candidate).collect(),
        summary: explained.next,
        answered_by: Some(node_ref(context, &state, context.me)),
        by_leader: leader(&context.raft) == Some(context.me),
        why: explained.why,
        group: explained.group.iter().map(VipName::to_string).collect(),
    })
}

fn candidate(c: &Candidate) -> v1::Candidate {
    v1::Candidate {
        node: Some(v1::NodeRef {
            name: c.name.to_string(),
            id: c.node.0,
        }),
        owner: c.owner,
        eligible: c.eligible,
        priority: c.priority.into(),
        reasons: c.reasons.clone(),
        rank: c.rank.map_or(0, |r| u32::try_from(r).unwrap_or(u32::MAX)),
        pinned: c.pinned,
    }
}

impl Look<'_> {
    /// What the planner holds against each node that cannot take a VIP, one text a node.
    pub(super) fn obstacles(&self, state: &State, vip: &VipName) -> Vec<(Candidate, String)> {
        let explained = placement::explain(state, &self.health, &self.params, vip);
        let candidates = explained.map(|e| e.candidates).unwrap_or_default();
        let unfit = candidates.into_iter().filter(|c| !c.eligible);
        unfit
            .map(|c| {
                let reasons = c.reasons.join(", ");
                (c, reasons)
            })
            .collect()
    }
}

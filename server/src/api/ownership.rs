//! The Ownership service: who owns a VIP, as surely as the caller wants to know.

use std::pin::Pin;
use std::time::Duration;

use buoy_core::state::Assignment;
use buoy_core::{Epoch, VipName};
use buoy_proto::convert::address_texts;
use buoy_proto::v1::ownership_server::Ownership;
use buoy_proto::v1::{
    Consistency, GetOwnerRequest, GetOwnerResponse, LeaseState, ListVipsRequest, ListVipsResponse,
    VipOwnership, WatchRequest, WatchResponse,
};
use futures::Stream;
use tonic::{Request, Response, Status};

use super::view::{Look, find_vip, node_ref};
use super::{ApiContext, millis, read, watch};
use crate::peer::reason;

/// How long to look for a newer assignment when the owner does not confirm.
const SECOND_LOOK: Duration = Duration::from_millis(1_000);
/// Longest time for the question to an owner.
const OWNER_LIMIT: Duration = Duration::from_millis(500);

/// The service of one node.
pub(super) struct OwnershipService {
    context: ApiContext,
}

impl OwnershipService {
    pub(super) fn new(context: ApiContext) -> Self {
        Self { context }
    }
}

fn consistency(value: i32) -> Result<Consistency, Status> {
    Consistency::try_from(value).map_err(|_| {
        Status::invalid_argument(format!(
            "field `consistency`: {value} is none of LINEARIZABLE (0), LEASE (1) and LOCAL (2)"
        ))
    })
}

/// Consistency of a call that concerns many VIPs.
async fn prepare(context: &ApiContext, value: i32) -> Result<(), Status> {
    match consistency(value)? {
        Consistency::Linearizable => read::barrier(context, read::PATIENCE).await,
        Consistency::Local => Ok(()),
        Consistency::Lease => Err(Status::invalid_argument(
            "field `consistency`: LEASE is for one VIP (GetOwner): many owners cannot answer at one instant; use LINEARIZABLE or LOCAL",
        )),
    }
}

#[tonic::async_trait]
impl Ownership for OwnershipService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn get_owner(
        &self,
        request: Request<GetOwnerRequest>,
    ) -> Result<Response<GetOwnerResponse>, Status> {
        let request = request.into_inner();
        let context = &self.context;
        let consistency = consistency(request.consistency)?;
        let response = match consistency {
            Consistency::Lease => by_lease(context, &request.vip).await?,
            Consistency::Linearizable => {
                read::barrier(context, read::PATIENCE).await?;
                from_here(context, &request.vip, consistency).await?
            }
            Consistency::Local => from_here(context, &request.vip, consistency).await?,
        };
        Ok(Response::new(response))
    }

    async fn list_vips(
        &self,
        request: Request<ListVipsRequest>,
    ) -> Result<Response<ListVipsResponse>, Status> {
        let context = &self.context;
        prepare(context, request.into_inner().consistency).await?;
        let look = Look::take(context).await;
        let state = context.reader.read();
        Ok(Response::new(ListVipsResponse {
            vips: state.vips.values().map(|v| look.vip(&state, v)).collect(),
            answered_by: Some(node_ref(context, &state, context.me)),
            revision: state.revision,
            history_id: state.history_id,
        }))
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let filter = watch::Filter::new(&request.vips)?;
        let watchers = self.context.watchers.clone();
        let permit = watchers.try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "this node has {} watchers, as many as it allows; watch at another node",
                watch::MAX_WATCHERS
            ))
        })?;
        prepare(&self.context, request.consistency).await?;
        let up_to_date = request.consistency() == Consistency::Linearizable;
        let after = request.after_revision.map(|revision| watch::Position {
            revision,
            history_id: request.history_id.unwrap_or_default(),
        });
        let stream = watch::start(self.context.clone(), filter, after, up_to_date, permit);
        Ok(Response::new(Box::pin(stream)))
    }
}

/// From this node's state.
async fn from_here(
    context: &ApiContext,
    vip: &str,
    consistency: Consistency,
) -> Result<GetOwnerResponse, Status> {
    let look = Look::take(context).await;
    let state = context.reader.read();
    let vip = find_vip(&state, vip)?;
    Ok(GetOwnerResponse {
        ownership: Some(look.ownership(&state, vip)),
        answered_by: Some(node_ref(context, &state, context.me)),
        consistency: consistency.into(),
        revision: state.revision,
    })
}

/// From the owner, while it holds the lease. If the one that this node knows of does not confirm, this
/// node may be behind: it catches up and looks once more.
async fn by_lease(context: &ApiContext, vip: &str) -> Result<GetOwnerResponse, Status> {
    let first = match known_assignment(context, vip) {
        Ok((name, assignment)) => match confirmed(context, &name, assignment.as_ref()).await {
            Ok(response) => return Ok(response),
            Err(problem) => Some((assignment, problem)),
        },
        Err(_) => None,
    };
    let unavailable = |problem: String| {
        Status::unavailable(format!(
            "no owner confirms that it holds the lease: {problem}"
        ))
    };
    if let Err(status) = read::barrier(context, SECOND_LOOK).await {
        let problem = first.map_or_else(|| status.message().to_owned(), |(_, p)| p);
        return Err(unavailable(problem));
    }
    let (name, assignment) = known_assignment(context, vip)?;
    match first {
        Some((before, problem)) if before == assignment => Err(unavailable(problem)),
        _ => confirmed(context, &name, assignment.as_ref())
            .await
            .map_err(unavailable),
    }
}

fn known_assignment(
    context: &ApiContext,
    vip: &str,
) -> Result<(VipName, Option<Assignment>), Status> {
    let state = context.reader.read();
    let vip = find_vip(&state, vip)?;
    Ok((vip.spec.name.clone(), vip.assignment.clone()))
}

/// Asks the owner (which may be this node); the error says why it does not confirm.
async fn confirmed(
    context: &ApiContext,
    vip: &VipName,
    assignment: Option<&Assignment>,
) -> Result<GetOwnerResponse, String> {
    let Some(assignment) = assignment else {
        return Err("nobody is assigned".to_owned());
    };
    let owner = assignment.node;
    let (epoch, remaining, since, revision) = if owner == context.me {
        let held = context.lease.held(vip).filter(|h| h.active);
        let held = held.ok_or_else(|| "this node is assigned and does not hold it".to_owned())?;
        (
            held.epoch,
            held.remaining,
            assignment.since_unix_ms,
            context.reader.read().revision,
        )
    } else {
        let asked = context
            .pool
            .lease(owner, vip, Epoch::default(), Duration::ZERO, OWNER_LIMIT);
        let name = context
            .pool
            .name(owner)
            .unwrap_or_else(|| owner.to_string());
        let answer = asked
            .await
            .map_err(|s| format!("{name} cannot be asked: {}", reason(&s)))?;
        if !answer.active {
            return Err(format!("{name} is assigned and does not hold it"));
        }
        (
            answer.epoch,
            answer.remaining,
            answer.since_unix_ms,
            answer.revision,
        )
    };
    let state = context.reader.read();
    let owner = node_ref(context, &state, owner);
    let addresses = state
        .vips
        .get(vip)
        .map(|v| address_texts(&v.spec.addresses));
    Ok(GetOwnerResponse {
        ownership: Some(VipOwnership {
            vip: vip.to_string(),
            addresses: addresses.unwrap_or_default(),
            owner: Some(owner.clone()),
            epoch: epoch.0,
            since_unix_ms: since,
            lease_state: LeaseState::Held.into(),
            lease_remaining_ms: millis(remaining),
        }),
        answered_by: Some(owner),
        consistency: Consistency::Lease.into(),
        revision,
    })
}

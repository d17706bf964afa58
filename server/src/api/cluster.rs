//! The Cluster service: status and administration.

use buoy_core::NodeId;
use buoy_core::spec::{MAX_HISTORY, VipSpec};
use buoy_core::state::{Command, Settings};
use buoy_proto::convert::keep_password;
use buoy_proto::v1::cluster_server::Cluster;
use buoy_proto::v1::{
    Change, DeleteVipRequest, DeleteVipResponse, DrainRequest, DrainResponse, ExplainRequest,
    ExplainResponse, HistoryRequest, HistoryResponse, ListNodesRequest, ListNodesResponse,
    MoveVipRequest, MoveVipResponse, PutSettingsRequest, PutSettingsResponse, PutVipRequest,
    PutVipResponse, StatusRequest, StatusResponse, UndrainRequest, UndrainResponse,
    VrrpStatusRequest, VrrpStatusResponse,
};
use tonic::{Request, Response, Status};

use super::view::{Look, find_node, node_ref};
use super::{ApiContext, explain, moves, read, status, vrrp, write};
use crate::peer::raft_view;

/// Events in a History answer when the caller names no limit.
const DEFAULT_HISTORY: usize = 100;
/// Longest reason for a drain, in bytes.
const MAX_REASON: usize = 500;

/// The service of one node.
pub(super) struct ClusterService {
    context: ApiContext,
}

impl ClusterService {
    pub(super) fn new(context: ApiContext) -> Self {
        Self { context }
    }

    /// Writes a command and returns the revision after it.
    async fn write(&self, command: Command) -> Result<u64, Status> {
        Ok(write::propose(&self.context, command)
            .await?
            .outcome
            .revision)
    }

    /// The node named, by a state that is not out of date.
    async fn node(&self, text: &str) -> Result<NodeId, Status> {
        read::barrier(&self.context, read::PATIENCE).await?;
        find_node(&self.context.reader.read(), text)
    }
}

fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("field `{field}` is missing"))
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(status::status(&self.context).await))
    }

    async fn put_vip(
        &self,
        request: Request<PutVipRequest>,
    ) -> Result<Response<PutVipResponse>, Status> {
        let mut vip = request.into_inner().vip.ok_or_else(|| missing("vip"))?;
        if let Ok(name) = vip.name.parse()
            && let Some(stored) = self.context.reader.read().vips.get(&name)
        {
            keep_password(&mut vip, &stored.spec);
        }
        let spec = VipSpec::try_from(vip)
            .map_err(|e| Status::invalid_argument(e.within("vip").to_string()))?;
        let revision = self.write(Command::put_vip(spec)).await?;
        Ok(Response::new(PutVipResponse { revision }))
    }

    async fn delete_vip(
        &self,
        request: Request<DeleteVipRequest>,
    ) -> Result<Response<DeleteVipResponse>, Status> {
        let name = request.into_inner().vip.parse();
        let name = name.map_err(|e| Status::invalid_argument(format!("field `vip`: {e}")))?;
        let revision = self.write(Command::DeleteVip(name)).await?;
        Ok(Response::new(DeleteVipResponse { revision }))
    }

    async fn move_vip(
        &self,
        request: Request<MoveVipRequest>,
    ) -> Result<Response<MoveVipResponse>, Status> {
        moves::move_vip(&self.context, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn drain(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<DrainResponse>, Status> {
        let request = request.into_inner();
        if request.reason.len() > MAX_REASON {
            return Err(Status::invalid_argument(format!(
                "field `reason`: {} bytes are more than {MAX_REASON}",
                request.reason.len()
            )));
        }
        let node = self.node(&request.node).await?;
        let reason = match request.reason.trim() {
            "" => "drained by an operator".to_owned(),
            reason => reason.to_owned(),
        };
        let revision = self
            .write(Command::Drain {
                node,
                reason: Some(reason),
            })
            .await?;
        let state = self.context.reader.read();
        let owned = state
            .vips
            .values()
            .filter(|v| v.assignment.as_ref().is_some_and(|a| a.node == node))
            .map(|v| v.spec.name.to_string());
        Ok(Response::new(DrainResponse {
            revision,
            vips: owned.collect(),
        }))
    }

    async fn undrain(
        &self,
        request: Request<UndrainRequest>,
    ) -> Result<Response<UndrainResponse>, Status> {
        let node = self.node(&request.into_inner().node).await?;
        let revision = self.write(Command::Drain { node, reason: None }).await?;
        Ok(Response::new(UndrainResponse { revision }))
    }

    async fn put_settings(
        &self,
        request: Request<PutSettingsRequest>,
    ) -> Result<Response<PutSettingsResponse>, Status> {
        let settings = request
            .into_inner()
            .settings
            .ok_or_else(|| missing("settings"))?;
        let revision = self
            .write(Command::Settings(Settings::from(settings)))
            .await?;
        Ok(Response::new(PutSettingsResponse { revision }))
    }

    async fn list_nodes(
        &self,
        _: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let context = &self.context;
        let look = Look::take(context).await;
        let raft = raft_view(&context.raft);
        let state = context.reader.read();
        Ok(Response::new(ListNodesResponse {
            nodes: status::nodes(&look, &state, &raft),
            answered_by: Some(node_ref(context, &state, context.me)),
        }))
    }

    async fn history(
        &self,
        request: Request<HistoryRequest>,
    ) -> Result<Response<HistoryResponse>, Status> {
        let request = request.into_inner();
        let limit = match usize::try_from(request.limit).unwrap_or(usize::MAX) {
            0 => DEFAULT_HISTORY,
            limit => limit.min(MAX_HISTORY),
        };
        let state = self.context.reader.read();
        let wanted = |vip: Option<&str>| request.vip.is_empty() || vip == Some(&request.vip);
        let newest_first = state.history.iter().rev();
        let mut events: Vec<Change> = newest_first
            .filter(|e| wanted(e.vip.as_ref().map(|v| v.as_str())))
            .take(limit)
            .map(Change::from)
            .collect();
        events.reverse();
        Ok(Response::new(HistoryResponse {
            events,
            oldest: state.history.front().map_or(0, |e| e.revision),
            newest: state.revision,
            history_id: state.history_id,
        }))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        explain::explain(&self.context, &request.into_inner().vip)
            .await
            .map(Response::new)
    }

    async fn vrrp_status(
        &self,
        _: Request<VrrpStatusRequest>,
    ) -> Result<Response<VrrpStatusResponse>, Status> {
        Ok(Response::new(vrrp::status(&self.context).await))
    }
}

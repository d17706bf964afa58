//! The receiving side: hands what peers send to Raft, to the lease thread's view, and to the report keeper.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buoy_core::health::NodeReport;
use buoy_core::state::Entry;
use buoy_core::{Epoch, NodeId, VipName};
use buoy_proto::PEER_PROTOCOL;
use buoy_proto::peer::peer_server::{Peer, PeerServer};
use buoy_proto::peer::{
    Applied, Envelope, JoinedRequest, JoinedResponse, LeaseRequest, LeaseResponse, NotLeader,
    ProposeRequest, ProposeResponse, ReadIndexRequest, ReadIndexResponse, ReportRequest,
    ReportResponse, SnapshotChunk, propose_response, read_index_response,
};
use buoy_storage::TypeConfig;
use futures::stream::{self, Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use super::local::{LocalWrite, leader, read_index_here, stopped, write_here};
use super::stamp::{Caller, Guard};
use super::{MAX_PEER_MESSAGE, check_protocol, decode, encode, snapshot, standing};
use crate::api::{ApiContext, becomes_active, millis};

/// Longest time that an owner lets a peer wait for its lease.
const LEASE_WAIT_MAX: Duration = Duration::from_secs(5);

/// The internal service of one node.
pub struct PeerService {
    context: ApiContext,
    /// Held while a snapshot is received: each may take much memory.
    receiving: Semaphore,
}

impl PeerService {
    /// The service with its limits and its guard, to be added to a server.
    pub fn server(context: ApiContext) -> InterceptedService<PeerServer<PeerService>, Guard> {
        let guard = Guard::new(context.pool.clone());
        let service = PeerServer::new(PeerService {
            context,
            receiving: Semaphore::new(1),
        })
        .max_decoding_message_size(MAX_PEER_MESSAGE)
        .max_encoding_message_size(MAX_PEER_MESSAGE);
        InterceptedService::new(service, guard)
    }
}

type Answer = Result<Response<Envelope>, Status>;

fn open<T: DeserializeOwned>(what: &str, request: Request<Envelope>) -> Result<T, Status> {
    let envelope = request.into_inner();
    check_protocol(envelope.protocol)?;
    decode(what, &envelope.payload)
}

fn sealed<T: Serialize>(what: &str, value: &T) -> Answer {
    let payload = encode(what, value)?;
    Ok(Response::new(Envelope {
        protocol: PEER_PROTOCOL,
        payload,
    }))
}

type AppendStream = Pin<Box<dyn Stream<Item = Result<Envelope, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStreamStream = AppendStream;

    async fn append(&self, request: Request<Envelope>) -> Answer {
        self.context.admission.check()?;
        let request = open("AppendEntries", request)?;
        let answer = self
            .context
            .raft
            .append_entries(request)
            .await
            .map_err(stopped)?;
        sealed("AppendEntries answer", &answer)
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<AppendStream>, Status> {
        self.context.admission.check()?;
        let fault = Fault::from(caller(&request)?);
        let requests = requests(request.into_inner(), fault.clone());
        let answers = self.context.raft.stream_append(requests).map(|answer| {
            let payload = encode("AppendEntries answer", &answer.map_err(stopped)?)?;
            Ok(Envelope {
                protocol: PEER_PROTOCOL,
                payload,
            })
        });
        // Raft only sees the requests end; the sender is told why.
        let last = stream::once(async move { fault.take() })
            .filter_map(|fault| std::future::ready(fault.map(Err)));
        Ok(Response::new(Box::pin(answers.chain(last))))
    }

    async fn vote(&self, request: Request<Envelope>) -> Answer {
        self.context.admission.check()?;
        let request = open("RequestVote", request)?;
        let answer = self.context.raft.vote(request).await.map_err(stopped)?;
        sealed("RequestVote answer", &answer)
    }

    async fn pre_vote(&self, request: Request<Envelope>) -> Answer {
        self.context.admission.check()?;
        let request = open("PreVote", request)?;
        let answer = self.context.raft.pre_vote(request).await.map_err(stopped)?;
        sealed("PreVote answer", &answer)
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Answer {
        self.context.admission.check()?;
        let from = caller(&request)?;
        let _receiving = self.receiving.try_acquire().map_err(|_| {
            Status::resource_exhausted(
                "this node is receiving another snapshot; send it again when that is done",
            )
        })?;
        let (vote, snapshot) = snapshot::receive(request.into_inner()).await?;
        tracing::info!(node = %from, bytes = snapshot.snapshot.len(), "received a snapshot");
        let installed = self
            .context
            .raft
            .install_full_snapshot(vote, snapshot)
            .await;
        sealed("snapshot answer", &installed.map_err(stopped)?)
    }

    async fn transfer_leader(&self, request: Request<Envelope>) -> Answer {
        self.context.admission.check()?;
        let request = open("TransferLeader", request)?;
        let answer = self
            .context
            .raft
            .handle_transfer_leader(request)
            .await
            .map_err(stopped)?;
        sealed("TransferLeader answer", &answer)
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check_protocol(request.protocol)?;
        let report: NodeReport = super::decode_report(&request.report)?;
        if report.node != caller {
            return Err(Status::invalid_argument(format!(
                "node {caller} sent a report about node {}; expected one about itself",
                report.node
            )));
        }
        self.context.pool.note_version(caller, &request.version);
        (self.context.reports)(report);
        Ok(Response::new(ReportResponse {}))
    }

    async fn joined(
        &self,
        request: Request<JoinedRequest>,
    ) -> Result<Response<JoinedResponse>, Status> {
        let caller = caller(&request)?;
        check_protocol(request.into_inner().protocol)?;
        let standing = standing::of(&self.context, caller).await?.into();
        Ok(Response::new(JoinedResponse { standing }))
    }

    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        let request = request.into_inner();
        check_protocol(request.protocol)?;
        let entry: Entry = decode("command", &request.entry)?;
        let result = match write_here(&self.context.raft, entry).await? {
            LocalWrite::Applied(p) => {
                let outcome = encode("outcome", &p.outcome)?;
                propose_response::Result::Applied(Applied {
                    index: p.index,
                    outcome,
                })
            }
            LocalWrite::NotLeader(leader) => propose_response::Result::NotLeader(NotLeader {
                leader: leader.map(|l| l.0),
            }),
            // A code that tells the caller that nothing was proposed.
            LocalWrite::Stopped(why) => {
                return Err(Status::failed_precondition(stopped(why).message()));
            }
        };
        Ok(Response::new(ProposeResponse {
            result: Some(result),
        }))
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexResponse>, Status> {
        check_protocol(request.into_inner().protocol)?;
        let result = match read_index_here(&self.context.raft).await? {
            Some(index) => read_index_response::Result::Index(index),
            None => {
                let leader = leader(&self.context.raft).map(|l| l.0);
                read_index_response::Result::NotLeader(NotLeader { leader })
            }
        };
        Ok(Response::new(ReadIndexResponse {
            result: Some(result),
        }))
    }

    async fn lease(
        &self,
        request: Request<LeaseRequest>,
    ) -> Result<Response<LeaseResponse>, Status> {
        let request = request.into_inner();
        check_protocol(request.protocol)?;
        let vip: VipName = request
            .vip
            .parse()
            .map_err(|e| Status::invalid_argument(format!("field `vip`: {e}")))?;
        let wait = Duration::from_millis(request.wait_ms.into()).min(LEASE_WAIT_MAX);
        // Not becoming active in time is an answer too; `lease_now` gives it.
        becomes_active(&*self.context.lease, &vip, Epoch(request.epoch), wait).await;
        Ok(Response::new(self.lease_now(&vip)))
    }
}

fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let caller = request.extensions().get::<Caller>();
    caller
        .map(|c| c.0)
        .ok_or_else(|| Status::internal("the peer service has no guard"))
}

impl PeerService {
    fn lease_now(&self, vip: &VipName) -> LeaseResponse {
        let state = self.context.reader.read();
        let assignment = state.vips.get(vip).and_then(|v| v.assignment.as_ref());
        let since = assignment
            .filter(|a| a.node == self.context.me)
            .map_or(0, |a| a.since_unix_ms);
        let revision = state.revision;
        drop(state);
        let held = self.context.lease.held(vip);
        LeaseResponse {
            active: held.as_ref().is_some_and(|h| h.active),
            epoch: held.as_ref().map_or(0, |h| h.epoch.0),
            remaining_ms: held.map_or(0, |h| millis(h.remaining)),
            revision,
            since_unix_ms: since,
        }
    }
}

/// What ended a stream of requests too early.
#[derive(Clone)]
struct Fault {
    from: NodeId,
    status: Arc<Mutex<Option<Status>>>,
}

impl From<NodeId> for Fault {
    fn from(from: NodeId) -> Self {
        let status = Arc::default();
        Self { from, status }
    }
}

impl Fault {
    fn set(&self, status: Status) {
        let what = status.message();
        tracing::warn!(node = %self.from, "the stream of entries from a peer ends: {what}");
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    /// A message that cannot be read, or the end of the connection.
    fn ended(&self, status: Status) {
        if status.source().is_none() {
            return self.set(status);
        }
        // There is nobody left to tell; a node that stops or is cut off is told of elsewhere.
        let what = status.message();
        tracing::debug!(node = %self.from, "the connection of a stream of entries ended: {what}");
    }

    fn take(&self) -> Option<Status> {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// The requests of a stream up to the first that cannot be read.
fn requests(
    incoming: Streaming<Envelope>,
    fault: Fault,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    stream::unfold(incoming, move |mut incoming| {
        let fault = fault.clone();
        async move {
            let envelope = match incoming.message().await {
                Ok(envelope) => envelope?,
                Err(status) => {
                    fault.ended(status);
                    return None;
                }
            };
            let request = check_protocol(envelope.protocol)
                .and_then(|()| decode("AppendEntries", &envelope.payload));
            match request {
                Ok(request) => Some((request, incoming)),
                Err(status) => {
                    fault.set(status);
                    None
                }
            }
        }
    })
}

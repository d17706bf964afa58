//! openraft's network over gRPC: one link for each peer and purpose.

use std::future::Future;
use std::time::{Duration, Instant};

use buoy_core::NodeId;
use buoy_proto::PEER_PROTOCOL;
use buoy_proto::peer::Envelope;
use buoy_storage::{PeerNode, Snapshot, SnapshotData, TypeConfig, Vote};
use futures::Stream;
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Code, Request, Response, Status};

use super::heartbeat::{self, Beats};
use super::pool::{Client, Patience, PeerPool, Purpose};
use super::{decode, encode, pause, snapshot, stream};

/// Makes links for openraft.
#[derive(Clone)]
pub struct RaftNetwork {
    pool: PeerPool,
}

impl RaftNetwork {
    /// Links through the connections of `pool`.
    pub fn new(pool: PeerPool) -> Self {
        Self { pool }
    }

    fn link(&self, target: u64, node: &PeerNode, purpose: Purpose) -> PeerLink {
        let target = NodeId(target);
        self.pool.learn(target, node);
        PeerLink {
            target,
            purpose,
            pool: self.pool.clone(),
            silent_since: None,
            beats: None,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for RaftNetwork {
    type Network = PeerLink;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> PeerLink {
        self.link(target, node, Purpose::Raft)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> PeerLink {
        self.link(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> PeerLink {
        self.link(target, node, Purpose::Snapshot)
    }
}

/// A link to one peer for one purpose.
pub struct PeerLink {
    pub(super) target: NodeId,
    purpose: Purpose,
    pool: PeerPool,
    /// When the oldest call began since which none was answered.
    silent_since: Option<Instant>,
    /// The stream of heartbeats.
    pub(super) beats: Option<Beats>,
}

/// A failed call in openraft's words. It waits before it tries an unreachable peer again.
pub(super) fn failed(target: NodeId, what: &str, status: &Status) -> RPCError<TypeConfig> {
    let text = format!("{what} to node {target}: {}", status.message());
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => NetworkError::from_string(text).into(),
        _ => Unreachable::from_string(text).into(),
    }
}

pub(super) fn too_long(target: NodeId, what: &str, limit: Duration) -> RPCError<TypeConfig> {
    let text = format!("{what} to node {target}: no answer within {limit:?}");
    NetworkError::from_string(text).into()
}

impl PeerLink {
    pub(super) fn patience(&self) -> Patience {
        self.pool.patience()
    }

    pub(super) fn client(&self) -> Result<Client, RPCError<TypeConfig>> {
        self.pool
            .client(self.target, self.purpose)
            .map_err(|e| Unreachable::new(&e).into())
    }

    /// A call begins. After some time without an answer the connection is given up: one that was cut would otherwise wait
    /// for TCP, for seconds after the network is whole again. Whoever makes a call may drop it, so that this is looked at
    /// when the next one begins.
    pub(super) fn begin_call(&mut self, now: Instant) {
        let Patience {
            ping_every,
            ping_answer,
            ..
        } = self.patience();
        let since = *self.silent_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= ping_every + ping_answer {
            self.pool.discard(self.target, self.purpose);
            self.silent_since = Some(now);
        }
    }

    /// Something came back.
    pub(super) fn answered(&mut self) {
        self.silent_since = None;
    }

    /// One request, one answer, within `limit`.
    async fn call<Q, R, F, Fut>(
        &mut self,
        what: &'static str,
        request: &Q,
        limit: Duration,
        send: F,
    ) -> Result<R, RPCError<TypeConfig>>
    where
        Q: Serialize,
        R: DeserializeOwned,
        F: FnOnce(Client, Request<Envelope>) -> Fut,
        Fut: Future<Output = Result<Response<Envelope>, Status>>,
    {
        self.begin_call(Instant::now());
        let exchange = async {
            let payload = encode(what, request)?;
            let request = Request::new(Envelope {
                protocol: PEER_PROTOCOL,
                payload,
            });
            let client = self.pool.client(self.target, self.purpose);
            let client = client.map_err(|e| Status::unavailable(e.to_string()))?;
            let answer = send(client, request).await?.into_inner();
            super::check_protocol(answer.protocol)?;
            decode(what, &answer.payload)
        };
        let result = tokio::time::timeout(limit, exchange).await;
        match result {
            Ok(result) => {
                self.answered();
                result.map_err(|status| failed(self.target, what, &status))
            }
            Err(_) => Err(too_long(self.target, what, limit)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for PeerLink {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let send = |mut c: Client, r| async move { c.append(r).await };
        self.call("AppendEntries", &request, option.hard_ttl(), send)
            .await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.purpose == Purpose::Heartbeat {
            return Box::pin(heartbeat::send(self, input));
        }
        Box::pin(stream::append(self, input))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let send = |mut c: Client, r| async move { c.vote(r).await };
        self.call("RequestVote", &request, option.hard_ttl(), send)
            .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let send = |mut c: Client, r| async move { c.pre_vote(r).await };
        self.call("PreVote", &request, option.hard_ttl(), send)
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let client = self.client()?;
        let limit = option.hard_ttl();
        let transfer = snapshot::send(client, self.target, vote, snapshot);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            result = tokio::time::timeout(limit, transfer) => match result {
                Ok(result) => result.map_err(|s| failed(self.target, "InstallSnapshot", &s).into()),
                Err(_) => Err(too_long(self.target, "InstallSnapshot", limit).into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let send = |mut c: Client, r| async move { c.transfer_leader(r).await };
        self.call("TransferLeader", &request, option.hard_ttl(), send)
            .await
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(pause::pauses(self.patience().backoff)))
    }
}

//! Raft heartbeats: single messages, many a second, on one open stream. A call for each would cost both ends a multiple.

use std::time::Instant;

use buoy_core::NodeId;
use buoy_proto::PEER_PROTOCOL;
use buoy_proto::peer::Envelope;
use buoy_storage::TypeConfig;
use futures::stream::{self, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::base::BoxStream;
use openraft::errors::{RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::network::{PeerLink, failed};
use super::{check_protocol, decode, encode};

const WHAT: &str = "heartbeat";

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// An open stream on which every heartbeat so far was answered.
pub(super) struct Beats {
    requests: mpsc::Sender<Envelope>,
    answers: Streaming<Envelope>,
}

impl Beats {
    async fn open(link: &PeerLink) -> Result<Beats, RPCError<TypeConfig>> {
        let (requests, outgoing) = mpsc::channel(1);
        let mut client = link.client()?;
        let answers = client.append_stream(ReceiverStream::new(outgoing)).await;
        let answers = answers.map_err(|status| failed(link.target, WHAT, &status))?;
        Ok(Beats {
            requests,
            answers: answers.into_inner(),
        })
    }

    /// Sends one, and waits for what comes back; a stream that failed is of no further use.
    async fn exchange(
        &mut self,
        target: NodeId,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Answer {
        let failed = |status| failed(target, WHAT, &status);
        let envelope = Envelope {
            protocol: PEER_PROTOCOL,
            payload: encode(WHAT, request).map_err(failed)?,
        };
        let ended =
            || Unreachable::from_string(format!("{WHAT} to node {target}: the stream ended"));
        self.requests.send(envelope).await.map_err(|_| ended())?;
        let envelope = self.answers.message().await.map_err(failed)?;
        let envelope = envelope.ok_or_else(ended)?;
        check_protocol(envelope.protocol)
            .and_then(|()| decode(WHAT, &envelope.payload))
            .map_err(failed)
    }
}

/// Sends the heartbeat that `input` holds. openraft gives each of them one heartbeat interval and drops this when
/// it is over; the stream goes with it then, so that a late answer is never taken for that of the next one.
pub(super) async fn send<'s, S>(
    link: &'s mut PeerLink,
    mut input: S,
) -> Result<BoxStream<'s, Answer>, RPCError<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    let Some(request) = input.next().await else {
        return Ok(Box::pin(stream::empty()));
    };
    link.begin_call(Instant::now());
    let mut beats = match link.beats.take() {
        Some(beats) => beats,
        None => Beats::open(link).await?,
    };
    let answer = beats.exchange(link.target, &request).await?;
    link.answered();
    link.beats = Some(beats);
    Ok(Box::pin(stream::once(std::future::ready(Ok(answer)))))
}

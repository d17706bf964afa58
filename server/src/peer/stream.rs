//! Pipelined replication: AppendEntries requests out, their answers back, in order, on one HTTP/2 stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use buoy_core::NodeId;
use buoy_proto::PEER_PROTOCOL;
use buoy_proto::peer::Envelope;
use buoy_storage::TypeConfig;
use futures::stream::{self, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::base::BoxStream;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tonic::Streaming;

use super::network::{PeerLink, failed, too_long};
use super::{check_protocol, decode, encode};

const WHAT: &str = "AppendEntries stream";

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Opens the stream and feeds it from `input`.
pub(super) async fn append<'s, S>(
    link: &'s mut PeerLink,
    mut input: S,
) -> Result<BoxStream<'s, Answer>, RPCError<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    // openraft waits out its backoff only while the request stream is polled: dialing before the first
    // request is there would turn one dead follower into a busy loop of refused connections.
    let Some(first) = input.next().await else {
        return Ok(Box::pin(stream::empty()));
    };
    let (target, patience) = (link.target, link.patience());
    let sent = Arc::new(AtomicU64::new(0));
    let requests = outgoing(stream::once(async { first }).chain(input), sent.clone());
    let mut client = link.client()?;
    let limit = patience.connect * 2;
    let answers = match tokio::time::timeout(limit, client.append_stream(requests)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Err(failed(target, WHAT, &status)),
        Err(_) => return Err(too_long(target, WHAT, limit)),
    };
    let incoming = Incoming {
        target,
        answers,
        sent,
        received: 0,
        limit: patience.stream,
    };
    Ok(Box::pin(stream::unfold(
        Some(incoming),
        |state| async move {
            let mut incoming = state?;
            let answer = incoming.next().await?;
            // After an error nothing sensible follows.
            let state = answer.is_ok().then_some(incoming);
            Some((answer, state))
        },
    )))
}

/// Encodes requests and counts them. A request that cannot be encoded ends the stream.
fn outgoing<S>(input: S, sent: Arc<AtomicU64>) -> impl Stream<Item = Envelope> + Send + 'static
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static,
{
    input
        .map(|request| encode(WHAT, &request))
        .take_while(|encoded| {
            if let Err(status) = encoded {
                tracing::error!("replication stops: {}", status.message());
            }
            std::future::ready(encoded.is_ok())
        })
        .filter_map(|encoded| std::future::ready(encoded.ok()))
        .map(move |payload| {
            sent.fetch_add(1, Relaxed);
            Envelope {
                protocol: PEER_PROTOCOL,
                payload,
            }
        })
}

struct Incoming {
    target: NodeId,
    answers: Streaming<Envelope>,
    sent: Arc<AtomicU64>,
    received: u64,
    /// How long a request may be without an answer.
    limit: Duration,
}

impl Incoming {
    /// The next answer; `None` at the regular end of the stream.
    async fn next(&mut self) -> Option<Answer> {
        loop {
            match tokio::time::timeout(self.limit, self.answers.message()).await {
                Ok(Ok(Some(envelope))) => {
                    self.received += 1;
                    return Some(self.read(&envelope));
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => return Some(Err(failed(self.target, WHAT, &status))),
                // Silence is fine while nothing is under way.
                Err(_) if self.sent.load(Relaxed) <= self.received => {}
                Err(_) => return Some(Err(too_long(self.target, WHAT, self.limit))),
            }
        }
    }

    fn read(&self, envelope: &Envelope) -> Answer {
        check_protocol(envelope.protocol)
            .and_then(|()| decode(WHAT, &envelope.payload))
            .map_err(|status| failed(self.target, WHAT, &status))
    }
}

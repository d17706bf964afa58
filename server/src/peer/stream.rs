//! Pipelined replication: AppendEntries requests out, their answers back, in order, on one HTTP/2 stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::time::Instant;
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
    let open = Unanswered::default();
    let requests = outgoing(stream::once(async { first }).chain(input), open.clone());
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
        open,
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

/// Encodes requests and notes when they leave. A request that cannot be encoded ends the stream.
fn outgoing<S>(input: S, open: Unanswered) -> impl Stream<Item = Envelope> + Send + 'static
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
            open.sent(Instant::now());
            Envelope {
                protocol: PEER_PROTOCOL,
                payload,
            }
        })
}

/// When the requests left that have no answer yet, the oldest first.
#[derive(Clone, Default)]
struct Unanswered(Arc<Mutex<VecDeque<Instant>>>);

impl Unanswered {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self, at: Instant) {
        self.lock().push_back(at);
    }

    /// Answers come in the order of the requests.
    fn answered(&self) {
        self.lock().pop_front();
    }

    fn oldest(&self) -> Option<Instant> {
        self.lock().front().copied()
    }
}

fn is_due(oldest: Option<Instant>, now: Instant, limit: Duration) -> bool {
    oldest.is_some_and(|at| now >= at + limit)
}

struct Incoming {
    target: NodeId,
    answers: Streaming<Envelope>,
    open: Unanswered,
    /// How long a request may be without an answer.
    limit: Duration,
}

impl Incoming {
    /// The next answer; `None` at the regular end of the stream.
    async fn next(&mut self) -> Option<Answer> {
        loop {
            // Without a request under way: look again before one that leaves meanwhile is due.
            let due = self.open.oldest().unwrap_or_else(Instant::now) + self.limit;
            match tokio::time::timeout_at(due, self.answers.message()).await {
                Ok(Ok(Some(envelope))) => {
                    self.open.answered();
                    return Some(self.read(&envelope));
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => return Some(Err(failed(self.target, WHAT, &status))),
                Err(_) if is_due(self.open.oldest(), Instant::now(), self.limit) => {
                    return Some(Err(too_long(self.target, WHAT, self.limit)));
                }
                // Silence is fine while nothing is under way.
                Err(_) => {}
            }
        }
    }

    fn read(&self, envelope: &Envelope) -> Answer {
        check_protocol(envelope.protocol)
            .and_then(|()| decode(WHAT, &envelope.payload))
            .map_err(|status| failed(self.target, WHAT, &status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_request_counts_whatever_was_answered_meanwhile() {
        let (limit, begun) = (Duration::from_secs(1), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        let open = Unanswered::default();
        assert!(!is_due(open.oldest(), at(5_000), limit));
        for ms in [0, 100, 900] {
            open.sent(at(ms));
        }
        assert!(!is_due(open.oldest(), at(999), limit));
        open.answered();
        assert!(!is_due(open.oldest(), at(1_099), limit));
        // The answer just before does not give the next request a second more.
        assert!(is_due(open.oldest(), at(1_100), limit));
        open.answered();
        open.answered();
        assert!(!is_due(open.oldest(), at(9_000), limit));
    }
}

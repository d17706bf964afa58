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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use buoy_core::NodeName;
    use buoy_core::spec::timing::{Profile, Timing};
    use buoy_core::spec::{NodeSpec, Role};
    use buoy_storage::{PeerNode, Vote};
    use openraft::network::RaftNetworkFactory;
    use tokio::net::TcpListener;

    use super::*;
    use crate::peer::network::RaftNetwork;
    use crate::peer::pool::PeerPool;
    use crate::tls::Tls;

    const PEER: NodeId = NodeId(2);

    /// A connection that was cut while it was idle looks like this one: open, and nothing comes back.
    #[tokio::test]
    async fn a_peer_that_answers_no_heartbeat_gets_a_new_connection_within_a_lease() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let timing = Timing::for_profile(Profile::Lan);
        let spec = NodeSpec {
            id: PEER,
            name: "n2".parse::<NodeName>().unwrap(),
            address,
            role: Role::Member,
        };
        let tls = Tls::insecure("test").unwrap();
        let pool = PeerPool::new("test", NodeId(1), &[spec], tls, &timing);
        let node = PeerNode {
            name: "n2".into(),
            address: address.to_string(),
        };
        let mut link = RaftNetwork::new(pool)
            .new_heartbeat_client(PEER.0, &node)
            .await;

        let beat = timing.raft_heartbeat;
        let beats = async {
            loop {
                let request = AppendEntriesRequest {
                    vote: Vote::new(1, 1),
                    prev_log_id: None,
                    entries: Vec::new(),
                    leader_commit: None,
                };
                let input = stream::iter([request]);
                // openraft gives a heartbeat that long, and then drops it.
                let sent = tokio::time::timeout(beat, send(&mut link, input)).await;
                assert!(sent.is_err(), "nobody answers");
            }
        };
        let reconnected = async {
            // Both stay open, and silent.
            let first = listener.accept().await.unwrap();
            let began = Instant::now();
            let second = listener.accept().await.unwrap();
            let took = began.elapsed();
            drop((first, second));
            took
        };
        let took = tokio::select! {
            took = reconnected => took,
            () = beats => unreachable!("heartbeats go on"),
            () = tokio::time::sleep(Duration::from_secs(10)) => panic!("no new connection"),
        };
        // One beat more than a lease at most, and some time for a machine that does other things.
        assert!(took < 4 * timing.lease, "{took:?}");
        assert!(took > timing.lease / 2, "given up at once: {took:?}");
    }
}

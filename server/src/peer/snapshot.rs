//! Snapshots in chunks: a header, then the bytes of the snapshot file.

use buoy_core::NodeId;
use buoy_proto::PEER_PROTOCOL;
use buoy_proto::peer::SnapshotChunk;
use buoy_storage::{MAX_SNAPSHOT_BYTES, Snapshot, SnapshotMeta, TypeConfig, Vote};
use bytes::{Bytes, BytesMut};
use futures::stream;
use openraft::raft::SnapshotResponse;
use serde::{Deserialize, Serialize};
use tonic::{Status, Streaming};

use super::pool::Client;
use super::{SNAPSHOT_CHUNK, check_protocol, decode, encode};

const WHAT: &str = "snapshot header";

/// What stands in the first chunk.
#[derive(Serialize, Deserialize)]
struct Header {
    vote: Vote,
    meta: SnapshotMeta,
    length: u64,
}

/// Sends a snapshot and waits until the peer has installed it.
pub(super) async fn send(
    mut client: Client,
    target: NodeId,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<TypeConfig>, Status> {
    let data = snapshot.snapshot;
    let header = Header {
        vote,
        meta: snapshot.meta,
        length: data.len() as u64,
    };
    let header = encode(WHAT, &header)?;
    tracing::info!(node = %target, bytes = data.len(), "sending a snapshot");
    let answer = client
        .snapshot(stream::iter(chunks(header, data)))
        .await?
        .into_inner();
    check_protocol(answer.protocol)?;
    decode("snapshot answer", &answer.payload)
}

fn chunks(header: Bytes, data: Bytes) -> impl Iterator<Item = SnapshotChunk> + Send {
    let first = SnapshotChunk {
        protocol: PEER_PROTOCOL,
        header,
        data: Bytes::new(),
    };
    let rest = (0..data.len())
        .step_by(SNAPSHOT_CHUNK)
        .map(move |start| SnapshotChunk {
            protocol: PEER_PROTOCOL,
            header: Bytes::new(),
            data: data.slice(start..data.len().min(start + SNAPSHOT_CHUNK)),
        });
    std::iter::once(first).chain(rest)
}

/// Puts a snapshot together again; whether its content is sound is for storage to check.
pub(super) async fn receive(
    mut chunks: Streaming<SnapshotChunk>,
) -> Result<(Vote, Snapshot), Status> {
    let first = chunks.message().await?;
    let first =
        first.ok_or_else(|| Status::invalid_argument("a snapshot without a first chunk"))?;
    check_protocol(first.protocol)?;
    let Header { vote, meta, length } = decode(WHAT, &first.header)?;
    let length = usize::try_from(length).ok().filter(|l| *l <= MAX_SNAPSHOT_BYTES).ok_or_else(|| {
        Status::invalid_argument(format!(
            "a snapshot of {length} bytes is larger than the {MAX_SNAPSHOT_BYTES} that are accepted"
        ))
    })?;
    let mut data = BytesMut::new();
    while let Some(chunk) = chunks.message().await? {
        if data.len() + chunk.data.len() > length {
            return Err(Status::invalid_argument(format!(
                "a snapshot of {length} bytes came with more"
            )));
        }
        data.extend_from_slice(&chunk.data);
    }
    if data.len() < length {
        return Err(Status::invalid_argument(format!(
            "a snapshot of {length} bytes ended after {}",
            data.len()
        )));
    }
    Ok((
        vote,
        Snapshot {
            meta,
            snapshot: data.freeze(),
        },
    ))
}

//! What nodes say to each other over gRPC: Raft, reports, and calls passed on to the leader or an owner.
//!
//! Lease renewals do not travel here (see [`crate::lease`]): nothing in this module can delay them.

mod admission;
pub mod config;
mod control;
mod heartbeat;
mod list;
mod local;
mod network;
mod pause;
mod pool;
mod service;
mod snapshot;
mod stamp;
mod standing;
mod stream;

pub use admission::Admission;
pub use config::raft_config;
pub(crate) use control::reason;
pub use control::{LeaseAnswer, ProposeError, Proposed, ReadIndexError};
pub use local::{
    LocalWrite, MAX_COMMAND, RaftView, check_size, leader, outcome_unknown, raft_changed,
    raft_view, read_index_here, stopped, write_here,
};
pub use network::{PeerLink, RaftNetwork};
pub use pool::{PeerPool, Purpose, UnknownPeer};
pub use service::PeerService;
pub use stamp::Guard;

use buoy_core::health::NodeReport;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

/// Largest message between nodes, in bytes. A replication message holds at most
/// [`config::MAX_PAYLOAD_ENTRIES`] entries.
pub const MAX_PEER_MESSAGE: usize = 64 << 20;

/// Data bytes in one chunk of a snapshot.
pub const SNAPSHOT_CHUNK: usize = 1 << 20;

/// A value as it travels.
fn encode<T: Serialize>(what: &str, value: &T) -> Result<Bytes, Status> {
    postcard::to_stdvec(value)
        .map(Bytes::from)
        .map_err(|e| Status::internal(format!("cannot encode {what}: {e}")))
}

/// A value as it came. What cannot be read is the sender's fault, and said so.
fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Status> {
    postcard::from_bytes(bytes).map_err(|e| {
        Status::invalid_argument(format!(
            "cannot read {what} of {} bytes: {e}; do all nodes run the same version?",
            bytes.len()
        ))
    })
}

/// A node's report. One of an older version ends before what nodes say of VRRP routers.
fn decode_report(bytes: &[u8]) -> Result<NodeReport, Status> {
    /// How postcard writes an empty map.
    const NOTHING_HEARD: u8 = 0;
    match decode("report", bytes) {
        Ok(report) => Ok(report),
        Err(e) => decode("report", &[bytes, &[NOTHING_HEARD]].concat()).map_err(|_| e),
    }
}

/// Refuses a message of another protocol before anything in it is read.
fn check_protocol(protocol: u32) -> Result<(), Status> {
    if protocol == buoy_proto::PEER_PROTOCOL {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "the sender speaks peer protocol {protocol} and this node {}; run the same version of Buoy on all nodes",
        buoy_proto::PEER_PROTOCOL
    )))
}

#[cfg(test)]
mod tests {
    use buoy_core::health::Hearing;

    use super::*;

    #[test]
    fn a_report_of_an_older_version_is_read() {
        let mut report = NodeReport {
            rev: 7,
            warnings: vec!["no realtime scheduling".to_owned()],
            ..NodeReport::default()
        };
        let mut bytes = encode("report", &report).unwrap().to_vec();
        assert_eq!(bytes.pop(), Some(0));
        assert_eq!(decode_report(&bytes).unwrap(), report);
        report.vrrp.insert("web".parse().unwrap(), Hearing::Clear);
        let bytes = encode("report", &report).unwrap();
        assert_eq!(decode_report(&bytes).unwrap(), report);
        assert!(decode_report(&bytes[..2]).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        let bytes = encode("number", &7u64).unwrap();
        assert_eq!(decode::<u64>("number", &bytes).unwrap(), 7);
        let error = decode::<u64>("number", &[0xff]).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert!(error.message().contains("number"), "{error}");
        assert!(check_protocol(buoy_proto::PEER_PROTOCOL).is_ok());
        let error = check_protocol(99).unwrap_err();
        assert!(error.message().contains("99"), "{error}");
    }
}

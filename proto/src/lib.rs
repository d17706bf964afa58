//! The gRPC services of Buoy: generated types, their conversions to and from core, and a connector.

pub mod client;
pub mod convert;

/// Public API, package `buoy.v1`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("buoy.v1");
}

/// Internal: what nodes say to each other, package `buoy.peer.v1`.
#[allow(missing_docs, clippy::all)]
pub mod peer {
    tonic::include_proto!("buoy.peer.v1");
}

pub use convert::ConvertError;

/// Descriptors of all services here, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Number of the peer protocol: nodes with different numbers refuse each other.
pub const PEER_PROTOCOL: u32 = 1;

/// Largest message of the public API, in bytes: [`buoy_core::spec::MAX_VIPS`] VIPs with a few addresses each.
pub const MAX_API_MESSAGE: usize = 32 << 20;

/// Default TCP and UDP port of a node.
pub const DEFAULT_PORT: u16 = 7400;

/// Default path of the local CLI's unix socket.
pub const DEFAULT_SOCKET: &str = "/run/buoy/buoy.sock";

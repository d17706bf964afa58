//! Puts the services together for one listener.

use std::time::Duration;

use buoy_proto::v1::cluster_server::ClusterServer;
use buoy_proto::v1::ownership_server::OwnershipServer;
use buoy_proto::{FILE_DESCRIPTOR_SET, MAX_API_MESSAGE};
use tonic::transport::Server;
use tonic::transport::server::Router;

use super::cluster::ClusterService;
use super::ownership::OwnershipService;
use super::{ApiContext, probe};
use crate::peer::PeerService;

/// Where calls come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listener {
    /// The node's port: TLS where it is configured, and the peers' own service.
    Tcp,
    /// The unix socket of this machine's operators: no TLS, and no peers.
    Unix,
}

/// An idle connection is asked this often whether its other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// And has so long to answer: the answer may wait behind a snapshot that fills a slow link.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Calls that one connection may have open at once.
const MAX_STREAMS: u32 = 1_024;

/// Why the services cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The certificates were refused.
    #[error("cannot serve with TLS: {0}")]
    Tls(#[from] tonic::transport::Error),
    /// The descriptors for reflection are damaged.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// All services for one listener. Must be called within the tokio runtime. TCP connections must come
/// with `TCP_NODELAY` set: tonic sets it only on sockets that it binds itself.
///
/// # Errors
/// The certificates or descriptors cannot be used.
pub fn router(context: &ApiContext, listener: Listener) -> Result<Router, RouterError> {
    let mut server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER));
    let mut peers = None;
    if listener == Listener::Tcp {
        if let Some(tls) = context.pool.tls().server_config() {
            server = server.tls_config(tls)?;
        }
        peers = Some(PeerService::server(context.clone()));
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let ownership = OwnershipServer::new(OwnershipService::new(context.clone()))
        .max_decoding_message_size(MAX_API_MESSAGE)
        .max_encoding_message_size(MAX_API_MESSAGE);
    let cluster = ClusterServer::new(ClusterService::new(context.clone()))
        .max_decoding_message_size(MAX_API_MESSAGE)
        .max_encoding_message_size(MAX_API_MESSAGE);
    Ok(server
        .add_service(ownership)
        .add_service(cluster)
        .add_service(probe::start(context.clone()))
        // Tools of a few years ago speak the alpha version only.
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_optional_service(peers))
}

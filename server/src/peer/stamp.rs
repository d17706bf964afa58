//! Says on each call which cluster and node are meant, and refuses calls that mean somebody else.
//!
//! Raft assumes that a message for node 2 reaches node 2. A mistyped address must therefore not lead to
//! another node, or to another cluster's. And all nodes must form the cluster from the same list of nodes.

use buoy_core::NodeId;
use tonic::metadata::{Ascii, Binary, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::list::NodeList;
use super::pool::PeerPool;
use crate::tls::dns_names;

const CLUSTER: &str = "buoy-cluster-bin";
const NODES: &str = "buoy-nodes-bin";
const FROM: &str = "buoy-from";
const TO: &str = "buoy-to";

/// Puts the marks on outgoing calls.
#[derive(Clone, Debug)]
pub struct Stamp {
    cluster: MetadataValue<Binary>,
    nodes: MetadataValue<Binary>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
}

impl Stamp {
    pub(super) fn new(cluster: &str, nodes: &NodeList, from: NodeId, to: NodeId) -> Self {
        Self {
            cluster: MetadataValue::from_bytes(cluster.as_bytes()),
            nodes: MetadataValue::from_bytes(nodes.as_bytes()),
            from: from.0.into(),
            to: to.0.into(),
        }
    }
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert_bin(CLUSTER, self.cluster.clone());
        metadata.insert_bin(NODES, self.nodes.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        Ok(request)
    }
}

/// Who called, as far as the marks and the certificate say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub NodeId);

/// Checks the marks on incoming calls; with TLS also that the caller's certificate is a node's.
#[derive(Clone)]
pub struct Guard {
    pool: PeerPool,
}

impl Guard {
    /// A guard for the node that `pool` belongs to.
    pub fn new(pool: PeerPool) -> Self {
        Self { pool }
    }

    fn check(&self, request: &Request<()>) -> Result<Caller, Status> {
        let metadata = request.metadata();
        let bytes = |key| {
            let value = metadata.get_bin(key).and_then(|v| v.to_bytes().ok());
            value.ok_or_else(|| unmarked(key))
        };
        let cluster = bytes(CLUSTER)?;
        if cluster != self.pool.cluster().as_bytes() {
            return Err(Status::failed_precondition(format!(
                "this node belongs to cluster {:?} and the caller to {:?}; check `[cluster] name` and the nodes' addresses",
                self.pool.cluster(),
                String::from_utf8_lossy(&cluster)
            )));
        }
        let to = number(metadata, TO)?;
        if to != self.pool.me() {
            return Err(Status::failed_precondition(format!(
                "this is node {} and the caller wanted node {to}; check the nodes' addresses in the caller's configuration",
                self.pool.me()
            )));
        }
        let from = number(metadata, FROM)?;
        if from == self.pool.me() {
            return Err(Status::failed_precondition(format!(
                "another process says that it is node {from}, as this one is; each node needs its own id"
            )));
        }
        if self.pool.tls().server_config().is_some() {
            self.check_certificate(from, request)?;
        }
        if let Some(difference) = self.pool.list().difference(&bytes(NODES)?) {
            return Err(Status::failed_precondition(format!(
                "the configurations of this node ({}) and of the caller ({from}) list different nodes: {difference}; all files must list the same ids and names under [[cluster.node]]",
                self.pool.me()
            )));
        }
        Ok(Caller(from))
    }

    fn check_certificate(&self, from: NodeId, request: &Request<()>) -> Result<(), Status> {
        let certificates = request.peer_certs();
        let names = certificates
            .as_ref()
            .and_then(|certificates| dns_names(certificates.first()?))
            .unwrap_or_default();
        let known = self.pool.name(from);
        let is = |name: &String| known.as_ref().is_some_and(|k| name.eq_ignore_ascii_case(k));
        if names.iter().any(is) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "the caller says that it is node {from} ({}), and its certificate is for {}",
            known.unwrap_or_else(|| "not known here".to_owned()),
            match names.is_empty() {
                true => "nobody".to_owned(),
                false => names.join(", "),
            }
        )))
    }
}

fn unmarked(what: &str) -> Status {
    Status::invalid_argument(format!(
        "metadata `{what}` is missing or unreadable: this service is for the nodes of one cluster only"
    ))
}

fn number(metadata: &MetadataMap, key: &str) -> Result<NodeId, Status> {
    metadata
        .get(key)
        .and_then(|v| v.to_str().ok()?.parse().ok())
        .map(NodeId)
        .ok_or_else(|| unmarked(key))
}

impl Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller = self.check(&request).inspect_err(|e| {
            tracing::warn!(from = ?request.remote_addr(), "peer call refused: {}", e.message());
        })?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

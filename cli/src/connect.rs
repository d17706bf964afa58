//! The connection to a node: over its unix socket, or by URL.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use buoy_proto::client::{self, ClientTls};
use buoy_proto::v1::cluster_client::ClusterClient;
use buoy_proto::v1::ownership_client::OwnershipClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::args::Global;
use crate::error::{Failure, from_status};

/// A node that answers.
pub struct Node {
    /// Where it is, for messages.
    pub target: String,
    channel: Channel,
    timeout: Duration,
}

/// Connects as the options say.
pub async fn connect(options: &Global) -> Result<Node, Failure> {
    let (target, tls) = target(options)?;
    let channel = client::connect(&target, tls.as_ref(), options.timeout)
        .await
        .map_err(|e| match Failure::from(e) {
            Failure::Unreachable(message) => {
                Failure::Unreachable(format!("{message}{}", advice(options)))
            }
            other => other,
        })?;
    Ok(Node {
        target,
        channel,
        timeout: options.timeout,
    })
}

fn target(options: &Global) -> Result<(String, Option<ClientTls>), Failure> {
    let files = [
        ("--ca", &options.ca),
        ("--cert", &options.cert),
        ("--key", &options.key),
    ];
    let given = files.iter().filter(|(_, f)| f.is_some()).count();
    let Some(server) = &options.server else {
        let path = std::path::absolute(&options.socket)
            .map_err(|e| Failure::Usage(format!("--socket {}: {e}", options.socket.display())))?;
        return Ok((format!("unix://{}", path.display()), None));
    };
    if given == 0 || !server.starts_with("https://") {
        return Ok((server.clone(), None));
    }
    let read = |(option, file): (&str, &Option<std::path::PathBuf>)| match file {
        None => Err(Failure::Usage(format!(
            "{option} is missing: https needs --ca, --cert and --key"
        ))),
        Some(path) => read(option, path),
    };
    let tls = ClientTls {
        ca: read(files[0])?,
        cert: read(files[1])?,
        key: read(files[2])?,
        server_name: options.server_name.clone(),
    };
    Ok((server.clone(), Some(tls)))
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|e| Failure::Usage(format!("{option}: cannot read {}: {e}", path.display())))
}

/// What to try when nobody answers.
fn advice(options: &Global) -> String {
    let text = if options.server.is_some() {
        "try another node with --server; with TLS, the host must be a name or address in the node's certificate (else give --server-name)"
    } else if options.socket.exists() {
        "the socket is there: is the daemon running (`systemctl status buoy`), and may you use it (try as root)?"
    } else {
        "start the daemon (`systemctl start buoy`), give its socket with --socket (node.socket in its configuration), or a node's URL with --server"
    };
    format!("\n  {text}")
}

impl Node {
    /// The `Cluster` service.
    pub fn cluster(&self) -> ClusterClient<Channel> {
        client::cluster(self.channel.clone())
    }

    /// The `Ownership` service.
    pub fn ownership(&self) -> OwnershipClient<Channel> {
        client::ownership(self.channel.clone())
    }

    /// The answer to a call, within the time that the options allow.
    pub async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_status(&status, &self.target)),
            Err(_) => Err(Failure::Unreachable(format!(
                "no answer from {} within {:?} (--timeout)",
                self.target, self.timeout
            ))),
        }
    }
}

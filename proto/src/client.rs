//! Connects to a node: over its unix socket, plain TCP, or TLS.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::MAX_API_MESSAGE;
use crate::v1::cluster_client::ClusterClient;
use crate::v1::ownership_client::OwnershipClient;

/// Certificates of a client, in PEM.
#[derive(Clone)]
pub struct ClientTls {
    /// Certificate of the authority that signed the nodes' certificates.
    pub ca: Vec<u8>,
    /// The client's certificate: nodes refuse clients without one.
    pub cert: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// Name that the node's certificate must carry; `None`: the host in the target.
    pub server_name: Option<String>,
}

impl std::fmt::Debug for ClientTls {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The target is not one of the forms that are understood.
    #[error(
        "{target:?} is no address of a node: {problem} (expected unix:///run/buoy/buoy.sock, http://HOST:PORT or https://HOST:PORT)"
    )]
    Target {
        /// What was given.
        target: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `https` without certificates.
    #[error(
        "{target} needs certificates: give the cluster's CA and a client certificate with its key"
    )]
    NoCertificates {
        /// What was given.
        target: String,
    },
    /// The certificates given cannot be used.
    #[error("cannot use the certificates for {target}: {problem}")]
    Certificates {
        /// What was given.
        target: String,
        /// What is wrong with them.
        problem: String,
    },
    /// Nobody answers there.
    #[error("cannot reach {target}: {problem}; is `buoy serve` running there?")]
    Unreachable {
        /// What was given.
        target: String,
        /// What the system said.
        problem: String,
    },
}

/// Connects to `target` (`unix:///path`, `http://host:port` or `https://host:port`) within `timeout`.
pub async fn connect(
    target: &str,
    tls: Option<&ClientTls>,
    timeout: Duration,
) -> Result<Channel, ConnectError> {
    let endpoint = endpoint(target, tls)?.connect_timeout(timeout);
    let unreachable = |problem: String| ConnectError::Unreachable {
        target: target.into(),
        problem,
    };
    match tokio::time::timeout(timeout, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(e)) => Err(unreachable(innermost(&e))),
        Err(_) => Err(unreachable(format!("no answer within {timeout:?}"))),
    }
}

fn endpoint(target: &str, tls: Option<&ClientTls>) -> Result<Endpoint, ConnectError> {
    let refuse = |problem: &str| ConnectError::Target {
        target: target.into(),
        problem: problem.into(),
    };
    if let Some(path) = target.strip_prefix("unix://") {
        if !path.starts_with('/') {
            return Err(refuse("the path of a unix socket begins with '/'"));
        }
    } else if !target.starts_with("http://") && !target.starts_with("https://") {
        return Err(refuse("the scheme is missing or unknown"));
    }
    let endpoint = Endpoint::from_shared(target.to_owned()).map_err(|e| refuse(&innermost(&e)))?;
    if !target.starts_with("https://") {
        return Ok(endpoint);
    }
    let Some(tls) = tls else {
        return Err(ConnectError::NoCertificates {
            target: target.into(),
        });
    };
    let mut config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&tls.ca))
        .identity(Identity::from_pem(&tls.cert, &tls.key));
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    endpoint
        .tls_config(config)
        .map_err(|e| ConnectError::Certificates {
            target: target.into(),
            problem: innermost(&e),
        })
}

/// The error at the bottom: the ones above it only say "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The `Cluster` service, with this crate's message limit.
pub fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(MAX_API_MESSAGE)
}

/// The `Ownership` service, with this crate's message limit.
pub fn ownership(channel: Channel) -> OwnershipClient<Channel> {
    OwnershipClient::new(channel).max_decoding_message_size(MAX_API_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_say_what_was_given_and_what_to_do() {
        let short = Duration::from_millis(500);
        for (target, hint) in [
            ("10.0.0.1:7400", "scheme"),
            ("unix://relative", "begins with '/'"),
            ("https://n1:7400", "certificates"),
            ("unix:///nonexistent/buoy.sock", "buoy serve"),
            ("http://127.0.0.1:1", "buoy serve"),
        ] {
            let error = connect(target, None, short).await.unwrap_err().to_string();
            assert!(error.contains(target) && error.contains(hint), "{error}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        let tls = ClientTls {
            ca: vec![],
            cert: vec![],
            key: b"SECRET".to_vec(),
            server_name: None,
        };
        let shown = format!("{tls:?}");
        assert!(
            !shown.contains("SECRET") && !shown.contains("83"),
            "{shown}"
        );
    }
}

//! Who may talk to whom: mutual TLS for gRPC and QUIC from one set of certificates, or none at all.

mod certificate;
mod unverified;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use buoy_core::NodeName;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

pub use certificate::dns_names;

use certificate::Files;

/// Application protocol of the lease connections: anything else on the QUIC port is refused.
pub const LEASE_ALPN: &[u8] = b"buoy-lease/1";

/// Longest time for a TLS handshake: who connects and says nothing must not hold a connection for ever.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {what} {path}: {source}; check the path in [tls] and its permissions")]
    Read {
        /// Which setting.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{what} {path} cannot be used: {problem}")]
    Content {
        /// Which setting.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What was found, what was expected and what to do.
        problem: String,
    },
    /// The node's name is no DNS name, so no certificate can carry it.
    #[error(
        "node name {name:?} cannot stand in a certificate as a DNS name; with [tls] use letters, digits and '-' (as in \"n1\")"
    )]
    NodeName {
        /// The name.
        name: String,
    },
    /// rustls refused the combination.
    #[error("cannot set up TLS: {problem}")]
    Setup {
        /// What it said.
        problem: String,
    },
}

/// Certificates of this node, or the decision to do without.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    /// `None`: insecure.
    pem: Option<Pem>,
    quic_server: quinn::ServerConfig,
    quic_client: quinn::ClientConfig,
    warnings: Vec<String>,
}

struct Pem {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Tls {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_insecure() {
            "Tls(insecure)"
        } else {
            "Tls(mutual)"
        })
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup {
        problem: error.to_string(),
    }
}

impl Tls {
    /// Reads the certificates of node `node` and checks them as its peers will: signed by the CA, in
    /// force now, usable by servers and by clients, carrying the node's name.
    ///
    /// # Errors
    /// What is wrong with which file, and what to do.
    pub fn load(ca: &Path, cert: &Path, key: &Path, node: &NodeName) -> Result<Tls, TlsError> {
        let files = Files::read(ca, cert, key)?;
        let warnings = files.check(node)?;
        let roots = Arc::new(files.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(setup)?;
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(files.chain.clone(), files.key.clone_key())
            .map_err(|e| files.key_error(&e))?;
        let client = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_root_certificates(roots)
            .with_client_auth_cert(files.chain.clone(), files.key.clone_key())
            .map_err(|e| files.key_error(&e))?;
        let pem = Pem {
            ca: files.ca_pem,
            cert: files.cert_pem,
            key: files.key_pem,
        };
        Self::build(Some(pem), server, client, warnings)
    }

    /// No encryption and no proof of identity: gRPC in plain text, QUIC under a certificate that is
    /// made up at each start and checked by nobody. For clusters on a network of their own.
    ///
    /// # Errors
    /// No certificate could be made up.
    pub fn insecure(cluster: &str) -> Result<Tls, TlsError> {
        let made_up =
            rcgen::generate_simple_self_signed(vec!["buoy.invalid".to_owned()]).map_err(setup)?;
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made_up.signing_key.serialize_der());
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_no_client_auth()
            .with_single_cert(vec![made_up.cert.der().clone()], key.into())
            .map_err(setup)?;
        let client = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(unverified::AcceptAny::new(provider())))
            .with_no_client_auth();
        let warning = format!(
            "cluster {cluster:?} runs without TLS: anybody who reaches its port can move VIPs and read everything; set [tls] ca, cert and key, and remove `insecure = true`"
        );
        tracing::warn!("{warning}");
        Self::build(None, server, client, vec![warning])
    }

    fn build(
        pem: Option<Pem>,
        mut server: rustls::ServerConfig,
        mut client: rustls::ClientConfig,
        warnings: Vec<String>,
    ) -> Result<Tls, TlsError> {
        server.alpn_protocols = vec![LEASE_ALPN.to_vec()];
        client.alpn_protocols = vec![LEASE_ALPN.to_vec()];
        let server = QuicServerConfig::try_from(server).map_err(setup)?;
        let client = QuicClientConfig::try_from(client).map_err(setup)?;
        Ok(Tls(Arc::new(Inner {
            pem,
            quic_server: quinn::ServerConfig::with_crypto(Arc::new(server)),
            quic_client: quinn::ClientConfig::new(Arc::new(client)),
            warnings,
        })))
    }

    /// Is everything in plain text?
    pub fn is_insecure(&self) -> bool {
        self.0.pem.is_none()
    }

    /// What an operator should know: no TLS, a certificate that ends soon.
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// For the gRPC server: clients must show a certificate of the same CA. `None`: plain text.
    pub fn server_config(&self) -> Option<ServerTlsConfig> {
        let pem = self.0.pem.as_ref()?;
        let config = ServerTlsConfig::new()
            .identity(Identity::from_pem(&pem.cert, &pem.key))
            .client_ca_root(Certificate::from_pem(&pem.ca))
            .client_auth_optional(false)
            .timeout(HANDSHAKE);
        Some(config)
    }

    /// For gRPC connections to `peer`, whose certificate must carry its name. `None`: plain text.
    pub fn client_config(&self, peer: &str) -> Option<ClientTlsConfig> {
        let pem = self.0.pem.as_ref()?;
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&pem.ca))
            .identity(Identity::from_pem(&pem.cert, &pem.key))
            .domain_name(peer);
        Some(config)
    }

    /// For the lease endpoint; the caller sets the transport parameters.
    pub fn quic_server_config(&self) -> quinn::ServerConfig {
        self.0.quic_server.clone()
    }

    /// For lease connections to peers, by the peer's name; the caller sets the transport parameters.
    pub fn quic_client_config(&self) -> quinn::ClientConfig {
        self.0.quic_client.clone()
    }
}

#[cfg(test)]
#[path = "tls/tests.rs"]
mod tests;

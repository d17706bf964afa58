//! Reads certificates from files and checks them before a peer does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use buoy_core::NodeName;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{TlsError, provider, setup};

/// A certificate that ends sooner than this is warned about.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 3600);
/// Largest certificate or key file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

const CA: &str = "tls.ca";
const CERT: &str = "tls.cert";
const KEY: &str = "tls.key";

/// The three files, read and parsed.
pub(super) struct Files {
    ca_path: PathBuf,
    cert_path: PathBuf,
    key_path: PathBuf,
    pub ca_pem: Vec<u8>,
    pub cert_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
    authorities: Vec<CertificateDer<'static>>,
    /// The node's certificate first, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let fail = |source| TlsError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > MAX_FILE {
        return Err(content(
            what,
            path,
            format!("{size} bytes are too many for a PEM file"),
        ));
    }
    std::fs::read(path).map_err(fail)
}

fn content(what: &'static str, path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Content {
        what,
        path: path.to_owned(),
        problem: problem.into(),
    }
}

fn certificates(
    what: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| content(what, path, format!("it is no valid PEM ({e})")))?;
    if list.is_empty() {
        let problem = "it holds no certificate; expected PEM with \"BEGIN CERTIFICATE\"";
        return Err(content(what, path, problem));
    }
    Ok(list)
}

impl Files {
    pub(super) fn read(ca: &Path, cert: &Path, key: &Path) -> Result<Files, TlsError> {
        let ca_pem = read(CA, ca)?;
        let cert_pem = read(CERT, cert)?;
        let key_pem = read(KEY, key)?;
        let authorities = certificates(CA, ca, &ca_pem)?;
        let chain = certificates(CERT, cert, &cert_pem)?;
        let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| {
            let problem = format!(
                "it holds no private key ({e}); expected PEM with \"BEGIN PRIVATE KEY\", without a pass phrase"
            );
            content(KEY, key, problem)
        })?;
        Ok(Files {
            ca_path: ca.to_owned(),
            cert_path: cert.to_owned(),
            key_path: key.to_owned(),
            ca_pem,
            cert_pem,
            key_pem,
            authorities,
            chain,
            key: private,
        })
    }

    /// The authorities whose signature is trusted.
    pub(super) fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(|e| {
                content(
                    CA,
                    &self.ca_path,
                    format!("a certificate in it is no authority ({e})"),
                )
            })?;
        }
        Ok(roots)
    }

    /// rustls refuses a key that does not belong to the certificate.
    pub(super) fn key_error(&self, error: &rustls::Error) -> TlsError {
        let problem = format!(
            "it does not go with the certificate {} ({error}); give the key that the certificate was made for",
            self.cert_path.display()
        );
        content(KEY, &self.key_path, problem)
    }

    /// Checks the node's certificate as its peers will. Returns what an operator should know.
    pub(super) fn check(&self, node: &NodeName) -> Result<Vec<String>, TlsError> {
        let name = ServerName::try_from(node.as_str().to_owned())
            .ok()
            .filter(|n| matches!(n, ServerName::DnsName(_)))
            .ok_or_else(|| TlsError::NodeName {
                name: node.to_string(),
            })?;
        let roots = Arc::new(self.roots()?);
        let (own, intermediates) = (&self.chain[0], &self.chain[1..]);
        let now = UnixTime::now();
        let as_server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(setup)?;
        as_server
            .verify_server_cert(own, intermediates, &name, &[], now)
            .map_err(|e| self.refused(node, &e, "a server"))?;
        let as_client = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(setup)?;
        as_client
            .verify_client_cert(own, intermediates, now)
            .map_err(|e| self.refused(node, &e, "a client"))?;
        Ok(self.expiry_warning(now).into_iter().collect())
    }

    fn refused(&self, node: &NodeName, error: &rustls::Error, role: &str) -> TlsError {
        use CertificateError as C;
        let problem = match error {
            rustls::Error::InvalidCertificate(c) => match c {
                C::NotValidForName | C::NotValidForNameContext { .. } => {
                    let found = dns_names(&self.chain[0])
                        .filter(|names| !names.is_empty())
                        .map_or("none".to_owned(), |names| names.join(", "));
                    format!(
                        "it does not carry the node's name as DNS subject alternative name (expected {:?}, found {found}); issue one for this node",
                        node.as_str()
                    )
                }
                C::Expired | C::ExpiredContext { .. } => {
                    "it has expired; issue a new one (and check this machine's clock)".to_owned()
                }
                C::NotValidYet | C::NotValidYetContext { .. } => {
                    "it is not valid yet; check this machine's clock".to_owned()
                }
                C::UnknownIssuer | C::BadSignature => format!(
                    "it was not signed by {}; all nodes need certificates of the same authority",
                    self.ca_path.display()
                ),
                other => format!("it is not accepted as {role}'s certificate ({other})"),
            },
            other => format!("it is not accepted as {role}'s certificate ({other})"),
        };
        content(CERT, &self.cert_path, problem)
    }

    fn expiry_warning(&self, now: UnixTime) -> Option<String> {
        let (_, cert) = X509Certificate::from_der(&self.chain[0]).ok()?;
        let end = u64::try_from(cert.validity().not_after.timestamp()).ok()?;
        let left = Duration::from_secs(end.saturating_sub(now.as_secs()));
        (left < EXPIRY_WARNING).then(|| {
            format!(
                "the certificate {} ends in {} days ({}); issue a new one before that, or the node will be cut off",
                self.cert_path.display(),
                left.as_secs() / 86_400,
                cert.validity().not_after
            )
        })
    }
}

/// DNS subject alternative names of a certificate; `None` if it cannot be read.
pub fn dns_names(certificate: &[u8]) -> Option<Vec<String>> {
    let (_, cert) = X509Certificate::from_der(certificate).ok()?;
    let Some(extension) = cert.subject_alternative_name().ok()? else {
        return Some(Vec::new());
    };
    let names = extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some((*dns).to_owned()),
            _ => None,
        });
    Some(names.collect())
}

//! `buoy tls ...`: certificates for mutual TLS in two commands.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use buoy_core::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::args::TlsCommand;
use crate::error::{Failure, Verdict};
use crate::output::Output;

const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
/// Certificates begin a little in the past: machines' clocks differ.
const BACKDATED: Duration = Duration::hours(1);
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Runs a subcommand.
pub fn run(command: TlsCommand, out: &mut Output) -> Result<Verdict, Failure> {
    match command {
        TlsCommand::Init {
            out: dir,
            cluster,
            days,
        } => {
            init(&dir, &cluster, days)?;
            let (cert, key) = (dir.join(CA_CERT), dir.join(CA_KEY));
            out.either(
                || json!({ "cert": cert, "key": key }),
                || {
                    format!(
                        "wrote {} and {}\nKeep the key here; each node needs the certificate, and one of its own:\n  buoy tls issue n1 --dir {}",
                        cert.display(),
                        key.display(),
                        dir.display()
                    )
                },
            )?;
        }
        TlsCommand::Issue {
            name,
            dir,
            address,
            days,
            force,
        } => {
            issue(&dir, &name, &address, days, force)?;
            let (cert, key) = (
                dir.join(format!("{name}.crt")),
                dir.join(format!("{name}.key")),
            );
            out.either(
                || json!({ "cert": cert, "key": key, "ca": dir.join(CA_CERT) }),
                || {
                    format!(
                        "wrote {} and {}; bring both, and {}, to {name}",
                        cert.display(),
                        key.display(),
                        dir.join(CA_CERT).display()
                    )
                },
            )?;
        }
    }
    Ok(Verdict::Fine)
}

fn refused(what: &str) -> impl Fn(rcgen::Error) -> Failure {
    let what = what.to_owned();
    move |e| Failure::Refused(format!("{what}: {e}"))
}

fn params(names: Vec<String>, common_name: &str, days: u32) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(names).map_err(|e| {
        Failure::Usage(format!(
            "{common_name:?} cannot stand in a certificate: {e}"
        ))
    })?;
    params.distinguished_name.remove(DnType::CommonName);
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(i64::from(days));
    Ok(params)
}

fn init(dir: &Path, cluster: &str, days: u32) -> Result<(), Failure> {
    let name: NodeName = cluster.parse().map_err(|e: buoy_core::ids::NameError| {
        Failure::Usage(e.to_string().replacen("node name", "cluster name", 1))
    })?;
    std::fs::create_dir_all(dir)
        .map_err(|e| Failure::Refused(format!("cannot make {}: {e}", dir.display())))?;
    let mut params = params(Vec::new(), &format!("Buoy cluster {name}"), days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(refused("cannot make a key"))?;
    let cert = params
        .self_signed(&key)
        .map_err(refused("cannot make the certificate"))?;
    for name in [CA_CERT, CA_KEY] {
        if dir.join(name).exists() {
            return Err(Failure::Refused(format!(
                "{} exists: a new authority would not go with certificates that were issued already; give another directory",
                dir.join(name).display()
            )));
        }
    }
    write(&dir.join(CA_KEY), &key.serialize_pem(), PRIVATE, false)?;
    write(&dir.join(CA_CERT), &cert.pem(), PUBLIC, false)
}

fn issue(
    dir: &Path,
    name: &str,
    addresses: &[IpAddr],
    days: u32,
    force: bool,
) -> Result<(), Failure> {
    name.parse::<NodeName>()
        .map_err(|e| Failure::Usage(e.to_string()))?;
    if name.contains('_') || name.ends_with(['.', '-']) {
        return Err(Failure::Usage(format!(
            "{name:?} cannot stand in a certificate as a DNS name: use letters, digits, '-' and '.', as in \"n1\""
        )));
    }
    if name == "ca" {
        return Err(Failure::Usage(
            "\"ca\" is the name of the authority's own files".to_owned(),
        ));
    }
    let ca_cert = read(&dir.join(CA_CERT))?;
    let ca_key = KeyPair::from_pem(&read(&dir.join(CA_KEY))?).map_err(refused(&format!(
        "{} holds no key",
        dir.join(CA_KEY).display()
    )))?;
    let issuer = Issuer::from_ca_cert_pem(&ca_cert, ca_key).map_err(refused(&format!(
        "{} is no authority",
        dir.join(CA_CERT).display()
    )))?;
    let mut params = params(vec![name.to_owned()], name, days)?;
    params
        .subject_alt_names
        .extend(addresses.iter().copied().map(SanType::IpAddress));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().map_err(refused("cannot make a key"))?;
    let cert = params
        .signed_by(&key, &issuer)
        .map_err(refused("cannot sign the certificate"))?;
    let (cert_file, key_file) = (
        dir.join(format!("{name}.crt")),
        dir.join(format!("{name}.key")),
    );
    if !force && cert_file.exists() {
        return Err(exists(&cert_file));
    }
    write(&key_file, &key.serialize_pem(), PRIVATE, force)?;
    write(&cert_file, &cert.pem(), PUBLIC, force)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| {
        Failure::Refused(format!(
            "cannot read {}: {e}; `buoy tls init --out DIR --cluster NAME` makes the authority first",
            path.display()
        ))
    })
}

fn exists(path: &Path) -> Failure {
    Failure::Refused(format!("{} exists; --force replaces it", path.display()))
}

/// Writes a file that has its permissions from its first moment. Replacing goes through a new file, so
/// that permissions of the old one do not stay.
fn write(path: &Path, content: &str, mode: u32, replace: bool) -> Result<(), Failure> {
    let fail =
        |e: std::io::Error| Failure::Refused(format!("cannot write {}: {e}", path.display()));
    if replace
        && let Err(e) = std::fs::remove_file(path)
        && e.kind() != ErrorKind::NotFound
    {
        return Err(fail(e));
    }
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(exists(path)),
        Err(e) => return Err(fail(e)),
    };
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(fail)
}

#[cfg(test)]
mod tests;

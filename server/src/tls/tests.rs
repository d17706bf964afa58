use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate for `names`, signed by `authority`, in force from `days.0` to `days.1` from now.
fn issue(dir: &Path, file: &str, authority: &Authority, names: &[&str], days: (i64, i64)) {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now + time::Duration::days(days.0);
    params.not_after = now + time::Duration::days(days.1);
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, authority).unwrap();
    std::fs::write(dir.join(format!("{file}.pem")), cert.pem()).unwrap();
    std::fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
}

fn load(dir: &Path, ca: &str, cert: &str, key: &str, node: &str) -> Result<Tls, TlsError> {
    Tls::load(
        &dir.join(ca),
        &dir.join(format!("{cert}.pem")),
        &dir.join(format!("{key}.key")),
        &node.parse().unwrap(),
    )
}

fn fixture() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority();
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    issue(dir.path(), "n1", &ca, &["n1"], (-1, 365));
    issue(dir.path(), "n2", &ca, &["n2", "n2.example"], (-1, 365));
    (dir, ca)
}

#[test]
fn good_certificates_load_without_warnings() {
    let (dir, ca) = fixture();
    let tls = load(dir.path(), "ca.pem", "n1", "n1", "n1").unwrap();
    assert!(!tls.is_insecure() && tls.warnings().is_empty());
    assert!(tls.server_config().is_some() && tls.client_config("n2").is_some());
    issue(dir.path(), "soon", &ca, &["n1"], (-1, 3));
    let tls = load(dir.path(), "ca.pem", "soon", "soon", "n1").unwrap();
    assert!(
        tls.warnings()[0].contains("ends in"),
        "{:?}",
        tls.warnings()
    );
    let shown = format!("{tls:?}");
    assert_eq!(shown, "Tls(mutual)");
}

#[test]
fn bad_certificates_are_refused_with_the_reason() {
    let (dir, ca) = fixture();
    let dir = dir.path();
    std::fs::write(dir.join("other-ca.pem"), authority().pem()).unwrap();
    std::fs::write(dir.join("text.pem"), "hello").unwrap();
    issue(dir, "old", &ca, &["n1"], (-9, -1));
    issue(dir, "early", &ca, &["n1"], (1, 9));
    for (ca, cert, key, node, file, hint) in [
        (
            "missing.pem",
            "n1",
            "n1",
            "n1",
            "missing.pem",
            "cannot read tls.ca",
        ),
        (
            "text.pem",
            "n1",
            "n1",
            "n1",
            "text.pem",
            "BEGIN CERTIFICATE",
        ),
        ("other-ca.pem", "n1", "n1", "n1", "n1.pem", "not signed by"),
        ("ca.pem", "n1", "n2", "n1", "n2.key", "does not go with"),
        (
            "ca.pem",
            "n2",
            "n2",
            "n1",
            "n2.pem",
            "expected \"n1\", found n2, n2.example",
        ),
        ("ca.pem", "old", "old", "n1", "old.pem", "expired"),
        ("ca.pem", "early", "early", "n1", "early.pem", "clock"),
        ("ca.pem", "n1", "n1", "a..b", "", "a..b"),
    ] {
        let error = load(dir, ca, cert, key, node).unwrap_err().to_string();
        assert!(error.contains(hint) && error.contains(file), "{error}");
    }
}

#[test]
fn names_are_read_from_certificates() {
    let made = rcgen::generate_simple_self_signed(vec!["a".into(), "b.c".into()]).unwrap();
    assert_eq!(dns_names(made.cert.der()).unwrap(), ["a", "b.c"]);
    assert_eq!(dns_names(b"no certificate"), None);
}

async fn handshake(server: &Tls, client: &Tls, name: &str) -> Result<(), String> {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let serving = quinn::Endpoint::server(server.quic_server_config(), here).unwrap();
    let address = serving.local_addr().unwrap();
    let dialing = quinn::Endpoint::client(here).unwrap();
    let accept = async {
        let incoming = serving.accept().await.ok_or("endpoint closed")?;
        let connection = incoming.await.map_err(|e| e.to_string())?;
        connection
            .send_datagram(b"hello"[..].to_owned().into())
            .map_err(|e| e.to_string())?;
        connection.closed().await;
        Ok::<(), String>(())
    };
    let dial = async {
        let connecting = dialing
            .connect_with(client.quic_client_config(), address, name)
            .map_err(|e| e.to_string())?;
        let connection = connecting.await.map_err(|e| e.to_string())?;
        let word = connection
            .read_datagram()
            .await
            .map_err(|e| e.to_string())?;
        assert_eq!(&word[..], b"hello");
        connection.close(0u32.into(), b"");
        Ok::<(), String>(())
    };
    let both = async { tokio::try_join!(accept, dial).map(|_| ()) };
    tokio::time::timeout(Duration::from_secs(5), both)
        .await
        .map_err(|e| e.to_string())?
}

#[tokio::test]
async fn quic_accepts_members_and_nobody_else() {
    let (dir, ca) = fixture();
    let n1 = load(dir.path(), "ca.pem", "n1", "n1", "n1").unwrap();
    let n2 = load(dir.path(), "ca.pem", "n2", "n2", "n2").unwrap();
    handshake(&n1, &n2, "n1").await.unwrap();
    let error = handshake(&n1, &n2, "n2").await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");

    let plain = Tls::insecure("test").unwrap();
    assert!(plain.is_insecure() && plain.warnings()[0].contains("without TLS"));
    assert!(plain.server_config().is_none() && plain.client_config("n1").is_none());
    handshake(&plain, &Tls::insecure("test").unwrap(), "n1")
        .await
        .unwrap();
    handshake(&n1, &plain, "n1")
        .await
        .expect_err("a client without certificate");
    drop(ca);
}

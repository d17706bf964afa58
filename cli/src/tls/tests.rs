//! What `buoy tls` makes is what the daemon accepts.

use std::os::unix::fs::PermissionsExt;

use buoy_server::tls::Tls;

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn two_commands_make_certificates_that_the_daemon_takes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("tls");
    init(&dir, "prod", 10).unwrap();
    issue(&dir, "n1", &["10.0.0.1".parse().unwrap()], 400, false).unwrap();
    assert_eq!(
        (mode(&dir.join("ca.key")), mode(&dir.join("n1.key"))),
        (0o600, 0o600)
    );
    let load = |name: &str| {
        let (cert, key) = (
            dir.join(format!("{name}.crt")),
            dir.join(format!("{name}.key")),
        );
        Tls::load(&dir.join("ca.crt"), &cert, &key, &"n1".parse().unwrap())
    };
    let tls = load("n1").unwrap();
    assert!(
        !tls.is_insecure() && tls.warnings().is_empty(),
        "{:?}",
        tls.warnings()
    );
    issue(&dir, "n2", &[], 400, false).unwrap();
    let other = load("n2").unwrap_err().to_string();
    assert!(other.contains("n1") && other.contains("n2"), "{other}");
}

#[test]
fn nothing_is_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), "prod", 10).unwrap();
    let again = init(dir.path(), "prod", 10).unwrap_err();
    assert!(
        again.code() == 1 && again.message().contains("exists"),
        "{again:?}"
    );
    issue(dir.path(), "n1", &[], 10, false).unwrap();
    let again = issue(dir.path(), "n1", &[], 10, false).unwrap_err();
    assert!(again.message().contains("--force"), "{again:?}");
    let before = std::fs::read(dir.path().join("n1.key")).unwrap();
    issue(dir.path(), "n1", &[], 10, true).unwrap();
    assert_ne!(before, std::fs::read(dir.path().join("n1.key")).unwrap());
    assert_eq!(mode(&dir.path().join("n1.key")), 0o600);
}

#[test]
fn wrong_names_and_missing_authorities_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let none = issue(dir.path(), "n1", &[], 10, false).unwrap_err();
    assert!(
        none.code() == 1 && none.message().contains("buoy tls init"),
        "{none:?}"
    );
    for name in ["a_b", "../x", "ca", "n1.", ""] {
        assert_eq!(
            issue(dir.path(), name, &[], 10, false).unwrap_err().code(),
            2,
            "{name}"
        );
    }
    assert_eq!(init(dir.path(), "a b", 10).unwrap_err().code(), 2);
}

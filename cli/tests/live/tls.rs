//! A daemon of its own certificates, asked over mutual TLS.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::{Namespace, PATIENCE, code, possible, program, text, unique};

/// A daemon in a namespace of its own, ended with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn inside(netns: &Namespace, args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &netns.0, &program()])
        .args(args);
    for variable in [
        "BUOY_SOCKET",
        "BUOY_SERVER",
        "BUOY_CA",
        "BUOY_CERT",
        "BUOY_KEY",
    ] {
        command.env_remove(variable);
    }
    command
}

fn certificates(dir: &Path) {
    let dir = dir.to_str().unwrap();
    for args in [
        &["tls", "init", "--out", dir, "--cluster", "t"][..],
        &["tls", "issue", "n1", "--dir", dir, "--address", "127.0.0.1"],
        &["tls", "issue", "admin", "--dir", dir],
    ] {
        let output = Command::new(program()).args(args).output().unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output));
    }
}

#[test]
fn mutual_tls_with_certificates_of_buoy_tls() {
    if !possible() {
        return;
    }
    let netns = Namespace(unique());
    let added = Command::new("ip")
        .args(["netns", "add", &netns.0])
        .status()
        .unwrap();
    assert!(added.success());
    let up = Command::new("ip")
        .args(["-n", &netns.0, "link", "set", "lo", "up"])
        .status()
        .unwrap();
    assert!(up.success());
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let config = dir.path().join("buoy.toml");
    std::fs::write(
        &config,
        "[cluster]\nname = \"t\"\nnode = [{ id = 1, name = \"n1\", address = \"127.0.0.1\" }]\n[node]\nname = \"n1\"\ndata_dir = \"data\"\nsocket = \"buoy.sock\"\nfence = \"userspace-only\"\n[timing]\nprofile = \"wan\"\n[tls]\nca = \"ca.crt\"\ncert = \"n1.crt\"\nkey = \"n1.key\"\n",
    )
    .unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let serve = inside(&netns, &["serve", "--config", config.to_str().unwrap()])
        .stderr(log)
        .spawn()
        .unwrap();
    let mut daemon = Daemon(serve);
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (file("ca.crt"), file("admin.crt"), file("admin.key"));
    let secure = [
        "--server",
        "https://127.0.0.1:7400",
        "--ca",
        &ca,
        "--cert",
        &cert,
        "--key",
        &key,
        "status",
    ];
    let began = Instant::now();
    loop {
        let output = inside(&netns, &secure).output().unwrap();
        if code(&output) == 0 {
            assert!(!text(&output).contains("encrypted"), "{}", text(&output));
            break;
        }
        let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        assert!(
            daemon.0.try_wait().unwrap().is_none(),
            "the daemon ended: {}",
            log()
        );
        assert!(began.elapsed() < PATIENCE, "{}\n{}", text(&output), log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let plain = inside(&netns, &["--server", "http://127.0.0.1:7400", "status"])
        .output()
        .unwrap();
    assert!(
        code(&plain) == 3 && text(&plain).contains("--ca"),
        "{}",
        text(&plain)
    );
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let stranger = |name: &str| other.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (stranger("admin.crt"), stranger("admin.key"));
    let strange = [
        "--server",
        "https://127.0.0.1:7400",
        "--ca",
        &ca,
        "--cert",
        &cert,
        "--key",
        &key,
        "status",
    ];
    let refused = inside(&netns, &strange).output().unwrap();
    assert_eq!(code(&refused), 3, "{}", text(&refused));
}

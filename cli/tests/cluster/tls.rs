//! A cluster with mutual TLS, with certificates from `buoy tls`.

use std::path::Path;
use std::process::Command;

use crate::harness::{Cluster, Ran, WEB_A, program};

fn issue(directory: &Path, line: &[&str]) {
    let output = Command::new(program())
        .arg("tls")
        .args(line)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line:?}: {output:?}");
}

/// A cluster whose nodes have certificates of `ca` in the directory; settled.
fn formed(own: &Path) -> Option<Cluster> {
    let cluster = Cluster::unstarted()?;
    let name = cluster.lab.topology().name.clone();
    issue(own, &["init", "--out", "ca", "--cluster", &name]);
    for (node, ip) in [
        ("n1", "192.168.192.101"),
        ("n2", "192.168.192.102"),
        ("n3", "192.168.192.103"),
    ] {
        issue(own, &["issue", node, "--dir", "ca", "--address", ip]);
        let file = |suffix: &str| own.join("ca").join(format!("{node}.{suffix}"));
        let tls = format!(
            "\n[tls]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n",
            own.join("ca/ca.crt").display(),
            file("crt").display(),
            file("key").display()
        );
        let config = cluster.config(node).replace("insecure = true\n", "") + &tls;
        cluster.start_with(node, &config);
    }
    cluster.settled(&["n1", "n2", "n3"]);
    Some(cluster)
}

#[test]
fn a_certificate_that_was_renewed_is_named_and_used_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path();
    let Some(cluster) = formed(own) else {
        return;
    };
    let [cert, key] = ["crt", "key"].map(|suffix| own.join("ca").join(format!("n1.{suffix}")));
    let hang_up = || {
        let from = cluster.log("n1").len();
        cluster.process("n1").signal(libc::SIGHUP).unwrap();
        from
    };
    let running = std::fs::read(&cert).unwrap();
    for file in [&cert, &key] {
        std::fs::remove_file(file).unwrap();
    }
    let from = hang_up();
    let named = |what: &str| format!("SIGHUP: not taken over, needs a restart: {what}");
    let gone = |key: &str, file: &Path| named(&format!("{key} ({} cannot be read", file.display()));
    cluster.wait_log("n1", from, &gone("tls.cert", &cert));
    cluster.wait_log("n1", from, &gone("tls.key", &key));

    issue(
        own,
        &["issue", "n1", "--dir", "ca", "--address", "192.168.192.101"],
    );
    assert_ne!(std::fs::read(&cert).unwrap(), running);
    let from = hang_up();
    let renewed =
        |key: &str, file: &Path| named(&format!("{key} ({} has new content", file.display()));
    cluster.wait_log("n1", from, &renewed("tls.cert", &cert));
    cluster.wait_log("n1", from, &renewed("tls.key", &key));
    cluster.settled(&["n1", "n2", "n3"]);

    cluster.lab.stop_daemon("n1").unwrap();
    let config = std::fs::read_to_string(cluster.config_path("n1")).unwrap();
    cluster.start_with("n1", &config);
    cluster.settled(&["n1", "n2", "n3"]);
    let from = hang_up();
    cluster.wait_log("n1", from, "SIGHUP: the configuration is as before");
    cluster.never_dual();
}

#[test]
fn nodes_and_clients_prove_who_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path();
    let Some(cluster) = formed(own) else {
        return;
    };
    let name = cluster.lab.topology().name.clone();
    issue(own, &["init", "--out", "stranger", "--cluster", &name]);
    issue(own, &["issue", "admin", "--dir", "ca"]);
    issue(own, &["issue", "admin", "--dir", "stranger"]);
    let status = cluster.json("n1", &["status"]);
    assert!(
        !status["problems"].to_string().contains("insecure"),
        "{status}"
    );
    cluster.move_to(WEB_A, "n2");

    let client = |server: &str, authority: Option<&str>| {
        let mut command = cluster.command("client", program());
        command.args(["--server", server, "--timeout", "5s"]);
        if let Some(authority) = authority {
            command.arg("--ca").arg(own.join("ca/ca.crt"));
            for (option, file) in [("--cert", "admin.crt"), ("--key", "admin.key")] {
                command.arg(option).arg(own.join(authority).join(file));
            }
        }
        Ran::of(command.arg("status").output().unwrap())
    };
    let known = client("https://192.168.192.101:7400", Some("ca"));
    assert_eq!(known.code, 0, "{known:?}");
    let bare = client("https://192.168.192.101:7400", None);
    assert_eq!(bare.code, 2, "{bare:?}");
    assert!(bare.err.contains("certificate"), "{bare:?}");
    let plain = client("http://192.168.192.101:7400", None);
    assert_eq!(plain.code, 3, "{plain:?}");
    assert!(plain.err.contains("https://"), "{plain:?}");
    let stranger = client("https://192.168.192.101:7400", Some("stranger"));
    assert_eq!(stranger.code, 3, "{stranger:?}");
    assert!(
        stranger.err.to_lowercase().contains("certificate") || stranger.err.contains("authority"),
        "{stranger:?}"
    );
    cluster.never_dual();
}

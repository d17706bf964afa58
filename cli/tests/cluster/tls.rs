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

#[test]
fn nodes_and_clients_prove_who_they_are() {
    let Some(cluster) = Cluster::unstarted() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path();
    let name = cluster.lab.topology().name.clone();
    issue(own, &["init", "--out", "ca", "--cluster", &name]);
    issue(own, &["init", "--out", "stranger", "--cluster", &name]);
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
    issue(own, &["issue", "admin", "--dir", "ca"]);
    issue(own, &["issue", "admin", "--dir", "stranger"]);
    cluster.settled(&["n1", "n2", "n3"]);
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

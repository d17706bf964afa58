//! The binary as scripts see it: exit codes, what goes to which stream, and JSON that parses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

fn buoy(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("buoy").unwrap();
    for variable in [
        "BUOY_SOCKET",
        "BUOY_SERVER",
        "BUOY_CA",
        "BUOY_CERT",
        "BUOY_KEY",
    ] {
        command.env_remove(variable);
    }
    command.args(args);
    command
}

fn run(args: &[&str]) -> Output {
    buoy(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

const GOOD: &str = r#"[cluster]
name = "prod"
insecure = true
node = [
  { id = 1, name = "n1", address = "10.0.0.1" },
  { id = 2, name = "n2", address = "10.0.0.2" },
  { id = 3, name = "n3", address = "10.0.0.3" },
]
[node]
name = "n1"
[[vip]]
name = "web"
addresses = ["10.0.0.9/24"]
interface = "nosuch0"
"#;

#[test]
fn wrong_usage_exits_with_2() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = empty.path().to_str().unwrap();
    for (args, words) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&[], "Usage"),
        (&["vip", "move", "web"], "--to"),
        (
            &["vip", "move", "web", "--to", "n1", "--auto"],
            "cannot be used with",
        ),
        (&["vip", "put", "web"], "--address"),
        (&["vip", "put"], "--file"),
        (
            &[
                "vip",
                "put",
                "web",
                "--address",
                "10.0.0.300",
                "--interface",
                "eth0",
            ],
            "no address",
        ),
        (
            &[
                "vip",
                "put",
                "web",
                "--address",
                "10.0.0.3",
                "--interface",
                "eth0",
                "--priority",
                "n1",
            ],
            "NODE=N",
        ),
        (
            &[
                "vip",
                "put",
                "web",
                "--address",
                "224.0.0.3",
                "--interface",
                "eth0",
            ],
            "multicast",
        ),
        (&["vip", "put", "-f", "/nonexistent.toml"], "cannot read"),
        (&["vip", "put", "-f", empty], "no VIP in this file"),
        (&["status", "--timeout", "5"], "no unit"),
        (&["status", "--server", "n1:7400"], "http://HOST:PORT"),
        (&["status", "--server", "https://n1:7400"], "certificate"),
        (
            &[
                "status",
                "--server",
                "https://n1:7400",
                "--ca",
                "/nonexistent",
            ],
            "cannot read",
        ),
        (&["serve", "--config", "/nonexistent.toml"], "cannot read"),
        (&["check-config", "/nonexistent.toml"], "cannot read"),
        (&["check-config", "/", "--json"], "cannot read"),
        (
            &["serve", "--config", "x", "--socket", "/s"],
            "--socket is for commands",
        ),
        (
            &["status", "--socket", "/s", "--server", "http://127.0.0.1:1"],
            "cannot be used together",
        ),
    ] {
        let output = run(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(words),
            "{args:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn an_unreachable_cluster_exits_with_3_and_says_what_to_try() {
    for (args, words) in [
        (
            &["status", "--socket", "/nonexistent/buoy.sock"][..],
            ["/nonexistent/buoy.sock", "systemctl start buoy"],
        ),
        (
            &[
                "vip",
                "list",
                "--json",
                "--socket",
                "/nonexistent/buoy.sock",
            ],
            ["/nonexistent", "--server"],
        ),
        (
            &["node", "drain", "n1", "--server", "http://127.0.0.1:1"],
            ["http://127.0.0.1:1", "another node"],
        ),
    ] {
        let output = run(args);
        assert_eq!(code(&output), 3, "{args:?}: {}", stderr(&output));
        for word in words {
            assert!(
                stderr(&output).contains(word),
                "{args:?}: {}",
                stderr(&output)
            );
        }
        assert_eq!(stdout(&output), "", "{args:?}");
    }
    let output = buoy(&["status"])
        .env("BUOY_SOCKET", "/nonexistent/env.sock")
        .output()
        .unwrap();
    assert!(
        code(&output) == 3 && stderr(&output).contains("env.sock"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_was_typed_wins_over_the_environment() {
    for (variable, value, args) in [
        (
            "BUOY_SERVER",
            "http://127.0.0.1:1",
            ["--socket", "/nonexistent/typed"],
        ),
        (
            "BUOY_SOCKET",
            "/nonexistent/env.sock",
            ["--server", "http://127.0.0.1:2"],
        ),
    ] {
        let output = buoy(&["status"])
            .args(args)
            .env(variable, value)
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(code(&output), 3, "{said}");
        assert!(said.contains(args[1]) && !said.contains(value), "{said}");
    }
}

/// A server that accepts and never answers.
#[test]
fn a_silent_server_is_given_up_after_the_timeout() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let output = run(&["status", "--server", &url, "--timeout", "200ms"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("200ms"), "{}", stderr(&output));
}

#[test]
fn a_good_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "good.toml", GOOD);
    let path = path.to_str().unwrap();
    let output = run(&["check-config", path, "--no-host"]);
    assert_eq!(code(&output), 0);
    assert_eq!(
        stdout(&output),
        format!("{path}: good (cluster prod, node n1, 3 nodes, 1 VIPs, timing profile lan)\n")
    );
    let output = run(&["check-config", path]);
    assert_eq!(
        code(&output),
        0,
        "an interface that is not there is a warning"
    );
    assert!(
        stdout(&output).contains("no interface nosuch0"),
        "{}",
        stdout(&output)
    );
    let output = run(&["--json", "check-config", path]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            json["good"].as_bool(),
            json["warnings"].as_array().map(Vec::len)
        ),
        (Some(true), Some(1))
    );
}

#[test]
fn a_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let text = GOOD.replace(
        "[node]",
        "[timing]\nlease = \"100ms\"\n[node]\nlisten = 7\nsockt = \"/s\"",
    );
    write(dir.path(), "bad.toml", &text);
    let output = buoy(&["check-config", "bad.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (1, ""));
    assert_eq!(
        stdout(&output),
        "  × at least 3 renewals must fit into one lease (0 < renew * 3 <= lease)
    ╭─[bad.toml:10:9]
 10 │ lease = \"100ms\"
    ·         ───┬───
    ·            ╰── renew is 75ms and lease is 100ms
    ╰────
  help: set renew to 25ms, a quarter of the lease

  × takeover must be decided before the old lease ends (suspect_after < lease)
    ╭─[bad.toml:10:9]
 10 │ lease = \"100ms\"
    ·         ───┬───
    ·            ╰── suspect_after is 200ms and lease is 100ms
    ╰────
  help: set suspect_after to 66.666666ms, two thirds of the lease

  × `node.listen` must be an address, IP:PORT or IP
    ╭─[bad.toml:12:10]
 12 │ listen = 7
    ·          ┬
    ·          ╰── this is a whole number
    ╰────
  help: write it as in `listen = \"0.0.0.0:7400\"`

  × unknown key `sockt` in [node]
    ╭─[bad.toml:13:1]
 13 │ sockt = \"/s\"
    · ──┬──
    ·   ╰── not a key of this table
    ╰────
  help: did you mean `socket`?

bad.toml: 4 problems
  warning: this machine has no interface nosuch0: VIP web cannot be up here until there is one
"
    );
    let output = buoy(&["check-config", "bad.toml", "--json"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (json["good"].as_bool(), json["count"].as_u64()),
        (Some(false), Some(4))
    );
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (
            json["problems"][3]["line"].as_u64(),
            json["problems"][3]["column"].as_u64()
        ),
        (Some(13), Some(1))
    );
    for (index, expected, found) in [
        (
            2,
            Some("an address, IP:PORT or IP"),
            Some("this is a whole number"),
        ),
        (
            3,
            Some("one of `name`, `data_dir`, `socket`, `listen`, `fence`, `watchdog`"),
            Some("not a key of this table"),
        ),
    ] {
        let problem = &json["problems"][index];
        assert_eq!(
            (problem["expected"].as_str(), problem["found"].as_str()),
            (expected, found),
            "{problem}"
        );
    }
    let output = buoy(&["serve", "--config", "bad.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 2, "the daemon refuses it as well");
    assert!(
        stderr(&output).contains("bad.toml:13:1"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn certificates_in_two_commands() {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    let tls = tls.to_str().unwrap();
    let output = run(&["tls", "init", "--out", tls, "--cluster", "prod"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let output = run(&[
        "tls",
        "issue",
        "n1",
        "--dir",
        tls,
        "--address",
        "10.0.0.1",
        "--json",
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    for file in ["ca", "cert", "key"] {
        assert!(Path::new(json[file].as_str().unwrap()).exists(), "{json}");
    }
    let again = run(&["tls", "issue", "n1", "--dir", tls]);
    assert!(
        code(&again) == 1 && stderr(&again).contains("--force"),
        "{}",
        stderr(&again)
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = buoy(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The script is larger than what a pipe holds, so the write meets the closed end.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
}

#[test]
fn help_names_the_exit_codes_and_hides_the_inner_parts_of_the_lab() {
    let output = run(&["--help"]);
    assert_eq!(code(&output), 0);
    assert!(
        stdout(&output).contains("Exit codes: 0 fine"),
        "{}",
        stdout(&output)
    );
    let output = run(&["lab", "link", "--help"]);
    assert!(!stdout(&output).contains("--server"), "{}", stdout(&output));
    let output = run(&["lab", "--help"]);
    assert!(!stdout(&output).contains("switch"), "{}", stdout(&output));
}

#[test]
fn the_doctor_names_what_it_looked_at_and_what_to_do() {
    let output = run(&["--json", "doctor"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let looked_at = "capabilities gate clock memory realtime firewall";
    for about in looked_at.split(' ') {
        let named = findings.iter().any(|f| f["about"] == about);
        assert!(named, "{about}: {found}");
    }
    // Whether this machine is well is its own business; the exit code says the same as the words.
    let problem = findings.iter().any(|f| f["level"] == "problem");
    assert_eq!(output.status.code(), Some(i32::from(problem)));
    assert_eq!(found["well"], !problem);
}

#[test]
fn the_doctor_refuses_a_configuration_that_it_cannot_read() {
    let output = run(&["doctor", "--config", "/nowhere/buoy.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/nowhere/buoy.toml"));
}

//! The example is good, and everything that can be wrong is refused at its place, all of it at once.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::schema::{Kind, Missing, SECTIONS};
use super::*;

mod host;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(Path::new("/etc/buoy/buoy.toml"), text.as_bytes())
}

fn messages(text: &str) -> String {
    let errors = parse(text).unwrap_err();
    let list: Vec<&str> = errors
        .problems()
        .iter()
        .map(|p| p.message.as_str())
        .collect();
    list.join("\n")
}

/// Compares with a file of this repository; BUOY_UPDATE_DOCS=1 writes it instead.
fn compare(path: &Path, now: &str) {
    if std::env::var_os("BUOY_UPDATE_DOCS").is_some() {
        std::fs::write(path, now).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == now,
        "{} is not what the code says; if the code is right, run BUOY_UPDATE_DOCS=1 cargo test -p buoy-server config. Now:\n{now}",
        path.display()
    );
}

#[test]
fn the_example_is_good() {
    let config = parse(EXAMPLE).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((config.cluster.as_str(), config.insecure), ("prod", false));
    assert_eq!((config.me.id.0, config.me.name.as_str()), (1, "n1"));
    assert_eq!(config.nodes.len(), 3);
    assert_eq!(config.nodes[2].role, Role::Witness);
    assert_eq!(config.listen, config.me.address);
    assert_eq!(config.data_dir, Path::new(DEFAULT_DATA_DIR));
    assert_eq!(config.socket, Path::new(buoy_proto::DEFAULT_SOCKET));
    assert_eq!(config.timing, Timing::default());
    assert_eq!(config.log_level, tracing::Level::INFO);
    assert_eq!(
        config.vips[0].placement.priority[&"n1".parse().unwrap()],
        150
    );
    assert_eq!(config.vips[0].placement.preempt_delay.as_secs(), 5);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn every_value_arrives() {
    let text = r#"
[cluster]
name = "c"
insecure = true
node = [{ id = 9, name = "a", address = "[2001:db8::1]:7" }, { id = 8, name = "b", address = "10.0.0.2" }]
[node]
name = "b"
data_dir = "data"
socket = "/tmp/s"
listen = "0.0.0.0:1"
fence = "userspace-only"
watchdog = "/dev/watchdog1"
[timing]
profile = "wan"
renew = "400ms"
retry = "90ms"
lease = "1.9s"
suspect_after = "1.2s"
raft_heartbeat = "140ms"
election_min = "0.4s"
election_max = "1s"
max_drift_ppm = 20_000
guard = "30ms"
[[vip]]
name = "v"
addresses = ["10.0.0.9/24", "2001:db8::9"]
interface = "eth0"
label = "eth0:v"
scope = "link"
[vip.placement]
priority = { a = 0, b = 254 }
preempt = "preempt"
preempt_delay = "1m"
avoid = ["w"]
[[vip]]
name = "w"
addresses = ["10.0.0.8"]
interface = "eth1"
[[vip]]
name = "x"
addresses = ["10.0.0.7"]
interface = "eth1"
placement.colocate_with = ["w"]
[log]
level = "trace"
"#;
    let c = parse(text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(c.nodes[0].address.to_string(), "[2001:db8::1]:7");
    assert_eq!(c.nodes[1].address.to_string(), "10.0.0.2:7400");
    assert_eq!(c.data_dir, Path::new("/etc/buoy/data"));
    assert_eq!(
        (c.socket.to_str(), c.listen.to_string().as_str()),
        (Some("/tmp/s"), "0.0.0.0:1")
    );
    assert_eq!((c.fence, c.profile), (Fence::UserspaceOnly, Profile::Wan));
    assert_eq!(c.watchdog.as_deref(), Some(Path::new("/dev/watchdog1")));
    let shown: Vec<String> = timing::entries(&c.timing)
        .into_iter()
        .map(|(_, v)| v)
        .collect();
    let expected = [
        "400ms", "90ms", "1900ms", "1200ms", "140ms", "400ms", "1s", "20000", "30ms",
    ];
    assert_eq!(shown, expected);
    let v = &c.vips[0];
    assert_eq!((v.addresses[0].prefix, v.addresses[1].prefix), (24, 128));
    assert_eq!(
        (v.label.as_deref(), v.scope),
        (Some("eth0:v"), buoy_core::spec::Scope::Link)
    );
    assert_eq!(v.placement.preempt, buoy_core::spec::Preempt::Preempt);
    assert_eq!(v.placement.avoid.first().map(|n| n.as_str()), Some("w"));
    assert_eq!(
        c.vips[2]
            .placement
            .colocate_with
            .first()
            .map(|n| n.as_str()),
        Some("w")
    );
    assert_eq!(c.log_level, tracing::Level::TRACE);
    assert_eq!(c.warnings.len(), 2, "two nodes: {:?}", c.warnings);
}

/// Files with everything that can be wrong, and what is said about them.
#[test]
fn bad_files_are_refused_as_recorded() {
    let cases = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/config/cases");
    let mut count = 0;
    for entry in std::fs::read_dir(cases).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let name = path.file_name().unwrap();
        let errors = Config::parse(Path::new(name), &std::fs::read(&path).unwrap()).unwrap_err();
        for p in errors.problems() {
            assert!(p.hint.is_some(), "{name:?}: no hint: {}", p.message);
        }
        compare(&path.with_extension("txt"), &errors.render(false));
        count += 1;
    }
    assert!(count >= 6, "{count} cases");
}

#[test]
fn what_no_gate_means_is_said_the_same_everywhere() {
    let fence = schema::section("node").and_then(|s| s.key("fence"));
    assert!(fence.unwrap().text.contains(WITHOUT_GATE));
    let (_, limit) = WITHOUT_GATE.rsplit_once("up to ").unwrap();
    assert!(include_str!("../../../docs/promises.md").contains(limit));
}

#[test]
fn the_reference_page_is_the_schema() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    compare(&page, &configuration_page());
}

/// Every key of the schema is read: a value of a wrong type is noticed. And its example is accepted.
#[test]
fn every_key_of_the_schema_is_read() {
    for s in SECTIONS.iter().filter(|s| !s.path.is_empty()) {
        for key in s.keys {
            let wrong = if matches!(key.kind, Kind::Flag) {
                "7"
            } else {
                "false"
            };
            let path = if s.list {
                format!("[[{}]]", s.path)
            } else {
                format!("[{}]", s.path)
            };
            let parent = if s.path.starts_with("vip.") {
                "[[vip]]\n"
            } else {
                ""
            };
            let file = |line: &str| format!("{parent}{path}\n{line}\n");
            let said = messages(&file(&format!("{} = {wrong}", key.name)));
            let expected = format!("`{}.{}` must be {}", s.path, key.name, key.kind.describe());
            assert!(said.contains(&expected), "{expected}\nin\n{said}");
            // One that is refused where nothing waits.
            let beside = match key.name {
                "on_failure" => "wait = true\n",
                "auth" => "password = \"1111\"\n",
                "password" => "auth = \"pass\"\n",
                _ => "",
            };
            let said = messages(&file(&format!("{beside}{}", key.example)));
            let path = format!("`{}.{}`", s.path, key.name);
            assert!(
                !said.contains(&path) && !said.contains("unknown"),
                "{}: {said}",
                key.example
            );
            if key.missing == Missing::Refused {
                let said = messages(&file(""));
                assert!(
                    said.contains(&format!("{path} is missing")),
                    "{path}: {said}"
                );
            }
        }
    }
}

#[test]
fn unreadable_files_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let none = Config::load(&dir.path().join("none.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        none.contains("none.toml") && none.contains("No such file"),
        "{none}"
    );
    let is_dir = Config::load(dir.path()).unwrap_err().to_string();
    assert!(is_dir.contains("directory"), "{is_dir}");
    let latin = parse_bytes(b"[cluster]\nname = \"\xfc\"\n").unwrap_err();
    assert_eq!(latin.problems()[0].position(), Some((2, 9)));
    let large = dir.path().join("large.toml");
    std::fs::File::create(&large)
        .unwrap()
        .set_len(MAX_FILE + 1)
        .unwrap();
    let large = Config::load(&large).unwrap_err().to_string();
    assert!(large.contains("larger than"), "{large}");
}

fn parse_bytes(content: &[u8]) -> Result<Config, ConfigErrors> {
    Config::parse(Path::new("f.toml"), content)
}

#[test]
fn a_file_of_vips_alone_names_sources_of_nodes_that_only_the_cluster_has() {
    let text = "[[vip]]\nname = \"web\"\naddresses = [\"192.0.2.1/24\"]\ninterface = \"eth0\"\n\
                [vip.vrrp]\nvrid = 51\nsource = { n2 = \"192.0.2.22\" }\n";
    let vips = parse_vips(Path::new("v.toml"), text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(vips[0].vrrp.as_ref().unwrap().source.len(), 1);
}

#[test]
fn a_file_of_vips_may_refer_to_what_the_cluster_has() {
    let text = "[[vip]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\ninterface = \"eth0\"\n[vip.placement]\npriority = { far = 9 }\navoid = [\"elsewhere\"]\n";
    let vips = parse_vips(Path::new("v.toml"), text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(vips[0].placement.avoid.len(), 1);
    assert_eq!(vips[0].placement.priority[&"far".parse().unwrap()], 9);
    let twice = format!("{text}{text}");
    let errors = parse_vips(Path::new("v.toml"), twice.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(
        errors.contains("declared twice") && errors.contains("belongs to"),
        "{errors}"
    );
    let none = parse_vips(Path::new("v.toml"), b"")
        .unwrap_err()
        .to_string();
    assert!(none.contains("no VIP in this file"), "{none}");
}

#[test]
fn a_changed_file_is_taken_over_as_far_as_can_be() {
    let old = parse(EXAMPLE).unwrap_or_else(|e| panic!("{e}"));
    assert!(old.diff(&old).is_empty());
    let text = EXAMPLE
        .replace("192.168.192.12:7400", "192.168.192.99:7400")
        .replace("/etc/buoy/tls/n1.crt", "/etc/buoy/tls/new.crt")
        .replace("192.168.192.14/24", "192.168.192.15/24");
    let text = format!("{text}\n[log]\nlevel = \"debug\"\n[timing]\nprofile = \"fast\"\n");
    let new = parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let reload = old.diff(&new);
    let shown: Vec<String> = reload.can_apply.iter().map(Change::to_string).collect();
    assert_eq!(shown, ["log.level (info -> debug)"]);
    let shown: Vec<String> = reload.needs_restart.iter().map(Change::to_string).collect();
    assert!(
        !shown.iter().any(|s| s.contains("cluster.node")),
        "no restart takes that over: {shown:?}"
    );
    assert!(
        shown.contains(&"timing.lease (300ms -> 100ms)".to_owned()),
        "{shown:?}"
    );
    assert!(shown.contains(&"tls.cert (/etc/buoy/tls/n1.crt -> /etc/buoy/tls/new.crt)".to_owned()));
    assert_eq!(reload.ignored.len(), 2);
    assert!(
        reload.ignored[0].starts_with(
            "cluster.node[2] (n2 192.168.192.12:7400 member -> n2 192.168.192.99:7400 member): the nodes of a cluster are those of its first start"
        ),
        "{:?}",
        reload.ignored
    );
    assert!(
        reload.ignored[1].contains("(web-b)"),
        "{:?}",
        reload.ignored
    );
}

#[test]
fn very_deep_nesting_is_refused() {
    let deep = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&deep).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(content in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Err(e) = parse_bytes(&content) {
            prop_assert!(!e.render(false).is_empty());
        }
    }

    /// Near-valid files reach much more than random bytes do.
    #[test]
    fn no_edit_of_a_good_file_panics(
        at in 0..EXAMPLE.len(),
        length in 0_usize..40,
        insert in "[\\PC\n\"=\\[\\]{}.#]{0,12}",
    ) {
        let mut content = EXAMPLE.as_bytes().to_vec();
        let end = (at + length).min(content.len());
        content.splice(at..end, insert.bytes());
        if let Err(e) = parse_bytes(&content) {
            prop_assert!(e.render(false).contains("problem"), "{}", e);
        }
    }
}

//! What the command line and a daemon that refuses to start say, and how they exit.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use buoy_lab::sys::clock::now_ns;
use serde_json::Value;

use crate::harness::{BLINK_MS, Cluster, LIMIT, WEB_A, WEB_B};

#[test]
fn a_second_daemon_is_refused_and_harms_nothing() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let at = now_ns();
    let config = cluster.config("n1");
    let same = cluster.refused("n1", &config);
    assert_eq!(same.code, 1, "{same:?}");
    assert!(
        same.err.contains("the data directory") && same.err.contains("is in use by process"),
        "{same:?}"
    );

    // Another data directory, socket and port: the host's addresses are still in the first one's charge.
    let place = cluster.lab.topology().place("n1");
    let place = |name: &str| place.join(name).display().to_string();
    let elsewhere = config
        .replace(&place("data"), &place("data2"))
        .replace(&place("buoy.sock"), &place("second.sock"))
        .replace("192.168.192.101:7400", "192.168.192.101:7500");
    let second = cluster.refused("n1", &elsewhere);
    assert_eq!(second.code, 1, "{second:?}");
    std::thread::sleep(Duration::from_millis(1_500));
    let seen = cluster.seen(WEB_A.1, at);
    assert!(
        seen.owners.len() == 1 && seen.longest_dark_ms <= BLINK_MS,
        "the second daemon cost the first one its VIP: dark {:?}, owners {:?}",
        seen.dark,
        seen.owners
    );
    assert!(
        second.err.contains("another buoy daemon has it already"),
        "{second:?}"
    );

    // A stopped process has charge as well: its successor would else open what the other one's lease has left.
    let running = now_ns();
    cluster.lab.pause_daemon("n1").unwrap();
    cluster.wait_on(WEB_A.1, "n2");
    for config in [&config, &elsewhere] {
        let third = cluster.refused("n1", config);
        assert_eq!((third.code, &third.out), (1, &String::new()), "{third:?}");
    }
    cluster.lab.resume_daemon("n1").unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    let seen = cluster.seen(WEB_A.1, running);
    let owners: Vec<&str> = seen.owners.iter().map(|o| o.port.as_str()).collect();
    assert_eq!(owners, ["n1", "n2"]);
    cluster.never_dual();
}

#[test]
fn a_strange_data_directory_or_file_is_refused() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    cluster.lab.stop_daemon("n3").unwrap();
    let config = cluster.config("n3");
    let name = &cluster.lab.topology().name;

    let cluster_name = config.replace(&format!("name = \"{name}\""), "name = \"other\"");
    let ran = cluster.refused("n3", &cluster_name);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("other") && ran.err.contains(name),
        "{ran:?}"
    );

    let node_name = config.replace("[node]\nname = \"n3\"", "[node]\nname = \"n2\"");
    let ran = cluster.refused("n3", &node_name);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("n2") && ran.err.contains("n3"), "{ran:?}");

    // Its disk was replaced by an empty one.
    let place = cluster.lab.topology().place("n3");
    std::fs::rename(place.join("data"), place.join("kept")).unwrap();
    let ran = cluster.refused("n3", &config);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("has taken part in this cluster before"),
        "{ran:?}"
    );
    std::fs::remove_dir_all(place.join("data")).unwrap();
    std::fs::rename(place.join("kept"), place.join("data")).unwrap();

    let typo = config.replace("data_dir", "data_dri");
    let ran = cluster.refused("n3", &typo);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.err.contains("data_dri") && ran.err.contains("data_dir"),
        "{ran:?}"
    );

    // At a first start a VIP outside its network is refused for good; later the file's VIPs mean nothing.
    let outside = config.replace("192.168.192.13/24", "10.99.0.13/24");
    assert_ne!(outside, config);
    let first = outside.replace(
        &place.join("data").display().to_string(),
        &place.join("data3").display().to_string(),
    );
    let ran = cluster.refused("n3", &first.replace("role = \"witness\"", ""));
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("10.99.0.13 is outside"), "{ran:?}");

    let interface = config.replace("interface = \"eth0\"", "interface = \"eth9\"");
    let ran = cluster.buoy("n3", &["status"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    // No such interface here (yet): the node takes part, and says that it cannot hold the VIPs.
    cluster.start_with("n3", &interface);
    cluster.settled(&["n1", "n2", "n3"]);
    assert!(cluster.log("n3").contains("eth9"), "{}", cluster.log("n3"));
    cluster.never_dual();
}

#[test]
fn exit_codes_and_json_say_how_things_are() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let put = [
        "vip",
        "put",
        "more",
        "--address",
        "192.168.192.50/24",
        "--interface",
        "eth0",
    ];
    for line in [
        &put[..],
        &["status"],
        &["vip", "list"],
        &["vip", "show", "192.168.192.13"],
        &["vip", "history"],
        &["vip", "explain", "web-a"],
        &["vip", "move", "web-a", "--to", "n2"],
        &["vip", "move", "web-a", "--auto"],
        &["vip", "delete", "more"],
        &["node", "list"],
        &["node", "drain", "n2"],
        &["node", "undrain", "n2"],
    ] {
        let mut arguments = line.to_vec();
        arguments.push("--json");
        let ran = cluster.ok("n3", &arguments);
        assert!(!ran.json().is_null(), "{ran:?}");
        if line == &put[..] {
            // It waited until the VIP was up, so that the status after it is fine.
            assert_eq!(ran.json()[0]["active"], true, "{ran:?}");
            assert!(ran.json()[0]["owner"].is_string(), "{ran:?}");
        }
    }
    // What the drain set in motion has to come to its end first.
    cluster.settled(&["n1", "n2", "n3"]);
    let status = cluster.json("n1", &["status"]);
    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!(status["quorum"]["heard"], 3, "{status}");

    cluster.lab.crash("n1").unwrap();
    cluster.wait_on(WEB_A.1, "n2");
    for (node, line, code) in [
        ("n2", &["status"][..], 1),
        ("n2", &["node", "list"], 1),
        ("n2", &["vip", "list"], 0),
        ("n2", &["vip", "explain", "web-a"], 0),
        ("n2", &["vip", "explain", "nosuch"], 1),
        ("n1", &["status"], 3),
        ("n1", &["vip", "explain", "web-a"], 3),
    ] {
        let ran = cluster.buoy(node, line);
        assert_eq!(ran.code, code, "{node}: {line:?}: {ran:?}");
        assert!(code == 0 || !ran.words().is_empty(), "{ran:?}");
    }
    let status = cluster.json("n2", &["status"]);
    assert_eq!(status["healthy"], false, "{status}");
    cluster.never_dual();
}

/// A command that goes on printing; it ends with the value.
struct Watcher {
    child: Child,
    lines: Receiver<Value>,
}

impl Watcher {
    fn start(cluster: &Cluster, node: &str, arguments: &[&str]) -> Watcher {
        let mut child = cluster
            .buoy_command(node, arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Watcher { child, lines }
    }

    fn line(&self) -> Value {
        let value = self.lines.recv_timeout(LIMIT).expect("an event arrives");
        assert!(!value.is_string(), "no JSON: {value}");
        value
    }

    fn next(&self) -> Value {
        let value = self.line();
        assert!(value.is_object(), "no event: {value}");
        value
    }

    /// Reads on until a line is as wanted.
    fn until(&self, wanted: impl Fn(&Value) -> bool) {
        while !wanted(&self.line()) {}
    }

    /// The next assignments of web-a, one for each of `owners`; revisions and epochs grow.
    fn moves(&self, owners: &[&str], mut revision: u64) {
        let mut epoch = 0;
        for owner in owners {
            let event = loop {
                let event = self.next();
                let now = event["revision"].as_u64().unwrap();
                assert!(now > revision, "revision {revision} is followed by {event}");
                revision = now;
                if event["kind"] == "assigned" && event["vip"] == "web-a" {
                    break event;
                }
            };
            assert_eq!(event["to"], *owner, "{event}");
            let now = event["epoch"].as_u64().unwrap();
            assert!(now > epoch, "epoch {epoch} is followed by {event}");
            epoch = now;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watchers_see_every_move_in_order() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let list = Watcher::start(&cluster, "n3", &["vip", "list", "--watch", "--json"]);
    let snapshot = list.next();
    let vips = snapshot["snapshot"].as_array().unwrap();
    let owner = |name: &str| vips.iter().find(|v| v["vip"] == name).unwrap()["owner"].clone();
    assert_eq!(
        (owner(WEB_A.0), owner(WEB_B.0)),
        ("n1".into(), "n2".into()),
        "{snapshot}"
    );
    let revision = snapshot["revision"].as_u64().unwrap();
    let history = Watcher::start(
        &cluster,
        "n2",
        &[
            "vip", "history", "web-a", "--limit", "1", "--watch", "--json",
        ],
    );
    let last = history.next();
    assert_eq!(last["to"], "n1", "{last}");

    let nodes = Watcher::start(&cluster, "n3", &["node", "list", "--watch", "--json"]);
    let vip = Watcher::start(
        &cluster,
        "n3",
        &["vip", "show", "web-a", "--watch", "--json"],
    );
    let drained = |list: &Value, is: bool| {
        let list = list.as_array().unwrap();
        list.len() == 3 && list.iter().any(|n| !n["drained"].is_null()) == is
    };
    nodes.until(|l| drained(l, false));
    cluster.ok("n1", &["node", "drain", "n2"]);
    nodes.until(|l| drained(l, true));
    cluster.ok("n1", &["node", "undrain", "n2"]);
    nodes.until(|l| drained(l, false));
    vip.until(|v| v["owner"] == "n1");

    let way = ["n2", "n1", "n2", "n1"];
    for node in way {
        cluster.ok("n1", &["vip", "move", "web-a", "--to", node]);
    }
    list.moves(&way, revision);
    history.moves(&way, last["revision"].as_u64().unwrap());
    for node in ["n2", "n1"] {
        cluster.ok("n1", &["vip", "move", "web-a", "--to", node]);
        vip.until(|v| v["owner"] == node);
    }
    cluster.never_dual();
}

//! `buoy fence`: what a node's kernel fences, with a daemon, without one, and after the leftovers are gone.

use serde_json::Value;

use crate::harness::{Cluster, Ran, WEB_A, WEB_B, program, wait};
use buoy_lab::sys::clock::now_ns;

fn fenced<'a>(shown: &'a Value, address: &str) -> &'a Value {
    let rows = shown["gates"][0]["addresses"].as_array().unwrap();
    let row = rows.iter().find(|row| row["address"] == address);
    row.unwrap_or_else(|| panic!("no {address} in {shown}"))
}

#[test]
fn the_ebpf_fence_is_shown_with_and_without_a_daemon_and_its_leftovers_are_removed() {
    shown_and_removed("ebpf");
}

#[test]
fn the_nftables_fence_is_shown_with_and_without_a_daemon_and_its_leftovers_are_removed() {
    shown_and_removed("nft");
}

fn shown_and_removed(kind: &str) {
    let Some(cluster) = Cluster::formed_of(|topology| topology.fence = Some(kind.to_owned()))
    else {
        return;
    };
    let ((_, a), (_, b)) = (WEB_A, WEB_B);
    // It talks to no daemon, and says so if it is given a socket.
    let remove = || {
        let mut command = cluster.command("n1", program());
        Ran::of(
            command
                .args(["--json", "fence", "remove"])
                .output()
                .unwrap(),
        )
    };
    let show = || cluster.buoy("n1", &["--json", "fence", "show"]);

    let shown = show();
    assert_eq!(shown.code, 0, "{}", shown.words());
    let shown = shown.json();
    assert_eq!(shown["daemon"], true);
    assert_eq!(shown["gates"].as_array().unwrap().len(), 1);
    assert_eq!(shown["gates"][0]["kind"], kind);
    assert_eq!(
        shown["gates"][0]["interfaces"],
        serde_json::json!(["eth0", "lo"])
    );
    let held = fenced(&shown, &a.to_string());
    assert_eq!(
        (&held["vip"], &held["gate"]),
        (&"web-a".into(), &"open".into())
    );
    assert!((1..=300).contains(&held["lease_left_ms"].as_i64().unwrap()));
    assert_eq!(held["carried"][0]["interface"], "eth0");
    let lifetime = held["carried"][0]["valid_lifetime_s"].as_u64().unwrap();
    assert!((1..=3).contains(&lifetime), "{lifetime}");
    let other = fenced(&shown, &b.to_string());
    assert_eq!(
        (&other["gate"], &other["lease_left_ms"]),
        (&"shut".into(), &Value::Null)
    );
    assert_eq!(other["carried"], serde_json::json!([]));

    let refused = remove();
    assert_eq!(refused.code, 1);
    assert!(
        refused.words().contains("a daemon runs"),
        "{}",
        refused.words()
    );
    assert_eq!(show().code, 0, "nothing was touched");

    // An address where its gate is not is the operator's business at once.
    cluster.exec("n1", "ip link add stray type veth peer name stray2");
    cluster.lab.kill_daemon("n1").unwrap();
    cluster.exec("n1", &format!("ip addr add {a}/32 dev stray"));
    cluster.exec(
        "n1",
        &format!("ip addr replace {a}/24 dev eth0 valid_lft forever"),
    );
    wait("the daemon is gone", || show().json()["daemon"] == false);
    let left = show();
    assert_eq!(left.code, 1);
    let left = left.json();
    assert_eq!(fenced(&left, &a.to_string())["exposed"], true);
    let problems = left["problems"].to_string();
    assert!(
        problems.contains("stray, where its gate is not in force"),
        "{problems}"
    );
    assert!(problems.contains("buoy fence remove"), "{problems}");

    let removed = remove();
    assert_eq!(removed.code, 0, "{}", removed.words());
    let removed = removed.json();
    assert_eq!(removed["interfaces"], serde_json::json!(["eth0", "lo"]));
    assert_eq!(
        removed["addresses"].as_array().unwrap().len(),
        2,
        "{removed}"
    );
    assert!(!cluster.has_address("n1", a));
    let shown = cluster.ok("n1", &["--json", "fence", "show"]).json();
    assert_eq!(shown["gates"], serde_json::json!([]));

    // The next daemon makes everything anew, and takes it away when it stops.
    cluster.start("n1");
    cluster.settled(&["n1", "n2", "n3"]);
    assert_eq!(show().code, 0);
    cluster.move_to(WEB_A, "n1");
    cluster.lab.stop_daemon("n1").unwrap();
    let left = show();
    assert_eq!(
        (left.code, left.json()["gates"].clone()),
        (0, serde_json::json!([]))
    );
    assert!(!cluster.has_address("n1", a));
    assert!(cluster.log("n1").contains("packet gate removed"));
    cluster.never_dual();
}

/// A container without the right to load BPF programs has its VIPs fenced all the same, and its operator knows.
#[test]
fn auto_takes_nftables_where_no_bpf_program_can_be_loaded() {
    let Some(cluster) = Cluster::of(|_| {}) else {
        return;
    };
    let without_bpf = ["setpriv", "--bounding-set=-bpf,-sys_admin", "--"];
    for node in ["n1", "n2", "n3"] {
        cluster.start_under(node, &cluster.config(node), &without_bpf);
    }
    cluster.settled(&["n1", "n2", "n3"]);
    let shown = cluster.ok("n1", &["--json", "fence", "show"]).json();
    assert_eq!(shown["gates"][0]["kind"], "nft", "{shown}");
    let status = cluster.ok("n1", &["status"]).words();
    assert!(
        status.contains("nftables, because eBPF cannot be had") && status.contains("CAP_BPF"),
        "{status}"
    );

    let (_, a) = WEB_A;
    let owner = cluster.owner(a);
    let at = now_ns();
    cluster.lab.kill_daemon(&owner).unwrap();
    wait("another node has it", || {
        let now = cluster.seen(a, at).owners;
        now.iter().any(|o| o.port != owner)
    });

    let doctor = |wrapper: &[&str]| {
        let program = [program().to_str().unwrap()];
        let mut words = wrapper.iter().chain(&program);
        let mut command = cluster.command("n3", words.next().unwrap());
        Ran::of(
            command
                .args(words)
                .args(["--json", "doctor"])
                .output()
                .unwrap(),
        )
    };
    let gate = |ran: Ran| {
        let found = ran.json()["findings"].as_array().unwrap().clone();
        let gate = found.iter().filter(|f| f["about"] == "gate");
        gate.map(|f| format!("{} {}", f["level"], f["found"]))
            .collect::<Vec<_>>()
            .join("; ")
    };
    let (with, without) = (gate(doctor(&[])), gate(doctor(&without_bpf)));
    assert!(
        with.contains("\"ok\"") && with.contains("ebpf: it drops"),
        "{with}"
    );
    assert!(
        without.contains("warning") && without.contains("nft: it drops"),
        "{without}"
    );
    cluster.never_dual();
}

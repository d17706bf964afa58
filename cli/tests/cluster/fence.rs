//! `buoy fence`: what a node's kernel fences, with a daemon, without one, and after the leftovers are gone.

use serde_json::Value;

use crate::harness::{Cluster, Ran, WEB_A, WEB_B, program, wait};

fn fenced<'a>(shown: &'a Value, address: &str) -> &'a Value {
    let rows = shown["gates"][0]["addresses"].as_array().unwrap();
    let row = rows.iter().find(|row| row["address"] == address);
    row.unwrap_or_else(|| panic!("no {address} in {shown}"))
}

#[test]
fn the_fence_is_shown_with_and_without_a_daemon_and_leftovers_are_removed() {
    let Some(cluster) = Cluster::formed() else {
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
    assert_eq!(removed["interfaces"], serde_json::json!(["lo", "eth0"]));
    assert_eq!(
        removed["addresses"].as_array().unwrap().len(),
        2,
        "{removed}"
    );
    assert!(!cluster.has_address("n1", a));
    let shown = cluster.ok("n1", &["--json", "fence", "show"]).json();
    assert_eq!(shown["gates"], serde_json::json!([]));

    // The next daemon makes everything anew.
    cluster.start("n1");
    cluster.settled(&["n1", "n2", "n3"]);
    assert_eq!(show().code, 0);
    cluster.never_dual();
}

//! After a start a voter is silent for as long as its promises could last: those that it made, not the
//! longest that it ever made.

use crate::harness::{Cluster, wait};

/// What a voter promises with the profile `lan`, and with `wan`.
const LAN_MS: u64 = 323;
const WAN_MS: u64 = 2_040;

#[test]
fn one_run_with_long_leases_costs_one_long_silence() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let lan = cluster.config("n3");
    let wan = lan.replace("profile = \"lan\"", "profile = \"wan\"");
    assert_ne!(wan, lan, "the lab names the profile");
    cluster.lab.stop_daemon("n3").unwrap();
    cluster.start_with("n3", &wan);
    cluster.settled(&["n1", "n2", "n3"]);

    // What it may have promised with long leases is waited out, and then forgotten.
    cluster.lab.stop_daemon("n3").unwrap();
    let from = cluster.log("n3").len();
    cluster.start_with("n3", &lan);
    let quarantine = || {
        let ran = cluster.buoy("n3", &["status", "--json"]);
        let status = serde_json::from_str::<serde_json::Value>(&ran.out).ok()?;
        status["quarantine_ms"].as_u64()
    };
    wait("n3 is silent for as long as the long leases need", || {
        quarantine().is_some_and(|ms| ms > LAN_MS && ms <= WAN_MS)
    });
    let words = format!("after a start this voter is silent for {LAN_MS}ms from now on");
    cluster.wait_log("n3", from, &words);
    cluster.settled(&["n1", "n2", "n3"]);

    cluster.lab.stop_daemon("n3").unwrap();
    cluster.start_with("n3", &lan);
    let mut first = None;
    wait("n3 answers", || {
        first = quarantine();
        first.is_some()
    });
    assert!(first.is_some_and(|ms| ms <= LAN_MS), "{first:?}");
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.never_dual();
}

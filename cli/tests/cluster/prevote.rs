//! A node that was cut off comes back without an election: it asked whether it would be elected (pre-vote)
//! before it raised its term, and nobody heard.

use std::time::Duration;

use buoy_lab::sys::clock::now_ns;

use crate::harness::{BLINK_MS, Cluster, WEB_A, WEB_B, wait};

/// Many election timeouts.
const CUT_OFF: Duration = Duration::from_secs(3);

#[test]
fn a_follower_that_was_cut_off_costs_no_election() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let leader = cluster.lead_elsewhere("n3");
    let term = |node: &str| {
        let term = cluster.json(node, &["status"])["term"].clone();
        term.as_u64().expect("a node knows its term")
    };
    let before = term(&leader);
    let at = now_ns();
    let others = ["n1", "n2", "client"].map(str::to_owned).to_vec();
    cluster
        .lab
        .switch()
        .partition(&[vec!["n3".to_owned()], others])
        .unwrap();
    wait("n3 knows that it is alone", || {
        cluster.json("n3", &["status"])["quorum"]["ok"] == false
    });
    std::thread::sleep(CUT_OFF);
    assert_eq!(term("n3"), before, "it began elections that it cannot win");
    cluster.lab.heal().unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    for node in ["n1", "n2", "n3"] {
        assert_eq!(
            cluster.leader(node).as_ref(),
            Some(&leader),
            "as {node} has it"
        );
        assert_eq!(term(node), before, "as {node} has it");
    }
    for (name, address) in [WEB_A, WEB_B] {
        let dark = cluster.dark(
            &format!("follower cut off: {name} was dark for"),
            address,
            at,
        );
        assert!(dark <= BLINK_MS, "{name} was dark for {dark} ms");
    }
    cluster.never_dual();
}

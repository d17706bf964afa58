//! What a node with an empty disk must not do: come back under its old id, or form another cluster than
//! the others.

use crate::harness::{Cluster, wait};

#[test]
fn a_lost_disk_is_found_out_also_when_the_answer_is_late() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    cluster.lab.kill_daemon("n3").unwrap();
    let data = cluster.lab.topology().place("n3").join("data");
    std::fs::remove_dir_all(&data).unwrap();

    // Nobody answers: it must not take that for a new cluster, however long it lasts.
    for node in ["n1", "n2"] {
        cluster.process(node).signal(libc::SIGSTOP).unwrap();
    }
    let from = cluster.log("n3").len();
    cluster.start("n3");
    cluster.wait_log("n3", from, "takes no part until others can tell");
    let process = cluster.process("n3");
    assert!(!cluster.log("n3")[from..].contains("forming the cluster"));

    // A single peer, without a leader or a quorum, is enough to end it.
    cluster.process("n1").signal(libc::SIGCONT).unwrap();
    cluster.wait_log("n3", from, "has taken part in this cluster before");
    process
        .wait_exit(std::time::Duration::from_secs(10))
        .unwrap();
    let log = cluster.log("n3");
    assert!(log[from..].contains("another cluster.name"), "{log}");
    assert!(!log[from..].contains("forming the cluster"), "{log}");

    cluster.process("n2").signal(libc::SIGCONT).unwrap();
    wait("the other two go on", || {
        cluster
            .buoy("n1", &["status"])
            .out
            .contains("2 of 2 owned exactly once")
    });
    cluster.never_dual();
}

#[test]
fn a_whole_cluster_forms_anew_from_empty_disks() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    for node in ["n1", "n2", "n3"] {
        cluster.lab.stop_daemon(node).unwrap();
    }
    for node in ["n1", "n2", "n3"] {
        std::fs::remove_dir_all(cluster.lab.topology().place(node).join("data")).unwrap();
    }
    for node in ["n2", "n3", "n1"] {
        cluster.start(node);
    }
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.never_dual();
}

#[test]
fn nodes_with_different_lists_form_no_cluster_together() {
    let Some(cluster) = Cluster::unstarted() else {
        return;
    };
    let whole = cluster.config("n1");
    let begin = whole.rfind("[[cluster.node]]").expect("a list of nodes");
    let end = whole[begin + 1..]
        .find("\n[")
        .map_or(whole.len(), |at| begin + 1 + at);
    let shorter = format!("{}{}", &whole[..begin], &whole[end..]);
    assert!(
        shorter.matches("[[cluster.node]]").count() == 2,
        "{shorter}"
    );
    cluster.start_with("n1", &shorter);
    cluster.start("n2");
    cluster.wait_log("n2", 0, "list different nodes");
    cluster.wait_log("n1", 0, "takes no part until others can tell");
    cluster.wait_log("n1", 0, "lists 3=n3");
    for node in ["n1", "n2"] {
        assert!(!cluster.log(node).contains("forming the cluster"), "{node}");
    }
    // Those that agree go on without the third.
    cluster.start("n3");
    let leader = cluster.wait_leader("n2");
    assert_ne!(leader, "n1");
    assert!(!cluster.log("n1").contains("forming the cluster"));
    cluster.never_dual();
}

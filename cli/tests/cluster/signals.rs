//! SIGTERM and SIGHUP.

use std::time::{Duration, Instant};

use buoy_lab::sys::clock::now_ns;

use crate::harness::{Cluster, WEB_A, WEB_B, report};

/// A stop takes at most this long.
const STOP: Duration = Duration::from_secs(1);

/// Stops a daemon with SIGTERM; it must end in time and by itself.
fn stop(cluster: &Cluster, node: &str) {
    let process = cluster.process(node);
    let begun = Instant::now();
    process.signal(libc::SIGTERM).unwrap();
    process.wait_exit(Duration::from_secs(10)).unwrap();
    let took = begun.elapsed();
    report(
        &format!("SIGTERM: {node} has ended after"),
        took.as_secs_f64() * 1_000.0,
    );
    assert!(took < STOP, "the stop of {node} took {took:?}");
    let log = cluster.log(node);
    assert!(log.contains("stopped after"), "not in good order:\n{log}");
}

#[test]
fn a_stop_hands_everything_over() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let leader = cluster.lead_elsewhere("n3");
    let other = if leader == "n1" { "n2" } else { "n1" };
    for vip in [WEB_A, WEB_B] {
        cluster.move_to(vip, &leader);
    }
    let at = now_ns();
    stop(&cluster, &leader);
    let new = cluster.leader(other);
    assert!(
        new.as_ref().is_some_and(|new| *new != leader),
        "leadership was not handed over: {new:?}"
    );
    for (name, address) in [WEB_A, WEB_B] {
        cluster.wait_on(address, other);
        let dark = cluster.dark(&format!("SIGTERM: {name} was dark for"), address, at);
        assert!(dark < 500.0, "{name} was dark for {dark} ms");
        assert!(!cluster.has_address(&leader, address));
        let history = cluster.json(other, &["vip", "history", name]);
        let last = history["events"].as_array().unwrap().last().unwrap();
        assert_eq!(last["cause"], "owner-stopping", "{last}");
    }
    // Without a quorum nobody takes anything over; it ends in time all the same.
    cluster.lab.kill_daemon("n3").unwrap();
    stop(&cluster, other);
    for (_, address) in [WEB_A, WEB_B] {
        cluster.wait_silent(address);
        assert!(!cluster.has_address(other, address));
    }
    cluster.never_dual();
}

#[test]
fn a_stop_without_a_possible_successor_waits_for_none() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    for vip in [WEB_A, WEB_B] {
        cluster.move_to(vip, "n1");
    }
    // Frozen, not gone: no connection is refused, and nothing answers.
    for node in ["n2", "n3"] {
        cluster.process(node).signal(libc::SIGSTOP).unwrap();
    }
    for (_, address) in [WEB_A, WEB_B] {
        cluster.wait_silent(address);
    }
    let from = cluster.log("n1").len();
    stop(&cluster, "n1");
    let log = cluster.log("n1");
    assert!(!log[from..].contains("took all VIPs over"), "{log}");
    cluster.never_dual();
}

#[test]
fn a_changed_file_is_read_again() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let file = cluster.config_path("n2");
    let hang_up = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let from = cluster.log("n2").len();
        cluster.process("n2").signal(libc::SIGHUP).unwrap();
        from
    };
    let running = cluster.config("n2");
    let from = hang_up(&running);
    cluster.wait_log("n2", from, "SIGHUP: the configuration is as before");

    let changed = running.replace("profile = \"lan\"", "profile = \"lan\"\nrenew = \"70ms\"")
        + "\n[log]\nlevel = \"debug\"\n";
    assert_ne!(changed, running);
    let from = hang_up(&changed);
    cluster.wait_log("n2", from, "SIGHUP: taken over: log.level (info -> debug)");
    cluster.wait_log(
        "n2",
        from,
        "SIGHUP: not taken over, needs a restart: timing.renew (75ms -> 70ms)",
    );
    // Something that is only worth a word at that level.
    cluster.lab.stop_daemon("n3").unwrap();
    cluster.wait_log("n2", from, "report not delivered");

    let from = hang_up("[cluster\n");
    cluster.wait_log(
        "n2",
        from,
        "the configuration is refused, nothing was changed",
    );
    let from = cluster.log("n2").len();
    cluster.wait_log("n2", from, "report not delivered");
    cluster.start("n3");
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.never_dual();
}

#[test]
fn what_is_not_read_again_is_named_and_a_broken_file_changes_nothing() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let file = cluster.config_path("n1");
    let hang_up = || {
        let from = cluster.log("n1").len();
        cluster.process("n1").signal(libc::SIGHUP).unwrap();
        from
    };
    let (running, epoch) = (cluster.config("n1"), cluster.epoch("n1", WEB_A.0));
    let write = |from: &str, to: &str| {
        let text = running.replace(from, to);
        assert_ne!(text, running, "{from} is not in it");
        std::fs::write(&file, text).unwrap();
    };

    write("name = \"web-b\"", "name = \"web-c\"");
    let from = hang_up();
    cluster.wait_log("n1", from, "SIGHUP: ignored: [[vip]] (");
    cluster.wait_log("n1", from, "use `buoy vip put -f FILE`");

    write("192.168.192.103", "192.168.192.123");
    let from = hang_up();
    cluster.wait_log("n1", from, "SIGHUP: ignored: cluster.node[");
    cluster.wait_log("n1", from, "192.168.192.123:7400");

    // Two mistakes, each with its place; and what is good beside them is not taken over.
    let level = "\n[log]\nlevel = \"debug\"\n";
    let broken = running.replace("profile = \"lan\"", "profile = \"moon\"\nlese = \"1s\"");
    assert_ne!(broken, running);
    std::fs::write(&file, broken + level).unwrap();
    let from = hang_up();
    let refused = "SIGHUP: the configuration is refused, nothing was changed";
    cluster.wait_log("n1", from, refused);
    for word in [
        "moon",
        "unknown key `lese`",
        "did you mean `lease`",
        "2 problems",
    ] {
        cluster.wait_log("n1", from, word);
    }
    std::fs::remove_file(&file).unwrap();
    let from = hang_up();
    cluster.wait_log("n1", from, refused);
    cluster.wait_log("n1", from, "cannot read");

    // The daemon runs on with what it had: the file as it was differs in nothing.
    std::fs::write(&file, &running).unwrap();
    let from = hang_up();
    cluster.wait_log("n1", from, "SIGHUP: the configuration is as before");
    std::fs::write(&file, running.clone() + level).unwrap();
    let from = hang_up();
    cluster.wait_log("n1", from, "SIGHUP: taken over: log.level (info -> debug)");
    assert_eq!(cluster.epoch("n1", WEB_A.0), epoch, "nothing moved");
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.never_dual();
}

//! The program that fences silent nodes from outside: when it runs, what waits for it, and how it ends.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{
    Cluster, Ran, WEB_A, WEB_B, ms_since, program as program_under_test, report, wait,
};
use buoy_lab::sys::clock::now_ns;

/// A directory that only root can write to, with a program that notes how it was called, and then does what the test
/// wants.
struct Program {
    dir: tempfile::TempDir,
}

/// Notes the call as one line, and waits for the file `go`. With a file `deaf` there, it waits for ever.
const SCRIPT: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 9
vips=$(tr '\n' ',')
echo "$BUOY_NODE: $* victim=$BUOY_VICTIM/$BUOY_VICTIM_ID/$BUOY_VICTIM_EPOCH epoch=$BUOY_EPOCH vips=$BUOY_VIPS: $vips pid=$$" >> runs
if [ -e deaf ]; then
    trap '' TERM HUP INT
    sleep 1000 &
    echo "$!" > child
    wait
fi
while [ ! -e go ]; do sleep 0.05; done
echo "the switch said: $(cat go)"
exit "$(cat go)"
"#;

impl Program {
    /// `None` where clusters cannot run either.
    fn new() -> Option<Program> {
        let dir = tempfile::tempdir_in("/run").ok()?;
        let program = Program { dir };
        std::fs::write(program.path("fence"), SCRIPT).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(program.path("fence"), mode).unwrap();
        Some(program)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration of it.
    fn table(&self, more: &str) -> String {
        let program = self.path("fence");
        format!("[external_fence]\nprogram = {program:?}\nargs = [\"off\"]\n{more}\n")
    }

    /// How it was called so far.
    fn runs(&self) -> Vec<String> {
        let runs = std::fs::read_to_string(self.path("runs")).unwrap_or_default();
        runs.lines().map(str::to_owned).collect()
    }

    fn wait_runs(&self, count: usize) {
        wait(&format!("run {count} has begun"), || {
            self.runs().len() >= count
        });
    }

    /// Lets it end with this status, from now on.
    fn ends_with(&self, status: i32) {
        std::fs::write(self.path("next"), format!("{status}\n")).unwrap();
        std::fs::rename(self.path("next"), self.path("go")).unwrap();
    }

    /// Waits until the last run, and the child of it if there is one, are gone.
    fn wait_killed(&self, child: bool) {
        let runs = self.runs();
        let (_, leader) = runs.last().unwrap().split_once("pid=").unwrap();
        let mut pids = vec![leader.to_owned()];
        if child {
            let pid = std::fs::read_to_string(self.path("child")).unwrap();
            pids.push(pid.trim().to_owned());
        }
        for pid in pids {
            wait(&format!("process {pid} is gone"), || {
                let stat = std::fs::read_to_string(Path::new("/proc").join(&pid).join("stat"));
                stat.is_ok_and(|stat| stat.contains(") Z "))
                    || !Path::new("/proc").join(&pid).exists()
            });
        }
    }
}

/// A cluster with the program, and web-a on n1.
fn with(more: &str) -> Option<(Cluster, Program)> {
    // Said and judged by the harness, where it is missing.
    let program = Program::new();
    let table = program.as_ref().map(|p| p.table(more)).unwrap_or_default();
    let cluster = Cluster::formed_with(&table)?;
    Some((cluster, program.expect("a directory in /run")))
}

/// As a node has it.
fn last_event(cluster: &Cluster, vip: &str) -> serde_json::Value {
    let history = cluster.json("n2", &["vip", "history", vip]);
    history["events"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone()
}

#[test]
fn it_runs_once_for_a_crash_with_all_that_is_known_and_never_for_a_planned_move() {
    let Some((cluster, program)) = with("") else {
        return;
    };
    cluster.move_to(WEB_B, "n1");
    assert_eq!(program.runs(), [""; 0], "the moves so far were planned");
    let before = [WEB_A, WEB_B].map(|(vip, _)| cluster.epoch("n2", vip));
    // Without waiting, the takeover does not care how long it takes.
    let at = cluster.lab.crash("n1").unwrap();
    for (vip, address) in [WEB_A, WEB_B] {
        cluster.wait_on(address, "n2");
        cluster.dark(
            &format!("beside a slow program: {vip} was dark for"),
            address,
            at,
        );
    }
    program.wait_runs(1);
    assert!(!program.path("go").exists(), "it has not ended");
    let after = cluster.epoch("n2", WEB_A.0);
    assert_eq!(after, cluster.epoch("n2", WEB_B.0), "one entry");
    let runs = program.runs();
    let (call, _) = runs[0].split_once(" pid=").unwrap();
    assert_eq!(
        call,
        format!(
            "n2: off n1 {after} victim=n1/1/{} epoch={after} vips=web-a web-b: web-a {} {after},web-b {} {after},",
            before[0].max(before[1]),
            before[0],
            before[1]
        )
    );
    program.ends_with(0);
    cluster.wait_log("n2", 0, "the program says: the switch said: 0");
    cluster.wait_log("n2", 0, "external fencing succeeded");

    // A planned move, a drain, and a clean stop of the owner are no takeovers; nor is a restart one anew.
    cluster.lab.boot("n1").unwrap();
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.move_to(WEB_A, "n1");
    cluster.ok("n3", &["node", "drain", "n1"]);
    cluster.wait_on(WEB_A.1, "n2");
    cluster.ok("n3", &["node", "undrain", "n1"]);
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.lab.stop_daemon("n2").unwrap();
    for (_, address) in [WEB_A, WEB_B] {
        cluster.wait_on(address, "n1");
    }
    let more = program.table("");
    cluster.start_with("n2", &format!("{}\n{more}", cluster.config("n2")));
    cluster.settled(&["n1", "n2", "n3"]);
    assert_eq!(program.runs().len(), 1, "{:?}", program.runs());
    cluster.never_dual();
}

#[test]
fn a_vip_that_waits_comes_up_after_success_only() {
    let Some((cluster, program)) = with("wait = true\ntimeout = \"60s\"") else {
        return;
    };
    let (_, a) = WEB_A;
    let other = cluster.epoch("n2", WEB_B.0);
    let at = cluster.lab.crash("n1").unwrap();
    program.wait_runs(1);
    let begun = now_ns();
    // Leases last 300 ms.
    while ms_since(begun) < 2_000.0 {
        assert_eq!(cluster.answering(a), [""; 0]);
        assert!(!cluster.has_address("n2", a));
        std::thread::sleep(Duration::from_millis(20));
    }
    let fenced = cluster.exec(
        "n2",
        &format!("{} fence show", program_under_test().display()),
    );
    let row = fenced.lines().find(|line| line.contains(&a.to_string()));
    assert!(row.is_some_and(|row| row.contains(" shut ")), "{fenced}");
    let status = cluster.buoy("n3", &["status"]).words();
    assert!(status.contains("external fencing of n1 runs"), "{status}");
    // It is for nobody else to wait.
    assert_eq!(cluster.owner(WEB_B.1), "n2");
    assert_eq!(cluster.epoch("n2", WEB_B.0), other);

    let success = now_ns();
    program.ends_with(0);
    cluster.wait_on(a, "n2");
    report("after success: web-a is up in", ms_since(success));
    let dark = cluster.dark("waiting for fencing: web-a was dark for", a, at);
    assert!(dark > 2_000.0, "it was up before, after {dark} ms");
    let event = last_event(&cluster, WEB_A.0);
    assert_eq!(
        event["cause"], "owner-silent",
        "by one lease all the time: {event}"
    );
    wait("the warning is gone", || {
        let status = cluster.buoy("n3", &["status"]).words();
        !status.contains("external fencing")
    });
    assert_eq!(program.runs().len(), 1);
    cluster.never_dual();
}

#[test]
fn a_run_whose_vips_go_elsewhere_is_killed() {
    let Some((cluster, program)) = with("wait = true\ntimeout = \"60s\"") else {
        return;
    };
    std::fs::write(program.path("deaf"), "").unwrap();
    cluster.lab.crash("n1").unwrap();
    program.wait_runs(1);
    wait("it has a child", || program.path("child").exists());
    cluster.lab.boot("n1").unwrap();
    wait("n1 may own web-a", || {
        cluster.verdict("n2", WEB_A.0, "n1").0
    });
    cluster.ok("n3", &["vip", "move", WEB_A.0, "--to", "n1"]);
    cluster.wait_on(WEB_A.1, "n1");
    cluster.wait_log("n2", 0, "external fencing is abandoned");
    program.wait_killed(true);
    assert_eq!(program.runs().len(), 1, "{:?}", program.runs());
    cluster.never_dual();
}

#[test]
fn a_vip_stays_down_until_somebody_fences_the_victim() {
    let Some((cluster, program)) = with("wait = true\ntimeout = \"60s\"") else {
        return;
    };
    let (_, a) = WEB_A;
    program.ends_with(7);
    let at = cluster.lab.crash("n1").unwrap();
    program.wait_runs(1);
    let first = Instant::now();
    let words = "external fencing of n1 failed";
    wait("n2 says why it cannot hold web-a", || {
        let (eligible, reasons) = cluster.verdict("n3", WEB_A.0, "n2");
        !eligible && reasons.contains(words) && reasons.contains("exit status 7")
    });
    assert!(!cluster.has_address("n2", a));
    program.wait_runs(2);
    let gap = first.elapsed();
    report(
        "after a failure: tried again after",
        gap.as_secs_f64() * 1e3,
    );
    assert!(gap > Duration::from_millis(4_000), "after {gap:?}");
    let event = last_event(&cluster, WEB_A.0);
    assert_eq!(event["cause"], "unfenced", "{event}");
    let evidence = event["evidence"].to_string();
    assert!(
        evidence.contains(words) && evidence.contains("the switch said: 7"),
        "{event}"
    );
    let seen = cluster.seen(a, at);
    let owners = &seen.owners;
    assert!(owners.iter().all(|o| o.port == "n1"), "{owners:?}");

    program.ends_with(0);
    cluster.wait_on(a, "n2");
    let epoch = cluster.epoch("n2", WEB_A.0);
    let last = program.runs().last().unwrap().clone();
    assert!(
        last.starts_with(&format!("n2: off n1 {epoch} victim=n1/1/")),
        "{last}"
    );
    cluster.never_dual();
}

#[test]
fn a_vip_comes_up_after_a_failure_where_that_is_wanted() {
    let Some((cluster, program)) = with("wait = true\non_failure = \"take-over-anyway\"") else {
        return;
    };
    cluster.lab.crash("n1").unwrap();
    program.wait_runs(1);
    assert_eq!(cluster.answering(WEB_A.1), [""; 0]);
    program.ends_with(7);
    cluster.wait_on(WEB_A.1, "n2");
    cluster.wait_log("n2", 0, "external fencing did not succeed");
    wait("status warns", || {
        let status = cluster.buoy("n3", &["status"]).words();
        status.contains("external fencing of n1 failed") && status.contains("taken over anyway")
    });
    assert_eq!(last_event(&cluster, WEB_A.0)["cause"], "owner-silent");
    assert_eq!(program.runs().len(), 1);
    cluster.never_dual();
}

#[test]
fn one_that_hangs_is_killed_with_its_children() {
    let Some((cluster, program)) =
        with("wait = true\ntimeout = \"2s\"\non_failure = \"take-over-anyway\"")
    else {
        return;
    };
    std::fs::write(program.path("deaf"), "").unwrap();
    let at = cluster.lab.crash("n1").unwrap();
    program.wait_runs(1);
    wait("it has a child", || program.path("child").exists());
    cluster.wait_on(WEB_A.1, "n2");
    let dark = cluster.dark(
        "after a program that hangs: web-a was dark for",
        WEB_A.1,
        at,
    );
    assert!(dark > 1_900.0, "it did not wait: {dark} ms");
    cluster.wait_log("n2", 0, "took longer than 2s and was killed");
    program.wait_killed(true);
    cluster.never_dual();
}

#[test]
fn a_daemon_that_dies_while_it_waits_goes_on_waiting() {
    let more = "wait = true\ntimeout = \"60s\"";
    let Some((cluster, program)) = with(more) else {
        return;
    };
    let (_, a) = WEB_A;
    cluster.lab.crash("n1").unwrap();
    program.wait_runs(1);
    cluster.lab.kill_daemon("n2").unwrap();
    cluster.start_with(
        "n2",
        &format!("{}\n{}", cluster.config("n2"), program.table(more)),
    );
    program.wait_runs(2);
    cluster.wait_on(WEB_B.1, "n2");
    assert!(!cluster.has_address("n2", a));
    assert_eq!(cluster.answering(a), [""; 0]);
    // The first one, whose daemon is gone, ends as well.
    program.ends_with(0);
    cluster.wait_on(a, "n2");

    // And one that was done is not done again.
    let runs = program.runs();
    cluster.lab.kill_daemon("n2").unwrap();
    cluster.start_with(
        "n2",
        &format!("{}\n{}", cluster.config("n2"), program.table(more)),
    );
    for (_, address) in [WEB_A, WEB_B] {
        cluster.wait_on(address, "n2");
    }
    assert_eq!(program.runs(), runs);
    cluster.never_dual();
}

#[test]
fn a_program_that_others_can_change_is_refused() {
    let Some(cluster) = Cluster::unstarted() else {
        return;
    };
    let program = Program::new().expect("a directory in /run");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(program.path("fence"), mode).unwrap();
    let config = format!("{}\n{}", cluster.config("n1"), program.table(""));
    let refused = cluster.refused("n1", &config);
    assert_eq!(refused.code, 2, "{refused:?}");
    let path = cluster.lab.topology().place("n1").join("other.toml");
    let check = |more: &[&str]| {
        let mut command = cluster.command("n1", program_under_test());
        command.arg("check-config").arg(&path).args(more);
        Ran::of(command.output().unwrap())
    };
    let checked = check(&[]);
    assert_eq!(checked.code, 1, "{checked:?}");
    for said in [refused.words(), checked.words()] {
        assert!(said.contains("others than root may write to"), "{said}");
    }
    let alone = check(&["--no-host"]);
    assert_eq!(alone.code, 0, "{alone:?}");
}

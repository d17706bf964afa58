//! Whole labs, by the command line and by the library, with keepalived in the nodes: it is a real daemon
//! whose weaknesses are known, so the lab must show them.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use buoy_lab::backend::{BackendSpec, Keepalived};
use buoy_lab::cluster::{DaemonState, Lab, Record, labs};
use buoy_lab::demo::DemoReport;
use buoy_lab::ns;
use buoy_lab::observer::figures;
use buoy_lab::process::Process;
use buoy_lab::switch::protocol::Faults;
use buoy_lab::sys::clock::now_ns;
use buoy_lab::topology::{Topology, data_of, directory_of};
use common::{eventually, program};

const READY: Duration = Duration::from_secs(30);

/// True if a lab with keepalived and nginx can run here. In CI it must.
fn possible() -> bool {
    common::possible_with(&["keepalived", "nginx"])
}

fn unique() -> String {
    // A lab's name has no room for more than a letter, the process, and a number.
    common::unique("x").replace("buoy-", "t").replace("-x", "")
}

fn lab_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("lab").args(arguments);
    command
}

fn lab(arguments: &[&str]) -> Output {
    lab_command(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Takes a lab down at the end, if it is still there.
struct Down(String);

impl Drop for Down {
    fn drop(&mut self) {
        lab(&["down", "--name", &self.0]);
    }
}

fn nothing_left(name: &str) -> bool {
    let names = std::fs::read_dir(ns::DIRECTORY).unwrap();
    let prefix = format!("{name}-");
    !directory_of(name).exists()
        && !data_of(name).exists()
        && !names
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
}

fn keepalived(name: &str) -> Record {
    Record {
        topology: Topology::pair(name, 3).unwrap(),
        backend: BackendSpec::Keepalived(Keepalived {
            advert_ms: 100,
            version: 3,
            nopreempt: true,
        }),
        program: program().to_owned(),
        ephemeral: true,
    }
}

/// A lab that runs and is observed.
fn running(name: &str) -> Lab {
    let lab = Lab::create(keepalived(name)).unwrap();
    lab.observe().unwrap();
    lab.start_all().unwrap();
    lab.wait_ready(READY).unwrap();
    lab
}

#[test]
fn a_lab_is_started_broken_mended_and_taken_down_by_command() {
    if !possible() {
        return;
    }
    let name = unique();
    let _down = Down(name.clone());
    let missing = lab(&["status", "--name", &name]);
    assert_eq!(code(&missing), 3, "{missing:?}");
    assert!(text(&missing.stderr).contains("no lab is called"));

    // As after a plain `su`: keepalived and nginx are in /usr/sbin.
    let up = lab_command(&["up", "--name", &name, "--with", "keepalived"])
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    assert_eq!(code(&up), 0, "{up:?}");
    for words in ["192.168.192.13", "down --name", "Files and logs"] {
        assert!(text(&up.stdout).contains(words), "{}", text(&up.stdout));
    }
    let again = lab(&["up", "--name", &name, "--with", "keepalived"]);
    assert_eq!(code(&again), 1);
    assert!(text(&again.stderr).contains("is there already"));
    assert_eq!(code(&lab(&["status", "--name", &name])), 0);

    // A reader who has gone away changes nothing.
    let mut unheard = lab_command(&["status", "--name", &name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(unheard.stdout.take());
    assert_eq!(unheard.wait().unwrap().code(), Some(0));

    let fetch = ["exec", "--name", &name, "client", "--", "curl", "-s"];
    let fetched = lab(&[&fetch[..], &["http://192.168.192.14/"]].concat());
    assert!(["n1\n", "n2\n"].contains(&text(&fetched.stdout).as_str()));
    let failed = lab(&["exec", "--name", &name, "n1", "--", "sh", "-c", "exit 7"]);
    assert_eq!(code(&failed), 7);
    // A command on a node asks that node, whatever cluster the caller has set for himself.
    let environment = lab_command(&["exec", "--name", &name, "n1", "--", "env"])
        .envs(["BUOY_SERVER", "BUOY_CA", "BUOY_CERT", "BUOY_KEY"].map(|name| (name, "mine")))
        .output()
        .unwrap();
    let socket = format!("BUOY_SOCKET=/run/buoy-lab/{name}/n1/buoy.sock");
    let set = text(&environment.stdout);
    let buoys: Vec<_> = set.lines().filter(|it| it.starts_with("BUOY_")).collect();
    assert_eq!(buoys, [socket]);

    // Both members pulled: nobody answers, and status says so.
    for node in ["n1", "n2"] {
        assert_eq!(code(&lab(&["link", "--name", &name, node, "down"])), 0);
    }
    let status = lab(&["status", "--name", &name]);
    assert_eq!(code(&status), 1);
    assert!(text(&status.stdout).contains("NOBODY answers"));
    assert_eq!(code(&lab(&["heal", "--name", &name])), 0);
    eventually("the VIPs are back", || {
        code(&lab(&["status", "--name", &name])) == 0
    });

    for nonsense in [
        &["link", "--name", &name, "n9", "down"][..],
        &["partition", "--name", &name, "n1,n2"],
        &["loss", "--name", &name, "--delay", "-5"],
        &["kill", "--name", &name, "client"],
        &["bench", "--only", "foo"],
        &["bench", "--repeats", "0"],
        &["soak", "--minutes", "0"],
        &["soak", "--loss", "500"],
    ] {
        assert_eq!(code(&lab(nonsense)), 2, "{nonsense:?}");
    }
    let parted = lab(&["partition", "--name", &name, "n1,client", "/", "n2,n3"]);
    assert_eq!(code(&parted), 0, "{parted:?}");
    assert!(text(&lab(&["status", "--name", &name]).stdout).contains("n1 -> n2"));

    let down = lab(&["down", "--name", &name]);
    assert_eq!(code(&down), 0, "{down:?}");
    assert!(nothing_left(&name));
}

#[test]
fn a_split_brain_is_seen_and_observe_says_so() {
    if !possible() {
        return;
    }
    let name = unique();
    let lab_up = running(&name);
    let from = now_ns();
    let groups = [vec!["n1".to_owned()], vec!["n2".to_owned()]];
    lab_up.switch().partition(&groups).unwrap();
    eventually("keepalived has two owners", || {
        lab_up.owner_of("web-a").is_err()
    });
    let to = now_ns();
    let seen = lab_up.switch().observed(from, to).unwrap();
    let web_a = figures(&seen, from, to).remove(0);
    assert!(web_a.dual_ms > 0.0, "{web_a:?}");
    assert_eq!(web_a.dual[0].ports, ["n1", "n2"]);
    let observed = lab(&["observe", "--name", &name, "--seconds", "0.5"]);
    assert_eq!(code(&observed), 1);
    assert!(text(&observed.stdout).contains("TOGETHER: n1 and n2"));
}

#[test]
fn daemons_and_machines_stop_and_come_back() {
    if !possible() {
        return;
    }
    let name = unique();
    let lab = running(&name);
    lab.pause_daemon("n2").unwrap();
    eventually("it is paused", || {
        matches!(lab.daemon_state("n2").unwrap(), DaemonState::Paused(_))
    });
    lab.resume_daemon("n2").unwrap();
    lab.kill_daemon("n2").unwrap();
    assert_eq!(lab.daemon_state("n2").unwrap(), DaemonState::Stopped);
    assert!(lab.kill_daemon("n2").is_err());
    lab.start_daemon("n2").unwrap();
    assert!(lab.start_daemon("n2").is_err());

    lab.crash("n1").unwrap();
    assert_eq!(lab.daemon_state("n1").unwrap(), DaemonState::Crashed);
    assert!(lab.start_daemon("n1").is_err());
    lab.wait_owner("web-a", "n2", READY).unwrap();
    // Healing the network does not bring a dead machine back, which still has the address.
    lab.heal().unwrap();
    lab.wait_owner("web-a", "n2", READY).unwrap();
    lab.boot("n1").unwrap();
    lab.wait_ready(READY).unwrap();
    assert_eq!(lab.owner_of("web-a").unwrap().as_deref(), Some("n2"));
    let addresses = lab
        .netns("n1")
        .unwrap()
        .command("ip")
        .unwrap()
        .arg("addr")
        .output();
    assert!(!text(&addresses.unwrap().stdout).contains("192.168.192.13/"));
}

#[test]
fn a_bad_network_is_survived_by_the_lab_itself() {
    if !possible() {
        return;
    }
    let lab = running(&unique());
    let faults = Faults {
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.05,
        ..Faults::default()
    };
    lab.switch().link_faults(None, None, faults).unwrap();
    let from = now_ns();
    std::thread::sleep(Duration::from_millis(500));
    let to = now_ns();
    // The observer's own probes meet no fault: what it does not see is not there.
    for figures in figures(&lab.switch().observed(from, to).unwrap(), from, to) {
        assert!(figures.dark.is_empty(), "{figures:?}");
    }
}

#[test]
fn the_demo_shows_its_figures_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let demo = lab_command(&["demo", "--json", "--with", "keepalived"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let name = format!("demo-{}", demo.id());
    let output = demo.wait_with_output().unwrap();
    let report: DemoReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(code(&output) == 0, report.passed, "{report:?}");
    // keepalived may let two nodes answer; everything else must be as it is shown.
    let overlaps = &report.whole.overlaps;
    assert_eq!(&report.problems, overlaps, "{report:?}");
    let steps: Vec<_> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["quiet", "crash", "return", "move"]);
    let moved = &report.steps[3].vips[0];
    assert_ne!(moved.from, moved.to, "{report:?}");
    assert!(moved.requests > 100, "{moved:?}");
    let steps_ms: f64 = (report.steps.iter().flat_map(|step| &step.vips))
        .map(|part| part.two_owners_ms)
        .sum();
    assert!(report.whole.overlap_ms >= steps_ms, "{report:?}");
    let watched = report.whole.watched_ms / 1e3;
    assert!(watched > 8.0 && watched < report.seconds, "{report:?}");
    let crash = &report.steps[1].vips[0];
    assert_ne!(crash.from, crash.to);
    assert!(crash.lost > 10 && crash.blackout_ms > 50.0, "{crash:?}");
    assert!(
        (crash.blackout_ms - crash.dark_ms).abs() < 60.0,
        "{crash:?}"
    );
    assert_eq!(report.steps[0].vips[0].lost, 0, "{report:?}");
    assert!(nothing_left(&name));
}

#[test]
fn a_demo_that_fails_says_so_in_json() {
    if !possible() {
        return;
    }
    // The harness has no `serve`: the daemons end at once.
    let output = lab(&["demo", "--json"]);
    assert_eq!(code(&output), 1, "{output:?}");
    let report: DemoReport = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!report.passed && report.steps.is_empty(), "{report:?}");
    let problem = &report.problems[0];
    assert!(problem.contains("Buoy has ended on n"), "{problem}");
}

/// Starts a demo and waits until its daemons run.
fn demo_under_way() -> (Child, String) {
    let demo = lab_command(&["demo", "--with", "keepalived"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let name = format!("demo-{}", demo.id());
    eventually("the demo's daemons run", || {
        directory_of(&name).join("n2/daemon.pid").exists()
    });
    (demo, name)
}

#[test]
fn an_interrupted_demo_cleans_up() {
    if !possible() {
        return;
    }
    let (mut demo, name) = demo_under_way();
    Process::from_child(&demo)
        .unwrap()
        .signal(libc::SIGINT)
        .unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert!(nothing_left(&name));
}

#[test]
fn a_killed_demo_is_cleaned_up_by_its_switch() {
    if !possible() {
        return;
    }
    let (mut demo, name) = demo_under_way();
    demo.kill().unwrap();
    // It was under way until then: nothing but its switch can have taken the lab down.
    assert_eq!(demo.wait().unwrap().signal(), Some(libc::SIGKILL));
    eventually("nothing is left", || nothing_left(&name));
}

#[test]
fn what_a_crash_left_behind_is_taken_down() {
    if !possible() {
        return;
    }
    let name = unique();
    let _down = Down(name.clone());
    let up = lab(&["up", "--name", &name, "--with", "keepalived"]);
    assert_eq!(code(&up), 0, "{up:?}");
    assert!(labs().contains(&name));
    let pidfile = directory_of(&name).join("switch.pid");
    let id = buoy_lab::process::ProcessId::read_pidfile(&pidfile).unwrap();
    let switch = id.unwrap().open().unwrap();
    switch.signal(libc::SIGKILL).unwrap();
    switch.wait_exit(Duration::from_secs(5)).unwrap();
    let status = lab(&["status", "--name", &name]);
    assert_eq!(code(&status), 3, "{status:?}");
    assert!(
        text(&status.stderr).contains("clears it away"),
        "{status:?}"
    );
    assert_eq!(code(&lab(&["down", "--name", &name])), 0);
    assert!(nothing_left(&name));
    // A directory in which nothing was made yet, and data alone, as a reboot leaves it.
    for path in [directory_of(&name), data_of(&name).join("n1")] {
        std::fs::create_dir_all(path).unwrap();
        assert_eq!(code(&lab(&["down", "--name", &name])), 0);
        assert!(nothing_left(&name));
    }
}

#[test]
fn data_is_on_a_disk_and_a_new_lab_begins_without_that_of_an_old_one() {
    if !possible() {
        return;
    }
    let name = unique();
    let old = data_of(&name).join("n1/vote");
    std::fs::create_dir_all(old.parent().unwrap()).unwrap();
    std::fs::write(&old, "of an earlier life").unwrap();
    let lab = Lab::create(keepalived(&name)).unwrap();
    let topology = lab.topology();
    for node in ["n1", "n2", "n3"] {
        let data = topology.place(node).join("data");
        assert_eq!(std::fs::canonicalize(&data).unwrap(), topology.data(node));
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "{node}");
        assert!(topology.data(node).starts_with("/var/lib"));
    }
    drop(lab);
    assert!(nothing_left(&name));
}

#[test]
fn a_lab_that_cannot_be_made_leaves_nothing() {
    if !possible() {
        return;
    }
    let name = unique();
    let mut record = keepalived(&name);
    record.program = "/no/such/program".into();
    assert!(Lab::create(record).is_err());
    assert!(nothing_left(&name));
}

#[test]
fn a_panic_takes_the_lab_down() {
    if !possible() {
        return;
    }
    let name = unique();
    let inside = name.clone();
    let ended = std::thread::spawn(move || {
        let _lab = running(&inside);
        panic!("as planned");
    })
    .join();
    assert!(ended.is_err());
    assert!(nothing_left(&name));
}

//! Namespaces: made, entered, emptied and removed, whatever happens.

mod common;

use std::time::Duration;

use buoy_lab::ns::{self, Netns};
use common::{possible, unique};

#[test]
fn a_namespace_is_its_own_network_and_goes_with_its_value() {
    if !possible() {
        return;
    }
    let name = unique("own");
    let ns = Netns::scoped(&name).unwrap();
    let links = ns.command("ip").unwrap().args(["-o", "link"]).output();
    let links = String::from_utf8(links.unwrap().stdout).unwrap();
    assert_eq!(links.lines().count(), 1, "{links}");
    assert!(links.contains("lo: <LOOPBACK,UP"), "{links}");
    drop(ns);
    assert!(!ns::path_of(&name).exists());
}

#[test]
fn iproute2_knows_the_namespace() {
    if !possible() {
        return;
    }
    let ns = Netns::scoped(&unique("ip")).unwrap();
    let inside = std::process::Command::new("ip")
        .args(["netns", "exec", ns.name(), "ip", "-o", "link"])
        .output()
        .unwrap();
    assert!(inside.status.success(), "{inside:?}");
}

#[test]
fn a_taken_name_is_refused_and_left_alone() {
    if !possible() {
        return;
    }
    let ns = Netns::scoped(&unique("twice")).unwrap();
    let error = Netns::create(ns.name()).err().unwrap();
    assert!(format!("{error:#}").contains("is taken"), "{error:#}");
    assert!(ns.enter(|| Ok(())).is_ok());
}

#[test]
fn everything_in_a_namespace_is_killed_and_nothing_else() {
    if !possible() {
        return;
    }
    let ns = Netns::scoped(&unique("kill")).unwrap();
    let mut outside = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    // A shell with a child: both must go.
    let mut inside = ns.command("sh").unwrap();
    let mut inside = inside.args(["-c", "sleep 60 & wait"]).spawn().unwrap();
    common::eventually("both processes are seen", || {
        ns.processes().unwrap().len() == 2
    });
    assert_eq!(ns.kill_all().unwrap(), 2);
    assert!(ns.processes().unwrap().is_empty());
    assert!(outside.try_wait().unwrap().is_none());
    outside.kill().unwrap();
    outside.wait().unwrap();
    // Already reaped by kill_all; either answer is fine, a hang is not.
    let _ = inside.wait();
}

#[test]
#[expect(
    clippy::zombie_processes,
    reason = "that the guard reaps it is the test"
)]
fn a_panic_leaves_nothing_behind() {
    if !possible() {
        return;
    }
    let name = unique("panic");
    let for_thread = name.clone();
    let pid = std::sync::Arc::new(std::sync::Mutex::new(0));
    let pid_inside = pid.clone();
    let ended = std::thread::spawn(move || {
        let ns = Netns::scoped(&for_thread).unwrap();
        let child = ns.command("sleep").unwrap().arg("60").spawn().unwrap();
        *pid_inside.lock().unwrap() = child.id();
        common::eventually("the child is inside", || ns.processes().unwrap().len() == 1);
        panic!("as planned");
    })
    .join();
    assert!(ended.is_err());
    assert!(!ns::path_of(&name).exists());
    let pid = i32::try_from(*pid.lock().unwrap()).unwrap();
    assert!(buoy_lab::process::Process::from_pid(pid).is_err());
}

#[test]
#[expect(clippy::zombie_processes, reason = "Process::stop reaps it")]
fn a_process_is_known_by_its_start_and_not_by_its_number() {
    let child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let process = buoy_lab::process::Process::from_child(&child).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    process.write_pidfile(file.path()).unwrap();
    let id = buoy_lab::process::ProcessId::read_pidfile(file.path())
        .unwrap()
        .unwrap();
    assert!(id.open().is_some());
    let mut other = id;
    other.started += 1;
    assert!(other.open().is_none());
    process.signal(libc::SIGSTOP).unwrap();
    assert!(process.is_running());
    process.stop(Duration::from_secs(5)).unwrap();
    assert!(id.open().is_none());
}

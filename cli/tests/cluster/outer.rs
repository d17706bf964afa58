//! What stands around a daemon: the service manager that it tells how it does, and watchdogs.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Cluster, WEB_A, wait};

/// In place of systemd.
struct Manager {
    told: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    /// Listens at a path, for as long as the test runs.
    fn at(path: &str) -> Manager {
        let socket = UnixDatagram::bind(path).unwrap();
        let told = Arc::<Mutex<Vec<String>>>::default();
        let notes = told.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                notes.lock().unwrap().push(text);
            }
        });
        Manager { told }
    }

    /// How much it was told so far.
    fn now(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// Everything after the first `from` messages.
    fn since(&self, from: usize) -> Vec<String> {
        self.told.lock().unwrap()[from..].to_vec()
    }

    fn count(&self, from: usize, message: &str) -> usize {
        let told = self.since(from);
        told.iter().filter(|m| *m == message).count()
    }

    fn wait(&self, from: usize, message: &str) {
        wait(&format!("the service manager is told {message:?}"), || {
            self.count(from, message) > 0
        });
    }

    /// The last line about the node.
    fn status(&self) -> String {
        let told = self.told.lock().unwrap();
        let last = told.iter().rev().find_map(|m| m.strip_prefix("STATUS="));
        last.unwrap_or_default().trim_end().to_owned()
    }

    /// Its watchdog is fed, several times from now on.
    fn wait_fed(&self) {
        let from = self.now();
        wait("the watchdog is fed three times", || {
            self.count(from, "WATCHDOG=1\n") >= 3
        });
    }
}

#[test]
fn the_service_manager_is_told_and_its_watchdog_fed_also_without_a_quorum() {
    let Some(cluster) = Cluster::unstarted() else {
        return;
    };
    let path = cluster.lab.topology().place("n1").join("notify");
    let path = path.to_str().unwrap();
    let manager = Manager::at(path);
    let variables = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "1500000")];
    cluster.start_in("n1", &cluster.config("n1"), &variables);

    // Ready without the others, who may be started after it.
    manager.wait(0, "READY=1\n");
    assert!(cluster.log("n1").contains("listening"));
    assert_eq!(cluster.buoy("n1", &["status"]).code, 1, "it answers");
    manager.wait(0, "STATUS=holds no VIP; no leader known\n");
    manager.wait_fed();
    for node in ["n2", "n3"] {
        cluster.start(node);
    }
    cluster.settled(&["n1", "n2", "n3"]);
    cluster.move_to(WEB_A, "n1");
    wait("the status is what the node says of itself", || {
        let status = cluster.json("n1", &["status"]);
        let holds = match status["nodes"][0]["active"].as_array().unwrap().len() {
            0 => return false,
            1 => "holds 1 VIP".to_owned(),
            n => format!("holds {n} VIPs"),
        };
        let leader = match status["leader"].as_str() {
            Some("n1") => "leads the cluster".to_owned(),
            Some(other) => format!("leader {other}"),
            None => return false,
        };
        manager.status() == format!("{holds}; {leader}")
    });
    manager.wait_fed();

    // How late the lease thread of a real daemon woke up is told as well.
    let late = cluster.json("n1", &["status"])["lateness"].clone();
    let figure = |name: &str| late[name].as_u64().unwrap();
    let (mean, recent) = (figure("mean_us"), figure("max_last_minute_us"));
    assert!(figure("wakes") > 10, "{late}");
    assert!(mean <= recent && recent <= figure("max_us"), "{late}");

    let from = manager.now();
    cluster.process("n1").signal(libc::SIGHUP).unwrap();
    manager.wait(from, "READY=1\n");
    let told: Vec<String> = manager.since(from);
    let place = |start: &str| told.iter().position(|m| m.starts_with(start));
    let reloading = place("RELOADING=1\nMONOTONIC_USEC=");
    assert!(
        reloading.is_some() && reloading < place("READY=1"),
        "{told:?}"
    );

    // Without a quorum it goes down by itself: nothing to restart it for.
    for node in ["n2", "n3"] {
        cluster.process(node).signal(libc::SIGSTOP).unwrap();
    }
    cluster.wait_silent(WEB_A.1);
    wait("it says that it holds nothing", || {
        manager.status().starts_with("holds no VIP;")
    });
    let from = manager.now();
    manager.wait_fed();
    for node in ["n2", "n3"] {
        cluster.process(node).signal(libc::SIGCONT).unwrap();
    }
    cluster.settled(&["n1", "n2", "n3"]);
    assert_eq!(manager.count(from, "STOPPING=1\n"), 0);

    let from = manager.now();
    let process = cluster.process("n1");
    process.signal(libc::SIGTERM).unwrap();
    process.wait_exit(Duration::from_secs(10)).unwrap();
    manager.wait(from, "STOPPING=1\n");
    // The same line is never told twice in a row.
    let mut lines = manager.since(0);
    lines.retain(|m| m.starts_with("STATUS="));
    let all = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), all, "{lines:?}");
    cluster.never_dual();
}

#[test]
fn a_hardware_watchdog_that_is_none_is_refused_before_anything_is_held() {
    let Some(cluster) = Cluster::unstarted() else {
        return;
    };
    let file = cluster.lab.topology().place("n1").join("precious");
    std::fs::write(&file, "data").unwrap();
    for (device, words) in [
        (file.to_str().unwrap(), "no character device"),
        ("/dev/null", "is no watchdog device"),
        ("/dev/watchdog-that-is-not-there", "driver"),
    ] {
        let own = format!("[node]\nwatchdog = \"{device}\"");
        let config = cluster.config("n1").replacen("[node]", &own, 1);
        let ran = cluster.refused("n1", &config);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.err.contains(words) && ran.err.contains(device),
            "{ran:?}"
        );
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"data");
}

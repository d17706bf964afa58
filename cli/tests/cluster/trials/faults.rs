//! Ways in which the owner of a VIP stops renewing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use buoy_lab::sys::{clock::now_ns, realtime};

use crate::harness::{Cluster, wait};

/// Above the lease thread's, so that it gets nothing; below those of the switch and of the instruments.
const BUSY_PRIORITY: i32 = 20;
const BUSY_LOOPS: usize = 32;
/// Longer than the longest lease that is tried with it.
const BUSY_FOR: Duration = Duration::from_millis(1_200);

/// What happens to the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SIGSTOP of its daemon, all threads.
    Stop,
    /// SIGKILL of its daemon.
    Kill,
    /// The cgroup freezer over every process of the node.
    Freeze,
    /// Busy loops at realtime priority on all processors, which are those of the other nodes as well.
    Starve,
}

impl Fault {
    pub const ALL: [Fault; 4] = [Fault::Stop, Fault::Kill, Fault::Freeze, Fault::Starve];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fault::Stop => "SIGSTOP",
            Fault::Kill => "SIGKILL",
            Fault::Freeze => "cgroup freezer",
            Fault::Starve => "32 busy loops",
        })
    }
}

/// A fault that lasts until the value is dropped, also when the test fails.
pub enum Lasting<'a> {
    Stopped(&'a Cluster, String),
    Killed(&'a Cluster, String),
    Frozen { _freezer: Freezer },
    Starved(Vec<JoinHandle<()>>, Arc<AtomicBool>),
}

impl Lasting<'_> {
    /// Returns once the fault has taken hold.
    pub fn begin<'a>(cluster: &'a Cluster, owner: &str, fault: Fault) -> Lasting<'a> {
        match fault {
            Fault::Stop => {
                let pid = cluster.lab.daemon(owner).unwrap().unwrap().id().pid;
                cluster.lab.pause_daemon(owner).unwrap();
                wait("every thread stands still", || all_stopped(pid));
                Lasting::Stopped(cluster, owner.to_owned())
            }
            Fault::Kill => {
                cluster.lab.kill_daemon(owner).unwrap();
                Lasting::Killed(cluster, owner.to_owned())
            }
            Fault::Freeze => Lasting::Frozen {
                _freezer: Freezer::over(cluster, owner),
            },
            Fault::Starve => {
                let over = Arc::new(AtomicBool::new(false));
                let until = now_ns() + u64::try_from(BUSY_FOR.as_nanos()).unwrap();
                let spin = |_| {
                    let over = over.clone();
                    std::thread::spawn(move || {
                        realtime(BUSY_PRIORITY).unwrap();
                        while now_ns() < until && !over.load(Ordering::Relaxed) {
                            std::hint::spin_loop();
                        }
                    })
                };
                Lasting::Starved((0..BUSY_LOOPS).map(spin).collect(), over)
            }
        }
    }
}

impl Drop for Lasting<'_> {
    fn drop(&mut self) {
        match self {
            Lasting::Stopped(cluster, node) => cluster.lab.resume_daemon(node).unwrap(),
            Lasting::Killed(cluster, node) => cluster.start(node),
            Lasting::Frozen { .. } => {}
            Lasting::Starved(threads, over) => {
                over.store(true, Ordering::Relaxed);
                threads.drain(..).for_each(|thread| thread.join().unwrap());
            }
        }
    }
}

/// For starvation the fault ends by itself: waits for that.
pub fn last(fault: &mut Lasting<'_>) {
    if let Lasting::Starved(threads, _) = fault {
        threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn all_stopped(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default();
        state.trim_start().starts_with('T')
    })
}

/// A cgroup with the processes of a node.
pub struct Freezer {
    group: PathBuf,
    /// Version 2 of cgroups, else the freezer of version 1.
    unified: bool,
}

impl Freezer {
    /// Where cgroups can be made: version 2 if there is one.
    fn root() -> Option<(PathBuf, bool)> {
        let v2 = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let unified = v2
            .iter()
            .find(|root| Path::new(root).join("cgroup.procs").exists());
        let v1 = "/sys/fs/cgroup/freezer";
        match unified {
            Some(root) => Some((root.into(), true)),
            None => Path::new(v1)
                .join("cgroup.procs")
                .exists()
                .then(|| (v1.into(), false)),
        }
    }

    /// Why there is none here, if so.
    pub fn missing() -> Option<&'static str> {
        Self::root()
            .is_none()
            .then_some("no cgroup file system with a freezer is mounted")
    }

    fn over(cluster: &Cluster, node: &str) -> Freezer {
        let (root, unified) = Self::root().unwrap();
        let name = format!("buoy-{}-{node}", cluster.lab.topology().name);
        let freezer = Freezer {
            group: root.join(name),
            unified,
        };
        std::fs::create_dir(&freezer.group).unwrap();
        for process in cluster.lab.netns(node).unwrap().processes().unwrap() {
            let procs = freezer.group.join("cgroup.procs");
            std::fs::write(procs, process.id().pid.to_string()).unwrap();
        }
        freezer.set(true);
        freezer
    }

    fn set(&self, frozen: bool) {
        let (file, word) = match (self.unified, frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        std::fs::write(self.group.join(file), word).unwrap();
        let (file, word) = match (self.unified, frozen) {
            (true, true) => ("cgroup.events", "frozen 1"),
            (true, false) => ("cgroup.events", "frozen 0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        wait("the freezer has done it", || {
            let state = std::fs::read_to_string(self.group.join(file));
            state.is_ok_and(|text| text.contains(word))
        });
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.set(false);
        let up = self.group.parent().unwrap().join("cgroup.procs");
        let inside = std::fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            // One that has ended meanwhile is no matter.
            let _ = std::fs::write(&up, pid);
        }
        // The kernel removes it when the last process is out.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} stays behind", self.group.display());
    }
}

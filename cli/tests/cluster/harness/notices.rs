//! What the kernel of a node tells of its addresses.

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::{Cluster, wait};

/// The kernel's notices of addresses at one node, from a moment on.
pub struct Notices {
    monitor: Child,
    told: PathBuf,
}

impl Cluster {
    /// Listens from now on. `held`, which the node has, is refreshed every second: its next notice shows that the
    /// listening has begun.
    pub fn notices(&self, node: &str, held: IpAddr) -> Notices {
        let told = self.lab.topology().place(node).join("notices");
        let mut monitor = self.command(node, "ip");
        let monitor = monitor
            .args(["-o", "monitor", "address"])
            .stdin(Stdio::null())
            .stdout(File::create(&told).unwrap())
            .spawn()
            .unwrap();
        let notices = Notices { monitor, told };
        notices.wait_added(held);
        notices
    }
}

impl Notices {
    fn lines(&self, address: IpAddr) -> Vec<String> {
        let text = std::fs::read_to_string(&self.told).unwrap();
        let of = |line: &&str| line.contains(&format!(" {address}/"));
        text.lines().filter(of).map(str::to_owned).collect()
    }

    /// How often the address was removed.
    pub fn removals(&self, address: IpAddr) -> usize {
        let lines = self.lines(address);
        lines.iter().filter(|l| l.starts_with("Deleted")).count()
    }

    /// Waits until the last that was told of the address is that it is there.
    pub fn wait_added(&self, address: IpAddr) {
        wait(&format!("the kernel tells that {address} is there"), || {
            let last = self.lines(address).pop();
            last.is_some_and(|line| !line.starts_with("Deleted"))
        });
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        // It is gone already only if the test has failed.
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

//! The hardware watchdog of the configuration. It is not opened: that would start its timer.

use std::path::Path;

use super::{Files, Finding};
use crate::checks;
use crate::watchdog::device;

const ABOUT: &str = "watchdog";

/// What the kernel tells of it.
pub(super) fn examine(files: &Files, path: &Path) -> Vec<Finding> {
    let shown = path.display();
    let dir = match device::sysfs(path) {
        Err(e) => {
            return vec![Finding::problem(
                ABOUT,
                format!("{shown} is not there: {e}; the daemon does not start"),
                "load the driver of this machine's watchdog, or leave node.watchdog out",
            )];
        }
        Ok(None) => {
            return vec![Finding::problem(
                ABOUT,
                format!("{shown} is no character device; the daemon does not start"),
                "node.watchdog = \"/dev/watchdog\", or leave it out",
            )];
        }
        Ok(Some(dir)) => dir,
    };
    // Where the list of sockets cannot be read, nothing is said about who uses it.
    judge(files, path, &dir, checks::in_charge().unwrap_or(true))
}

fn judge(files: &Files, path: &Path, dir: &str, daemon: bool) -> Vec<Finding> {
    let shown = path.display();
    let Some(identity) = files.read(&format!("{dir}/identity")) else {
        return vec![Finding::warning(
            ABOUT,
            format!("the kernel tells nothing of {shown}"),
            "is it a watchdog? The daemon says at its start",
        )];
    };
    let mut found = Vec::new();
    if !daemon && files.read(&format!("{dir}/state")).as_deref() == Some("active") {
        found.push(Finding::problem(
            ABOUT,
            format!("{shown} ({identity}) runs already, and no buoy daemon does: another program uses it, or left it running"),
            "RuntimeWatchdogSec=off in systemd's system.conf, or stop the watchdog daemon: only one can have it",
        ));
    }
    if files.read(&format!("{dir}/nowayout")).as_deref() == Some("1") {
        found.push(Finding::warning(
            ABOUT,
            format!("{shown} ({identity}) cannot be stopped once it runs (nowayout): this machine is reset after each stop of the daemon, unless it runs again in time"),
            "nowayout=0 for the driver, unless that is wanted",
        ));
    }
    if found.is_empty() {
        found.push(Finding::fine(ABOUT, format!("{shown} ({identity})")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn what_the_kernel_tells_is_judged() {
        let root = tempfile::tempdir().unwrap();
        let files = Files {
            root: root.path().into(),
        };
        let judged = |daemon| judge(&files, Path::new("/dev/watchdog"), "dog", daemon);
        assert_eq!(judged(false)[0].level, Level::Warning);
        let at = root.path().join("dog");
        std::fs::create_dir_all(&at).unwrap();
        let write = |file: &str, text: &str| std::fs::write(at.join(file), text).unwrap();
        write("identity", "iTCO_wdt\n");
        write("state", "inactive\n");
        write("nowayout", "0\n");
        let fine = judged(false);
        assert_eq!((fine.len(), fine[0].level), (1, Level::Fine));
        assert!(fine[0].found.contains("iTCO_wdt"), "{fine:?}");
        write("state", "active\n");
        assert_eq!(judged(true), fine);
        assert_eq!(judged(false)[0].level, Level::Problem);
        write("nowayout", "1\n");
        let both = judged(false);
        assert_eq!((both.len(), both[1].level), (2, Level::Warning));
        assert!(both[1].found.contains("nowayout"), "{both:?}");
    }

    #[test]
    fn what_is_no_device_is_a_problem() {
        let files = Files::host();
        for path in ["/dev/watchdog-that-is-not-there", "/etc/hostname"] {
            let found = examine(&files, Path::new(path));
            assert_eq!(found[0].level, Level::Problem, "{found:?}");
            assert!(found[0].found.contains(path), "{found:?}");
        }
        let null = judge(&files, Path::new("/dev/null"), "sys/dev/char/1:3", false);
        assert_eq!(null[0].level, Level::Warning);
    }
}

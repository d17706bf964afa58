//! Says what a machine lacks when bpf(2) refuses, and how to get it.

use std::io;

use super::GateError;
use crate::process::{
    CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN, effective_capabilities, holds, release,
};

pub(super) const OPT_OUT: &str = "or set `fence = \"userspace-only\"` to run without a packet gate";

/// Turns a refusal of bpf(2) into words for the person who has to change something.
pub(super) fn explain(action: String, error: io::Error) -> GateError {
    let (problem, remedy) = match error.raw_os_error() {
        Some(libc::EPERM) => permission(effective_capabilities()),
        Some(libc::EACCES) => (
            format!("bpf(2) is refused ({error})"),
            "look for a security module's denial in the kernel log (`dmesg`, `ausearch -m avc`) and allow \
             buoy to load BPF programs"
                .to_string(),
        ),
        Some(libc::ENOSYS) => (
            "this kernel has no bpf(2)".to_string(),
            "use a kernel built with CONFIG_BPF_SYSCALL (5.8 or newer)".to_string(),
        ),
        Some(libc::ENOMEM) => (
            "the kernel has no memory for it".to_string(),
            "free memory or raise the cgroup's memory limit".to_string(),
        ),
        Some(libc::EINVAL) => (
            format!("Linux {} does not know what it asks for ({error})", release()),
            "use Linux 5.8 or newer".to_string(),
        ),
        _ => return GateError::kernel(action, error),
    };
    GateError::Unavailable {
        action,
        problem,
        remedy: format!("{remedy}, {OPT_OUT}"),
    }
}

/// The kernel has no helper for CLOCK_BOOTTIME.
pub(super) fn no_boot_clock(log: &str) -> GateError {
    let detail = log
        .lines()
        .rev()
        .find(|l| l.contains("func"))
        .unwrap_or(log)
        .trim();
    GateError::Unavailable {
        action: "read CLOCK_BOOTTIME in the kernel".to_string(),
        problem: format!(
            "Linux {} has no bpf_ktime_get_boot_ns for it ({detail})",
            release()
        ),
        remedy: format!(
            "use Linux 5.8 or newer (an older kernel's only clock stands still during suspend, so the gate \
             would open again too late), {OPT_OUT}"
        ),
    }
}

fn permission(capabilities: Option<u64>) -> (String, String) {
    let Some(held) = capabilities else {
        return (
            "bpf(2) is not permitted".to_string(),
            "give buoy CAP_BPF and CAP_NET_ADMIN (CAP_SYS_ADMIN before Linux 5.8)".to_string(),
        );
    };
    let mut lacking = Vec::new();
    if !holds(held, CAP_SYS_ADMIN) {
        lacking.extend(
            [CAP_BPF, CAP_NET_ADMIN]
                .into_iter()
                .filter(|c| !holds(held, *c))
                .map(|(_, name)| name),
        );
    }
    if lacking.is_empty() {
        return (
            "bpf(2) is not permitted although the capabilities are there".to_string(),
            "check that no seccomp filter blocks bpf(2) (containers: `--security-opt seccomp=..`), that the \
             process is in the host's user namespace, that the kernel is not locked down \
             (/sys/kernel/security/lockdown), and on Linux before 5.11 that RLIMIT_MEMLOCK is unlimited \
             (`LimitMEMLOCK=infinity`)"
                .to_string(),
        );
    }
    let names = lacking.join(" and ");
    let problem = format!("the process lacks {names}");
    (
        problem,
        format!(
            "run buoy as root or with `AmbientCapabilities={}`",
            lacking.join(" ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_capability_that_is_missing() {
        let (problem, remedy) = permission(Some(1 << 12));
        assert!(
            problem.contains("CAP_BPF") && !problem.contains("CAP_NET_ADMIN"),
            "{problem}"
        );
        assert!(remedy.contains("AmbientCapabilities=CAP_BPF"), "{remedy}");
        let (problem, _) = permission(Some(0));
        assert!(problem.contains("CAP_BPF and CAP_NET_ADMIN"), "{problem}");
        let (problem, remedy) = permission(Some(1 << 21));
        assert!(problem.contains("although"), "{problem}");
        assert!(
            remedy.contains("seccomp") && remedy.contains("MEMLOCK"),
            "{remedy}"
        );
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for errno in [
            libc::EPERM,
            libc::EACCES,
            libc::ENOSYS,
            libc::ENOMEM,
            libc::EINVAL,
        ] {
            let e = explain("load".to_string(), io::Error::from_raw_os_error(errno));
            assert!(matches!(e, GateError::Unavailable { .. }), "{e}");
            assert!(e.to_string().contains("userspace-only"), "{e}");
        }
        let e = no_boot_clock("0: (85) call unknown#125\ninvalid func unknown#125\n");
        assert!(
            e.to_string().contains("5.8") && e.to_string().contains("#125"),
            "{e}"
        );
    }
}

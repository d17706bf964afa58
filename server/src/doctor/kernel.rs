//! The kernel, and what this process may ask of it.

use std::time::Duration;

use buoy_fence::gate::GateKind;
use buoy_fence::process::{
    CAP_BPF, CAP_IPC_LOCK, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_SYS_NICE, Capability,
    effective_capabilities, holds, release,
};

use super::{Files, Finding};
use crate::choice::make_gate;
use crate::config::Fence;
use crate::precheck::MIN_LEASE_WITHOUT_REALTIME;
use crate::sys;

/// Capabilities, and what goes without them.
const CAPABILITIES: [(Capability, &str); 5] = [
    (CAP_NET_ADMIN, "no address and no packet gate"),
    (
        CAP_NET_RAW,
        "no gratuitous ARP, so neighbours send to the old owner until their caches expire",
    ),
    (CAP_BPF, "no eBPF gate, only nftables"),
    (
        CAP_SYS_NICE,
        "no realtime scheduling, unless RLIMIT_RTPRIO allows it",
    ),
    (
        CAP_IPC_LOCK,
        "no locked memory, unless RLIMIT_MEMLOCK allows it",
    ),
];
/// Those without which Buoy does not do its job.
const NEEDED: [Capability; 2] = [CAP_NET_ADMIN, CAP_NET_RAW];

/// Clock sources that are slow to read, or known to drift.
const POOR_CLOCKS: [&str; 5] = ["acpi_pm", "hpet", "jiffies", "pit", "refined-jiffies"];

pub(super) fn examine(files: &Files, fence: Fence) -> Vec<Finding> {
    let held = effective_capabilities().unwrap_or(0);
    let mut found = permissions(held);
    found.extend(gate(fence));
    found.extend(clocks(files));
    found.push(memory(held));
    found.push(realtime(files, held));
    found
}

fn permissions(held: u64) -> Vec<Finding> {
    const ABOUT: &str = "capabilities";
    let has = |capability| {
        // CAP_SYS_ADMIN includes CAP_BPF.
        holds(held, capability) || (capability == CAP_BPF && holds(held, CAP_SYS_ADMIN))
    };
    let lacking: Vec<Finding> = CAPABILITIES
        .into_iter()
        .filter(|(capability, _)| !has(*capability))
        .map(|(capability, without)| {
            let name = capability.1;
            let found = format!("{name} is missing: {without}");
            let advice =
                format!("run this as root, and add {name} to CapabilityBoundingSet= of the unit");
            if NEEDED.contains(&capability) {
                Finding::problem(ABOUT, found, advice)
            } else {
                Finding::warning(ABOUT, found, advice)
            }
        })
        .collect();
    if lacking.is_empty() {
        return vec![Finding::fine(ABOUT, "all that are needed")];
    }
    lacking
}

/// The kernel takes the gate that is asked for, and that one judges trial packets; nothing of it stays.
fn gate(fence: Fence) -> Vec<Finding> {
    const ABOUT: &str = "gate";
    let tried = make_gate(fence).and_then(|(mut gate, warnings)| {
        gate.self_test()?;
        Ok((gate.kind(), warnings))
    });
    let (kind, warnings) = match tried {
        Ok(tried) => tried,
        Err(e) => return vec![Finding::problem(ABOUT, e.to_string(), "")],
    };
    let mut found: Vec<Finding> = warnings
        .into_iter()
        .map(|warning| Finding::warning(ABOUT, warning, ""))
        .collect();
    if kind != GateKind::UserspaceOnly {
        found.push(Finding::fine(
            ABOUT,
            format!(
                "{kind}: it drops and passes trial packets as it should (Linux {})",
                release()
            ),
        ));
    }
    found
}

fn clocks(files: &Files) -> Vec<Finding> {
    const ABOUT: &str = "clock";
    let mut found = Vec::new();
    match files.read("sys/devices/system/clocksource/clocksource0/current_clocksource") {
        Some(source) if POOR_CLOCKS.contains(&source.as_str()) => found.push(Finding::warning(
            ABOUT,
            format!("the kernel reads its time from {source}, which is slow, and may drift more than leases allow for"),
            "find out in the kernel log why the TSC (or the hypervisor's clock) was given up",
        )),
        Some(source) => found.push(Finding::fine(ABOUT, format!("clock source {source}"))),
        None => {}
    }
    if let Err(e) = buoy_fence::clock::check_time_namespace() {
        found.push(Finding::problem(ABOUT, e.to_string(), ""));
    }
    found
}

fn limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` outlives the call.
    match unsafe { libc::getrlimit(resource, &mut limit) } {
        0 => limit.rlim_cur,
        _ => 0,
    }
}

/// More than a daemon with many VIPs ever uses.
const MEMLOCK: u64 = 256 << 20;

fn memory(held: u64) -> Finding {
    const ABOUT: &str = "memory";
    let limit = limit(libc::RLIMIT_MEMLOCK);
    if holds(held, CAP_IPC_LOCK) || limit >= MEMLOCK {
        return Finding::fine(
            ABOUT,
            "may be locked, so that a renewal never waits for swap",
        );
    }
    Finding::warning(
        ABOUT,
        format!(
            "only {} KiB may be locked: a renewal can wait for swap, and a lease be lost",
            limit / 1024
        ),
        "LimitMEMLOCK=infinity in the unit, or CAP_IPC_LOCK",
    )
}

fn realtime(files: &Files, held: u64) -> Finding {
    const ABOUT: &str = "realtime";
    let tried = std::thread::spawn(|| sys::realtime(sys::LEASE_PRIORITY)).join();
    let refused = match tried {
        Ok(Ok(())) => match files.number("proc/sys/kernel/sched_rt_runtime_us") {
            Some(0) => {
                "kernel.sched_rt_runtime_us is 0: realtime threads do not run at all".to_owned()
            }
            _ => return Finding::fine(ABOUT, "SCHED_RR is allowed"),
        },
        Ok(Err(e)) if holds(held, CAP_SYS_NICE) => format!(
            "SCHED_RR is refused ({e}) with CAP_SYS_NICE: this control group has no realtime budget (cpu.rt_runtime_us)"
        ),
        Ok(Err(e)) => format!("SCHED_RR is refused ({e})"),
        Err(_) => "the trial thread failed".to_owned(),
    };
    let least: Duration = MIN_LEASE_WITHOUT_REALTIME;
    Finding::warning(
        ABOUT,
        format!(
            "{refused}: a busy machine may renew too late, so leases must be at least {least:?} long"
        ),
        "LimitRTPRIO=10 in the unit, or CAP_SYS_NICE; or timing.profile = \"wan\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_missing_capability_is_named_with_what_goes_without_it() {
        let all = CAPABILITIES
            .iter()
            .fold(1u64 << CAP_SYS_ADMIN.0, |mask, ((bit, _), _)| {
                mask | 1u64 << bit
            });
        assert_eq!(permissions(all)[0].level, Level::Fine);
        // CAP_SYS_ADMIN includes CAP_BPF.
        assert_eq!(permissions(all & !(1 << 39))[0].level, Level::Fine);
        assert_eq!(permissions(all & !(1 << 21))[0].level, Level::Fine);
        let found = permissions(all & !(1 << 13));
        assert_eq!((found.len(), found[0].level), (1, Level::Problem));
        assert!(found[0].found.contains("CAP_NET_RAW"), "{found:?}");
        assert_eq!(permissions(all & !(1 << 23))[0].level, Level::Warning);
        assert_eq!(permissions(0).len(), 5);
    }

    #[test]
    fn a_poor_clock_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir
            .path()
            .join("sys/devices/system/clocksource/clocksource0");
        std::fs::create_dir_all(&at).unwrap();
        let files = Files {
            root: dir.path().into(),
        };
        for (source, level) in [
            ("tsc", Level::Fine),
            ("kvm-clock", Level::Fine),
            ("hpet", Level::Warning),
        ] {
            std::fs::write(at.join("current_clocksource"), format!("{source}\n")).unwrap();
            assert_eq!(clocks(&files)[0].level, level, "{source}");
        }
    }
}

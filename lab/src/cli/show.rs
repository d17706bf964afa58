//! `buoy lab status` and `observe`: how a lab stands, seen from the network.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

use super::{OK, UNHEALTHY};
use crate::cluster::{DaemonState, Lab, PROBE, labs};
use crate::observer::{Figures, figures};
use crate::say::say;
use crate::switch::protocol::Faults;
use crate::sys::clock::{MS, now_ns};
use crate::topology::CLIENT;

/// How long `status` looks at the VIPs.
const GLANCE: Duration = Duration::from_millis(50);

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Name of the lab; without it all are listed if there are several.
    #[arg(long)]
    name: Option<String>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Arguments of `observe`.
#[derive(Args, Debug)]
pub struct ObserveArgs {
    #[command(flatten)]
    which: super::Which,
    /// How long, seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Status {
    name: String,
    backend: String,
    nodes: Vec<NodeStatus>,
    vips: Vec<VipStatus>,
    cuts: Vec<(String, String)>,
    link_faults: Vec<(String, String, Faults)>,
    switch_realtime: bool,
}

#[derive(Serialize)]
struct NodeStatus {
    name: String,
    cable: bool,
    daemon: String,
    faults: Faults,
}

#[derive(Serialize)]
struct VipStatus {
    vip: String,
    address: std::net::IpAddr,
    answered_by: Vec<String>,
}

pub(super) fn status(args: &StatusArgs) -> Result<u8> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => match labs().as_slice() {
            [one] => one.clone(),
            [] => "lab".to_owned(),
            several if args.json => {
                say!(
                    "{}",
                    serde_json::to_string(&serde_json::json!({ "labs": several }))?
                );
                return Ok(OK);
            }
            several => {
                say!("Labs: {}. `--name` shows one.", several.join(", "));
                return Ok(OK);
            }
        },
    };
    let lab = Lab::open(&name)?;
    let status = collect(&lab)?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print_status(&status);
    }
    let well = status.vips.iter().all(|vip| vip.answered_by.len() == 1);
    Ok(if well { OK } else { UNHEALTHY })
}

fn collect(lab: &Lab) -> Result<Status> {
    let state = lab.switch().state()?;
    let mut nodes = Vec::new();
    for port in state.ports {
        let daemon = if port.name == CLIENT || lab.topology().is_host(&port.name) {
            "-".to_owned()
        } else {
            match lab.daemon_state(&port.name)? {
                DaemonState::Running(pid) => format!("running ({pid})"),
                DaemonState::Paused(pid) => format!("paused ({pid})"),
                DaemonState::Crashed => "machine is off".to_owned(),
                DaemonState::Stopped => "not running".to_owned(),
            }
        };
        nodes.push(NodeStatus {
            name: port.name,
            cable: port.up,
            daemon,
            faults: port.faults,
        });
    }
    Ok(Status {
        name: lab.topology().name.clone(),
        backend: lab.backend().name(),
        nodes,
        vips: glance(lab)?,
        cuts: state.cuts,
        link_faults: state.faults,
        switch_realtime: state.realtime,
    })
}

/// Who answers now. An observation that is under way is left alone.
fn glance(lab: &Lab) -> Result<Vec<VipStatus>> {
    let under_way = lab.switch().owners().is_ok();
    if !under_way {
        lab.observe()?;
        std::thread::sleep(GLANCE);
    }
    let owners = lab.switch().owners();
    if !under_way {
        lab.switch().observe(&[], PROBE)?;
    }
    Ok(owners?
        .into_iter()
        .map(|answer| VipStatus {
            vip: name_of(lab, answer.address),
            address: answer.address,
            answered_by: answer.ports,
        })
        .collect())
}

fn name_of(lab: &Lab, address: std::net::IpAddr) -> String {
    let vip = lab.topology().vip_of(address);
    vip.map_or_else(|| "?".to_owned(), |vip| vip.name.clone())
}

fn print_status(status: &Status) {
    say!("Lab '{}', {}", status.name, status.backend);
    for node in &status.nodes {
        let cable = if node.cable { "plugged in" } else { "PULLED" };
        let faults = words(&node.faults);
        say!(
            "  {:<7} cable {cable:<11} {:<18} {faults}",
            node.name,
            node.daemon
        );
    }
    for vip in &status.vips {
        let answered = match vip.answered_by.as_slice() {
            [] => "NOBODY answers".to_owned(),
            [one] => format!("answered by {one}"),
            many => format!("answered by SEVERAL: {}", many.join(", ")),
        };
        say!(
            "  {:<7} {:<17} {answered}",
            vip.vip,
            vip.address.to_string()
        );
    }
    if !status.cuts.is_empty() {
        let cuts: Vec<_> = (status.cuts.iter())
            .map(|(from, to)| format!("{from} -> {to}"))
            .collect();
        say!("  cut: {}", cuts.join(", "));
    }
    if let Some((.., first)) = status.link_faults.first() {
        if status
            .link_faults
            .iter()
            .all(|(.., faults)| faults == first)
        {
            say!("  {} links: {}", status.link_faults.len(), words(first));
        } else {
            for (from, to, faults) in &status.link_faults {
                say!("  {from} -> {to}: {}", words(faults));
            }
        }
    }
    if !status.switch_realtime {
        say!("  the switch has no real-time priority: it may be late");
    }
}

fn words(faults: &Faults) -> String {
    let percent = |what: &str, share: f64| {
        (share > 0.0).then(|| format!("{what} {}%", (share * 1e4).round() / 1e2))
    };
    let ms = |what: &str, ms: f64| (ms > 0.0).then(|| format!("{what} {ms} ms"));
    let parts = [
        percent("loss", faults.loss),
        percent("duplicates", faults.duplicate),
        percent("reordered", faults.reorder),
        ms("delay", faults.delay_ms),
        ms("jitter", faults.jitter_ms),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

pub(super) fn observe(args: &ObserveArgs) -> Result<u8> {
    ensure!(
        (0.1..=86_400.0).contains(&args.seconds),
        super::Usage(format!(
            "--seconds is {}, expected 0.1 to 86400",
            args.seconds
        ))
    );
    let lab = Lab::open(&args.which.name)?;
    let from = lab.observe()? + 2 * MS;
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    let to = now_ns();
    let seen = lab.switch().observed(from, to)?;
    lab.switch().observe(&[], PROBE)?;
    let figures = figures(&seen, from, to);
    if args.json {
        say!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        for figures in &figures {
            print_figures(&lab, figures, from);
        }
    }
    let well = figures
        .iter()
        .all(|it| it.dual_probes == 0 && it.stray_intervals == 0);
    Ok(if well { OK } else { UNHEALTHY })
}

fn print_figures(lab: &Lab, figures: &Figures, start: u64) {
    let at = |ns: u64| format!("{:.3} s", ns.saturating_sub(start) as f64 / 1e9);
    say!(
        "{} {}: {} probes, dark {:.1} ms (longest {:.1}), two owners {:.1} ms",
        name_of(lab, figures.address),
        figures.address,
        figures.probes,
        figures.dark_ms,
        figures.longest_dark_ms,
        figures.dual_ms
    );
    for owner in &figures.owners {
        say!(
            "  {} answered from {} to {}",
            owner.port,
            at(owner.first_answer),
            at(owner.last_answer)
        );
    }
    for dual in &figures.dual {
        say!(
            "  TOGETHER: {} from {} to {}",
            dual.ports.join(" and "),
            at(dual.from),
            at(dual.to)
        );
    }
    if figures.stray_intervals > 0 {
        say!(
            "  OUT OF TURN: {} sent in its name in {} ms",
            figures.stray_ports.join(", "),
            figures.stray_intervals
        );
    }
}

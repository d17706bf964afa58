//! `buoy fence ...`: the packet gate of this machine as its kernel has it, with or without a daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;
use buoy_proto::v1::{Consistency, ListVipsRequest};
use buoy_server::host_fence::{self, HostAddress, HostFence, HostFenceError, HostGate, Removed};
use serde_json::{Value, json};

use crate::args::{FenceCommand, Global};
use crate::connect::connect;
use crate::error::{Failure, Verdict};
use crate::output::Output;
use crate::text;

/// Longest wait for the daemon to say which VIP an address belongs to.
const NAMES_WITHIN: Duration = Duration::from_secs(2);

/// Names of VIPs by their addresses.
type Names = BTreeMap<IpAddr, String>;

/// Runs a subcommand.
pub async fn run(
    options: &Global,
    command: FenceCommand,
    out: &mut Output,
) -> Result<Verdict, Failure> {
    match command {
        FenceCommand::Show => {
            let fence = host_fence::look().map_err(refused)?;
            let names = match fence.daemon {
                true => names(options).await,
                false => Names::new(),
            };
            let problems = problems(&fence);
            out.either(
                || shown_json(&fence, &names, &problems),
                || shown_text(&fence, &names, &problems),
            )?;
            Ok(Verdict::fine_if(problems.is_empty()))
        }
        FenceCommand::Remove { force } => {
            let removed = host_fence::remove(force).await.map_err(refused)?;
            out.either(|| removed_json(&removed), || removed_text(&removed))?;
            Ok(Verdict::Fine)
        }
    }
}

fn refused(e: HostFenceError) -> Failure {
    Failure::Refused(e.to_string())
}

/// The names are for the reader: the kernel knows addresses only, and shows them also when the daemon hangs.
async fn names(options: &Global) -> Names {
    let mut options = options.clone();
    options.timeout = options.timeout.min(NAMES_WITHIN);
    let request = ListVipsRequest {
        consistency: Consistency::Local.into(),
    };
    let asked = async {
        let node = connect(&options).await?;
        node.answer(node.ownership().list_vips(request)).await
    };
    let vips = match asked.await {
        Ok(answer) => answer.vips,
        Err(e) => {
            eprintln!(
                "buoy: addresses only, because the daemon does not name the VIPs: {}",
                e.message()
            );
            Vec::new()
        }
    };
    let mut names = Names::new();
    for o in vips.into_iter().filter_map(|vip| vip.ownership) {
        for address in &o.addresses {
            let ip = address.split('/').next().unwrap_or_default();
            if let Ok(ip) = ip.parse() {
                names.insert(ip, o.vip.clone());
            }
        }
    }
    names
}

/// Everything that an operator should do something about.
fn problems(fence: &HostFence) -> Vec<String> {
    let mut found = Vec::new();
    for (interface, why) in &fence.unreadable {
        found.push(format!("the gate on {interface} cannot be read: {why}"));
    }
    for gate in &fence.gates {
        for interface in &gate.torn {
            found.push(format!("the gate on {interface} is in force one way only"));
        }
        for address in gate.addresses.iter().filter(|a| a.exposed) {
            let carriers = carriers(address);
            let ip = address.fenced.address;
            found.push(format!(
                "{ip} is on {carriers}, where its gate is not in force"
            ));
        }
    }
    let left = !fence.gates.is_empty() || !fence.unreadable.is_empty();
    if fence.daemon && !left {
        found.push("a daemon runs without a packet gate: a stopped or killed daemon goes on answering for its VIPs".to_owned());
    }
    if !fence.daemon && left {
        found.push("this is what a dead daemon left: its addresses stay fenced until a daemon starts, or `buoy fence remove`".to_owned());
    }
    found
}

fn carriers(address: &HostAddress) -> String {
    let names: Vec<&str> = address
        .carried
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.join(", ")
}

/// How long packets still pass; negative: for how long they have not.
fn left(deadline: Option<Mono>, now: Mono) -> Option<i64> {
    let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    let deadline = deadline?;
    Some(if deadline > now {
        ms(deadline.since(now))
    } else {
        -ms(now.since(deadline))
    })
}

/// What the gate does with the address's packets.
fn gate_word(address: &HostAddress, now: Mono) -> &'static str {
    match address.fenced.deadline {
        None => "shut",
        Some(deadline) if deadline > now => "open",
        Some(_) => "ended",
    }
}

fn shown_text(fence: &HostFence, names: &Names, problems: &[String]) -> String {
    let mut text = format!(
        "Daemon  {}\n",
        if fence.daemon { "running" } else { "none" }
    );
    if fence.gates.is_empty() {
        text += "Gate    none\n";
    }
    for gate in &fence.gates {
        let on: Vec<&str> = gate.interfaces.iter().map(String::as_str).collect();
        text += &format!("Gate    {} on {}\n", gate.kind, text::dash(&on.join(", ")));
    }
    let rows: Vec<Vec<String>> = fence
        .gates
        .iter()
        .flat_map(|gate| &gate.addresses)
        .map(|address| row(address, names, fence.now))
        .collect();
    if !rows.is_empty() {
        let header = [
            "VIP",
            "ADDRESS",
            "GATE",
            "LEASE LEFT",
            "DROPPED AFTER LEASE",
            "DROPPED NOT OURS",
            "INTERFACE",
            "LIFETIME",
        ];
        text += &format!("\n{}", text::table(&header, rows));
    }
    if !problems.is_empty() {
        text += "\nProblems\n";
        for problem in problems {
            text += &format!("  {problem}\n");
        }
    }
    text
}

fn row(address: &HostAddress, names: &Names, now: Mono) -> Vec<String> {
    let fenced = &address.fenced;
    let left = match left(fenced.deadline, now) {
        None => "-".to_owned(),
        Some(ms) if ms > 0 => text::age(ms.unsigned_abs()),
        Some(ms) => format!("{} ago", text::age(ms.unsigned_abs())),
    };
    let lifetimes: Vec<String> = address.carried.iter().map(|(_, s)| lifetime(*s)).collect();
    vec![
        text::dash(names.get(&fenced.address).map_or("", String::as_str)),
        fenced.address.to_string(),
        gate_word(address, now).to_owned(),
        left,
        fenced.drops.lease_over.to_string(),
        fenced.drops.not_ours.to_string(),
        text::dash(&carriers(address)),
        text::dash(&lifetimes.join(", ")),
    ]
}

fn lifetime(seconds: u32) -> String {
    match seconds {
        u32::MAX => "for ever".to_owned(),
        s => format!("{s} s"),
    }
}

fn shown_json(fence: &HostFence, names: &Names, problems: &[String]) -> Value {
    let address = |a: &HostAddress| {
        let carried = a.carried.iter().map(|(name, seconds)| {
            json!({
                "interface": name,
                "valid_lifetime_s": (*seconds != u32::MAX).then_some(*seconds),
            })
        });
        json!({
            "vip": names.get(&a.fenced.address),
            "address": a.fenced.address,
            "gate": gate_word(a, fence.now),
            "lease_left_ms": left(a.fenced.deadline, fence.now),
            "dropped": {
                "lease_over": a.fenced.drops.lease_over,
                "not_ours": a.fenced.drops.not_ours,
            },
            "carried": carried.collect::<Vec<_>>(),
            "exposed": a.exposed,
        })
    };
    let gate = |gate: &HostGate| {
        json!({
            "kind": gate.kind.to_string(),
            "interfaces": gate.interfaces,
            "torn": gate.torn,
            "addresses": gate.addresses.iter().map(address).collect::<Vec<_>>(),
        })
    };
    json!({
        "daemon": fence.daemon,
        "gates": fence.gates.iter().map(gate).collect::<Vec<_>>(),
        "problems": problems,
    })
}

fn removed_text(removed: &Removed) -> String {
    let mut text = String::new();
    for left in &removed.addresses.removed {
        text += &format!(
            "{}/{} removed from {}\n",
            left.ip, left.prefix, left.interface
        );
    }
    for interface in &removed.interfaces {
        text += &format!("gate removed from {interface}\n");
    }
    if text.is_empty() {
        text += "nothing to remove\n";
    }
    text
}

fn removed_json(removed: &Removed) -> Value {
    let address = |left: &buoy_server::host_fence::Leftover| {
        json!({
            "address": left.ip,
            "prefix": left.prefix,
            "interface": left.interface,
        })
    };
    json!({
        "addresses": removed.addresses.removed.iter().map(address).collect::<Vec<_>>(),
        "interfaces": removed.interfaces,
    })
}

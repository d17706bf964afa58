//! `buoy lab up`: a cluster that is left running, and how to play with it.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{Usage, What, Which};
use crate::backend::BackendSpec;
use crate::cluster::{Lab, Readiness};
use crate::interrupt::take_down_on_interrupt;
use crate::say::say;
use crate::topology::{CLIENT, Role, Topology};

/// How long the cluster may take to form.
const FORM: Duration = Duration::from_secs(30);

/// Arguments of `up`.
#[derive(Args, Debug)]
pub struct UpArgs {
    #[command(flatten)]
    which: Which,
    /// Number of nodes, 1 to 12. With three the third is a witness, else all are members.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    #[command(flatten)]
    what: What,
}

pub(super) fn up(args: &UpArgs) -> Result<()> {
    let name = &args.which.name;
    let topology = Topology::pair(name, args.nodes).map_err(|error| Usage(format!("{error:#}")))?;
    let record = args.what.record(topology, false)?;
    let lab = Lab::create(record)?;
    // Only now: a lab of this name that was there before is not ours to take down.
    let guard = take_down_on_interrupt(name)?;
    match form(&lab) {
        Ok(ready) => {
            drop(guard);
            recipe(&lab, &ready);
            Ok(())
        }
        Err(error) => {
            lab.down()?;
            Err(error.context(format!("lab '{name}' was taken down again")))
        }
    }
}

fn form(lab: &Lab) -> Result<Readiness> {
    lab.observe()?;
    lab.start_all()?;
    let ready = lab.wait_ready(FORM)?;
    // Nobody looks: the prober need not run for hours.
    lab.switch().observe(&[], crate::cluster::PROBE)?;
    Ok(ready)
}

fn recipe(lab: &Lab, ready: &Readiness) {
    let topology = lab.topology();
    let program = lab.record().program.display().to_string();
    say!(
        "Lab '{}' is up, with {}, after {:.0} ms.\n",
        topology.name,
        lab.backend().name(),
        ready.after_ms
    );
    for node in &topology.nodes {
        let role = match node.role {
            Role::Member => "member",
            Role::Witness => "witness",
        };
        say!("  {:<6} {:<16} {role}", node.name, node.v4().to_string());
    }
    for (vip, owner) in &ready.owners {
        let spec = topology.vips.iter().find(|known| known.name == *vip);
        for (address, _) in spec.iter().flat_map(|spec| &spec.addresses) {
            say!("  {vip:<6} {:<16} on {owner}", address.to_string());
        }
    }
    say!("\nTry:");
    for (command, what) in commands(lab, ready) {
        say!("  {program} {command:<54} # {what}");
    }
    say!("\nFiles and logs: {}", topology.directory().display());
}

/// What a person may want to try, after the name of the program, and what it is for.
fn commands(lab: &Lab, ready: &Readiness) -> Vec<(String, &'static str)> {
    let topology = lab.topology();
    let name = match topology.name.as_str() {
        "lab" => String::new(),
        other => format!(" --name {other}"),
    };
    let Some((first, vip)) = topology.nodes.first().zip(topology.vips.first()) else {
        return Vec::new();
    };
    let owner = ready
        .owners
        .first()
        .map_or(first.name.as_str(), |(_, owner)| owner);
    let address = vip
        .addresses
        .first()
        .map(|(address, _)| address.to_string());
    let address = address.unwrap_or_default();
    let mut commands = Vec::new();
    if matches!(lab.record().backend, BackendSpec::Buoy(_)) {
        let socket = topology.socket(&first.name);
        commands.push((
            format!("--socket {} status", socket.display()),
            "ask the cluster",
        ));
    }
    let fetch = format!("lab exec{name} {CLIENT} -- curl -s http://{address}/");
    commands.extend([
        (fetch, "who serves the VIP"),
        (
            format!("lab link{name} {owner} down"),
            "pull the owner's cable",
        ),
        (
            format!("lab observe{name}"),
            "who answers for each VIP, seen from the network",
        ),
        (format!("lab link{name} {owner} up"), "plug it in again"),
        (
            format!("lab crash{name} {owner}"),
            "or take its power; `start` boots it",
        ),
    ]);
    let rest: Vec<_> = topology.nodes[1..]
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    if !rest.is_empty() {
        let groups = format!("{},{CLIENT} / {}", first.name, rest.join(","));
        commands.push((
            format!("lab partition{name} {groups}"),
            "divide the network",
        ));
    }
    commands.extend([
        (
            format!("lab loss{name} --loss 5% --dup 5% --reorder 5%"),
            "make it bad",
        ),
        (format!("lab heal{name}"), "make it good again"),
        (
            format!("lab exec{name} {} -- bash", first.name),
            "look around on a node",
        ),
        (format!("lab down{name}"), "take everything down"),
    ]);
    commands
}

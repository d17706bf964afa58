//! What each request does to the switch.

use std::collections::BTreeSet;

use super::fabric::Fabric;
use super::protocol::{
    Answering, Faults, MAX_PORTS, PortState, Request, Response, State as SwitchState,
};
use crate::observer::{INTERVAL_US, MAX_TARGETS, Observer, PortSet};
use crate::sys::clock::now_ns;

/// Applies a request, [`Request::Shutdown`] excepted, which is the caller's.
pub(super) fn apply(fabric: &mut Fabric, request: Request, realtime: bool) -> Response {
    match try_apply(fabric, request, realtime) {
        Ok(response) => response,
        Err(why) => Response::Refused { why },
    }
}

fn try_apply(fabric: &mut Fabric, request: Request, realtime: bool) -> Result<Response, String> {
    match request {
        Request::State => return Ok(Response::State(state(fabric, realtime))),
        Request::Owners => return owners(fabric).map(Response::Owners),
        Request::Observed { from, to } => {
            let names = fabric.ports.iter().map(|port| port.name.clone()).collect();
            let seen = observer(fabric)?.observations(from, to, names);
            return Ok(Response::Observed(seen));
        }
        // The caller's business.
        Request::Shutdown => {}
        Request::Renew { port } => {
            let at = find(fabric, &port)?;
            fabric.renew(at);
        }
        Request::Cable { port, up } => {
            let at = find(fabric, &port)?;
            fabric.set_cable(at, up)?;
        }
        Request::Cut { from, to, cut } => {
            for (from, to) in pairs(fabric, from.as_deref(), to.as_deref())? {
                fabric.links.cut(from, to, cut);
            }
        }
        Request::Partition { groups } => {
            let groups = group_of(fabric, &groups)?;
            fabric.links.partition(&groups);
        }
        Request::LinkFaults { from, to, faults } => {
            faults.check()?;
            for (from, to) in pairs(fabric, from.as_deref(), to.as_deref())? {
                fabric.links.set_link(from, to, faults);
            }
        }
        Request::PortFaults { port, faults } => {
            faults.check()?;
            for port in ports(fabric, port.as_deref())? {
                fabric.links.set_port(port, faults);
            }
        }
        Request::Heal => heal(fabric),
        Request::Observe {
            addresses,
            interval_us,
        } => {
            if addresses.len() > MAX_TARGETS {
                return Err(format!(
                    "{} addresses to observe, at most {MAX_TARGETS}",
                    addresses.len()
                ));
            }
            if !INTERVAL_US.contains(&interval_us) {
                return Err(format!(
                    "a probe every {interval_us} us, expected {} to {} us",
                    INTERVAL_US.start(),
                    INTERVAL_US.end()
                ));
            }
            fabric.observer =
                (!addresses.is_empty()).then(|| Observer::new(&addresses, interval_us * 1_000));
        }
    }
    Ok(Response::Done { at: now_ns() })
}

fn observer(fabric: &Fabric) -> Result<&Observer, String> {
    fabric
        .observer
        .as_ref()
        .ok_or_else(|| "no address is observed; send `observe` first".to_owned())
}

fn owners(fabric: &Fabric) -> Result<Vec<Answering>, String> {
    let answering = observer(fabric)?.answering();
    Ok(answering
        .into_iter()
        .map(|(address, set)| Answering {
            address,
            ports: names(fabric, set),
        })
        .collect())
}

fn names(fabric: &Fabric, set: PortSet) -> Vec<String> {
    let named = fabric.ports.iter().enumerate();
    named
        .filter(|(at, _)| set >> at & 1 == 1)
        .map(|(_, port)| port.name.clone())
        .collect()
}

fn heal(fabric: &mut Fabric) {
    fabric.links.partition(&[None; MAX_PORTS]);
    for from in 0..MAX_PORTS {
        fabric.links.set_port(from, Faults::default());
        for to in 0..MAX_PORTS {
            fabric.links.set_link(from, to, Faults::default());
        }
    }
}

fn find(fabric: &Fabric, name: &str) -> Result<usize, String> {
    let position = fabric.ports.iter().position(|port| port.name == name);
    position.ok_or_else(|| {
        let known: Vec<_> = fabric.ports.iter().map(|port| port.name.as_str()).collect();
        format!("no port is called '{name}'; there are {}", known.join(", "))
    })
}

fn ports(fabric: &Fabric, name: Option<&str>) -> Result<Vec<usize>, String> {
    match name {
        Some(name) => Ok(vec![find(fabric, name)?]),
        None => Ok((0..fabric.ports.len()).collect()),
    }
}

fn pairs(
    fabric: &Fabric,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<Vec<(usize, usize)>, String> {
    let (from, to) = (ports(fabric, from)?, ports(fabric, to)?);
    Ok(from
        .iter()
        .flat_map(|&from| to.iter().map(move |&to| (from, to)))
        .filter(|(from, to)| from != to)
        .collect())
}

fn group_of(fabric: &Fabric, groups: &[Vec<String>]) -> Result<[Option<usize>; MAX_PORTS], String> {
    let mut group = [None; MAX_PORTS];
    let mut seen = BTreeSet::new();
    for (number, names) in groups.iter().enumerate() {
        for name in names {
            if !seen.insert(name) {
                return Err(format!("'{name}' is named twice in the partition"));
            }
            group[find(fabric, name)?] = Some(number);
        }
    }
    Ok(group)
}

fn state(fabric: &Fabric, realtime: bool) -> SwitchState {
    let ports = || fabric.ports.iter().enumerate();
    let mut cuts = Vec::new();
    let mut faults = Vec::new();
    for (from, source) in ports() {
        for (to, target) in ports().filter(|&(to, _)| to != from) {
            let pair = || (source.name.clone(), target.name.clone());
            if fabric.links.reach(from) >> to & 1 == 0 {
                cuts.push(pair());
            }
            let set = fabric.links.link_faults(from, to);
            if set != Faults::default() {
                let (from, to) = pair();
                faults.push((from, to, set));
            }
        }
    }
    SwitchState {
        ports: ports()
            .map(|(at, port)| PortState {
                name: port.name.clone(),
                up: port.up,
                ready: port.tap.is_some(),
                trouble: port.trouble.clone(),
                received: port.received,
                sent: port.sent,
                lost: port.lost,
                faults: fabric.links.port_faults(at),
            })
            .collect(),
        cuts,
        faults,
        delayed: fabric.delayed.len(),
        overflowed: fabric.delayed.overflowed(),
        realtime,
    }
}

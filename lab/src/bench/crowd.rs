//! Two hundred VIPs of one node: how far apart they come up on the survivor when it crashes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::bed::{Bed, Contender};
use crate::observer::figures;
use crate::sys::clock::{MS, duration_ns, now_ns, ns_to_ms};

/// Number of VIPs.
pub const VIPS: usize = 200;
/// Time between two probes of an address. Each goes to four ports, so that this makes 80,000 frames a second.
pub const PROBE: Duration = Duration::from_millis(10);
/// How long the cluster may take until it does its work.
const READY: Duration = Duration::from_secs(60);
/// Rest before the crash.
const REST: Duration = Duration::from_secs(1);

/// What was seen of one crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Crowd {
    /// Who.
    pub contender: Contender,
    /// VIPs that the crashed node had owned.
    pub vips: usize,
    /// From the crash until the first of them was answered by the survivor, ms.
    pub first_ms: f64,
    /// From the first until the last, ms; `None` if some did not come up while it was watched.
    pub spread_ms: Option<f64>,
    /// VIPs that did not come up while it was watched.
    pub missing: usize,
    /// Sum over the VIPs of the time with two owners, ms.
    pub dual_ms: f64,
}

/// Crashes the node that owns all VIPs, once.
///
/// # Errors
/// The cluster does not get ready, the VIPs do not gather on one node, or something cannot be done.
pub fn crash(bed: &Bed) -> Result<Crowd> {
    bed.observe()?;
    bed.repair()?;
    bed.lab.wait_ready(READY)?;
    let owner = gather(bed)?;
    std::thread::sleep(REST);
    let window = window(bed.contender);
    let at = bed.lab.crash(&owner)?;
    let (from, to) = (at - 20 * MS, at + duration_ns(window));
    std::thread::sleep(Duration::from_nanos(to.saturating_sub(now_ns())));
    let seen = figures(&bed.lab.switch().observed(from, to)?, from, to);
    let mut up: Vec<u64> = seen
        .iter()
        .filter_map(|figure| {
            let mut owners = figure.owners.iter();
            owners
                .find(|it| it.port != owner)
                .map(|it| it.first_answer.saturating_sub(at))
        })
        .collect();
    up.sort_unstable();
    let first = *up.first().context("not one VIP came up on the survivor")?;
    let last = *up.last().unwrap_or(&first);
    bed.recover()?;
    Ok(Crowd {
        contender: bed.contender,
        vips: seen.len(),
        first_ms: ns_to_ms(first),
        spread_ms: (up.len() == seen.len()).then(|| ns_to_ms(last - first)),
        missing: seen.len() - up.len(),
        dual_ms: seen.iter().map(|figure| figure.dual_ms).sum(),
    })
}

/// For how long the VIPs are watched after the crash.
#[must_use]
pub fn window(contender: Contender) -> Duration {
    Duration::from_secs(if contender.is_slow() { 6 } else { 3 })
}

/// Waits until one node owns all VIPs, and says which. Buoy does not move what is well by itself: there one
/// of the members is drained for a moment.
fn gather(bed: &Bed) -> Result<String> {
    let all_on = |node: &str| {
        let owners = bed.lab.owners();
        owners.is_ok_and(|owners| owners.iter().all(|(_, owner)| owner == node))
    };
    if bed.contender == Contender::Buoy {
        let (first, second) = two_members(bed)?;
        for (node, other) in [(&first, &second), (&second, &first)] {
            if all_on(node) {
                return Ok(node.clone());
            }
            if node == &second {
                bed.buoy(&["node", "drain", other])?;
                wait_until(|| all_on(node))?;
                bed.buoy(&["node", "undrain", other])?;
                bed.lab.wait_ready(READY)?;
            }
        }
        ensure!(all_on(&second), "the VIPs did not stay on {second}");
        return Ok(second);
    }
    wait_until(|| all_on("n1"))?;
    Ok("n1".to_owned())
}

fn two_members(bed: &Bed) -> Result<(String, String)> {
    let names: Vec<_> = bed.lab.topology().members().map(|it| &it.name).collect();
    match names.as_slice() {
        [first, second] => Ok(((*first).clone(), (*second).clone())),
        _ => anyhow::bail!("the lab has {} members, not 2", names.len()),
    }
}

fn wait_until(mut holds: impl FnMut() -> bool) -> Result<()> {
    let end = now_ns() + duration_ns(READY);
    while !holds() {
        ensure!(
            now_ns() < end,
            "the VIPs did not gather on one node within {} s",
            READY.as_secs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

//! Takes over from a predecessor, also from one whose gate was of another kind.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tracing::{info, warn};

use super::leftovers::leftovers_by;
use super::tc::Tc;
use super::{Gate, GateError, GateKind, leftovers, nft_leftover, remove_nft};

/// Interfaces, out of `ifindexes`, that carry a gate of ours of any kind, whoever put it there; and why it cannot be
/// told of some. Those of an nftables gate that has just been made anew are among them.
pub fn carriers(ifindexes: impl Iterator<Item = u32>) -> (BTreeSet<u32>, Vec<(u32, GateError)>) {
    let nft = left_in_nftables().map_or_else(Vec::new, |left| left.devices);
    let (mut found, mut unknown) = (BTreeSet::new(), Vec::new());
    for ifindex in ifindexes {
        match leftovers(ifindex) {
            Ok(filters) if filters.is_empty() && !nft.contains(&ifindex) => {}
            Ok(_) => {
                found.insert(ifindex);
            }
            Err(e) => unknown.push((ifindex, e)),
        }
    }
    (found, unknown)
}

/// Where there is no nf_tables, nobody left anything in it.
fn left_in_nftables() -> Option<super::NftLeftover> {
    match nft_leftover() {
        Ok(left) => left,
        Err(GateError::Unavailable { .. }) => None,
        Err(e) => {
            warn!("cannot tell whether a predecessor left an nftables gate: {e}");
            None
        }
    }
}

/// Removes the nftables gate that a dead predecessor left, once an eBPF gate is in force wherever that was: shut for
/// ever, it would keep packets from VIPs that this gate opens. What it fenced is fenced by `gate` first, shut. Any
/// other kind of gate has nothing to remove: an nftables gate replaces its predecessor and eBPF filters when
/// it is attached, and [`GateKind::UserspaceOnly`] fences nothing.
///
/// # Errors
/// The kernel's refusal, or a live process that owns the other gate.
pub fn supersede(gate: &mut dyn Gate) -> Result<(), GateError> {
    if gate.kind() != GateKind::Ebpf {
        return Ok(());
    }
    if let Some(left) = left_in_nftables() {
        let addresses: Vec<IpAddr> = left.fenced.iter().map(|row| row.address).collect();
        gate.inherit(&addresses)?;
        remove_nft()?;
        info!("the nftables gate of a predecessor is removed");
    }
    Ok(())
}

/// Addresses that a predecessor's eBPF gate fences on an interface, as far as they can be read.
pub(super) fn fenced_by_ebpf(tc: &mut Tc, ifindex: u32) -> Result<Vec<IpAddr>, GateError> {
    let mut addresses = Vec::new();
    for left in leftovers_by(tc, ifindex)? {
        match left.fenced {
            Ok(rows) => addresses.extend(rows.into_iter().map(|row| row.address)),
            Err(e) => warn!(
                ifindex,
                "cannot read which addresses a predecessor's eBPF gate fenced ({e}): those that it left on \
                 this machine and that are not in the configuration are no longer fenced"
            ),
        }
    }
    Ok(addresses)
}

//! What the labs that are measured look like.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::topology::{PREFIX_V4, Topology, Vip};

/// Two members and a witness; every VIP prefers n1, 150 to 100.
///
/// # Errors
/// A name that is not one, or more VIPs than the network has free addresses.
pub fn topology(name: &str, vips: usize) -> Result<Topology> {
    let mut topology = Topology::pair(name, 3)?;
    let taken: Vec<IpAddr> = topology
        .ports()
        .flat_map(|port| topology.addresses(port))
        .map(|(address, _)| address)
        .collect();
    let free = (1..=250).map(|last| IpAddr::from([192, 168, 192, last]));
    topology.vips = free
        .filter(|address| !taken.contains(address))
        .take(vips)
        .enumerate()
        .map(|(at, address)| Vip {
            name: format!("vip{}", at + 1),
            addresses: vec![(address, PREFIX_V4)],
            priority: [("n1".to_owned(), 150), ("n2".to_owned(), 100)].into(),
        })
        .collect();
    ensure!(
        topology.vips.len() == vips,
        "a lab has room for {} VIPs, not {vips}",
        topology.vips.len()
    );
    Ok(topology)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_vips_have_addresses_of_their_own() {
        let lab = topology("lab", 200).unwrap();
        let mut addresses = lab.vip_addresses();
        addresses.extend(
            lab.ports()
                .flat_map(|port| lab.addresses(port).map(|(address, _)| address)),
        );
        let all = addresses.len();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), all);
        assert_eq!(lab.vips.len(), 200);
        assert_eq!(lab.vips[0].name, super::super::bed::VIP);
        assert!(topology("lab", 251).is_err());
    }
}

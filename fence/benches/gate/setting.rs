//! A cable whose one end carries no gate, the eBPF gate, or the nftables gate.

use std::net::{IpAddr, Ipv4Addr};

use buoy_fence::gate::Gate;

use crate::contender::{Contender, LONG, renew};
use crate::frames::ip;
use crate::wire::{VIP4, Wire};

/// What stands on the cable.
pub const KINDS: [Option<Contender>; 3] = [None, Some(Contender::Ebpf), Some(Contender::Nft)];

/// Its name in a table.
pub fn name(kind: Option<Contender>) -> String {
    kind.map_or_else(|| "no gate".to_owned(), |c| format!("{c:?}").to_lowercase())
}

/// One of many managed addresses beside the VIP.
pub fn other(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a4e_0000 + n).into()
}

/// A cable and its gate; the gate goes with it.
pub struct Setting {
    pub wire: Wire,
    _gate: Option<Box<dyn Gate>>,
}

impl Setting {
    /// With `count` managed addresses, the VIP among them unless there are none; its lease is live.
    pub fn new(kind: Option<Contender>, count: u32) -> Setting {
        let wire = Wire::new("bench");
        let gate = kind.map(|contender| {
            let mut gate = contender.make(&wire.owner);
            if count > 0 {
                gate.manage(ip(VIP4)).expect("manage");
                (1..count).for_each(|n| gate.manage(other(n)).expect("manage"));
                gate.open(ip(VIP4), 1).expect("open");
            }
            gate.attach(wire.owner.ifindex("own")).expect("attach");
            renew(gate.as_mut(), 1, LONG * 60);
            gate
        });
        wire.pin_neighbours();
        Setting { wire, _gate: gate }
    }
}

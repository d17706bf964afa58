//! The gates that must all behave the same, and a lease as the daemon renews it.
#![allow(
    dead_code,
    reason = "every test file compiles its own copy and uses a part of it"
)]

use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::clock::boottime;
use buoy_fence::gate::{EbpfGate, EbpfOptions, Gate, GateError, NftGate, SlotId};

use crate::common::{NetNs, lacks, skip, skip_without_root};

/// A kind of gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contender {
    Ebpf,
    Nft,
}

impl Contender {
    pub const ALL: [Contender; 2] = [Contender::Ebpf, Contender::Nft];

    /// In the namespace of the calling thread.
    pub fn try_make(self) -> Result<Box<dyn Gate>, GateError> {
        Ok(match self {
            Contender::Ebpf => Box::new(EbpfGate::new(EbpfOptions::default())?),
            Contender::Nft => Box::new(NftGate::new()?),
        })
    }

    /// In a namespace.
    pub fn make(self, ns: &NetNs) -> Box<dyn Gate> {
        ns.run(|| self.try_make().expect("a gate"))
    }

    /// True if the kernel does not let us have one.
    pub fn is_missing(self) -> bool {
        if skip_without_root() {
            return true;
        }
        match NetNs::new("probe").run(|| self.try_make().err()) {
            Some(e @ GateError::Unavailable { .. }) => skip(&e.to_string()),
            _ => false,
        }
    }

    /// False, with a word on why, if this kernel does not let it fence what raw sockets send.
    pub fn fences_raw_sockets(self) -> bool {
        let fences = match self {
            Contender::Ebpf => true,
            Contender::Nft => {
                NetNs::new("probe").run(|| NftGate::new().expect("a gate").fences_raw_sockets())
            }
        };
        if !fences {
            lacks("egress hook in nf_tables (raw sockets)", (5, 16));
        }
        fences
    }

    /// How late it may be about a deadline.
    pub fn tolerance(self) -> Duration {
        match self {
            Contender::Ebpf => Duration::ZERO,
            // Kernel ticks, on a machine that other tests keep busy: what the margin is for.
            Contender::Nft => buoy_core::spec::timing::NFT_MARGIN,
        }
    }
}

/// A lease that outlasts every test.
pub const LONG: Duration = Duration::from_secs(60);

/// A renewal that was answered at once: returns the deadline of the slot.
pub fn renew(gate: &mut dyn Gate, slot: SlotId, lease: Duration) -> Mono {
    let until = boottime() + lease;
    gate.arm(until).expect("arm");
    gate.advance(&[(slot, until)]).expect("advance");
    until
}

//! What can go wrong with a packet gate, in words for the person who runs the node.

use std::io;
use std::net::IpAddr;

use crate::clock::ClockError;

use super::{SLOTS, SlotId};

/// Why the gate could not do what was asked. Whatever the error, a gate is never more open than before.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The machine lacks something that the gate needs.
    #[error("the packet gate cannot {action}: {problem}; {remedy}")]
    Unavailable {
        /// What was tried.
        action: String,
        /// What is missing.
        problem: String,
        /// How to get it.
        remedy: String,
    },
    /// The verifier did not accept the program.
    #[error(
        "the kernel's verifier refused the packet gate's program {program} ({source}); this is a fault in \
         buoy or an unsupported kernel, please report it with these last lines of its log:\n{log}"
    )]
    Rejected {
        /// Name of the program.
        program: String,
        /// What bpf(2) answered.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// A call failed for a reason that needs no more words.
    #[error("the packet gate could not {action}: {source}")]
    Kernel {
        /// What was tried.
        action: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The gate cannot be put on this interface.
    #[error("interface {interface}: {problem}; {remedy}")]
    Interface {
        /// Name, or index where the name is not known.
        interface: String,
        /// What stands in the way.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// Only filters of interfaces that the gate is attached to are repaired.
    #[error(
        "the packet gate is not attached to interface {ifindex}, so there is nothing to repair"
    )]
    NotAttached {
        /// The interface asked for.
        ifindex: u32,
    },
    /// Only managed addresses can be opened and shut.
    #[error(
        "the packet gate does not manage {address}: it must be told of an address before it is opened or shut"
    )]
    NotManaged {
        /// The address asked for.
        address: IpAddr,
    },
    /// Slot 0 is never open, and there are [`SLOTS`] of them.
    #[error("the packet gate has no lease slot {slot}: slots go from 1 to {}", SLOTS - 1)]
    NoSuchSlot {
        /// The slot asked for.
        slot: SlotId,
    },
    /// Every place in the address table is taken.
    #[error(
        "the packet gate is full: it already fences {capacity} addresses and cannot take {address}; \
         remove VIPs that are no longer used"
    )]
    Full {
        /// The address that found no place.
        address: IpAddr,
        /// How many addresses the gate was made for.
        capacity: u32,
    },
    /// The self-test moves deadlines, so it is not made on a gate in use.
    #[error(
        "the packet gate's self-test is made before any address is managed, but this gate is in use"
    )]
    InUse,
    /// The installed program does not judge packets as it must.
    #[error(
        "the packet gate failed its self-test: {case}: the program said {got} instead of {expected}; no VIP \
         may be used on this node, please report this with the kernel version"
    )]
    SelfTest {
        /// The trial packet and the state of the gate.
        case: String,
        /// What the program should have done.
        expected: String,
        /// What it did.
        got: String,
    },
    /// Our clock is not the gate's clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

impl GateError {
    /// A failed call, named by what was tried.
    pub(crate) fn kernel(action: impl Into<String>, source: io::Error) -> GateError {
        GateError::Kernel {
            action: action.into(),
            source,
        }
    }
}

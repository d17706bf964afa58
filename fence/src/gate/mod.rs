//! The packet gate: the kernel lets packets of a VIP pass only while its lease lasts (docs/kernel-fence.md).
//!
//! A *managed* address is fenced. It rests on a lease slot: slot 0 means "not ours", any other slot
//! has an absolute deadline on CLOCK_BOOTTIME. A packet whose VIP side is a managed address passes only
//! if the address's slot is not 0 and `now < deadline(slot)` at that very packet. Many addresses share
//! a slot, so a renewal is one [`Gate::advance`] whatever their number. The kernel enforces this
//! with the process stopped or dead.

use std::fmt;
use std::net::IpAddr;

use buoy_core::Mono;

mod asm;
mod books;
mod bpf;
mod deadlines;
mod ebpf;
mod error;
mod filters;
mod leftovers;
mod loaded;
mod missing;
mod netlink;
mod nft;
mod program;
mod selftest;
mod supersede;
mod table;
#[cfg(test)]
mod tamper_tests;
mod tc;
mod userspace;

pub use deadlines::Deadlines;
pub use ebpf::{EbpfGate, EbpfOptions, MAX_ADDRESSES, Verdict};
pub use error::GateError;
pub use leftovers::{Leftover, leftovers, remove};
pub use nft::{NftGate, NftLeftover, TableNotices, nft_leftover, remove_nft};
pub use program::{Direction, MAX_EXTENSION_HEADERS, MAX_VLAN_TAGS};
pub use supersede::{carriers, supersede};
pub use userspace::UserspaceGate;

/// Index of a lease slot, 1 to [`SLOTS`]` - 1`; 0 is the slot of addresses that are not ours.
pub type SlotId = u32;

/// Number of lease slots, slot 0 included.
pub const SLOTS: u32 = 64;

/// The slot that never opens.
pub const SLOT_SHUT: SlotId = 0;

/// Which fence stands between a VIP and the wire; shown in status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GateKind {
    /// eBPF on clsact: the kernel drops packets from the deadline on, whatever the process does.
    Ebpf,
    /// nftables: as the above, by the kernel's timer ticks.
    Nft,
    /// No packet gate (`fence = "userspace-only"`): a stopped process goes on answering until its
    /// addresses' lifetimes end.
    UserspaceOnly,
}

impl fmt::Display for GateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GateKind::Ebpf => "ebpf",
            GateKind::Nft => "nft",
            GateKind::UserspaceOnly => "userspace-only",
        })
    }
}

/// Packets that the gate dropped.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Drops {
    /// The address was ours, but its lease had ended.
    pub lease_over: u64,
    /// The address was not ours.
    pub not_ours: u64,
}

impl Drops {
    /// Both reasons together.
    pub fn total(&self) -> u64 {
        self.lease_over.saturating_add(self.not_ours)
    }

    /// The sum of two counts.
    pub fn plus(self, other: Drops) -> Drops {
        Drops {
            lease_over: self.lease_over.saturating_add(other.lease_over),
            not_ours: self.not_ours.saturating_add(other.not_ours),
        }
    }
}

/// One managed address, as the gate holds it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced {
    /// The address (never an IPv4-mapped IPv6 address).
    pub address: IpAddr,
    /// Its slot; `None` while it is shut.
    pub slot: Option<SlotId>,
    /// The slot's deadline, past or future; `None` while it is shut.
    pub deadline: Option<Mono>,
    /// Packets dropped since the address is managed.
    pub drops: Drops,
    /// The address was found in the gate of a dead predecessor and nobody has managed it since.
    pub inherited: bool,
}

/// A filter that sees packets before the gate does and may keep them from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preceding {
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// Kind of the classifier (`bpf`, `flower`, ..).
    pub kind: String,
    /// Priority (`pref` of tc-filter(8)).
    pub priority: u16,
    /// Handle of the filter.
    pub handle: u32,
    /// Name of a bpf filter.
    pub name: Option<String>,
}

/// A packet gate, owned by one thread.
///
/// Order: [`manage`](Gate::manage) every address of the cluster, [`self_test`](Gate::self_test) before
/// that, then [`attach`](Gate::attach), [`verify`](Gate::verify), and only then add addresses to interfaces.
/// To renew: [`arm`](Gate::arm), send, and on the answers [`advance`](Gate::advance). There is no way to
/// hand in a length after an answer: a process that is frozen in between would open the gate anew.
///
/// An error never leaves an address more open than it was.
pub trait Gate: Send {
    /// Which fence this is.
    fn kind(&self) -> GateKind;

    /// The deadlines of the slots, to be read from any thread.
    fn deadlines(&self) -> Deadlines;

    /// A renewal is about to leave whose answers permit until `until` at the latest (the send time plus
    /// the lease). Must be called, and have returned, before the renewal is sent: a gate that cannot
    /// compare a deadline with a clock lets the kernel begin to count here. Opens nothing.
    ///
    /// # Errors
    /// The kernel's refusal; deadlines that rest on this renewal are then taken from an earlier one.
    fn arm(&mut self, until: Mono) -> Result<(), GateError>;

    /// From now on packets of addresses in these slots pass while CLOCK_BOOTTIME is before the deadline
    /// given, or before an earlier one if no renewal with that `until` was armed; all at once.
    /// [`Mono::ZERO`] shuts a slot. The work does not depend on the number of addresses.
    ///
    /// # Errors
    /// [`GateError::NoSuchSlot`]; the kernel's refusal. Slots that were not moved keep their old deadline.
    fn advance(&mut self, deadlines: &[(SlotId, Mono)]) -> Result<(), GateError>;

    /// Tries the gate on crafted packets, before any address is managed: shut drops, expired drops,
    /// open passes, other addresses pass; and the program's clock is ours.
    ///
    /// # Errors
    /// [`GateError::SelfTest`] or [`GateError::Clock`]: no VIP may be used on this node.
    fn self_test(&mut self) -> Result<(), GateError>;

    /// Puts the gate on an interface, in the place of what a predecessor left there, in one atomic
    /// step: from then on only this gate counts. Addresses that the predecessor fenced and that this
    /// gate does not manage yet are managed first (shut, see [`Fenced::inherited`]), so that nothing opens.
    /// Attaching again is [`repair`](Gate::repair).
    ///
    /// # Errors
    /// [`GateError::Interface`] for a device that is gone or has no Ethernet header, or whose first place is taken.
    fn attach(&mut self, ifindex: u32) -> Result<(), GateError>;

    /// Takes the gate off an interface. The addresses must be gone from it.
    ///
    /// # Errors
    /// When the kernel refuses; an interface that is gone is no error.
    fn detach(&mut self, ifindex: u32) -> Result<(), GateError>;

    /// Reads back whether this gate is in force on an interface: filters, programs and tables. The
    /// reason for a `false` is logged. An interface that is gone is `false`.
    ///
    /// # Errors
    /// When it cannot be told.
    fn verify(&mut self, ifindex: u32) -> Result<bool, GateError>;

    /// Puts the gate back on an interface in one atomic step; harmless when it is there.
    ///
    /// # Errors
    /// As [`attach`](Gate::attach).
    fn repair(&mut self, ifindex: u32) -> Result<(), GateError>;

    /// Fences addresses that [`Sentry::inheritance`] found, as [`attach`](Gate::attach) does: shut, and marked as
    /// inherited. One that is managed stays as it is.
    ///
    /// # Errors
    /// As [`manage`](Gate::manage).
    fn inherit(&mut self, addresses: &[IpAddr]) -> Result<(), GateError>;

    /// Watches this gate's filters from another thread: netlink calls can wait for the kernel's locks for
    /// longer than a lease lasts, so once attached they are not for the thread that renews.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    fn sentry(&self) -> Result<Box<dyn Sentry>, GateError>;

    /// Filters on an interface that decide before this gate does.
    ///
    /// # Errors
    /// When they cannot be read.
    fn preceding(&mut self, ifindex: u32) -> Result<Vec<Preceding>, GateError>;

    /// Fences an address: shut until it is opened. A managed address is left as it is.
    ///
    /// # Errors
    /// [`GateError::Full`], or the kernel's refusal.
    fn manage(&mut self, address: IpAddr) -> Result<(), GateError>;

    /// Rests a managed address on a slot: it passes while the slot's deadline lies ahead.
    ///
    /// # Errors
    /// [`GateError::NotManaged`], [`GateError::NoSuchSlot`].
    fn open(&mut self, address: IpAddr, slot: SlotId) -> Result<(), GateError>;

    /// Shuts a managed address at once.
    ///
    /// # Errors
    /// [`GateError::NotManaged`].
    fn shut(&mut self, address: IpAddr) -> Result<(), GateError>;

    /// No longer fences an address: its packets pass. It must be gone from every interface. An address
    /// that is not managed is no error.
    ///
    /// # Errors
    /// The kernel's refusal; the address is then shut, and still managed.
    fn forget(&mut self, address: IpAddr) -> Result<(), GateError>;

    /// [`forget`](Gate::forget), but only an address that nobody has managed since it was found in a predecessor's gate
    /// ([`Fenced::inherited`]); any other stays as it is.
    ///
    /// # Errors
    /// As [`forget`](Gate::forget).
    fn forget_inherited(&mut self, address: IpAddr) -> Result<(), GateError>;

    /// Shuts every address and puts every deadline into the past.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn shut_all(&mut self) -> Result<(), GateError>;

    /// [`shut_all`](Gate::shut_all), then forgets every address.
    ///
    /// # Errors
    /// The kernel's refusal; what is still managed is shut.
    fn clear_all(&mut self) -> Result<(), GateError>;

    /// [`clear_all`](Gate::clear_all), then takes the gate off every interface: for a clean stop, when the addresses are gone
    /// from every interface.
    ///
    /// # Errors
    /// The kernel's refusal; what is still there fences nothing, or what it fenced, shut.
    fn remove(&mut self) -> Result<(), GateError>;

    /// Packets dropped since the gate was made, forgotten addresses included.
    ///
    /// # Errors
    /// When the counters cannot be read.
    fn dropped(&self) -> Result<Drops, GateError>;

    /// Every managed address, in order.
    ///
    /// # Errors
    /// When the tables cannot be read.
    fn list(&self) -> Result<Vec<Fenced>, GateError>;
}

/// Attaches, watches and repairs a gate's filters beside the thread that owns the gate. It does not look at
/// the tables of addresses and slots; those are [`Gate::verify`]'s.
pub trait Sentry: Send {
    /// Whether the gate's filters, programs and tables are in force on an interface. The reason for a
    /// `false` is logged. An interface that is gone is `false`.
    ///
    /// # Errors
    /// When it cannot be told.
    fn verify(&mut self, ifindex: u32) -> Result<bool, GateError>;

    /// Addresses that a predecessor's filters on an interface fence, if they can be read: to be given to
    /// [`Gate::inherit`] before [`attach`](Sentry::attach).
    ///
    /// # Errors
    /// When the filters cannot be listed.
    fn inheritance(&mut self, ifindex: u32) -> Result<Vec<IpAddr>, GateError>;

    /// Puts the gate on an interface, in the place of what a predecessor left there, in one atomic step; the tables stay
    /// as they are, so that what the predecessor fenced must have been [inherited](Gate::inherit) before.
    ///
    /// # Errors
    /// As [`Gate::attach`].
    fn attach(&mut self, ifindex: u32) -> Result<(), GateError>;

    /// Puts the filters back on an interface that the gate is attached to, each in one atomic step.
    ///
    /// # Errors
    /// [`GateError::NotAttached`] if the gate was never attached there or has been detached; as
    /// [`Gate::attach`].
    fn repair(&mut self, ifindex: u32) -> Result<(), GateError>;

    /// Tells at once when others change the gate; `None` where nobody else can, or [`crate::watch`] tells of it. To be
    /// called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    fn notices(&self) -> Result<Option<TableNotices>, GateError> {
        Ok(None)
    }
}

/// Refuses slot 0 and slots past the end.
fn check_slot(slot: SlotId) -> Result<(), GateError> {
    if slot == SLOT_SHUT || slot >= SLOTS {
        return Err(GateError::NoSuchSlot { slot });
    }
    Ok(())
}

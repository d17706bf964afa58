//! Quorum leases: who may answer for an address, and until when (`docs/leases.md`).
//!
//! A lease is kept per *address*, not per VIP name: an address that moves from one VIP to another (or
//! whose VIP is deleted and made again) is still protected by the promise made to its last holder.

pub mod holder;
pub mod messages;
pub mod quorum;
pub mod voter;

pub use holder::{Holder, HolderEffect, HolderEvent, HolderParams, HolderView, SlotId, Wanted};
pub use messages::{Answer, Claim, Claims, LogView, Pending, Renew, Verdict};
pub use quorum::Quorum;
pub use voter::{Voter, VoterEffect, VoterEvent};

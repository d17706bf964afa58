//! The real daemon on real (virtual) networks: what users are promised, seen from outside.
//!
//! Each test has a cluster of its own, and one runs at a time. Limits are on what is promised, or on
//! hanging; measured figures are printed (`cargo test -p buoy --test cluster -- --nocapture`).

mod external_fence;
#[cfg(feature = "fault-points")]
mod fault_points;
mod fence;
mod forming;
mod hands;
mod harness;
mod inherited;
mod interfaces;
mod lost_disk;
mod migration;
mod outer;
mod prevote;
mod quarantine;
mod reads;
mod signals;
mod takeover;
mod tls;
mod trials;
mod vips;
mod vmac;
mod vrrp;
mod vrrp_load;
mod words;

//! The real daemon on real (virtual) networks: what users are promised, seen from outside.
//!
//! Each test has a cluster of its own, and one runs at a time. Limits are on what is promised, or on
//! hanging; measured figures are printed (`cargo test -p buoy --test cluster -- --nocapture`).

mod fence;
mod forming;
mod hands;
mod harness;
mod inherited;
mod lost_disk;
mod prevote;
mod quarantine;
mod reads;
mod signals;
mod takeover;
mod tls;
mod vips;
mod words;

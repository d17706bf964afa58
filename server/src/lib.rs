//! The daemon: Raft node, leases, addresses, gRPC services.

pub mod api;
mod applied;
mod attempts;
mod carrier;
mod checks;
pub mod config;
mod daemon;
pub mod doctor;
mod faults;
mod fencing;
mod form;
mod gated;
mod gatekeeper;
mod guardian;
mod health;
pub mod host_fence;
mod inherited;
mod leader;
pub mod lease;
mod lease_info;
mod listen;
mod logging;
mod longest;
mod lowering;
pub mod peer;
pub mod precheck;
mod reporter;
mod reunion;
mod signals;
mod start;
mod stop;
mod sys;
pub mod tls;

pub use daemon::{VERSION, serve};
pub use start::StartError;

//! A network on one machine: namespaces, a userspace switch with faults, an observer of every frame,
//! clients, and clusters that run on them.

pub mod backend;
pub mod bench;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod demo;
mod interrupt;
pub mod legacy;
mod nginx;
pub mod ns;
pub mod observer;
pub mod process;
mod rng;
mod runs;
mod say;
pub mod switch;
pub mod sys;
pub mod topology;

pub use runs::{Run, clip};

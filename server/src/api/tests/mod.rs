//! The services of a small cluster, called as a user calls them.

mod cluster;
mod doubles;
mod failure;
mod harness;
mod peers;
mod watching;

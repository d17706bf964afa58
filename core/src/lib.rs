//! What is decided in Buoy, and why: pure state machines without clock, socket, file or randomness.
//!
//! Every machine has one shape: `handle(now, event, effects)` and `next_deadline()`. The daemon, the
//! simulator and the model checker drive the same code.

pub mod effects;
pub mod health;
pub mod ids;
pub mod lease;
pub mod membership;
pub mod placement;
pub mod spec;
pub mod state;
pub mod time;

pub use ids::{Epoch, Incarnation, NodeId, NodeName, Session, VipName};
pub use membership::{ConfigId, Membership};
pub use time::Mono;

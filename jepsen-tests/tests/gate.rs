//! The simulator's model of the packet gate against the real gates: whatever the leases are proved with in the
//! simulation must be what the kernel does.

#[path = "../../fence/tests/common/mod.rs"]
mod common;
#[path = "../../fence/tests/common/frames.rs"]
mod frames;
#[path = "../../fence/tests/common/wire.rs"]
mod wire;

#[path = "gate/model.rs"]
mod model;

#[path = "gate/exact.rs"]
mod exact;
#[path = "gate/timed.rs"]
mod timed;

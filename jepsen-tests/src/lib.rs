//! Whether Buoy keeps its promises: the lease core on one virtual clock, with faults.

pub mod sim;

//! What the Linux kernel does for us: packet gate, addresses, announcements, and word of changes.

pub mod addr;
pub mod announce;
pub mod clock;
#[cfg(feature = "fault-points")]
pub mod fault;
pub mod gate;
pub mod link;
mod marks;
pub mod packets;
pub mod process;
mod rtnl;
pub mod sockets;
pub mod vmac;
pub mod watch;

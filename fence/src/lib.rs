//! What the Linux kernel does for us: packet gate, addresses, announcements, and word of changes.

pub mod addr;
pub mod announce;
pub mod clock;
pub mod gate;
pub mod link;
pub mod process;
mod rtnl;
pub mod watch;

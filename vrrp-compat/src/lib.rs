//! The VRRP face of Buoy: what routers and keepalived machines see on the wire.

pub mod accept;
pub mod ah;
pub mod checksum;
pub mod ip;
pub mod mark;
pub mod packet;
pub mod router;

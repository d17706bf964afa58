//! The VRRP face of Buoy: what routers and keepalived machines see on the wire.

pub mod checksum;
pub mod packet;

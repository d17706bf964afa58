//! Any bytes as a whole IP packet: nothing panics, and what a router accepts comes out of the writer again. The
//! properties are those of the test `fuzz` on stable, in one file with it.

#![no_main]

use std::sync::LazyLock;

use buoy_vrrp_compat::accept::Expected;
use buoy_vrrp_compat::ah;
use buoy_vrrp_compat::ip::Packet;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/routers.rs"]
mod routers;

static ROUTERS: LazyLock<Vec<Expected>> = LazyLock::new(routers::routers);

fuzz_target!(|bytes: &[u8]| {
    routers::everything(bytes, &ROUTERS);
    if let Ok(packet) = Packet::read(bytes) {
        let _ = ah::open(&packet, b"1111\0\0\0\0");
    }
});

//! Compiles the .proto files without a system protoc.

use std::error::Error;
use std::path::Path;

use prost::Message;

const FILES: [&str; 4] = [
    "buoy/v1/types.proto",
    "buoy/v1/ownership.proto",
    "buoy/v1/cluster.proto",
    "buoy/peer/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    // BTreeMap: the same state always encodes to the same bytes.
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".buoy.peer.v1")
        .compile_fds(descriptors)?;
    Ok(())
}

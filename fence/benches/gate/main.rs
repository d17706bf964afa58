//! What the gates cost packets and renewals, each beside the others in one run: `make bench-gate`, or
//! `cargo bench -p buoy-fence --bench gate -- [program|renewals|packets|throughput|takeover]...`.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/conformance/contender.rs"]
mod contender;
#[path = "../../tests/common/frames.rs"]
mod frames;
#[path = "../../tests/common/wire.rs"]
mod wire;

mod packets;
mod program;
mod renewals;
mod setting;
mod takeover;
mod throughput;

use std::time::Duration;

/// Managed addresses with which packets are measured.
const ADDRESSES: [u32; 3] = [0, 200, 10_000];

type Section = (&'static str, fn());

const SECTIONS: [Section; 5] = [
    ("program", || program::run().expect("the program")),
    ("renewals", renewals::run),
    ("packets", packets::run),
    ("throughput", throughput::run),
    ("takeover", takeover::run),
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    if let Some(unknown) = wanted
        .iter()
        .find(|w| SECTIONS.iter().all(|(name, _)| name != w))
    {
        let names = SECTIONS.map(|(name, _)| name).join(", ");
        eprintln!("there is no section {unknown}; there are: {names}");
        std::process::exit(2);
    }
    for (name, section) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            println!("== {name}\n");
            section();
            println!();
        }
    }
}

/// Sorts, and gives the value below which `percent` of all are.
fn percentile(all: &mut [Duration], percent: usize) -> Duration {
    all.sort_unstable();
    all[(all.len() - 1) * percent / 100]
}

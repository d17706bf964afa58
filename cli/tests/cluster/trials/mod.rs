//! The owner of a VIP is stopped, killed, frozen or starved, and its kernel falls silent by itself: measured at its own
//! interface, where nothing that leaves it can be missed, against the deadline that its kernel holds.
//!
//! `make trials` runs them 30 times each and writes the figures into docs/verification.md.

mod faults;
mod instruments;
mod page;

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_lab::sys::clock::{now_ns, ns_to_ms};
use buoy_lab::topology::Profile;

use crate::harness::{Cluster, WEB_A, wait};
use faults::{Fault, Freezer, Lasting};
use instruments::{Instruments, Kind, Record};
use page::Row;

/// How often each trial is repeated, a sixth as often with the long lease; 30 for the page.
const REPEATS: &str = "BUOY_TRIALS";
/// How late the last answer may be, ms. Both clocks are read to a microsecond; a frame that passed the gate is taken
/// down some microseconds later.
const EBPF_TOLERANCE: f64 = 0.1;
/// Kernel ticks.
const NFT_TOLERANCE: f64 = 10.0;

#[test]
fn the_kernel_is_silent_at_the_deadline_whatever_happens_to_the_daemon() {
    let asked = std::env::var(REPEATS).ok();
    let repeats: usize = asked.as_deref().map_or(2, |text| text.parse().unwrap());
    let mut rows = Vec::new();
    for fence in ["ebpf", "nft"] {
        for profile in [Profile::Lan, Profile::Wan] {
            let Some(cluster) = cluster(fence, profile) else {
                return;
            };
            for fault in Fault::ALL {
                if fault == Fault::Freeze && Freezer::missing().is_some_and(skip) {
                    continue;
                }
                // A starved machine starves all its nodes, and longer than a long lease it must not be.
                if (fault, profile) == (Fault::Starve, Profile::Wan) {
                    continue;
                }
                // A trial with the long lease takes many times as long, and shows the same.
                let repeats = match profile {
                    Profile::Wan => repeats.div_ceil(6),
                    _ => repeats,
                };
                let mut row = Row::new(fence, profile.name(), fault);
                for _ in 0..repeats {
                    row.add(trial(&cluster, fault));
                }
                println!("  {row}");
                row.judge(match fence {
                    "ebpf" => EBPF_TOLERANCE,
                    _ => NFT_TOLERANCE,
                });
                rows.push(row);
            }
            cluster.never_dual();
        }
    }
    if asked.is_some() {
        page::write(&rows, repeats);
    }
}

fn skip(why: &str) -> bool {
    assert!(
        std::env::var_os("CI").is_none(),
        "this must run in CI, but: {why}"
    );
    println!("SKIP: {why}");
    true
}

/// Members n1 and n2, with an IPv6 address beside web-a's IPv4 one.
fn cluster(fence: &str, profile: Profile) -> Option<Cluster> {
    Cluster::formed_of(|topology| {
        topology.fence = Some(fence.to_owned());
        topology.profile = profile;
        topology.vips[0].addresses.push((v6(), 64));
    })
}

fn v6() -> IpAddr {
    "fd00:192:168::13".parse().unwrap()
}

/// What one trial showed; times in ms.
pub struct Outcome {
    /// Last answer of each kind after the deadline (negative: before).
    late: BTreeMap<Kind, f64>,
    /// From the old owner's last answer to the new owner's first; none where the VIP came back to the same.
    apart: Option<f64>,
    /// Nobody answered for so long.
    dark: f64,
}

fn trial(cluster: &Cluster, fault: Fault) -> Outcome {
    cluster.settled(&["n1", "n2", "n3"]);
    let owner = cluster.owner(WEB_A.1);
    let other = if owner == "n1" { "n2" } else { "n1" };
    let instruments = Instruments::start(cluster, &["n1", "n2"], &[WEB_A.1, v6()]);
    wait("every kind of answer was seen", || {
        let records = instruments.records();
        let (_, record) = records.iter().find(|(name, _)| *name == owner).unwrap();
        let seen = |kind| record.frames.iter().any(|f| f.kind == kind);
        !record.readings.is_empty() && Kind::ALL.into_iter().all(seen)
    });
    let began = now_ns();
    let mut lasting = Lasting::begin(cluster, &owner, fault);
    match fault {
        Fault::Starve => faults::last(&mut lasting),
        _ => cluster.wait_on(WEB_A.1, other),
    }
    drop(lasting);
    cluster.settled(&["n1", "n2", "n3"]);
    let records = instruments.records();
    drop(instruments);
    judge(&records, &owner, began)
}

/// Compares what left each member with the deadlines of its kernel.
fn judge(records: &[(String, Record)], owner: &str, began: u64) -> Outcome {
    let mut late = BTreeMap::new();
    for (name, record) in records {
        for frame in record.frames.iter().filter(|f| f.at >= began) {
            // On a machine this busy a lease may end by itself, and the VIP come back: whoever has it, nobody else has.
            for (other, beside) in records.iter().filter(|(other, _)| other != name) {
                let open = open_throughout(beside, frame.at);
                assert!(!open, "{name} sent {frame:?} while {other} held the VIP");
            }
            let allowed = allowed(record, frame.at);
            let after = signed_ms(frame.at, allowed);
            // A frame of somebody who never had a deadline is as late as can be.
            assert!(allowed > 0, "{name} sent {frame:?} and never held the VIP");
            // Of a lease that goes on there is nothing to say: its last answer is yet to come.
            if ended_after(record, allowed) {
                let worst = late.entry(frame.kind).or_insert(f64::NEG_INFINITY);
                *worst = worst.max(after);
            }
        }
    }
    let of = |name: &str| &records.iter().find(|(n, _)| n == name).unwrap().1;
    let others = records.iter().filter(|(name, _)| name != owner);
    let first = others
        .flat_map(|(_, r)| &r.frames)
        .filter(|f| f.at >= began)
        .map(|f| f.at)
        .min();
    let last = of(owner)
        .frames
        .iter()
        .map(|f| f.at)
        .filter(|at| first.is_none_or(|first| *at < first))
        .max();
    let apart = first.zip(last).map(|(first, last)| ns_to_ms(first - last));
    let mut all: Vec<u64> = records
        .iter()
        .flat_map(|(_, r)| &r.frames)
        .map(|f| f.at)
        .collect();
    all.sort_unstable();
    let dark = all
        .windows(2)
        .filter(|w| w[1] >= began)
        .map(|w| w[1] - w[0])
        .max();
    Outcome {
        late,
        apart,
        dark: ns_to_ms(dark.unwrap_or_default()),
    }
}

/// The latest deadline that can have been in force at a moment. Deadlines only grow while a lease goes on, so it is that of
/// the first reading that began afterwards, or, if the VIP has gone by then, that of one before: of the last two, for one that was
/// under way at the moment may already tell of later.
fn allowed(record: &Record, at: u64) -> u64 {
    let next = record.readings.partition_point(|r| r.began < at);
    let near = record
        .readings
        .iter()
        .take(next + 1)
        .skip(next.saturating_sub(2));
    near.map(|r| r.deadline).max().unwrap_or(0)
}

/// Was the gate open at a moment without any doubt: by the last reading before and by the first one after?
fn open_throughout(record: &Record, at: u64) -> bool {
    let next = record.readings.partition_point(|r| r.began < at);
    let around = record
        .readings
        .iter()
        .take(next + 1)
        .skip(next.saturating_sub(1));
    let deadlines: Vec<u64> = around.map(|r| r.deadline).collect();
    deadlines.len() == 2 && deadlines.iter().all(|d| *d > at)
}

/// Was the deadline the last of its lease: was it over at some reading, or had the VIP gone from there?
fn ended_after(record: &Record, deadline: u64) -> bool {
    record
        .readings
        .iter()
        .any(|r| r.began > deadline && r.deadline <= deadline)
}

fn signed_ms(at: u64, from: u64) -> f64 {
    if at >= from {
        ns_to_ms(at - from)
    } else {
        -ns_to_ms(from - at)
    }
}

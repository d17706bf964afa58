//! A thousand addresses go up at once: gate open, addresses present, each announced for the first time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::spec::Scope;
use buoy_fence::addr::{AddressSpec, Addresses};
use buoy_fence::announce::{Announcer, Pace, Target};

use crate::contender::{Contender, LONG, renew};
use crate::percentile;
use crate::setting::{name, other};
use crate::wire::Wire;

const ADDRESSES: u32 = 1_000;
const REPEATS: usize = 10;
/// Of an IPv4 address: request and reply form.
const FRAMES: u64 = 2 * ADDRESSES as u64;

pub fn run() {
    println!("{ADDRESSES} IPv4 addresses up in one go, {REPEATS} times; goal: at most 100 ms\n");
    for contender in Contender::ALL {
        let mut totals = Vec::new();
        let mut parts: [Vec<Duration>; 3] = Default::default();
        for _ in 0..REPEATS {
            let times = go_up(contender);
            totals.push(times.iter().sum());
            for (part, time) in parts.iter_mut().zip(times) {
                part.push(time);
            }
        }
        let [open, present, announced] = parts.each_mut().map(|all| percentile(all, 50));
        let (median, worst) = (percentile(&mut totals, 50), percentile(&mut totals, 100));
        println!(
            "{:5}  {median:.1?} median, {worst:.1?} at most (medians: gate open {open:.1?}, addresses {present:.1?}, announced {announced:.1?})",
            name(Some(contender))
        );
    }
}

/// How long each of the three steps took.
fn go_up(contender: Contender) -> [Duration; 3] {
    let wire = Wire::new("up");
    let own = wire.owner.ifindex("own");
    let mut gate = contender.make(&wire.owner);
    let all: Vec<_> = (1..=ADDRESSES).map(other).collect();
    all.iter().for_each(|ip| gate.manage(*ip).expect("manage"));
    gate.attach(own).expect("attach");
    renew(gate.as_mut(), 1, LONG);
    wire.owner.run(move || {
        let (addresses, _events) =
            Addresses::start(Arc::new(|_| true), Arc::new(|_| true)).expect("a keeper");
        let (announcer, _told) = Announcer::start(Arc::new(|_| true)).expect("an announcer");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let begun = Instant::now();
            all.iter().for_each(|ip| gate.open(*ip, 1).expect("open"));
            let open = begun.elapsed();

            let spec = |ip: &_| AddressSpec {
                ip: *ip,
                prefix: 32,
                interface: "own".to_owned(),
                label: None,
                scope: Scope::default(),
            };
            let begun = Instant::now();
            let added = addresses.add(all.iter().map(spec).collect()).await;
            added.into_iter().for_each(|done| done.expect("added"));
            let present = begun.elapsed();

            let target = |ip: &_| Target {
                ip: *ip,
                ifindex: own,
                interface: "own".to_owned(),
                mac: [2, 0, 0, 0, 0, 1],
                pace: Pace::default(),
            };
            let begun = Instant::now();
            announcer.up(all.iter().map(target).collect()).await;
            // Each is announced once before any is announced again.
            while announcer.counts().sent < FRAMES {
                assert!(
                    begun.elapsed() < Duration::from_secs(5),
                    "{:?}",
                    announcer.counts()
                );
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            [open, present, begun.elapsed()]
        })
    })
}

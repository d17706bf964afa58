//! The eBPF gate: its very program, on its tables, with a clock that stands still where the model's does.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::gate::{Direction, EbpfGate, EbpfOptions, Gate as _, SLOTS, Verdict};
use buoy_jepsen_tests::sim::gate::{Gate, Kind};
use buoy_jepsen_tests::sim::rng::Rng;

use crate::common::skip_without_gate;
use crate::frames::{self, ip, v4, v6};
use crate::model::{Step, same_books};

/// Less than there are addresses: some find no place.
const CAPACITY: u32 = 5;
const LEASE: Duration = Duration::from_micros(300);
const SEQUENCES: u64 = 6;
const STEPS: usize = 70;
/// Every deadline is tried at so many readings of the clock around it.
const AROUND: [i64; 3] = [-1, 0, 1];

fn addresses() -> Vec<IpAddr> {
    // The last one is the first one in the clothes of IPv6.
    [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
        "fd00:192::1",
        "fd00:192::2",
        "fd00:192::3",
        "::ffff:192.0.2.1",
    ]
    .map(ip)
    .to_vec()
}

/// A packet to an address, and one from it.
fn packets(address: IpAddr) -> [(Direction, Vec<u8>); 2] {
    let (to, from) = match address.to_canonical() {
        IpAddr::V4(vip) => {
            let peer = v4("192.0.2.99");
            (frames::ipv4(peer, vip), frames::ipv4(vip, peer))
        }
        IpAddr::V6(vip) => {
            let peer = v6("fd00:192::99");
            let packet = |a, b| frames::ipv6(a, b, frames::UDP, &[0; 8]);
            (packet(peer, vip), packet(vip, peer))
        }
    };
    [(Direction::Ingress, to), (Direction::Egress, from)]
}

/// What the model and the program say to packets of all addresses at a reading of the clock, of one direction or both.
fn same_verdicts(
    model: &Gate,
    gate: &EbpfGate,
    now: Mono,
    which: &[Direction],
) -> Result<(), String> {
    for address in addresses() {
        let expected = if model.passes(address, now) {
            Verdict::Pass
        } else {
            Verdict::Drop
        };
        for (direction, frame) in packets(address) {
            if !which.contains(&direction) {
                continue;
            }
            let verdict = gate.judge_at(direction, &frame, now).expect("judge");
            if verdict != expected {
                return Err(format!(
                    "{address} {}: the program says {verdict:?} at {now:?}, the model {expected:?}",
                    direction.name()
                ));
            }
        }
    }
    Ok(())
}

fn compare(model: &Gate, gate: &EbpfGate, now: Mono) -> Result<(), String> {
    same_books(model, gate)?;
    same_verdicts(model, gate, now, &Direction::BOTH)?;
    let mut at = BTreeSet::new();
    for slot in 0..=SLOTS {
        let (real, expected) = (gate.deadlines().load(slot), model.deadline(slot));
        if real != expected {
            return Err(format!(
                "slot {slot} ends at {real:?}, in the model at {expected:?}"
            ));
        }
        if expected != Mono::ZERO && model.managed().any(|(_, by, _)| by == slot) {
            at.extend(AROUND.map(|by| Mono(expected.0.saturating_add_signed(by))));
        }
    }
    // Each trial loads a program: every other reading of the clock is tried in the other direction.
    let tried = at.into_iter().zip(Direction::BOTH.iter().cycle());
    tried
        .into_iter()
        .try_for_each(|(now, which)| same_verdicts(model, gate, now, &[*which]))
}

#[test]
fn the_model_says_what_the_program_says() {
    if skip_without_gate() {
        return;
    }
    let (mut open, mut refused) = (0, 0);
    for seed in 0..SEQUENCES {
        let mut rng = Rng::new(seed);
        let options = EbpfOptions {
            capacity: CAPACITY,
            mapped: seed % 2 == 0,
        };
        let mut gate = EbpfGate::new(options).expect("a gate");
        let mut model = Gate::with_capacity(Kind::Exact, CAPACITY as usize);
        // Beyond the sign bit of a clock's reading, in every second sequence.
        let mut now = Mono(if seed % 4 < 2 {
            1 << 40
        } else {
            (1 << 63) - 20_000
        });
        let (mut done, mut armed) = (Vec::new(), Vec::new());
        for _ in 0..STEPS {
            now = now + Duration::from_nanos(rng.below(25_000));
            let step = Step::draw(&mut rng, &addresses(), &armed, now, LEASE);
            if let Step::Arm(until) = step {
                armed.push(until);
            }
            done.push(step.clone());
            let expected = step.on_model(&mut model, now);
            let real = step.on_gate(&mut gate);
            let history = || format!("seed {seed}, after {done:#?}");
            assert_eq!(real, expected, "{}", history());
            if let Err(difference) = compare(&model, &gate, now) {
                panic!("{difference}\n{}", history());
            }
            refused += usize::from(expected.is_err());
            open += model.mapped().filter(|(.., end)| *end > now).count();
        }
    }
    println!("{open} times an address was open, {refused} steps were refused");
    assert!(open > 100 && refused > 20, "{open} open, {refused} refused");
}

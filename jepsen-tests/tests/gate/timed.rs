//! The nftables gate: real packets, in real time. The kernel counts in ticks, so around the end of a round nothing is
//! asked; everywhere else the model and the kernel agree.

use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;
use buoy_core::spec::timing::NFT_MARGIN;
use buoy_fence::clock::boottime;
use buoy_fence::gate::{Gate as _, GateError, NftGate, SLOTS};
use buoy_jepsen_tests::sim::gate::{Gate, Kind};
use buoy_jepsen_tests::sim::rng::Rng;

use crate::common::{NetNs, skip, skip_without_root, wait_until};
use crate::frames::ip;
use crate::model::{Step, same_books};
use crate::wire::{Asker, Echo, VIP4, VIP6, Wire};

const LEASE: Duration = Duration::from_millis(400);
/// How much earlier than a round's length says the kernel may end it: a tick of the slowest kernel, and a bit.
const EARLY: Duration = Duration::from_millis(15);
/// A question and its answer take less than this, or tell nothing.
const ANSWER: Duration = Duration::from_millis(60);
const SEQUENCES: u64 = 4;
const STEPS: usize = 40;

/// What the model expects of a question that is asked from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Answer,
    Silence,
    Either,
}

struct Bench {
    wire: Wire,
    ifindex: u32,
    gate: NftGate,
    model: Gate,
    vips: Vec<(IpAddr, Asker, Echo)>,
    /// Questions that told something.
    answered: usize,
    silent: usize,
}

impl Bench {
    fn new() -> Bench {
        let wire = Wire::new("model");
        let ifindex = wire.owner.ifindex("own");
        let mut gate = wire.owner.run(|| NftGate::new().expect("a gate"));
        gate.attach(ifindex).expect("attach");
        wire.pin_neighbours();
        let vips = [VIP4, VIP6].map(|vip| {
            let echo = Echo::start(&wire.owner, vip);
            (ip(vip), Asker::new(&wire.client, vip), echo)
        });
        Bench {
            ifindex,
            gate,
            model: Gate::new(Kind::Timed),
            vips: vips.into(),
            wire,
            answered: 0,
            silent: 0,
        }
    }

    /// The fence of no address must keep the owner from finding the client: both know each other.
    fn warm(&self) {
        for (address, asker, _) in &self.vips {
            assert!(asker.answered(1), "{address} is not fenced yet");
        }
    }

    fn expected(&self, address: IpAddr) -> Expected {
        let now = boottime();
        if self.model.passes(address, now + EARLY + ANSWER) {
            return Expected::Answer;
        }
        // The model's rounds end on time; the kernel's as late as the margin allows.
        match self.model.passes(address, now - NFT_MARGIN) {
            true => Expected::Either,
            false => Expected::Silence,
        }
    }

    fn ask(&mut self, number: u64) -> Result<(), String> {
        for at in 0..self.vips.len() {
            let address = self.vips[at].0;
            let expected = self.expected(address);
            let asked = boottime();
            let asker = &self.vips[at].1;
            while asker.answer_so_far().is_some() {}
            match expected {
                Expected::Either => {}
                Expected::Answer => {
                    asker.send(number);
                    let answer = asker.answer(ANSWER);
                    if answer != Some(number) && boottime().since(asked) < ANSWER * 3 / 2 {
                        return Err(format!("{address} does not answer: {answer:?}"));
                    }
                    self.answered += 1;
                }
                Expected::Silence => {
                    let before = self.drops(address);
                    wait_until("the gate drops the question", || {
                        asker.send(number);
                        self.drops(address) > before
                    });
                    let answer = asker.answer(Duration::from_millis(5));
                    if answer.is_some() {
                        return Err(format!("{address} answers: {answer:?}"));
                    }
                    self.silent += 1;
                }
            }
        }
        Ok(())
    }

    fn drops(&self, address: IpAddr) -> u64 {
        let rows = self.gate.list().expect("list");
        let row = rows.iter().find(|row| row.address == address);
        row.map_or(0, |row| row.drops.total())
    }

    /// Does a step to both. `None`: this machine was too slow for both to have done the same.
    fn step(&mut self, step: &Step) -> Option<Result<(), String>> {
        let now = boottime();
        let expected = step.on_model(&mut self.model, now);
        let real = step.on_gate(&mut self.gate);
        if matches!(step, Step::Arm(_)) && boottime().since(now) > LEASE / 40 {
            return None;
        }
        if real != expected {
            return Some(Err(format!(
                "the gate said {real:?}, the model {expected:?}"
            )));
        }
        Some(self.same_deadlines())
    }

    fn same_deadlines(&self) -> Result<(), String> {
        same_books(&self.model, &self.gate)?;
        for slot in 0..=SLOTS {
            let (real, expected) = (self.gate.deadlines().load(slot), self.model.deadline(slot));
            if real != expected {
                return Err(format!(
                    "slot {slot} ends at {real:?}, in the model at {expected:?}"
                ));
            }
        }
        Ok(())
    }
}

/// Whether an earlier round serves a renewal is decided by the time that is left; where that is a close thing, the
/// gate, which reads its own clock, may decide otherwise.
fn wait_beyond_a_close_thing(armed: &[Mono]) {
    let close = LEASE / 40..=LEASE / 24;
    while armed
        .iter()
        .any(|until| close.contains(&(boottime() + LEASE).since(*until)))
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One sequence; false when this machine was too slow.
fn sequence(seed: u64, totals: &mut (usize, usize)) -> bool {
    let mut rng = Rng::new(seed);
    let mut bench = Bench::new();
    bench.warm();
    let addresses: Vec<IpAddr> = bench.vips.iter().map(|vip| vip.0).collect();
    let (mut done, mut armed) = (Vec::new(), Vec::new());
    for number in 0..STEPS as u64 {
        std::thread::sleep(Duration::from_millis(rng.below(25)));
        wait_beyond_a_close_thing(&armed);
        let now = boottime();
        let step = Step::draw(&mut rng, &addresses, &armed, now, LEASE);
        if let Step::Arm(until) = step {
            armed.push(until);
        }
        done.push(format!("{now:?} {step:?}"));
        let history = |difference: &str| format!("{difference}\nseed {seed}, after {done:#?}");
        match bench.step(&step) {
            None => return false,
            Some(Err(difference)) => panic!("{}", history(&difference)),
            Some(Ok(())) => {}
        }
        if let Err(difference) = bench.ask(number + 2) {
            panic!("{}", history(&difference));
        }
        if rng.chance(40_000) {
            done.push("repair".to_owned());
            bench.gate.repair(bench.ifindex).expect("repair");
            bench.model.repair();
        }
    }
    assert!(bench.gate.verify(bench.ifindex).expect("verify"));
    drop(bench.wire);
    totals.0 += bench.answered;
    totals.1 += bench.silent;
    true
}

#[test]
fn the_model_says_what_the_kernel_does() {
    if skip_without_root() {
        return;
    }
    if let Some(e @ GateError::Unavailable { .. }) =
        NetNs::new("probe").run(|| NftGate::new().err())
    {
        skip(&e.to_string());
        return;
    }
    let mut totals = (0, 0);
    let (mut seed, mut whole) = (0, 0);
    while whole < SEQUENCES {
        assert!(
            seed < 10 * SEQUENCES,
            "this machine is too slow for this test"
        );
        whole += u64::from(sequence(seed, &mut totals));
        seed += 1;
    }
    let (answered, silent) = totals;
    println!("{answered} questions were answered, {silent} were dropped, in {seed} sequences");
    assert!(
        answered > 50 && silent > 50,
        "{answered} answered, {silent} silent"
    );
}

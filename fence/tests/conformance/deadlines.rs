//! When a lease ends for the kernel.

use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::clock::boottime;
use buoy_fence::gate::{Gate, SLOTS};

use crate::contender::{Contender, LONG, renew};
use crate::frames::ip;
use crate::traffic::{BOTH, ask_until_dropped, shut_gate};
use crate::wire::{Asker, BETWEEN, Echo, VIP4, Wire};

/// The lease of these tests.
const LEASE: Duration = Duration::from_millis(120);
/// How much earlier than the deadline a gate may shut: kernel ticks, and renewals that share a round.
const EARLY: Duration = Duration::from_millis(25);

/// A gate, and a client that asks for an address which is answered.
struct Bench {
    contender: Contender,
    gate: Box<dyn Gate>,
    asker: Asker,
    _echo: Echo,
    _wire: Wire,
}

impl Bench {
    fn new(contender: Contender) -> Bench {
        let wire = Wire::new("late");
        let mut gate = shut_gate(contender, &wire);
        let bench = |gate| Bench {
            contender,
            asker: Asker::new(&wire.client, VIP4),
            _echo: Echo::start(&wire.owner, VIP4),
            gate,
            _wire: wire,
        };
        gate.open(ip(VIP4), 1).expect("open");
        renew(gate.as_mut(), 1, LONG);
        let mut bench = bench(gate);
        assert!(bench.asker.answered(u64::MAX), "open");
        bench.shut();
        bench
    }

    fn shut(&mut self) {
        self.gate.advance(&[(1, Mono::ZERO)]).expect("advance");
    }

    /// How the last question that was answered lies to the deadline, in milliseconds; fails where it was too late.
    fn distance(&self, end: Mono) -> f64 {
        let last = self
            .asker
            .last_answered(end + self.contender.tolerance())
            .expect("nothing was answered before the deadline");
        let late = last.since(end);
        assert!(
            late <= self.contender.tolerance(),
            "{:?}: asked {late:?} after the deadline, answered",
            self.contender
        );
        (last.0 as f64 - end.0 as f64) / 1e6
    }
}

pub fn a_lease_ends_by_itself(contender: Contender) {
    let mut bench = Bench::new(contender);
    let end = renew(bench.gate.as_mut(), 1, LEASE);
    assert!(bench.distance(end) < 1.0 + contender.tolerance().as_secs_f64() * 1e3);
    ask_until_dropped(bench.gate.as_ref(), &bench.asker);
    // Back with the next renewal.
    renew(bench.gate.as_mut(), 1, LONG);
    assert!(bench.asker.answered(1));
}

pub fn nothing_sent_after_the_deadline_is_answered(contender: Contender) {
    let mut bench = Bench::new(contender);
    let mut distances: Vec<f64> = (0..12)
        .map(|_| {
            let end = renew(bench.gate.as_mut(), 1, LEASE);
            bench.distance(end)
        })
        .collect();
    distances.sort_by(f64::total_cmp);
    let (first, last) = (distances[0], distances[distances.len() - 1]);
    let median = distances[distances.len() / 2];
    println!(
        "{contender:?}: last answered question minus deadline, n = {}: {first:.2} / {median:.2} / {last:.2} ms",
        distances.len()
    );
    assert!(
        median > -EARLY.as_secs_f64() * 1e3,
        "shut {median} ms before the deadline"
    );
}

pub fn a_renewal_that_was_not_answered_extends_nothing(contender: Contender) {
    let mut bench = Bench::new(contender);
    let end = renew(bench.gate.as_mut(), 1, LEASE);
    for later in [20, 40, 60] {
        bench
            .gate
            .arm(end + Duration::from_millis(later) + LONG)
            .expect("arm");
    }
    bench.distance(end);
}

/// A process that stands still between taking the send time and arming.
pub fn a_renewal_that_is_armed_late_ends_no_later(contender: Contender) {
    let mut bench = Bench::new(contender);
    let end = boottime() + LEASE;
    std::thread::sleep(LEASE / 2);
    bench.gate.arm(end).expect("arm");
    bench.gate.advance(&[(1, end)]).expect("advance");
    bench.distance(end);
    // Between the answer and the writing: nothing opens.
    let end = boottime() + LEASE;
    bench.gate.arm(end).expect("arm");
    std::thread::sleep(LEASE + contender.tolerance());
    bench.gate.advance(&[(1, end)]).expect("advance");
    ask_until_dropped(bench.gate.as_ref(), &bench.asker);
    // Before the arming, for longer than the lease.
    let end = boottime() + LEASE;
    std::thread::sleep(LEASE);
    bench.gate.arm(end).expect("arm");
    bench.gate.advance(&[(1, end)]).expect("advance");
    ask_until_dropped(bench.gate.as_ref(), &bench.asker);
}

/// A deadline for which nothing was armed.
pub fn an_unknown_deadline_is_never_exceeded(contender: Contender) {
    let mut bench = Bench::new(contender);
    bench.gate.arm(boottime() + LONG).expect("arm");
    let end = boottime() + LEASE;
    bench.gate.advance(&[(1, end)]).expect("advance");
    assert!(bench.gate.deadlines().load(1) <= end);
    let last = bench.asker.last_answered(end + contender.tolerance());
    assert!(last.is_none_or(|at| at.since(end) <= contender.tolerance()));
    ask_until_dropped(bench.gate.as_ref(), &bench.asker);
    // An earlier renewal that was armed serves for it.
    let armed = boottime() + LONG;
    bench.gate.arm(armed).expect("arm");
    let end = armed + Duration::from_secs(1);
    bench.gate.advance(&[(1, end)]).expect("advance");
    assert!(bench.asker.answered(1));
    // Or one close before it.
    assert!(bench.gate.deadlines().load(1) > boottime() + LONG / 2);
}

pub fn many_slots_move_together(contender: Contender) {
    let mut bench = Bench::new(contender);
    let all = |at: Mono| (1..SLOTS).map(|slot| (slot, at)).collect::<Vec<_>>();
    for round in 1..20 {
        let until = boottime() + LONG + Duration::from_secs(10 * round);
        bench.gate.arm(until).expect("arm");
        bench.gate.advance(&all(until)).expect("advance");
        assert!((1..SLOTS).all(|slot| bench.gate.deadlines().load(slot) == until));
    }
    assert!(bench.asker.answered(1));
    for slot in [0, SLOTS] {
        let until = boottime() + LONG;
        assert!(bench.gate.advance(&[(2, until), (slot, until)]).is_err());
    }
    bench.gate.advance(&all(Mono::ZERO)).expect("advance");
    ask_until_dropped(bench.gate.as_ref(), &bench.asker);
    assert!(BOTH.iter().all(|vip| bench.gate.shut(ip(vip)).is_ok()));
}

/// Renewed four times a lease, as the daemon does: no packet is lost.
pub fn a_live_lease_drops_nothing(contender: Contender) {
    let mut bench = Bench::new(contender);
    let lease = Duration::from_millis(300);
    renew(bench.gate.as_mut(), 1, lease);
    assert!(bench.asker.answered(1));
    let before = bench.gate.dropped().expect("drops");
    let (mut asked, mut renewed) = (0u32, boottime());
    let end = boottime() + Duration::from_secs(2);
    while boottime() < end {
        if boottime().since(renewed) >= lease / 4 {
            renew(bench.gate.as_mut(), 1, lease);
            renewed = boottime();
        }
        bench.asker.send(2);
        std::thread::sleep(BETWEEN);
        while bench.asker.answer_so_far().is_some() {}
        asked += 1;
        assert!(
            boottime().since(renewed) < lease,
            "the machine is too slow for this test"
        );
    }
    assert!(asked > 500, "only {asked} questions");
    assert_eq!(
        bench.gate.dropped().expect("drops"),
        before,
        "of {asked} questions"
    );
}

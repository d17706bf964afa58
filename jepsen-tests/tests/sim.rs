//! The lease core keeps its promises under every fault, and the checks would notice if it did not.

use std::process::Command;

use buoy_jepsen_tests::sim::gate::Kind;
use buoy_jepsen_tests::sim::{self, Bug, Config, Faults, Invariant, Scenario, Stats};

/// The first seed of every range is moved by this; `BUOY_SIM_SEED` sets it, to look at other histories
/// than the usual ones.
fn base_seed() -> u64 {
    std::env::var("BUOY_SIM_SEED").map_or(0, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("BUOY_SIM_SEED must be a number, but is {text:?}"))
    })
}

/// Runs the seeds; fails with the command line that shows the violation.
fn clean(seeds: std::ops::Range<u64>, cfg: &Config) -> Stats {
    let mut total = Stats::default();
    for seed in seeds.map(|seed| seed.wrapping_add(base_seed())) {
        match sim::run(seed, cfg) {
            Ok(stats) => {
                total.shuts += stats.shuts;
                total.kept += stats.kept;
                total.assigns += stats.assigns;
                total.memberships += stats.memberships;
                total.ends += stats.ends;
                total.lowered += stats.lowered;
                total.pauses += stats.pauses;
                total.rounds += stats.rounds;
                total.refused += stats.refused;
                total.recovery_ms = total.recovery_ms.max(stats.recovery_ms);
            }
            Err(violation) => panic!(
                "seed {seed}: {violation}\nwith {:?}; if all faults are on: \
                 cargo run -p buoy-jepsen-tests -- sim --seed {seed} --chaos-ms {}{}",
                cfg.faults,
                cfg.chaos_ms,
                cfg.gates
                    .map_or_else(String::new, |kind| format!(" --gates {kind}"))
            ),
        }
    }
    total
}

fn with(faults: Faults) -> Config {
    Config {
        faults,
        chaos_ms: 3_000,
        ..Config::default()
    }
}

#[test]
fn all_faults_at_once() {
    let total = clean(0..300, &Config::default());
    // The runs must have been about something.
    for (what, count) in [
        ("VIPs that went down", total.shuts),
        ("addresses that stayed through an edit", total.kept),
        ("assignments", total.assigns),
        ("memberships", total.memberships),
        ("daemons that ended", total.ends),
        ("stopped daemons", total.pauses),
        ("longest promises that were lowered", total.lowered),
        ("rounds of timed gates", total.rounds),
        ("refusals of timed gates", total.refused),
    ] {
        assert!(count > 100, "only {count} {what} in 300 runs");
    }
}

#[test]
fn all_faults_at_once_in_short_runs() {
    clean(1_000..1_300, &with(Faults::ALL));
}

#[test]
fn all_faults_at_once_with_gates_of_one_kind() {
    for kind in [Kind::Exact, Kind::Timed] {
        let one_kind = Config {
            gates: Some(kind),
            ..with(Faults::ALL)
        };
        let total = clean(7_000..7_100, &one_kind);
        assert_eq!(total.rounds > 0, kind == Kind::Timed, "{total:?}");
    }
}

#[test]
fn each_kind_of_fault_alone() {
    let none = Faults::NONE;
    let kinds = [
        Faults {
            network: true,
            ..none
        },
        Faults {
            crashes: true,
            ..none
        },
        Faults {
            pauses: true,
            ..none
        },
        Faults {
            memberships: true,
            ..none
        },
        Faults {
            operations: true,
            ..none
        },
        Faults {
            lease_lengths: true,
            ..none
        },
    ];
    for faults in kinds {
        clean(2_000..2_050, &with(faults));
    }
}

#[test]
fn without_faults_nothing_moves() {
    let total = clean(3_000..3_050, &with(Faults::NONE));
    assert_eq!(total.shuts, 0);
    // One assignment places all VIPs; a leader may find some of the nodes a moment later.
    assert!(total.assigns <= 100, "{total:?}");
}

#[test]
fn a_seed_is_a_history() {
    for seed in 0..5 {
        let cfg = with(Faults::ALL);
        assert_eq!(sim::run(seed, &cfg), sim::run(seed, &cfg), "seed {seed}");
    }
}

fn directed(scenario: Scenario) -> Config {
    Config {
        faults: Faults::NONE,
        scenario: Some(scenario),
        ..Config::default()
    }
}

#[test]
fn a_takeover_lasts_no_longer_than_the_rest_of_the_lease() {
    let total = clean(4_000..4_200, &directed(Scenario::Takeover));
    assert_eq!(total.ends, 200, "a node died in each run");
    assert!(total.recovery_ms > 250, "some died just after a renewal");
}

#[test]
fn a_longer_lease_waits_for_the_disks() {
    let longer = directed(Scenario::LongerLease);
    let total = clean(5_000..5_040, &longer);
    assert!(total.ends > 100, "voters were restarted");
    let planted = Config {
        bug: Some(Bug::PromisesBeforeDisk),
        checked: vec![Invariant::S3],
        ..longer
    };
    let violation = sim::run(5_000, &planted).expect_err("the first seed shows it");
    assert_eq!(violation.invariant, Invariant::S3, "{violation}");
}

#[test]
fn a_longest_promise_that_is_lowered_waits_for_the_disks_too() {
    let shorter = directed(Scenario::ShorterLease);
    let total = clean(6_000..6_040, &shorter);
    assert!(total.ends > 100, "voters were restarted");
    assert!(total.lowered > 100, "{total:?}");
    for invariant in [Invariant::S3, Invariant::S6] {
        let planted = Config {
            bug: Some(Bug::UnorderedDisk),
            checked: vec![invariant],
            ..shorter.clone()
        };
        let first = (6_000..6_200).find_map(|seed| sim::run(seed, &planted).err());
        assert!(first.is_some(), "{invariant:?} was not violated");
    }
}

/// The planted bug must violate one of the invariants within so many seeds.
fn found(bug: Bug, invariants: &[Invariant], faults: Faults, seeds: u64) {
    found_with(None, bug, invariants, faults, seeds);
}

fn found_with(gates: Option<Kind>, bug: Bug, invariants: &[Invariant], faults: Faults, seeds: u64) {
    let cfg = Config {
        faults,
        gates,
        bug: Some(bug),
        checked: invariants.to_vec(),
        ..Config::default()
    };
    let first = (0..seeds).find_map(|seed| sim::run(seed, &cfg).err().map(|v| (seed, v)));
    match first {
        None => panic!("{bug} violated none of {invariants:?} in {seeds} seeds"),
        Some((seed, violation)) => println!("{bug}: seed {seed}: {violation}"),
    }
}

macro_rules! finds {
    ($($name:ident: $bug:ident, $invariants:expr, $faults:expr, $seeds:expr;)*) => {$(
        #[test]
        fn $name() {
            use Invariant::*;
            found(Bug::$bug, &$invariants, $faults, $seeds);
        }
    )*};
}

const CRASHES: Faults = Faults {
    network: true,
    crashes: true,
    operations: true,
    ..Faults::NONE
};
const PAUSES: Faults = Faults {
    pauses: true,
    operations: true,
    network: true,
    ..Faults::NONE
};
const MEMBERSHIPS: Faults = Faults {
    crashes: false,
    operations: false,
    ..Faults::ALL
};

/// A seed that shows [`Bug::ArmedAgain`].
const ARMED_AGAIN: u64 = 2_098;

finds! {
    finds_no_quarantine_after_a_restart: NoQuarantine, [S1, S3], CRASHES, 200;
    finds_a_lease_counted_from_receipt: CountedFromReceipt, [S1, S3], Faults::ALL, 100;
    finds_a_lease_counted_from_a_push: CountedFromPush, [S1, S3], Faults::ALL, 100;
    finds_a_grant_before_the_superseded_check: GrantBeforeSuperseded, [Rule], Faults::ALL, 50;
    finds_a_stale_seq_that_is_accepted: StaleSeq, [S1, S3], Faults::ALL, 200;
    finds_an_epoch_that_is_claimed_again: EpochAgain, [Rule], Faults::ALL, 50;
    finds_a_promise_without_margin: NoMargin, [S1, S3], Faults::NONE, 20;
    finds_learners_in_the_majority: LearnersCount, [S1, S3], Faults::ALL, 50;
    finds_a_claim_that_is_not_applied: ClaimsUnapplied, [Rule], Faults::ALL, 20;
    finds_memberships_without_a_wait: NoMembershipWait, [S1, S6], MEMBERSHIPS, 50;
    finds_a_stale_view: StaleView, [S1, S6], MEMBERSHIPS, 300;
    finds_an_address_before_the_gate: AddressBeforeGate, [S4], Faults::NONE, 1;
    finds_an_announcement_before_the_address: AnnounceBeforeAddress, [S4], Faults::NONE, 1;
    finds_another_membership_that_is_judged: ConfigIgnored, [S1, S3, S6], MEMBERSHIPS, 200;
    finds_a_promise_of_what_is_not_heard_of: UnheardGranted, [Rule], Faults::ALL, 200;
    finds_a_release_before_the_gate_is_shut: ReleasedBeforeShut, [S1, S4], Faults::ALL, 20;
    finds_an_address_that_stays_unclaimed: KeptUnsaid, [S4], Faults::ALL, 200;
    finds_a_late_gate_that_names_no_margin: GateMarginUnnamed, [S3], Faults::NONE, 20;
    finds_a_round_that_is_armed_after_the_answer: ArmedAfterAnswer, [S3], PAUSES, 100;
    finds_a_deadline_without_a_round: AdvanceUnarmed, [S3], Faults::ALL, 100;
    finds_slots_that_a_restart_keeps: RestartKeepsSlots, [S3], CRASHES, 50;
    finds_addresses_by_a_slot_that_was_not_moved: RefusedAdvanceOpens, [S4], Faults::ALL, 200;
    finds_addresses_that_are_fenced_no_more: ForgottenWhileHeld, [S4], Faults::ALL, 20;
}

/// Only exact gates can be written so: a timed one takes no time after the answer.
#[test]
fn finds_a_gate_written_with_relative_time() {
    let exact = Some(Kind::Exact);
    found_with(exact, Bug::RelativeGate, &[Invariant::S1], PAUSES, 300);
}

/// What the kernel began to count for a later renewal of a moment serves no earlier one: that one's promise is older. It
/// takes two refusals and two stops in one round, so the seed is given.
#[test]
fn finds_a_renewal_that_is_armed_after_it_left() {
    let cfg = Config {
        bug: Some(Bug::ArmedAgain),
        checked: vec![Invariant::S3],
        ..Config::default()
    };
    let violation = sim::run(ARMED_AGAIN, &cfg).expect_err("this seed shows it");
    assert_eq!(violation.invariant, Invariant::S3, "{violation}");
}

fn jepsen(args: &[&str]) -> (Option<i32>, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_buoy-jepsen"))
        .args(args)
        .output()
        .unwrap();
    (run.status.code(), String::from_utf8(run.stdout).unwrap())
}

#[test]
fn the_command_says_how_to_run_a_failing_seed_again() {
    let (code, out) = jepsen(&["sim", "--seeds", "3", "--chaos-ms", "500"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("3 seeds") && out.contains("no violation"),
        "{out}"
    );

    let (code, out) = jepsen(&["sim", "--seeds", "50", "--bug", "released-before-shut"]);
    assert_eq!(code, Some(1), "{out}");
    let line = out
        .lines()
        .find(|l| l.contains("buoy-jepsen sim --seed"))
        .unwrap();
    let again: Vec<&str> = line
        .split_whitespace()
        .skip_while(|w| *w != "sim")
        .collect();
    let (code, traced) = jepsen(&again);
    assert_eq!(code, Some(1), "{traced}");
    let seed = format!("seed {}: ", again[2]);
    let verdict = out
        .lines()
        .next()
        .unwrap()
        .trim_start_matches(seed.as_str());
    assert!(traced.contains(verdict), "{verdict}\nis not in\n{traced}");
}

//! Results for tests.

use super::bed::{Contender, Situation};
use super::crowd::{self, Crowd};
use super::events::Row;
use super::idle::Idle;
use super::measure::Sample;
use super::results::{Machine, Results, Turn};
use super::soak::Soak;
use crate::observer::Judgement;
use crate::switch::protocol::Faults;

/// Of a run that meets every target.
pub fn whole() -> Results {
    of(10, 5, 65.0, 600.0)
}

/// Of a run that was too short to show that it does.
pub fn few() -> Results {
    of(2, 1, 10.0, 15.0)
}

fn of(repeats: u32, crowds: usize, idle_s: f64, soak_s: f64) -> Results {
    let mut results = Results {
        machine: Machine {
            command: "make bench ARGS=\"--quick\"".into(),
            data: "ext4".into(),
            ..Machine::default()
        },
        repeats,
        soak: Some(soak(soak_s)),
        ..Results::default()
    };
    for _ in 0..repeats {
        for row in Row::ALL {
            results.samples.push(sample(row));
            results.turns.push(turn());
        }
    }
    results.crowds = vec![
        Crowd {
            contender: Contender::Buoy,
            vips: crowd::VIPS,
            first_ms: 280.0,
            spread_ms: Some(40.0),
            missing: 0,
            dual_ms: 0.0,
        };
        crowds
    ];
    for vips in [1, crowd::VIPS] {
        results.idle.push(Idle {
            contender: Contender::Buoy,
            vips,
            node: "n1".into(),
            part: "owns nothing".into(),
            cpu_percent: 0.4,
            rss_mib: 19.0,
            seconds: idle_s,
        });
    }
    results
}

fn sample(row: Row) -> Sample {
    Sample {
        row,
        contender: Contender::Buoy,
        before: Situation {
            owner: "n1".into(),
            other: "n2".into(),
            leader: Some("n3".into()),
        },
        watched_ms: 2_000.0,
        blackout_ms: 4.0,
        sent: 2_000,
        lost: 0,
        takeover_ms: Some(4.0),
        dark_ms: 4.0,
        dual_ms: 0.0,
        stray_ms: 0.0,
        client_gap_ms: 2.0,
        observer_gap_ms: 2.0,
    }
}

fn turn() -> Turn {
    Turn {
        contender: Contender::Buoy,
        what: "a turn".into(),
        judgement: Judgement {
            watched_ms: 4_000.0,
            gap_ms: 2.0,
            ..Judgement::default()
        },
    }
}

fn soak(seconds: f64) -> Soak {
    Soak {
        faults: Faults::default(),
        seconds,
        leases_lost: 0,
        went_down: 0,
        owner_changes: 0,
        dark_ms: 0.0,
        longest_dark_ms: 0.0,
        whole: turn().judgement,
        elections: 0,
    }
}

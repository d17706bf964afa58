//! The demo, as a person runs it.

use std::process::Command;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{LABS, code, possible, program, text};

/// A machine that was too busy to see anything gets further tries.
#[test]
fn the_demo_passes() {
    if !possible() {
        return;
    }
    let _one = LABS.lock().unwrap_or_else(PoisonError::into_inner);
    let report = (0..3).find_map(|_| {
        let began = Instant::now();
        let output = Command::new(program())
            .args(["lab", "demo", "--json"])
            .output()
            .unwrap();
        assert!(began.elapsed() < Duration::from_secs(120));
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
        assert_eq!(
            report["problems"].as_array().map(Vec::len),
            Some(0),
            "{report:#}"
        );
        if !report["inconclusive"].is_null() {
            assert_eq!(code(&output), 1, "{report:#}");
            println!("again: {}", report["inconclusive"]);
            return None;
        }
        assert_eq!(
            (code(&output), &report["passed"]),
            (0, &true.into()),
            "{report:#}"
        );
        Some(report)
    });
    let report = report.expect("three demos were inconclusive: the machine is too busy");
    assert_eq!(report["whole"]["overlap_ms"], 0.0);
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["name"].as_str()).collect();
    assert_eq!(names, ["quiet", "crash", "return", "move"].map(Some));
    for step in steps {
        let vips = step["vips"].as_array().unwrap();
        assert_eq!(vips.len(), 2, "{step:#}");
        for vip in vips {
            assert_eq!(
                (&vip["two_owners_ms"], &vip["out_of_turn_ms"]),
                (&0.0.into(), &0.0.into())
            );
        }
    }
    for at in [1, 3] {
        let vips = steps[at]["vips"].as_array().unwrap();
        assert!(
            vips.iter().any(|vip| vip["from"] != vip["to"]),
            "{:#}",
            steps[at]
        );
    }
}

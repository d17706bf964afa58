//! `[timing]`: a profile, single values that differ from it, and the rules that they must keep together.

use std::ops::Range;
use std::time::Duration;

use buoy_core::spec::timing::{Overrides, Profile, Timing};

use super::problem::{Problem, Problems};
use super::table::Table;
use super::value::{format_duration, parse_duration};

/// Timings by their keys, in the order of the reference.
pub(super) fn entries(t: &Timing) -> [(&'static str, String); 9] {
    [
        ("renew", format_duration(t.renew)),
        ("retry", format_duration(t.retry)),
        ("lease", format_duration(t.lease)),
        ("suspect_after", format_duration(t.suspect_after)),
        ("raft_heartbeat", format_duration(t.raft_heartbeat)),
        ("election_min", format_duration(t.election_min)),
        ("election_max", format_duration(t.election_max)),
        ("max_drift_ppm", t.max_drift_ppm.to_string()),
        ("guard", format_duration(t.guard)),
    ]
}

/// Reads `[timing]`. The rules are judged only if every value could be read.
pub(super) fn read_timing(table: &Table<'_>, problems: &mut Problems) -> (Profile, Timing) {
    let before = problems.count();
    let mut places: Vec<(&'static str, Range<usize>)> = Vec::new();
    let profile = table.word("profile", problems, |word| word.parse::<Profile>().ok());
    let mut take = |name: &'static str, problems: &mut Problems| -> Option<Duration> {
        let found = table.parsed(name, problems, parse_duration)?;
        places.push((name, found.span));
        Some(found.value)
    };
    let mut overrides = Overrides {
        renew: take("renew", problems),
        retry: take("retry", problems),
        lease: take("lease", problems),
        suspect_after: take("suspect_after", problems),
        raft_heartbeat: take("raft_heartbeat", problems),
        election_min: take("election_min", problems),
        election_max: take("election_max", problems),
        guard: take("guard", problems),
        max_drift_ppm: None,
    };
    if let Some(drift) = table.number("max_drift_ppm", problems) {
        overrides.max_drift_ppm = u32::try_from(drift.value).ok();
        places.push(("max_drift_ppm", drift.span));
    }
    let profile = profile.map_or_else(Profile::default, |p| p.value);
    let timing = Timing::with_overrides(profile, &overrides);
    if problems.count() > before {
        return (profile, timing);
    }
    for broken in timing.validate().err().unwrap_or_default() {
        let span = place(broken.rule.field(), &broken.message, &places);
        let span = span.unwrap_or_else(|| table.span.clone());
        let (what, why) = broken
            .message
            .split_once(", but ")
            .unwrap_or((&broken.message, "not accepted"));
        problems.push(Problem::new(span, what, why).hint(broken.hint));
    }
    (profile, timing)
}

/// Where the timing `field` stands; if the profile gave it, where another one of `message` stands.
fn place(
    field: &str,
    message: &str,
    places: &[(&'static str, Range<usize>)],
) -> Option<Range<usize>> {
    let named = |name: &str| {
        message
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .any(|word| word == name)
    };
    let exact = places.iter().find(|(name, _)| *name == field);
    exact
        .or_else(|| places.iter().find(|(name, _)| named(name)))
        .map(|(_, span)| span.clone())
}

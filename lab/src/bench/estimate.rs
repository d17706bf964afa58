//! How long a run will take, from what it consists of.

use std::time::Duration;

use super::bed::Contender;
use super::crowd;
use super::idle::SETTLE;
use super::{BenchArgs, Scope};

/// Making a lab and taking it down.
const LAB: Duration = Duration::from_secs(5);
/// What a turn takes beside the time for which it is watched: the cluster is made whole, its roles are arranged,
/// the client starts.
const AROUND: Duration = Duration::from_secs(2);
/// The same for a turn with many VIPs, which are gathered on one node first.
const AROUND_CROWD: Duration = Duration::from_secs(6);

/// How long this run takes, about.
#[must_use]
pub fn estimate(args: &BenchArgs, scope: &Scope) -> Duration {
    let mut total = Duration::ZERO;
    let (mut one, mut many) = (false, false);
    for event in args.events() {
        one = true;
        let contenders = Contender::ALL.into_iter().filter(|it| event.applies(*it));
        let turns: Duration = contenders.map(|it| event.watched(it) + AROUND).sum();
        total += turns * scope.repeats;
    }
    if args.wants("idle") {
        (one, many) = (true, true);
        total += (SETTLE + scope.idle) * 2;
    }
    if args.wants("crowd") {
        many = true;
        let turns: Duration = Contender::ALL
            .into_iter()
            .map(|it| crowd::window(it) + AROUND_CROWD)
            .sum();
        total += turns * scope.crowds;
    }
    if args.wants("soak") {
        total += scope.soak + LAB * 2;
    }
    let labs = Contender::ALL.len() * (usize::from(one) + usize::from(many));
    total + LAB * u32::try_from(labs).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn minutes(line: &[&str]) -> f64 {
        let args = Line::parse_from([&["bench"], line].concat()).args;
        estimate(&args, &args.scope().unwrap()).as_secs_f64() / 60.0
    }

    #[test]
    fn a_whole_run_takes_less_than_45_minutes_and_its_parts_less() {
        let whole = minutes(&[]);
        assert!((30.0..45.0).contains(&whole), "{whole}");
        assert!((10.0..11.0).contains(&minutes(&["--only", "soak"])));
        assert!(minutes(&["--quick"]) < 15.0);
        assert!(minutes(&["--repeats", "20"]) > whole + 15.0);
    }
}

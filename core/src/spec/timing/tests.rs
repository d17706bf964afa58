//! Every profile keeps every rule, and each rule is broken by a value just beyond its limit.

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn every_profile_is_valid() {
    for p in Profile::ALL {
        assert_eq!(Timing::for_profile(p).validate(), Ok(()), "{p}");
        assert_eq!(p.as_str().parse::<Profile>(), Ok(p));
    }
    let e = "slow".parse::<Profile>().unwrap_err().to_string();
    assert!(e.contains("\"slow\"") && e.contains("\"wan\""), "{e}");
}

#[test]
fn the_default_is_lan() {
    let t = Timing::default();
    assert_eq!(
        (t.renew, t.retry, t.lease),
        (ms(75), Duration::from_micros(18_750), ms(300))
    );
    assert_eq!(t.voter_lease(), ms(323));
}

#[test]
fn overrides_replace_single_values_and_retry_follows_renew() {
    let o = Overrides {
        renew: Some(ms(40)),
        ..Overrides::default()
    };
    let t = Timing::with_overrides(Profile::Lan, &o);
    assert_eq!((t.renew, t.retry), (ms(40), ms(10)));
    assert_eq!(
        Timing {
            renew: ms(75),
            retry: ms(75) / 4,
            ..t
        },
        Timing::default()
    );
    let o = Overrides {
        retry: Some(ms(5)),
        ..o
    };
    assert_eq!(Timing::with_overrides(Profile::Lan, &o).retry, ms(5));
}

/// (field, a value at the limit, a value beyond it, rule, words of the message)
type Case = (fn(&mut Timing, u64), u64, u64, Rule, [&'static str; 2]);

#[test]
fn each_rule_has_its_limit() {
    let cases: &[Case] = &[
        (
            |t, v| t.lease = Duration::from_micros(v),
            60_000_000,
            60_001_000,
            Rule::LeaseRange,
            ["60s", "60.001s"],
        ),
        (
            |t, v| t.lease = Duration::from_micros(v),
            300_000,
            300_500,
            Rule::LeaseWholeMillis,
            ["whole", "300.5ms"],
        ),
        (
            |t, v| t.renew = ms(v),
            90,
            101,
            Rule::RenewalsFitLease,
            ["101ms", "300ms"],
        ),
        (
            |t, v| t.renew = ms(v),
            75,
            0,
            Rule::RenewalsFitLease,
            ["0ns", "300ms"],
        ),
        (
            |t, v| t.retry = ms(v),
            50,
            75,
            Rule::RetryWithinRenewal,
            ["75ms", "retry < renew"],
        ),
        (
            |t, v| t.retry = ms(v),
            1,
            0,
            Rule::RetryWithinRenewal,
            ["0ns", "75ms"],
        ),
        (
            |t, v| t.suspect_after = ms(v),
            299,
            300,
            Rule::SuspectBeforeLeaseEnds,
            ["suspect_after is 300ms", "lease is 300ms"],
        ),
        (
            |t, v| t.suspect_after = ms(v),
            169,
            168,
            Rule::SuspectSurvivesLoss,
            ["168ms", "168.75ms"],
        ),
        (
            |t, v| t.guard = ms(v),
            300,
            301,
            Rule::GuardRange,
            ["301ms", "300ms"],
        ),
        (
            |t, v| t.guard = ms(v),
            1,
            0,
            Rule::GuardRange,
            ["1ms", "0ns"],
        ),
        (
            |t, v| t.max_drift_ppm = v as u32,
            100_000,
            100_001,
            Rule::DriftRange,
            ["100000", "100001"],
        ),
        (
            |t, v| t.max_drift_ppm = v as u32,
            1,
            0,
            Rule::DriftRange,
            ["between 1", "is 0"],
        ),
        (
            |t, v| t.raft_heartbeat = ms(v),
            45,
            46,
            Rule::HeartbeatsFitElection,
            ["46ms", "90ms"],
        ),
        (
            |t, v| t.election_max = ms(v),
            91,
            90,
            Rule::ElectionRange,
            ["90ms", "election_min < election_max"],
        ),
        (
            |t, v| t.election_max = ms(v),
            60_000,
            60_001,
            Rule::ElectionRange,
            ["60s", "60.001s"],
        ),
    ];
    for (set, good, bad, rule, words) in cases {
        let mut t = Timing::default();
        set(&mut t, *good);
        assert_eq!(t.validate(), Ok(()), "{rule:?} with {good}");
        set(&mut t, *bad);
        let broken = t.validate().unwrap_err();
        let e = broken
            .iter()
            .find(|e| e.rule == *rule)
            .unwrap_or_else(|| panic!("{rule:?}: {broken:?}"));
        let text = e.to_string();
        assert!(words.iter().all(|w| text.contains(w)), "{text}");
        assert!(!e.hint.is_empty() && text.contains(&e.hint));
        assert!(text.contains(rule.field()), "{text}");
    }
}

#[test]
fn short_leases_are_refused_and_extremes_do_not_overflow() {
    let mut t = Timing {
        lease: ms(59),
        ..Timing::default()
    };
    assert!(
        t.validate()
            .unwrap_err()
            .iter()
            .any(|e| e.rule == Rule::LeaseRange)
    );
    let all = Duration::MAX;
    (t.renew, t.retry, t.lease, t.suspect_after) = (all, all, all, all);
    (t.raft_heartbeat, t.election_min, t.election_max, t.guard) = (all, all, all, all);
    t.max_drift_ppm = u32::MAX;
    assert!(t.validate().unwrap_err().len() >= 6);
}

#[test]
fn hints_name_values_that_keep_the_rule() {
    let t = Timing {
        renew: ms(150),
        ..Timing::default()
    };
    let e = t.validate().unwrap_err().remove(0);
    assert_eq!(
        (e.rule, e.hint.as_str()),
        (
            Rule::RenewalsFitLease,
            "set renew to 75ms, a quarter of the lease"
        )
    );
}

//! What outsiders and the Raft leader get to see, as scripts.

mod contest;
mod random;
mod seats;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use buoy_core::Mono;

use super::Event::{Deaf, Down, Heard, Listening, Tick, Up};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Priority 128 and one second: down after 3.5 s, skew 0.5 s.
const PREEMPTS: Settings = Settings {
    priority: 128,
    interval: SECOND,
    version: Version::V3,
    preempt: true,
    preempt_delay: Duration::ZERO,
};
const STAYS: Settings = Settings {
    preempt: false,
    ..PREEMPTS
};
const DELAYS: Settings = Settings {
    preempt_delay: Duration::from_secs(10),
    ..PREEMPTS
};
const OWNER: Settings = Settings {
    priority: 255,
    preempt: false,
    ..PREEMPTS
};

fn host(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn up(last: u8) -> Event {
    Event::Up { source: host(last) }
}

fn down(gives_up: bool) -> Event {
    Event::Down { gives_up }
}

fn member(last: u8) -> Event {
    Event::Member { source: host(last) }
}

fn heard(last: u8, priority: u8) -> Event {
    heard_every(last, priority, SECOND)
}

fn heard_every(last: u8, priority: u8, interval: Duration) -> Event {
    Event::Heard {
        from: host(last),
        priority,
        interval,
    }
}

/// Milliseconds, rounded up as a timer does.
fn millis(t: Mono) -> u64 {
    t.0.div_ceil(1_000_000)
}

fn describe(effect: Effect) -> String {
    match effect {
        Effect::Advertise { priority } => format!("adv{priority}"),
        Effect::AnnounceAgain(_) => "again".into(),
        Effect::Standing(Standing::Deaf) => "deaf".into(),
        Effect::Standing(Standing::Clear) => "clear".into(),
        Effect::Standing(Standing::Unsure { until }) => format!("unsure{}", millis(until)),
        Effect::Standing(Standing::Outranked { by, priority }) => {
            let last = by.to_string().rsplit('.').next().unwrap().to_owned();
            format!("out{last}/{priority}")
        }
    }
}

/// Runs events at their milliseconds, with the ticks that are due in between and until `end`.
fn run(settings: Settings, script: &[(u64, Event)], end: u64) -> String {
    let mut router = Router::new(settings, Mono::ZERO);
    let mut log = String::new();
    let mut note = |now: Mono, effects: Effects| {
        for effect in effects {
            write!(log, " {}:{}", millis(now), describe(effect)).unwrap();
        }
    };
    for (at, event) in script.iter().copied().chain([(end, Tick)]) {
        let at = Mono::from_millis(at);
        while let Some(due) = router.next().filter(|due| *due < at) {
            note(due, router.step(Tick, due));
        }
        note(at, router.step(event, at));
    }
    log.trim_start().to_owned()
}

#[track_caller]
fn check(settings: Settings, script: &[(u64, Event)], end: u64, expected: &str) {
    assert_eq!(run(settings, script, end), expected);
}

#[test]
fn timers() {
    let ms = Duration::from_millis;
    for (priority, version, interval, skew, down) in [
        // The interval of keepalived's measured take-overs, 2.61 to 3.61 s after the last advertisement.
        (100, Version::V2, 1_000, 609_375, 3_609_375),
        (100, Version::V2, 10_000, 609_375, 30_609_375),
        (100, Version::V3, 1_000, 609_375, 3_609_375),
        (100, Version::V3, 100, 60_937, 360_937),
        (255, Version::V3, 1_000, 3_906, 3_003_906),
        (1, Version::V3, 10, 9_960, 39_960),
    ] {
        let micros = |d: Duration| d.as_micros();
        assert_eq!(micros(skew_time(priority, version, ms(interval))), skew);
        assert_eq!(
            micros(master_down_interval(priority, version, ms(interval))),
            down
        );
    }
    for version in [Version::V2, Version::V3] {
        assert!(master_down_interval(1, version, Duration::MAX) > SECOND);
    }
}

#[test]
fn alone() {
    // Nobody there; then the whole life of a holder.
    check(
        PREEMPTS,
        &[(0, Listening)],
        9_000,
        "0:unsure3500 3500:clear",
    );
    check(
        PREEMPTS,
        &[(0, Listening), (4_000, up(1)), (6_500, down(true))],
        9_000,
        "0:unsure3500 3500:clear 4000:adv128 5000:adv128 6000:adv128 6500:adv0",
    );
    // Another member takes over: outsiders notice nothing.
    check(
        PREEMPTS,
        &[(0, Listening), (4_000, up(1)), (4_500, down(false))],
        9_000,
        "0:unsure3500 3500:clear 4000:adv128",
    );
    // The lease layer began early: that is its decision.
    check(
        PREEMPTS,
        &[(0, Listening), (500, up(1))],
        1_600,
        "0:unsure3500 500:adv128 500:clear 1500:adv128",
    );
    // Nothing to give up when not up, when deaf, or twice.
    check(
        PREEMPTS,
        &[(0, up(1)), (1, down(true)), (2, Listening), (3, down(true))],
        1_000,
        "2:unsure3502",
    );
    // Held again at another address, and listening twice: nothing happens.
    check(
        PREEMPTS,
        &[(0, Listening), (1, up(1)), (2, up(7)), (3, Listening)],
        1_100,
        "0:unsure3500 1:adv128 1:clear 1001:adv128",
    );
}

#[test]
fn stalls_make_no_burst() {
    let mut router = Router::new(PREEMPTS, Mono::ZERO);
    let _ = router.step(Listening, Mono::ZERO);
    let _ = router.step(up(1), Mono::ZERO);
    // Late by 0.3 s: the next is due when it always was. Late by 2.5 s: two are skipped.
    for (at, next) in [(1_300, 2_000), (4_500, 5_000), (5_000, 6_000)] {
        let at = Mono::from_millis(at);
        let effects: Vec<Effect> = router.step(Tick, at).into_iter().collect();
        assert_eq!(effects, [Effect::Advertise { priority: 128 }]);
        assert_eq!(router.next(), Some(Mono::from_millis(next)));
        assert!(router.step(Tick, at).is_empty());
        // Time that goes back does not.
        assert!(router.step(Tick, Mono::ZERO).is_empty());
    }
    assert_eq!((router.stats().regular, router.stats().prompt), (3, 1));
}

#[test]
fn what_is_due_soon_goes_early_and_keeps_its_slots() {
    let mut router = Router::new(PREEMPTS, Mono::ZERO);
    let _ = router.step(Listening, Mono::ZERO);
    let _ = router.step(up(1), Mono::ZERO);
    for second in 1..4 {
        let at = |ms| Mono::from_millis(second * 1_000 - ms);
        assert!(!router.is_due(at(6)) && router.step(Tick, at(6)).is_empty());
        assert!(router.is_due(at(4)));
        let effects: Vec<Effect> = router.step(Tick, at(4)).into_iter().collect();
        assert_eq!(effects, [Effect::Advertise { priority: 128 }]);
        assert!(!router.is_due(at(0)) && router.step(Tick, at(0)).is_empty());
        assert_eq!(router.next(), Some(Mono::from_millis((second + 1) * 1_000)));
    }
    // Nothing else comes early: whom it outranks, and when a master counts as silent.
    let mut router = Router::new(PREEMPTS, Mono::ZERO);
    let _ = router.step(Listening, Mono::ZERO);
    let _ = router.step(heard(9, 129), Mono::ZERO);
    assert!(!router.is_due(Mono::from_millis(3_499)) && router.is_due(Mono::from_millis(3_500)));
}

#[test]
fn while_listening_begins() {
    let from_then = |event| run(PREEMPTS, &[(0, Listening), (1_000, event)], 9_000);
    for (event, then) in [
        (member(1), "1000:clear"),
        (heard(9, 127), "1000:clear"),
        (heard(9, 0), "1000:unsure1500 1500:clear"),
        (heard(9, 129), "1000:out9/129 4500:clear"),
        // Its own interval counts: 3.5 times.
        (heard_every(9, 200, 2 * SECOND), "1000:out9/200 8000:clear"),
        (
            heard_every(9, 200, Duration::ZERO),
            "1000:out9/200 4500:clear",
        ),
    ] {
        assert_eq!(from_then(event), format!("0:unsure3500 {then}"));
    }
    // Late priority 0 does not prolong, and one over and over does not hold off for ever.
    let again: Vec<_> = (0..20).map(|i| (400 * i + 1, heard(9, 0))).collect();
    let script = [&[(0, Listening)][..], &again].concat();
    check(
        PREEMPTS,
        &script,
        9_000,
        "0:unsure3500 1:unsure501 501:clear",
    );
    // Version 2 takes its own interval whatever is heard.
    let v2 = Settings {
        version: Version::V2,
        ..PREEMPTS
    };
    check(
        v2,
        &[(0, Listening), (1_000, heard_every(9, 200, 9 * SECOND))],
        9_000,
        "0:unsure3500 1000:out9/200 4500:clear",
    );
}

#[test]
fn deafness() {
    check(
        PREEMPTS,
        &[
            (0, Listening),
            (0, up(1)),
            (1_500, Deaf),
            (1_600, heard(9, 200)),
            (1_700, member(2)),
            (5_000, Listening),
        ],
        9_000,
        "0:unsure3500 0:adv128 0:clear 1000:adv128 1500:deaf 5000:adv128 5000:again 5000:unsure8500 \
         6000:adv128 7000:adv128 8000:adv128 8500:clear 9000:adv128",
    );
    // Up while deaf begins with the ears.
    check(
        PREEMPTS,
        &[(0, up(1)), (900, Listening)],
        1_000,
        "900:adv128 900:again 900:unsure4400",
    );
    // Ears that come back do not wait for the answers of before.
    check(
        PREEMPTS,
        &[(0, Listening), (0, up(1)), (1, Deaf), (2, Listening)],
        100,
        "0:unsure3500 0:adv128 0:clear 1:deaf 2:adv128 2:again 2:unsure3502",
    );
    // A flapping link does not make forget who outranks.
    check(
        PREEMPTS,
        &[
            (0, Listening),
            (0, up(1)),
            (100, heard(9, 200)),
            (200, Deaf),
            (300, Listening),
        ],
        4_000,
        "0:unsure3500 0:adv128 0:clear 100:out9/200 200:deaf 300:out9/200 3600:adv128 3600:again \
         3600:unsure3800 3800:clear",
    );
}

#[test]
fn states_and_settings() {
    let mut router = Router::new(PREEMPTS, Mono::ZERO);
    assert_eq!(router.state(), State::Initialize);
    for (event, state) in [
        (up(1), State::Initialize),
        (Listening, State::Active),
        (heard(9, 200), State::Backup),
        (heard(9, 100), State::Active),
        (down(false), State::Backup),
        (Deaf, State::Initialize),
    ] {
        let _ = router.step(event, Mono::from_millis(5));
        assert_eq!(router.state(), state, "{event:?}");
    }
    let silly = Settings {
        priority: 0,
        interval: Duration::ZERO,
        ..PREEMPTS
    };
    let router = Router::new(silly, Mono::ZERO);
    assert_eq!(router.settings().priority, 1);
    assert_eq!(router.settings().interval, MIN_INTERVAL);
}

/// One that gave way to the group is silent; a lower priority of the group does not make it master.
#[test]
fn a_lower_priority_waits_for_the_outsider_to_advertise() {
    let lower = Settings {
        priority: 50,
        ..PREEMPTS
    };
    for holds in [true, false] {
        let mut router = Router::new(PREEMPTS, Mono::ZERO);
        let _ = router.step(Listening, Mono::ZERO);
        let _ = router.step(heard(9, 100), Mono::from_millis(10));

        let begins = if holds { up(1) } else { member(1) };
        let _ = router.step(begins, Mono::from_millis(20));
        let effects = router.reconfigure(lower, Mono::from_millis(30));
        assert!(effects.is_empty(), "{effects:?}");
        assert_eq!(router.standing(), Standing::Clear);
        let _ = router.step(heard(9, 100), Mono::from_millis(40));
        let by = host(9);
        assert_eq!(router.standing(), Standing::Outranked { by, priority: 100 });
    }
}

#[test]
fn reconfigured() {
    let mut router = Router::new(PREEMPTS, Mono::ZERO);
    let _ = router.step(Listening, Mono::ZERO);
    let fast = Settings {
        interval: SECOND / 10,
        priority: 64,
        ..PREEMPTS
    };
    let _ = router.reconfigure(fast, Mono::ZERO);
    let until = Mono::from_millis(375);
    assert_eq!(router.standing(), Standing::Unsure { until });
    let _ = router.step(up(1), Mono::ZERO);
    // Slower: backups still count in the old interval. Faster: at once.
    let _ = router.reconfigure(PREEMPTS, Mono::ZERO);
    assert_eq!(router.next(), Some(Mono::from_millis(100)));
    let _ = router.step(Tick, Mono::from_millis(100));
    assert_eq!(router.next(), Some(Mono::from_millis(1_100)));
    let _ = router.reconfigure(fast, Mono::from_millis(100));
    assert_eq!(router.next(), Some(Mono::from_millis(200)));
    // Another priority makes another ranking.
    let _ = router.step(heard(9, 100), Mono::from_millis(150));
    assert_eq!(router.state(), State::Backup);
    let effects: Vec<Effect> = router
        .reconfigure(PREEMPTS, Mono::from_millis(160))
        .into_iter()
        .collect();
    assert_eq!(
        effects,
        [
            Effect::Advertise { priority: 128 },
            Effect::AnnounceAgain(Again::Takeover),
            Effect::Standing(Standing::Clear)
        ]
    );
}

#[test]
fn an_announcement_says_whether_the_group_took_over_or_only_heard_of_lower_priority() {
    let again = |effects: Effects| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::AnnounceAgain(again) => Some(again),
            _ => None,
        })
    };
    let mut router = Router::new(PREEMPTS, Mono::ZERO);
    let _ = router.step(Listening, Mono::ZERO);
    // Another master is there when the group takes over.
    assert_eq!(again(router.step(heard(9, 1), Mono::from_millis(10))), None);
    let took = router.step(up(1), Mono::from_millis(20));
    assert_eq!(again(took), Some(Again::Takeover));
    let lower = router.step(heard(9, 1), Mono::from_millis(1_000));
    assert_eq!(again(lower), Some(Again::LowerPriority));
}

use std::net::Ipv4Addr;

use super::*;

fn vip(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n))
}

/// Runs from `from` until `until`, waking exactly when asked: what was announced, and when (ms).
fn run(schedule: &mut Schedule, from: Mono, until: Mono) -> Vec<(f64, IpAddr)> {
    let (mut sent, mut now) = (Vec::new(), from);
    loop {
        let mut effects = Vec::new();
        schedule.handle(now, Event::Tick, &mut effects);
        sent.extend(
            effects
                .into_iter()
                .map(|Effect::Announce(ip, _)| (now.0 as f64 / 1e6, ip)),
        );
        match schedule.next_deadline() {
            Some(next) if next <= until => {
                assert!(next > now, "{next:?} does not lead on from {now:?}");
                now = next;
            }
            _ => return sent,
        }
    }
}

fn own(ip: IpAddr) -> Event {
    with(ip, Pace::default())
}

fn with(ip: IpAddr, pace: Pace) -> Event {
    Event::Up {
        ip,
        ifindex: 2,
        pace,
    }
}

fn up(schedule: &mut Schedule, now: Mono, ip: IpAddr) -> usize {
    let mut effects = Vec::new();
    schedule.handle(now, own(ip), &mut effects);
    effects.len()
}

const START: Mono = Mono::from_millis(10_000);

#[test]
fn one_vip_is_announced_at_the_offsets_and_then_every_minute() {
    let mut schedule = Schedule::default();
    assert_eq!(up(&mut schedule, START, vip(1)), 1, "at once");
    let sent = run(&mut schedule, START, Mono::from_millis(140_000));
    let at: Vec<_> = sent.iter().map(|(at, _)| at - 10_000.0).collect();
    assert_eq!(
        at,
        [
            50.0, 150.0, 350.0, 750.0, 1500.0, 3000.0, 6000.0, 66_000.0, 126_000.0
        ]
    );
}

#[test]
fn the_first_round_of_1000_vips_is_over_in_50_ms_and_comes_first() {
    let mut schedule = Schedule::default();
    let mut effects = Vec::new();
    for n in 0..1_000 {
        schedule.handle(START, own(vip(n)), &mut effects);
    }
    assert_eq!(
        effects.len(),
        201,
        "the burst of 400 frames, and one that was begun"
    );
    let sent = run(&mut schedule, START, Mono::from_millis(25_000));
    let mut order: Vec<_> = effects
        .iter()
        .map(|Effect::Announce(ip, _)| (10_000.0, *ip))
        .collect();
    order.extend(sent);
    let first: BTreeSet<_> = order[..1_000].iter().map(|(_, ip)| *ip).collect();
    assert_eq!(first.len(), 1_000, "each once before any twice");
    assert!(order[999].0 - 10_000.0 <= 50.0, "{}", order[999].0);
    assert_eq!(order.len(), 1_000 * OFFSETS.len(), "nobody is forgotten");
}

#[test]
fn the_pace_is_kept_over_any_second() {
    let mut schedule = Schedule::default();
    let mut effects = Vec::new();
    for n in 0..10_000 {
        schedule.handle(START, own(vip(n)), &mut effects);
    }
    let sent = run(&mut schedule, START, Mono::from_millis(20_000));
    let rest = 10_000 - effects.len();
    let first: BTreeSet<_> = sent[..rest].iter().map(|(_, ip)| *ip).collect();
    assert_eq!(first.len(), rest, "each once before any twice");
    assert!(sent[rest - 1].0 - 10_000.0 <= 500.0, "{}", sent[rest - 1].0);
    // The first ones have left by then.
    for second in 1..9 {
        let from = 10_000.0 + f64::from(second) * 1000.0;
        let frames: u32 = sent
            .iter()
            .filter(|(at, _)| (from..from + 1000.0).contains(at))
            .map(|(_, ip)| frames(*ip))
            .sum();
        assert!(
            frames <= FRAMES_PER_SECOND + 50,
            "{frames} frames from {from} ms"
        );
        assert!(
            frames >= FRAMES_PER_SECOND - 2,
            "{frames} frames from {from} ms"
        );
    }
}

#[test]
fn a_vip_that_goes_down_is_not_announced_again() {
    let mut schedule = Schedule::default();
    let mut effects = Vec::new();
    for n in 0..100 {
        schedule.handle(START, own(vip(n)), &mut effects);
    }
    let now = START + Duration::from_millis(5);
    for n in (0..100).filter(|n| n % 2 == 0) {
        let mut late = Vec::new();
        schedule.handle(now, Event::Down(vip(n)), &mut late);
        assert!(!late.contains(&Effect::Announce(vip(n), Part::Whole)));
        effects.extend(late);
    }
    let sent = run(&mut schedule, now, Mono::from_millis(100_000));
    let even = |ip: &IpAddr| matches!(ip, IpAddr::V4(v4) if v4.to_bits() % 2 == 0);
    assert!(!sent.iter().any(|(_, ip)| even(ip)));
    let mut rest = schedule.clone();
    for n in 0..100 {
        rest.handle(now, Event::Down(vip(n)), &mut Vec::new());
    }
    assert_eq!(rest.next_deadline(), None);
    assert!(rest.entries.is_empty() && rest.waiting.is_empty() && rest.ready.is_empty());
}

#[test]
fn a_conflict_begins_anew_but_two_defenders_do_not_drive_each_other() {
    let mut schedule = Schedule::default();
    up(&mut schedule, START, vip(1));
    let calm = Mono::from_millis(30_000);
    run(&mut schedule, START, calm);
    // Somebody contradicts, and contradicts each of our announcements at once, for 25 s.
    let (mut sent, mut now) = (Vec::new(), calm);
    let mut event = Event::Conflict(vip(1));
    while now < Mono::from_millis(55_000) {
        let mut effects = Vec::new();
        schedule.handle(now, event, &mut effects);
        sent.extend(effects.iter().map(|_| now.since(calm).as_millis()));
        (event, now) = match effects.is_empty() {
            true => (
                Event::Tick,
                schedule.next_deadline().expect("a next announcement"),
            ),
            false => (Event::Conflict(vip(1)), now + Duration::from_micros(100)),
        };
    }
    // Each of the first is answered by a contradiction, which is heeded at most every 250 ms.
    assert_eq!(sent[..5], [0, 50, 150, 350, 600], "the series: {sent:?}");
    let series = 3 * OFFSETS.len();
    let provoked = 25_000 / CONFLICT_GAP.as_millis() as usize;
    assert!(sent.len() > provoked / 2, "it is defended: {sent:?}");
    assert!(
        sent.len() <= series + provoked,
        "{} announcements in 25 s",
        sent.len()
    );
    // A conflict about somebody else's address is none.
    let before = schedule.entries.clone();
    let mut effects = Vec::new();
    schedule.handle(
        Mono::from_millis(54_000),
        Event::Conflict(vip(2)),
        &mut effects,
    );
    assert_eq!((schedule.entries, effects), (before, vec![]));
}

#[path = "pace_tests.rs"]
mod paces;

//! What each option changes, and what it leaves as it is.

use buoy_core::spec::VrrpGarp;

use super::*;
use crate::announce::Bursts;

fn garp(set: impl FnOnce(&mut VrrpGarp)) -> VrrpGarp {
    let mut garp = VrrpGarp::default();
    set(&mut garp);
    garp
}

fn secs(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n))
}

/// When an address of this pace is announced until `end` (s), and what of it (ms since the takeover).
fn heard(garp: &VrrpGarp, events: &[(u64, Event)], end: u64) -> Vec<f64> {
    let ip = vip(1);
    let mut schedule = Schedule::default();
    let mut effects = Vec::new();
    schedule.handle(START, with(ip, Pace::new(garp, ip)), &mut effects);
    let mut at = vec![0.0; effects.len()];
    let mut now = START;
    for (ms, event) in events {
        let next = START + Duration::from_millis(*ms);
        at.extend(
            run(&mut schedule, now, next)
                .iter()
                .map(|(at, _)| at - 10_000.0),
        );
        effects.clear();
        schedule.handle(next, *event, &mut effects);
        at.extend(effects.iter().map(|_| *ms as f64));
        now = next;
    }
    let sent = run(&mut schedule, now, START + Duration::from_secs(end));
    at.extend(sent.iter().map(|(at, _)| at - 10_000.0));
    at
}

#[test]
fn nothing_set_is_buoys_own_series() {
    assert_eq!(Pace::new(&VrrpGarp::default(), vip(1)), Pace::default());
    let sent = heard(&VrrpGarp::default(), &[], 120);
    assert_eq!(sent.len(), OFFSETS.len() + 1);
}

#[test]
fn repeat_and_delay_put_two_bursts_in_the_place_of_the_series() {
    let repeat = garp(|g| g.master_repeat = Some(3));
    let sent = heard(&repeat, &[], 70);
    assert_eq!(sent, [0., 0., 0., 5_000., 5_000., 5_000., 65_000.]);
    let delay = garp(|g| g.master_delay = secs(2));
    let mut expected = vec![0.; 5];
    expected.extend([2_000.; 5]);
    expected.push(62_000.);
    assert_eq!(heard(&delay, &[], 70), expected);
    let once = garp(|g| (g.master_repeat, g.master_delay) = (Some(1), secs(0)));
    assert_eq!(heard(&once, &[], 70), [0., 60_000.]);
}

#[test]
fn the_refresh_has_its_own_period_and_count() {
    let refresh = garp(|g| g.master_refresh = secs(10));
    let sent = heard(&refresh, &[], 30);
    assert_eq!(sent[OFFSETS.len() - 1..], [6_000., 16_000., 26_000.]);
    let never = garp(|g| g.master_refresh = secs(0));
    assert_eq!(heard(&never, &[], 10_000).len(), OFFSETS.len());
    let twice = garp(|g| g.master_refresh_repeat = Some(2));
    let sent = heard(&twice, &[], 130);
    let refreshes = [66_000., 66_000., 126_000., 126_000.];
    assert_eq!(sent[OFFSETS.len()..], refreshes);
    let both = garp(|g| {
        (g.master_repeat, g.master_refresh) = (Some(1), secs(10));
        g.master_refresh_repeat = Some(3);
    });
    let sent = heard(&both, &[], 26);
    assert_eq!(
        sent,
        [
            0., 5_000., 15_000., 15_000., 15_000., 25_000., 25_000., 25_000.
        ]
    );
}

#[test]
fn lower_priority_is_answered_as_set_and_the_rest_goes_on() {
    let lower = [(20_000, Event::LowerPriority(vip(1)))];
    let again = heard(&VrrpGarp::default(), &lower, 27);
    assert_eq!(again.len(), 2 * OFFSETS.len(), "the series anew: {again:?}");
    assert_eq!(again[OFFSETS.len()..][..2], [20_000., 20_050.]);
    let set = garp(|g| (g.lower_prio_repeat, g.lower_prio_delay) = (Some(2), secs(3)));
    let sent = heard(&set, &lower, 70);
    assert_eq!(
        sent[OFFSETS.len()..],
        [20_000., 20_000., 23_000., 23_000., 66_000.]
    );
    let none = garp(|g| g.lower_prio_repeat = Some(0));
    assert_eq!(heard(&none, &lower, 65).len(), OFFSETS.len());
    // It takes nothing away of a series that is under way.
    let during = garp(|g| {
        (g.master_repeat, g.lower_prio_repeat) = (Some(2), Some(1));
        g.lower_prio_delay = secs(0);
    });
    let early = [(1_000, Event::LowerPriority(vip(1)))];
    assert_eq!(heard(&during, &early, 20), [0., 0., 1_000., 5_000., 5_000.]);
    // A further one begins both bursts anew; a conflict begins the series anew.
    let twice = [
        (20_000, Event::LowerPriority(vip(1))),
        (21_000, Event::LowerPriority(vip(1))),
    ];
    let sent = heard(&set, &twice, 60);
    assert_eq!(
        sent[OFFSETS.len()..],
        [20_000., 20_000., 21_000., 21_000., 24_000., 24_000.]
    );
    let conflict = [(20_000, Event::Conflict(vip(1)))];
    let sent = heard(&during, &conflict, 40);
    assert_eq!(sent[4..], [20_000., 20_000., 25_000., 25_000.]);
}

#[test]
fn frames_with_a_gap_keep_it_on_their_interface_and_hold_up_nobody_else() {
    let gap = Duration::from_millis(10);
    let paced = |ip| Pace::new(&garp(|g| g.interval = Some(gap)), ip);
    let mut schedule = Schedule::default();
    let mut effects = Vec::new();
    for n in 0..20 {
        let ip = vip(n);
        schedule.note(START, with(ip, paced(ip)));
    }
    schedule.handle(START, Event::Tick, &mut effects);
    assert_eq!(
        effects,
        [Effect::Announce(vip(0), Part::Form(ArpForm::Request))]
    );
    // One without a gap, one on another interface, and an IPv6 address, to which the option does not apply.
    let six: IpAddr = "fd00::1".parse().unwrap();
    for event in [
        own(vip(100)),
        Event::Up {
            ip: vip(101),
            ifindex: 3,
            pace: paced(vip(101)),
        },
        with(six, paced(six)),
    ] {
        let mut now = Vec::new();
        schedule.handle(START, event, &mut now);
        assert_eq!(now.len(), 1, "{event:?}");
    }
    let sent = run(&mut schedule, START, START + Duration::from_secs(5));
    let own = |ip: &IpAddr| matches!(ip, IpAddr::V4(v4) if v4.to_bits() & 0xff < 20);
    let mut lane = vec![(10_000.0, vip(0))];
    lane.extend(sent.iter().filter(|(_, ip)| own(ip)));
    for pair in lane.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= 10.0 - 1e-6, "{pair:?}");
    }
    let first: BTreeSet<_> = lane[..20].iter().map(|(_, ip)| *ip).collect();
    assert_eq!(first.len(), 20, "a request of each before any reply");
    assert!(
        (lane[39].0 - 10_390.0).abs() < 1e-6,
        "no time is lost: {lane:?}"
    );
    let frames = |n| lane.iter().filter(|(_, ip)| *ip == vip(n)).count();
    assert!((0..20).all(|n| frames(n) >= 8 && frames(n).is_multiple_of(2)));
}

#[test]
fn of_two_gaps_the_longer_one_lies_between() {
    let pace = |ms| Pace {
        gap: Duration::from_millis(ms),
        bursts: Some(Bursts {
            repeat: 1,
            delay: Duration::ZERO,
        }),
        ..Pace::default()
    };
    let mut schedule = Schedule::default();
    let (short, long) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let mut effects = Vec::new();
    schedule.handle(START, with(short, pace(1)), &mut effects);
    // Long after the shorter one is over.
    let later = START + Duration::from_millis(5);
    schedule.handle(later, with(long, pace(100)), &mut effects);
    schedule.handle(later, with(short, pace(1)), &mut effects);
    assert_eq!(
        effects.len(),
        2,
        "the shorter one waits for nobody that waits"
    );
    let sent = run(&mut schedule, later, START + Duration::from_secs(1));
    assert_eq!(sent, [(10_105.0, long)]);
    assert!(schedule.lanes.len() <= 1);
}

#[test]
fn a_thousand_addresses_in_bursts_stay_within_the_bound() {
    let garp = garp(|g| (g.master_repeat, g.master_delay) = (Some(10), secs(1)));
    let mut schedule = Schedule::default();
    let mut effects = Vec::new();
    for n in 0..1_000 {
        schedule.note(START, with(vip(n), Pace::new(&garp, vip(n))));
    }
    schedule.handle(START, Event::Tick, &mut effects);
    let mut all: Vec<_> = effects
        .iter()
        .map(|Effect::Announce(ip, _)| (10_000.0, *ip))
        .collect();
    all.extend(run(&mut schedule, START, Mono::from_millis(30_000)));
    assert_eq!(all.len(), 20_000, "nobody is forgotten");
    let first: BTreeSet<_> = all[..1_000].iter().map(|(_, ip)| *ip).collect();
    assert_eq!(first.len(), 1_000, "each once before any twice");
    assert!(all[999].0 - 10_000.0 <= 50.0, "{}", all[999].0);
    for tenth in 1..200 {
        let from = 10_000.0 + f64::from(tenth) * 100.0;
        let second = all
            .iter()
            .filter(|(at, _)| (from..from + 1_000.0).contains(at));
        let frames: u32 = second.map(|(_, ip)| frames(*ip)).sum();
        assert!(
            frames <= FRAMES_PER_SECOND + 50,
            "{frames} frames from {from} ms"
        );
    }
}

#[test]
fn an_address_with_a_gap_that_goes_down_leaves_nothing_behind() {
    let pace = Pace {
        gap: Duration::from_millis(100),
        ..Pace::default()
    };
    let mut schedule = Schedule::default();
    let mut effects = Vec::new();
    for n in 0..3 {
        schedule.handle(START, with(vip(n), pace), &mut effects);
    }
    for n in 0..3 {
        schedule.handle(START, Event::Down(vip(n)), &mut effects);
    }
    assert_eq!((effects.len(), schedule.next_deadline()), (1, None));
    let later = START + Duration::from_secs(2);
    schedule.handle(later, Event::Tick, &mut effects);
    assert_eq!(
        schedule,
        Schedule {
            paced: schedule.paced,
            ..Schedule::default()
        }
    );
}

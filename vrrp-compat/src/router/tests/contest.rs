//! The group and an outsider both want to be master.

use super::*;

#[test]
fn outranked_holder() {
    // Silent at once, nothing said in leaving. Released in time: nothing more than the standing.
    check(
        PREEMPTS,
        &[
            (0, Listening),
            (0, up(1)),
            (300, heard(9, 200)),
            (400, down(true)),
        ],
        9_000,
        "0:unsure3500 0:adv128 0:clear 300:out9/200 3800:clear",
    );
    // Not released: it goes on when the other is silent, and tells everybody.
    check(
        PREEMPTS,
        &[(0, Listening), (0, up(1)), (300, heard(9, 200))],
        5_000,
        "0:unsure3500 0:adv128 0:clear 300:out9/200 3800:adv128 3800:again 3800:clear 4800:adv128",
    );
    // The other gives up, or lowers itself.
    for (event, then) in [
        (heard(9, 0), "900:adv128 900:again 900:clear"),
        (heard(9, 100), "400:adv128 400:again 400:clear"),
    ] {
        let script = [
            (0, Listening),
            (0, up(1)),
            (300, heard(9, 200)),
            (400, event),
        ];
        let expected = format!("0:unsure3500 0:adv128 0:clear 300:out9/200 {then}");
        check(PREEMPTS, &script, 1_000, &expected);
    }
    // Up while outranked is silent; up after it announces again.
    check(
        PREEMPTS,
        &[
            (0, Listening),
            (10, heard(9, 200)),
            (20, up(1)),
            (30, down(false)),
            (4_000, up(1)),
        ],
        4_100,
        "0:unsure3500 10:out9/200 3510:clear 4000:adv128 4000:again",
    );
    // Each has a timer of its own; the best is named.
    check(
        PREEMPTS,
        &[
            (0, Listening),
            (100, heard(8, 201)),
            (200, heard(9, 200)),
            (300, heard(7, 202)),
            (400, heard(7, 0)),
        ],
        9_000,
        "0:unsure3500 100:out8/201 300:out7/202 900:out8/201 3600:out9/200 3700:clear",
    );
}

#[test]
fn equal_priority() {
    let start = "0:unsure3500 0:adv128 0:clear";
    for (from, then) in [(9, "500:out9/128"), (3, "500:adv128 500:again")] {
        let script = [(0, Listening), (0, up(5)), (500, heard(from, 128))];
        check(PREEMPTS, &script, 1_000, &format!("{start} {then}"));
    }
    // Other members agree with the holder, also when it has withdrawn and is no longer heard.
    let withdrawn: Vec<_> = (1..9).map(|s| (1_000 * s, heard(9, 128))).collect();
    let script = [&[(0, Listening), (500, member(5))][..], &withdrawn].concat();
    check(
        PREEMPTS,
        &script,
        20_000,
        "0:unsure3500 500:clear 1000:out9/128 11500:clear",
    );
    let script = [(0, Listening), (500, member(5)), (1_000, heard(3, 128))];
    check(PREEMPTS, &script, 9_000, "0:unsure3500 500:clear");
    // The same on the holder's own node after it has released the address.
    let script = [
        &[
            (0, Listening),
            (0, up(5)),
            (900, heard(9, 128)),
            (950, down(false)),
        ][..],
        &withdrawn,
    ]
    .concat();
    check(
        PREEMPTS,
        &script,
        20_000,
        "0:unsure3500 0:adv128 0:clear 900:out9/128 11500:clear",
    );
    // Nobody of the group is master: a master of equal priority is not preempted (RFC 9568 section 6.4.2).
    for settings in [PREEMPTS, OWNER] {
        let p = settings.priority;
        let log = run(settings, &[(0, Listening), (100, heard(3, p))], 150);
        assert!(log.ends_with(&format!("100:out3/{p}")), "{log}");
    }
}

#[test]
fn lower_outsider_is_answered() {
    let start = "0:unsure3500 0:adv128 0:clear";
    for settings in [PREEMPTS, STAYS, DELAYS] {
        for (event, then) in [
            (heard(9, 100), "500:adv128 500:again 1500:adv128"),
            // It was master without having been heard.
            (heard(9, 0), "500:adv128 500:again 1500:adv128"),
        ] {
            let script = [(0, Listening), (0, up(5)), (500, event)];
            check(settings, &script, 2_000, &format!("{start} {then}"));
        }
    }
    // One that was answered gives up: an advertisement is enough.
    check(
        PREEMPTS,
        &[
            (0, Listening),
            (0, up(5)),
            (100, heard(9, 1)),
            (200, heard(9, 0)),
        ],
        300,
        &format!("{start} 100:adv128 100:again 200:adv128"),
    );
    // A flood is answered every 10 ms, the last of it too.
    let flood: Vec<_> = (101..=125).map(|at| (at, heard(9, 100))).collect();
    let script = [&[(0, Listening), (0, up(5))][..], &flood].concat();
    check(
        PREEMPTS,
        &script,
        1_000,
        &format!(
            "{start} 101:adv128 101:again 111:adv128 111:again 121:adv128 121:again 131:adv128 131:again"
        ),
    );
    // So is one that makes the holder withdraw and come back.
    let flood: Vec<_> = (0..1_000)
        .map(|i| (100 + i / 10, heard(9, if i % 2 == 0 { 200 } else { 100 })))
        .collect();
    let script = [&[(0, Listening), (0, up(5))][..], &flood].concat();
    let log = run(PREEMPTS, &script, 220);
    assert!(log.matches("adv128").count() <= 13, "{log}");
}

#[test]
fn the_table_is_bounded() {
    let orders: [Vec<u8>; 2] = [(1..=100).collect(), (1..=100).rev().collect()];
    for order in orders {
        let mut router = Router::new(PREEMPTS, Mono::ZERO);
        let _ = router.step(Listening, Mono::ZERO);
        for i in order {
            let _ = router.step(heard(i, 100 + i), Mono::ZERO);
        }
        assert_eq!(router.outsiders.len(), MAX_OUTSIDERS);
        // The best are left.
        let lowest = router.outsiders.best(|o| o.priority < 186);
        assert_eq!(lowest.map(|o| o.priority), Some(185));
        let by = host(100);
        assert_eq!(router.standing(), Standing::Outranked { by, priority: 200 });
    }
}

#[test]
fn announced_when_in_doubt() {
    // A master that the group preempts announced until just now.
    check(
        PREEMPTS,
        &[(0, Listening), (10, heard(9, 100)), (20, up(1))],
        30,
        "0:unsure3500 10:clear 20:adv128 20:again",
    );
    // Another member has taken over since: that one announced.
    check(
        PREEMPTS,
        &[
            (0, Listening),
            (10, heard(9, 200)),
            (4_000, member(2)),
            (4_100, up(1)),
        ],
        4_200,
        "0:unsure3500 10:out9/200 3510:clear 4100:adv128",
    );
    // What is put off announces if any of its reasons does.
    check(
        PREEMPTS,
        &[
            (0, Listening),
            (0, up(1)),
            (100, heard(9, 1)),
            (102, heard(9, 0)),
            (104, heard(8, 1)),
        ],
        200,
        "0:unsure3500 0:adv128 0:clear 100:adv128 100:again 110:adv128 110:again",
    );
    // A new lease does not wait for the answers to the last one.
    check(
        PREEMPTS,
        &[(0, Listening), (0, up(1)), (1, down(false)), (2, up(1))],
        100,
        "0:unsure3500 0:adv128 0:clear 2:adv128",
    );
}

#[test]
fn priority_0_does_not_prolong() {
    let again = (0..20).map(|i| (300 + 400 * i, heard(9, 0)));
    let mut script = vec![(0, Listening), (200, heard(9, 200))];
    script.extend(again);
    check(
        PREEMPTS,
        &script,
        9_000,
        "0:unsure3500 200:out9/200 800:clear",
    );
}

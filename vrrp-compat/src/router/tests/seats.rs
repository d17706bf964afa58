//! Masters that do not outrank the group but are not preempted, or not yet.

use super::*;

#[test]
fn who_sits_is_let_sit() {
    let every_second = |n: u64| -> Vec<_> {
        std::iter::once((0, Listening))
            .chain((1..=n).map(|s| (1_000 * s, heard(9, 100))))
            .collect()
    };
    for (settings, expected) in [
        (PREEMPTS, "0:unsure3500 1000:clear"),
        (STAYS, "0:unsure3500 1000:out9/100 23500:clear"),
        // Counted from when listening began.
        (DELAYS, "0:unsure3500 1000:out9/100 10000:clear"),
    ] {
        check(settings, &every_second(20), 30_000, expected);
    }
    // The owner of the addresses preempts whatever is configured.
    let log = run(OWNER, &every_second(20), 30_000);
    assert!(log.ends_with("1000:clear"), "{log}");
    // A lease that came nevertheless stays silent until it may speak.
    let mut script = every_second(3);
    script.insert(2, (1_500, up(1)));
    check(
        STAYS,
        &script,
        7_000,
        "0:unsure3500 1000:out9/100 6500:adv128 6500:again 6500:clear",
    );
    // The group is master, by this node, by another, or by one that just handed over.
    for (then, log) in [
        (vec![(4_000, member(1))], ""),
        (vec![(4_000, up(1)), (4_100, down(false))], " 4000:adv128"),
    ] {
        let mut script = vec![(0, Listening)];
        script.extend(then);
        script.push((4_500, heard(9, 100)));
        let expected = format!("0:unsure3500 3500:clear{log}");
        check(STAYS, &script, 9_000, &expected);
        check(DELAYS, &script, 9_000, &expected);
    }
    // The group was master, gave up or fell silent, and the other sat down.
    for (script, expected) in [
        (
            vec![
                (0, Listening),
                (0, up(1)),
                (10, down(true)),
                (700, heard(9, 100)),
            ],
            "0:unsure3500 0:adv128 0:clear 10:adv0 700:out9/100 4200:clear",
        ),
        (
            vec![(0, Listening), (0, member(1)), (3_600, heard(9, 100))],
            "0:unsure3500 0:clear 3600:out9/100 7100:clear",
        ),
        // It was only heard of late that the group is master.
        (
            vec![(0, Listening), (10, heard(9, 100)), (700, member(1))],
            "0:unsure3500 10:out9/100 700:clear",
        ),
    ] {
        check(STAYS, &script, 9_000, expected);
    }
    // The delay begins anew with each master that is let sit; one in between that outranks ends it.
    let mut script = vec![
        (0, Listening),
        (4_000, heard(8, 100)),
        (13_000, heard(9, 200)),
    ];
    script.extend((14..40).map(|s| (1_000 * s, heard(8, 100))));
    check(
        DELAYS,
        &script,
        40_000,
        "0:unsure3500 3500:clear 4000:out8/100 7500:clear 13000:out9/200 16500:out8/100 24000:clear",
    );
}

#[test]
fn the_group_loses_its_seat() {
    for (settings, script, expected) in [
        // To one that outranks it and then lowers itself.
        (
            STAYS,
            vec![(500, member(1)), (600, heard(9, 200)), (700, heard(9, 100))],
            "500:clear 600:out9/200 700:out9/100 4200:clear",
        ),
        // By being deaf.
        (
            STAYS,
            vec![
                (500, member(1)),
                (600, Deaf),
                (700, Listening),
                (800, heard(9, 100)),
            ],
            "500:clear 600:deaf 700:unsure4200 800:out9/100 4300:clear",
        ),
    ] {
        let script = [vec![(0, Listening)], script].concat();
        let expected = format!("0:unsure3500 {expected}");
        check(settings, &script, 9_000, &expected);
    }
}

#[test]
fn the_delay_begins_anew() {
    let seconds = |range: std::ops::Range<u64>| range.map(|s| (1_000 * s, heard(9, 100)));
    for (then, expected) in [
        // After silence.
        (
            vec![],
            "4000:out9/100 7500:clear 20000:out9/100 30000:clear",
        ),
        // After the group was master: this node, or another.
        (
            seconds(5..20)
                .chain([(19_100, up(1)), (19_200, down(true))])
                .collect(),
            "4000:out9/100 14000:clear 19100:adv128 19100:again 19200:adv0 20000:out9/100 30000:clear",
        ),
        (
            seconds(5..20).chain([(16_100, member(1))]).collect(),
            "4000:out9/100 14000:clear 20000:out9/100 30000:clear",
        ),
        // With the first one heard after a master that outranks the group.
        (
            seconds(5..20).chain([(9_100, heard(8, 200))]).collect(),
            "4000:out9/100 9100:out8/200 12600:out9/100 20000:clear",
        ),
    ] {
        let mut script = vec![(0, Listening), (4_000, heard(9, 100))];
        script.extend(then);
        script.extend(seconds(20..40));
        script.sort_by_key(|(at, _)| *at);
        let expected = format!("0:unsure3500 3500:clear {expected}");
        check(DELAYS, &script, 35_000, &expected);
    }
}

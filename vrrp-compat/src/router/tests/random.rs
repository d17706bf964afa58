//! What holds whatever happens.

use proptest::prelude::*;

use super::super::timing::early;
use super::*;

/// The longest interval that occurs.
const LONGEST: Duration = SECOND;

fn interval() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(MIN_INTERVAL), Just(SECOND / 10), Just(LONGEST)]
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        prop_oneof![1 => Just(1), 4 => Just(100), 1 => Just(255)],
        interval(),
        prop_oneof![Just(Version::V2), Just(Version::V3)],
        any::<bool>(),
        prop_oneof![Just(Duration::ZERO), Just(5 * SECOND)],
    )
        .prop_map(
            |(priority, interval, version, preempt, preempt_delay)| Settings {
                priority,
                interval,
                version,
                preempt,
                preempt_delay,
            },
        )
}

fn event() -> impl Strategy<Value = Event> {
    let members = 20_u8..23;
    // More than the table holds, on both sides of the members; few of them often.
    let outsiders = prop_oneof![3 => 18_u8..25, 1 => 100..130_u8];
    let priority = prop_oneof![
        Just(0),
        Just(1),
        Just(99),
        Just(100),
        Just(101),
        Just(255),
        any::<u8>()
    ];
    let heard_interval = prop_oneof![1 => Just(Duration::ZERO), 4 => interval()];
    prop_oneof![
        2 => Just(Listening),
        1 => Just(Deaf),
        3 => members.clone().prop_map(up),
        2 => any::<bool>().prop_map(down),
        2 => members.prop_map(member),
        8 => (outsiders, priority, heard_interval).prop_map(|(o, p, i)| heard_every(o, p, i)),
        1 => Just(Tick),
    ]
}

fn gap() -> impl Strategy<Value = Duration> {
    prop_oneof![0_u64..20, 0_u64..500, 0_u64..5_000].prop_map(Duration::from_millis)
}

/// A router, and what a bystander knows of it.
struct Watched {
    router: Router,
    now: Mono,
    up: bool,
    listening: Option<Mono>,
    heard: Option<Mono>,
    sent: Option<Mono>,
    prompted: Option<Mono>,
    /// Since when neighbours wait to be told again who is master.
    doubt: Option<Mono>,
}

impl Watched {
    fn new(settings: Settings) -> Watched {
        Watched {
            router: Router::new(settings, Mono::ZERO),
            now: Mono::ZERO,
            up: false,
            listening: None,
            heard: None,
            sent: None,
            prompted: None,
            doubt: None,
        }
    }

    /// Ticks when due, up to and including `until`.
    fn wait(&mut self, until: Mono) {
        while let Some(due) = self.router.next().filter(|due| *due <= until) {
            self.step(Tick, due);
        }
    }

    fn step(&mut self, event: Event, now: Mono) {
        self.now = now;
        let (before, was_up) = (self.router.clone(), self.up);
        let effects = self.router.step(event, now);
        match event {
            Up { .. } => self.up = true,
            Down { .. } => self.up = false,
            Listening => self.listening = self.listening.or(Some(now)),
            Deaf => self.listening = None,
            Heard { .. } if self.listening.is_some() => self.heard = Some(now),
            _ => {}
        }
        let active = self.router.state() == State::Active;
        self.sent_what_it_may(event, effects, &before);
        self.doubts(event, effects, &before, was_up);
        self.stands_where_it_should(event, effects, &before);
        if active {
            let last = self.sent.expect("an active router has advertised");
            let due = self
                .router
                .next()
                .expect("an active router has a next time");
            // The last one may have left before it was due.
            let interval = self.router.settings().interval;
            assert!(due <= last + interval + early(interval), "late");
        }
        assert!(self.router.next().is_none_or(|due| due > now), "spins");
        let mut same = self.router.clone();
        assert!(same.step(Tick, now).is_empty(), "a tick that is not due");
        assert!(self.router.outsiders.len() <= MAX_OUTSIDERS);
    }

    fn sent_what_it_may(&mut self, event: Event, effects: Effects, before: &Router) {
        let settings = self.router.settings();
        match effects.advertise {
            None => assert!(
                effects.announce_again.is_none(),
                "announced without an advertisement"
            ),
            Some(0) => {
                assert_eq!(event, down(true));
                assert_eq!(before.state(), State::Active);
            }
            Some(priority) => {
                assert_eq!(priority, settings.priority);
                assert!(self.up && self.listening.is_some());
                assert!(!matches!(
                    self.router.standing(),
                    Standing::Outranked { .. }
                ));
                let since = |t: Option<Mono>| t.map_or(Duration::MAX, |t| self.now.since(t));
                if self.router.stats().regular > before.stats().regular {
                    let least = settings.interval - early(settings.interval);
                    assert!(since(self.sent) >= least, "too early");
                } else {
                    let own = matches!(event, Up { .. } | Listening);
                    assert!(own || since(self.prompted) >= MIN_ANSWER_GAP, "a flood");
                    self.prompted = Some(self.now);
                }
                self.sent = Some(self.now);
            }
        }
        if matches!(event, Up { .. } | Listening) {
            self.prompted = self.prompted.filter(|t| *t == self.now);
        }
    }

    /// Every overlap of two masters ends with an announcement of ours, unless we withdraw.
    fn doubts(&mut self, event: Event, effects: Effects, before: &Router, was_up: bool) {
        let active = self.router.state() == State::Active;
        let came_back = was_up && before.state() != State::Active;
        let contested = matches!(event, Heard { priority: 1.., .. });
        if active && (came_back || contested) {
            self.doubt.get_or_insert(self.now);
        }
        if !active || effects.announce_again.is_some() {
            self.doubt = None;
        }
        if let Some(since) = self.doubt {
            assert!(self.now.since(since) < MIN_ANSWER_GAP, "not announced");
        }
    }

    fn stands_where_it_should(&self, event: Event, effects: Effects, before: &Router) {
        let (standing, settings) = (self.router.standing(), self.router.settings());
        let changed = (standing != before.standing()).then_some(standing);
        assert_eq!(effects.standing, changed);
        let outranked = matches!(standing, Standing::Outranked { .. });
        let Some(listening) = self.listening else {
            assert_eq!(standing, Standing::Deaf);
            return assert_eq!(self.router.next(), None);
        };
        assert_ne!(standing, Standing::Deaf);
        let active = self.router.state() == State::Active;
        assert_eq!(active, self.up && !outranked);
        if let Heard { priority, .. } = event
            && priority > settings.priority
        {
            assert!(outranked, "{standing:?}");
        }
        let quiet_since = self.heard.map_or(listening, |t| t.max(listening));
        if self.now.since(quiet_since) >= self.calm() {
            assert_eq!(standing, Standing::Clear);
        }
    }

    /// After so long without outsiders none of them counts any more.
    fn calm(&self) -> Duration {
        let settings = self.router.settings();
        master_down_interval(settings.priority, settings.version, LONGEST) + settings.preempt_delay
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn invariants(
        settings in settings(),
        script in prop::collection::vec((gap(), event()), 1..80),
    ) {
        let mut watched = Watched::new(settings);
        for (gap, event) in script {
            let at = watched.now + gap;
            watched.wait(at);
            watched.step(event, at);
        }
        let calm = watched.now + watched.calm();
        watched.wait(calm);
        watched.step(Tick, calm);
    }
}

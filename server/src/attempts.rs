//! When to try again to put the packet gate on interfaces that refuse it, and what is said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::watch::KernelEvent;

/// Time after the first failure; doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest time between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Errors of one interface that are remembered; the next one begins anew.
const MAX_SAID: usize = 16;

/// Interfaces that refused the gate, by index; clones share them. A new interface, also of an old name, is none of them.
#[derive(Clone, Default)]
pub struct Attempts(Arc<Mutex<BTreeMap<u32, Attempt>>>);

struct Attempt {
    last: Mono,
    next: Mono,
    wait: Duration,
    said: BTreeSet<String>,
}

impl Attempts {
    /// May an interface be tried now?
    pub fn due(&self, index: u32, now: Mono) -> bool {
        self.map().get(&index).is_none_or(|a| a.next <= now)
    }

    /// An attempt failed; true if it is to be said, because it did not fail like this before.
    pub fn failed(&self, index: u32, now: Mono, why: &str) -> bool {
        let mut map = self.map();
        let attempt = map.entry(index).or_insert(Attempt {
            last: now,
            next: now,
            wait: FIRST_WAIT / 2,
            said: BTreeSet::new(),
        });
        attempt.wait = (attempt.wait * 2).min(LONGEST_WAIT);
        attempt.last = now;
        attempt.next = now + attempt.wait;
        if attempt.said.len() >= MAX_SAID {
            attempt.said.clear();
        }
        attempt.said.insert(why.to_owned())
    }

    /// It carries the gate.
    pub fn succeeded(&self, index: u32) {
        self.map().remove(&index);
    }

    /// Forgets interfaces that are gone.
    pub fn keep(&self, there: impl Fn(u32) -> bool) {
        self.map().retain(|index, _| there(*index));
    }

    /// Something happened in the kernel: what stood in the way on that interface may be gone.
    pub fn note(&self, event: &KernelEvent, now: Mono) {
        let of = |index: u32, event: u32| event == index || event == u32::MAX;
        for (index, attempt) in self.map().iter_mut() {
            match event {
                KernelEvent::LinkUp { ifindex, .. }
                | KernelEvent::LinkDown { ifindex, .. }
                | KernelEvent::LinkRenamed { ifindex, .. }
                | KernelEvent::LinkMacChanged { ifindex, .. }
                    if of(*index, *ifindex) =>
                {
                    attempt.next = now;
                    attempt.wait = FIRST_WAIT / 2;
                }
                // Our own attempt may have caused it, half done: the pace stays, the wait is cut short.
                KernelEvent::TcChanged { ifindex } if of(*index, *ifindex) => {
                    attempt.next = attempt.next.min(now.max(attempt.last + FIRST_WAIT));
                }
                _ => {}
            }
        }
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<u32, Attempt>> {
        // Times and words are only data: a panic elsewhere does not make them wrong.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::from_millis(ms)
    }

    #[test]
    fn attempts_grow_rare_and_each_error_is_said_once() {
        let attempts = Attempts::default();
        assert!(attempts.due(2, at(0)));
        let mut now = 0;
        for (wait, why, said) in [
            (1, "busy", true),
            (2, "busy", false),
            (4, "no", true),
            (8, "busy", false),
            (16, "no", false),
            (30, "no", false),
            (30, "no", false),
        ] {
            assert_eq!(attempts.failed(2, at(now), why), said, "{now} {why}");
            now += wait * 1_000;
            assert!(
                !attempts.due(2, at(now - 1)) && attempts.due(2, at(now)),
                "{now}"
            );
            assert!(attempts.due(3, at(now)), "another interface");
        }
        attempts.succeeded(2);
        assert!(attempts.failed(2, at(now), "busy"), "a new failure is news");
        attempts.keep(|index| index == 3);
        assert!(attempts.due(2, at(now)));
    }

    #[test]
    fn a_notice_about_the_interface_tries_at_once() {
        let attempts = Attempts::default();
        let fail = || {
            for _ in 0..6 {
                attempts.failed(2, at(10_000), "busy");
            }
        };
        let up = |ifindex| KernelEvent::LinkUp {
            ifindex,
            name: "eth0".to_owned(),
        };
        fail();
        attempts.note(&up(3), at(15_000));
        assert!(!attempts.due(2, at(15_000)), "not about it");
        attempts.note(&up(2), at(15_000));
        assert!(attempts.due(2, at(15_000)));

        // A filter of somebody else went; or our own attempt left something behind.
        for (of, noticed, due) in [(2, 10_001, 11_000), (u32::MAX, 15_000, 15_000)] {
            fail();
            attempts.note(&KernelEvent::TcChanged { ifindex: of }, at(noticed));
            assert!(
                !attempts.due(2, at(due - 1)) && attempts.due(2, at(due)),
                "{noticed}"
            );
        }
    }
}

//! The pause between two attempts to reach a peer, counted from the attempt, not from the next request.

use std::time::{Duration, Instant};

/// Delays for openraft, which arms them when a replication stream fails and takes one when it next has
/// something to send. While nothing is to be sent the pause passes all the same: the first entry for a peer
/// that was restarted long ago is not held up.
pub(super) fn pauses(length: Duration) -> impl Iterator<Item = Duration> + Send + 'static {
    let mut last = Instant::now();
    std::iter::from_fn(move || {
        let (left, next) = rest(length, last, Instant::now());
        last = next;
        Some(left)
    })
}

/// What is left at `now` of a pause that began at `last`, and when the attempt after it is made.
fn rest(length: Duration, last: Instant, now: Instant) -> (Duration, Instant) {
    let left = length.saturating_sub(now.saturating_duration_since(last));
    (left, now + left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_millis(50);

    #[test]
    fn an_idle_time_counts_and_attempts_in_a_row_are_a_whole_pause_apart() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut last = start;
        for (now, left) in [(10, 40), (50, 50), (120, 30), (1_000, 0), (1_001, 49)] {
            let (pause, next) = rest(LENGTH, last, at(now));
            assert_eq!(pause, Duration::from_millis(left), "at {now} ms");
            assert!(next >= last + LENGTH, "two attempts within one pause");
            last = next;
        }
    }

    #[test]
    fn it_never_ends() {
        assert!(pauses(LENGTH).take(100).all(|pause| pause <= 100 * LENGTH));
        assert_eq!(pauses(Duration::ZERO).take(3).count(), 3);
    }
}

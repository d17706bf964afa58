//! Who feeds a watchdog, how often, and what the log says when it must not.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::device::Armed;
use super::judge::{Doubt, Judge};

/// Fed at least this often, so that a doubt that has gone does not cost more than that.
const LONGEST_PERIOD: Duration = Duration::from_secs(1);
/// How long the daemon's end may wait for the device.
const END: Duration = Duration::from_millis(200);

/// Time between two meals of a watchdog with this timeout: a third of it at most.
fn period(timeout: Duration) -> Duration {
    (timeout / 3).min(LONGEST_PERIOD)
}

/// A watchdog that asks the judge before each meal.
pub struct Feeding {
    judge: Arc<Judge>,
    /// For messages.
    name: String,
    /// What happens if it is not fed.
    threat: &'static str,
    timeout: Duration,
    fed: Instant,
    complained: bool,
}

impl Feeding {
    /// Of a watchdog that has just been started.
    pub fn new(
        judge: Arc<Judge>,
        name: String,
        threat: &'static str,
        timeout: Duration,
    ) -> Feeding {
        Feeding {
            judge,
            name,
            threat,
            timeout,
            fed: Instant::now(),
            complained: false,
        }
    }

    /// Time until it is to be asked again.
    pub fn period(&self) -> Duration {
        period(self.timeout)
    }

    /// May it be fed now? If the answer stays no, the log says why before the time is up.
    pub fn may_feed(&mut self) -> bool {
        match self.judge.may_feed() {
            Ok(()) => {
                self.fed = Instant::now();
                if std::mem::take(&mut self.complained) {
                    warn!("{} is fed again", self.name);
                }
                true
            }
            Err(doubt) => {
                self.complain(&doubt);
                false
            }
        }
    }

    fn complain(&mut self, doubt: &Doubt) {
        let hungry = self.fed.elapsed();
        if hungry < self.timeout / 2 || std::mem::replace(&mut self.complained, true) {
            return;
        }
        let left = self.timeout.saturating_sub(hungry);
        error!(
            "{} is not fed: {doubt}; if that stays so, {} in {left:.1?}",
            self.name, self.threat
        );
    }
}

/// Feeds the hardware watchdog on a thread of its own, as drivers may be slow.
pub struct HardwareFeeder {
    /// Told when there is something to guard, and dropped to end it.
    alive: Option<SyncSender<()>>,
    ended: Receiver<()>,
}

impl HardwareFeeder {
    /// Feeds from now on.
    ///
    /// # Errors
    /// No thread can be had; the timer then goes on.
    pub fn start(armed: Armed, judge: Arc<Judge>) -> std::io::Result<HardwareFeeder> {
        let (alive, told) = sync_channel(1);
        let (done, ended) = sync_channel(1);
        let feed = move || {
            feed(armed, judge, &told);
            // Whoever waited may have given up.
            let _ = done.send(());
        };
        std::thread::Builder::new()
            .name("buoy-watchdog".to_owned())
            .spawn(feed)?;
        Ok(HardwareFeeder {
            alive: Some(alive),
            ended,
        })
    }
}

impl HardwareFeeder {
    /// The daemon has started. Until now its end stops the timer in any case: a machine is not reset because the daemon
    /// does not start, or it would be reset again and again.
    pub fn guard(&self) {
        if let Some(alive) = &self.alive {
            // Room for the one word; the thread ends only after this value.
            let _ = alive.try_send(());
        }
    }
}

impl Drop for HardwareFeeder {
    /// Stops the timer if nothing is held here. Else the machine is reset, unless a daemon feeds it again in time.
    fn drop(&mut self) {
        drop(self.alive.take());
        if self.ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            warn!("the hardware watchdog did not answer in {END:?}: its timer may run on");
        }
    }
}

fn feed(mut armed: Armed, judge: Arc<Judge>, alive: &Receiver<()>) {
    let name = armed.name();
    let timeout = armed.timeout;
    let mut feeding = Feeding::new(judge.clone(), name.clone(), "the machine is reset", timeout);
    let mut refused = false;
    let mut guards = false;
    loop {
        if feeding.may_feed() {
            let fed = armed.feed();
            if let Err(e) = &fed
                && !refused
            {
                error!(
                    "{name} does not take its food: {e}; the machine is reset within {timeout:?} if that stays so"
                );
            }
            refused = fed.is_err();
        }
        match alive.recv_timeout(feeding.period()) {
            Ok(()) => guards = true,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if guards && !judge.is_down() {
        error!(
            "{name} stays armed, since not everything is down here: the machine is reset in {timeout:?}, unless the daemon runs again by then"
        );
        return;
    }
    match armed.disarm() {
        Ok(()) => info!("{name} is stopped"),
        Err(e) => error!(
            "{name} was not stopped: {e}; the machine is reset in {timeout:?}, unless the daemon runs again by then"
        ),
    }
}

#[cfg(test)]
mod tests {
    use buoy_core::Epoch;
    use buoy_fence::clock::boottime;
    use buoy_fence::gate::{Gate, UserspaceGate};

    use super::*;
    use crate::lease::{Held, LeaseShared, Phase};
    use crate::watchdog::device::fake::Fake;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Waits until something holds; it is made true meanwhile.
    fn wait(what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + LIMIT;
        while !holds() {
            assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn shared() -> (Arc<LeaseShared>, Arc<Judge>) {
        let shared = Arc::new(LeaseShared::new([]));
        shared.note_look(boottime());
        let judge = Arc::new(Judge::new(shared.clone(), UserspaceGate::new().deadlines()));
        (shared, judge)
    }

    /// A VIP that is on its way down.
    fn hold(shared: &LeaseShared) {
        let claim = Held {
            phase: Phase::Lowering,
            addresses: vec![],
            inherits: false,
            slot: None,
        };
        let key = ("web".parse().unwrap(), Epoch(7));
        shared.held.store(Arc::new([(key, claim)].into()));
    }

    #[test]
    fn three_meals_fit_into_a_timeout() {
        for timeout in [1, 2_999, 3_000, 10_000, 600_000].map(Duration::from_millis) {
            let period = period(timeout);
            assert!(period * 3 <= timeout && period <= LONGEST_PERIOD);
        }
    }

    #[test]
    fn fed_while_the_judge_says_so_and_stopped_at_a_clean_end() {
        let fake = Fake::new();
        let (shared, judge) = shared();
        let feeder = HardwareFeeder::start(fake.start(false).unwrap(), judge).unwrap();
        feeder.guard();
        wait("the second meal", || {
            shared.note_look(boottime());
            fake.meals() >= 2
        });
        // The thread that is to vouch for it says nothing any more.
        wait("the meals end", || {
            let before = fake.meals();
            std::thread::sleep(LONGEST_PERIOD * 2);
            fake.meals() == before
        });
        let before = fake.meals();
        wait("and begin again", || {
            shared.note_look(boottime());
            fake.meals() > before
        });
        drop(feeder);
        let book = fake.book();
        assert_eq!((book.written.last(), book.closed), (Some(&b'V'), true));
    }

    #[test]
    fn what_is_still_held_at_the_end_leaves_the_timer_running() {
        for silent in [false, true] {
            let fake = Fake::new();
            let (shared, judge) = shared();
            if silent {
                // As long ago as can be.
                shared.note_look(buoy_core::Mono(1));
            } else {
                hold(&shared);
            }
            for guards in [true, false] {
                let feeder = HardwareFeeder::start(fake.start(false).unwrap(), judge.clone());
                let feeder = feeder.unwrap();
                if guards {
                    feeder.guard();
                }
                drop(feeder);
                wait("the device is closed", || fake.book().closed);
                // A start that failed is no reason to reset the machine.
                let stopped = fake.book().written.contains(&b'V');
                assert_eq!(stopped, !guards, "silent: {silent}");
            }
        }
    }

    #[test]
    fn a_device_that_refuses_its_food_is_tried_again() {
        let fake = Fake::new();
        let (shared, judge) = shared();
        fake.book().refuses = true;
        let feeder = HardwareFeeder::start(fake.start(false).unwrap(), judge).unwrap();
        wait("a refusal", || fake.book().refusals > 0);
        fake.book().refuses = false;
        wait("a meal", || {
            shared.note_look(boottime());
            fake.meals() > 0
        });
        drop(feeder);
    }
}

//! Writes down the longest promise of this voter: its orders are carried out and confirmed one after
//! another, in the order in which they were given. The lease machine relies on that (`docs/leases.md`,
//! quarantine): a longer length must not be overwritten by a shorter one that was ordered before it.

use std::time::Duration;

use buoy_storage::Meta;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tracing::{debug, error, info, warn};

use crate::lease::LeaseIn;

/// What the voter wants on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    /// Promises of this length are to be made.
    Raise(Duration),
    /// No promise is longer than this.
    Lower(Duration),
}

/// The way to the disk. It runs beside everything else: a slow disk must not hold up a VIP that goes
/// down. The voter gives at most a few orders a second, so the queue stays short.
pub struct LongestPromise(UnboundedSender<Order>);

impl LongestPromise {
    /// Orders are carried out by a task that ends with this value; `lease` hears what came of each.
    pub fn keep(meta: Meta, lease: UnboundedSender<LeaseIn>) -> Self {
        let (orders, queue) = mpsc::unbounded_channel();
        tokio::spawn(carry_out(meta, lease, queue));
        Self(orders)
    }

    /// Promises of this length are asked for: [`LeaseIn::MaxRaised`] follows once they may be made.
    pub fn raise(&self, length: Duration) {
        self.order(Order::Raise(length));
    }

    /// No promise is longer than this any more: [`LeaseIn::MaxLowered`] follows.
    pub fn lower(&self, length: Duration) {
        self.order(Order::Lower(length));
    }

    fn order(&self, order: Order) {
        if self.0.send(order).is_err() {
            error!("{order:?}: nobody writes the longest promise down any more; restart buoyd");
        }
    }
}

async fn carry_out(
    meta: Meta,
    lease: UnboundedSender<LeaseIn>,
    mut orders: UnboundedReceiver<Order>,
) {
    while let Some(order) = orders.recv().await {
        let confirmed = match order {
            Order::Raise(length) => match meta.raise_max_promise(length).await {
                Ok(()) => LeaseIn::MaxRaised(length),
                Err(e) => {
                    error!(
                        "this voter makes no promise of {length:?}, which is not on disk as its longest: {e}"
                    );
                    continue;
                }
            },
            Order::Lower(length) => {
                match meta.lower_max_promise_after_quarantine(length).await {
                    Ok(()) => {
                        info!("after a start this voter is silent for {length:?} from now on")
                    }
                    Err(e) => warn!(
                        "after a start this voter may be silent for longer than {length:?}, which \
                         could not be written down as its longest promise: {e}"
                    ),
                }
                LeaseIn::MaxLowered
            }
        };
        if lease.send(confirmed).is_err() {
            debug!("the lease thread is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use buoy_storage::memory::MemoryDisk;
    use buoy_storage::{Opened, Threading, open_with_engine};

    use super::*;

    fn on_disk(disk: &MemoryDisk, dir: &Path) -> Opened {
        open_with_engine(Box::new(disk.engine()), dir, Threading::Thread).unwrap()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn orders_are_written_and_confirmed_one_after_another() {
        let dir = tempfile::tempdir().unwrap();
        let disk = MemoryDisk::default();
        let opened = on_disk(&disk, dir.path());
        let (lease, mut confirmed) = mpsc::unbounded_channel();
        let longest = LongestPromise::keep(opened.meta.clone(), lease);
        for n in 0..50 {
            longest.raise(ms(1_000 + n));
            longest.lower(ms(300));
            longest.raise(ms(600));
        }
        drop(longest);
        let mut seen = Vec::new();
        while let Some(said) = confirmed.recv().await {
            match said {
                LeaseIn::MaxRaised(length) => seen.push(Some(length)),
                LeaseIn::MaxLowered => seen.push(None),
                other => panic!("{other:?}"),
            }
        }
        let expected = (0..50).flat_map(|n| [Some(ms(1_000 + n)), None, Some(ms(600))]);
        assert_eq!(seen, expected.collect::<Vec<_>>());
        drop(opened);
        disk.power_failure(false);
        assert_eq!(on_disk(&disk, dir.path()).meta.max_promise(), ms(600));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lower_that_fails_is_over_and_a_raise_that_fails_is_not_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = MemoryDisk::default();
        let opened = on_disk(&disk, dir.path());
        opened.meta.raise_max_promise(ms(1_000)).await.unwrap();
        disk.fail_after(0);
        let (lease, mut confirmed) = mpsc::unbounded_channel();
        let longest = LongestPromise::keep(opened.meta.clone(), lease);
        longest.lower(ms(300));
        // The disk held as much before, but who knows what it holds now?
        longest.raise(ms(1_000));
        drop(longest);
        assert!(matches!(confirmed.recv().await, Some(LeaseIn::MaxLowered)));
        assert!(confirmed.recv().await.is_none());
    }
}

//! The longest promise on a simulated disk: orders are written and confirmed one after another, and the
//! daemon may end before each of these steps.

use std::collections::VecDeque;
use std::time::Duration;

use super::check::Checker;
use super::clock::{MS, True};
use super::config::{Bug, Invariant};
use super::node::{Input, Node};
use super::{Event, Sim};

/// What the voter wants on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// No less than this.
    Raise(Duration),
    /// No more than this.
    Lower(Duration),
}

/// Orders that are under way.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    queue: VecDeque<Order>,
    /// The first one is written, and is to be confirmed.
    written: bool,
}

impl Sim {
    /// The lease thread of node `n` gives an order to its disk.
    pub(super) fn order_disk(&mut self, n: usize, order: Order) {
        let unordered = self.cfg.bug == Some(Bug::UnorderedDisk);
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        p.disk.queue.push_back(order);
        if unordered && matches!(order, Order::Lower(_)) {
            p.inbox.push_back(Input::MaxLowered);
        }
        if p.disk.queue.len() == 1 || unordered {
            self.disk_goes_on(n);
        }
    }

    fn disk_goes_on(&mut self, n: usize) {
        let at = self.now + self.rng.within(MS..=self.chaos.slow_disk);
        let generation = self.nodes[n].generation;
        self.schedule(at, Event::Disk { n, generation });
    }

    /// The disk of node `n` has done something: it has written an order, or confirms it.
    pub(super) fn disk(&mut self, n: usize) {
        if self.cfg.bug == Some(Bug::UnorderedDisk) {
            return self.disk_out_of_order(n);
        }
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let Some(order) = p.disk.queue.front().copied() else {
            return;
        };
        if !p.disk.written {
            p.disk.written = true;
            self.write(n, order);
            return self.disk_goes_on(n);
        }
        p.disk.written = false;
        p.disk.queue.pop_front();
        if !p.disk.queue.is_empty() {
            self.disk_goes_on(n);
        }
        self.confirm(n, order);
    }

    /// The planted bug: whichever order comes first is written; nobody waits for the lower ones.
    fn disk_out_of_order(&mut self, n: usize) {
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let first = self.rng.below(p.disk.queue.len() as u64) as usize;
        if let Some(order) = p.disk.queue.remove(first) {
            self.write(n, order);
            if matches!(order, Order::Raise(_)) {
                self.confirm(n, order);
            }
        }
    }

    fn write(&mut self, n: usize, order: Order) {
        self.note(|s| format!("the disk of node {} writes {order:?}", s.nodes[n].id));
        let node = &mut self.nodes[n];
        node.durable_max = match order {
            Order::Raise(length) => node.durable_max.max(length),
            Order::Lower(length) => node.durable_max.min(length),
        };
        self.stats.lowered += u64::from(matches!(order, Order::Lower(_)));
        self.checker.disk_covers(&self.nodes[n], self.now);
    }

    fn confirm(&mut self, n: usize, order: Order) {
        let input = match order {
            Order::Raise(length) => Input::MaxRaised(length),
            Order::Lower(_) => Input::MaxLowered,
        };
        self.lease_input(n, input);
    }
}

impl Checker {
    /// S6: should the voter be restarted now, it would be silent for as long as any promise of its lasts,
    /// or that it may still make without asking the disk.
    pub fn disk_covers(&mut self, here: &Node, now: True) {
        let Some(p) = &here.process else { return };
        let reading = here.read(now);
        let live = p
            .voter
            .promises(reading)
            .map(|(.., end)| end.since(reading));
        let may_last = live.max().unwrap_or_default().max(p.voter.max_promise());
        if may_last > here.durable_max {
            self.fail(Invariant::S6, now, || {
                format!(
                    "promises of voter {} may last {may_last:?}, but a restart would wait for {:?} only",
                    here.id, here.durable_max
                )
            });
        }
    }
}

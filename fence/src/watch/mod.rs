//! What happens in the kernel without our doing, as events for the server.

mod links;
mod notices;

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

pub(crate) use links::LinkTable;
pub(crate) use notices::{Notice, Notices, leave_out};

/// Events that wait for the server at most; more of them are dropped and become one [`KernelEvent::Overrun`].
pub const EVENT_QUEUE: usize = 1024;

/// Something changed in the kernel. Interfaces that are there at start make no event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KernelEvent {
    /// An interface can carry packets now: it is up and has a carrier. Announce its VIPs again.
    LinkUp {
        /// Its index.
        ifindex: u32,
        /// Its name.
        name: String,
    },
    /// An interface can carry no packets any more, or appeared as one that cannot.
    LinkDown {
        /// Its index.
        ifindex: u32,
        /// Its name.
        name: String,
        /// Still set up by the administrator: only the carrier is missing.
        up: bool,
        /// It could carry packets before.
        usable_before: bool,
    },
    /// An interface was removed (or moved to another network namespace).
    LinkGone {
        /// The index it had.
        ifindex: u32,
        /// The name it had.
        name: String,
    },
    /// An interface has another name.
    LinkRenamed {
        /// Its index.
        ifindex: u32,
        /// The name it had.
        from: String,
        /// The name it has.
        to: String,
    },
    /// An interface has another hardware address (e.g. a bond after a failover). Announce its VIPs again.
    LinkMacChanged {
        /// Its index.
        ifindex: u32,
        /// Its name.
        name: String,
        /// The address it has now; `None` if none of 6 bytes.
        mac: Option<[u8; 6]>,
    },
    /// Somebody removed an address that we hold.
    AddressRemoved {
        /// The address.
        ip: IpAddr,
        /// Interface that carried it.
        ifindex: u32,
        /// We put it back. If not, its interface is down or refuses it.
        repaired: bool,
    },
    /// A managed address appeared that we do not hold, or that we hold elsewhere.
    AddressAppeared {
        /// The address.
        ip: IpAddr,
        /// Interface that carries it.
        ifindex: u32,
        /// We removed it. If not, the kernel refused.
        repaired: bool,
    },
    /// An address that we hold is missing, and the kernel has refused it for [`LOST_AFTER`](crate::addr::LOST_AFTER)
    /// or longer. Told again as long as it lasts.
    AddressLost {
        /// The address.
        ip: IpAddr,
        /// How long it has been refused.
        refused_for: Duration,
        /// What the kernel said last, in words.
        why: String,
    },
    /// Another program keeps undoing our repairs. Repairs go on, but are not reported one by one any more.
    Contended {
        /// The address.
        ip: IpAddr,
        /// Interface that it is about.
        ifindex: u32,
        /// Repairs so far.
        repairs: u32,
        /// Since the first of them.
        within: Duration,
    },
    /// A qdisc or filter of an interface changed: verify the packet gate there.
    TcChanged {
        /// Its index; `u32::MAX`: a block that interfaces share, so verify all.
        ifindex: u32,
    },
    /// Events were lost, in the kernel's queue or in ours: look at everything anew.
    Overrun,
}

/// The sending side of the bounded event queue.
pub(crate) struct EventSink {
    queue: mpsc::Sender<KernelEvent>,
    lost: bool,
}

impl EventSink {
    pub(crate) fn new(capacity: usize) -> (EventSink, mpsc::Receiver<KernelEvent>) {
        let (queue, events) = mpsc::channel(capacity);
        (EventSink { queue, lost: false }, events)
    }

    /// Passes an event on, or remembers that one was lost. A server that has dropped its end wants none.
    pub(crate) fn emit(&mut self, event: KernelEvent) {
        self.flush();
        if !self.lost {
            self.lost = matches!(self.queue.try_send(event), Err(TrySendError::Full(_)));
        }
    }

    /// Says that events were lost as soon as there is room to say it.
    pub(crate) fn flush(&mut self) {
        if self.lost {
            let full = self.queue.try_send(KernelEvent::Overrun);
            self.lost = matches!(full, Err(TrySendError::Full(_)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_events_become_one_overrun() {
        let (mut sink, mut events) = EventSink::new(2);
        for ifindex in 1..=5 {
            sink.emit(KernelEvent::TcChanged { ifindex });
        }
        let mut take = |n| {
            (0..n)
                .map_while(|_| events.try_recv().ok())
                .collect::<Vec<_>>()
        };
        let tc = |ifindex| KernelEvent::TcChanged { ifindex };
        assert_eq!(take(1), [tc(1)]);
        // Room for the overrun only.
        sink.emit(tc(6));
        assert_eq!(take(9), [tc(2), KernelEvent::Overrun]);
        sink.flush();
        assert_eq!(
            take(9),
            [KernelEvent::Overrun],
            "event 6 was lost after the first overrun"
        );
        sink.emit(tc(7));
        assert_eq!(take(9), [tc(7)]);
    }
}

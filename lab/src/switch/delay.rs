//! Frames on their way: a bounded queue ordered by the time when each is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::tap::MAX_FRAME;

/// Most frames held back at once; further ones are lost, as in a full switch.
pub const MAX_DELAYED: usize = 4096;

struct Parked {
    to: usize,
    length: usize,
    bytes: [u8; MAX_FRAME],
}

/// The queue. All of its memory is taken at the start.
pub struct DelayQueue {
    /// (due, order of arrival, slot)
    due: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slots: Vec<Parked>,
    free: Vec<usize>,
    order: u64,
    overflowed: u64,
}

impl Default for DelayQueue {
    fn default() -> Self {
        let slots = (0..MAX_DELAYED)
            .map(|_| Parked {
                to: 0,
                length: 0,
                bytes: [0; MAX_FRAME],
            })
            .collect();
        Self {
            due: BinaryHeap::with_capacity(MAX_DELAYED),
            slots,
            free: (0..MAX_DELAYED).collect(),
            order: 0,
            overflowed: 0,
        }
    }
}

impl DelayQueue {
    /// Parks a copy of the frame for port `to` until `due`; false if there is no room.
    pub fn park(&mut self, to: usize, frame: &[u8], due: u64) -> bool {
        let Some(slot) = self.free.pop() else {
            self.overflowed += 1;
            return false;
        };
        let length = frame.len().min(MAX_FRAME);
        let parked = &mut self.slots[slot];
        parked.to = to;
        parked.length = length;
        parked.bytes[..length].copy_from_slice(&frame[..length]);
        self.due.push(Reverse((due, self.order, slot)));
        self.order += 1;
        true
    }

    /// Gives every frame that is due at `now` to `deliver(to, frame)`, in order.
    pub fn release(&mut self, now: u64, mut deliver: impl FnMut(usize, &[u8])) {
        while let Some(&Reverse((due, _, slot))) = self.due.peek()
            && due <= now
        {
            self.due.pop();
            let parked = &self.slots[slot];
            deliver(parked.to, &parked.bytes[..parked.length]);
            self.free.push(slot);
        }
    }

    /// When the next frame is due.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.due.peek().map(|&Reverse((due, ..))| due)
    }

    /// Frames held back now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Frames lost because there was no room.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(queue: &mut DelayQueue, now: u64) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        queue.release(now, |to, frame| out.push((to, frame.to_vec())));
        out
    }

    #[test]
    fn frames_leave_when_due_in_order() {
        let mut queue = DelayQueue::default();
        queue.park(1, b"late", 20);
        queue.park(2, b"first", 10);
        queue.park(3, b"second", 10);
        assert_eq!(queue.next_due(), Some(10));
        assert!(released(&mut queue, 9).is_empty());
        assert_eq!(
            released(&mut queue, 10),
            [(2, b"first".to_vec()), (3, b"second".to_vec())]
        );
        assert_eq!(released(&mut queue, 30), [(1, b"late".to_vec())]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_full_queue_refuses_and_recovers() {
        let mut queue = DelayQueue::default();
        for _ in 0..MAX_DELAYED {
            assert!(queue.park(0, b"x", 5));
        }
        assert!(!queue.park(0, b"x", 5));
        assert_eq!(queue.overflowed(), 1);
        assert_eq!(released(&mut queue, 5).len(), MAX_DELAYED);
        assert!(queue.park(0, b"x", 5));
    }
}

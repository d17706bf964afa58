//! The outsiders that advertise the group's virtual router.

use std::net::IpAddr;

use buoy_core::Mono;

/// How many outsiders a router remembers; of more, those with the highest priority.
pub const MAX_OUTSIDERS: usize = 16;

/// A router that is not of the group and advertised as master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outsider {
    pub from: IpAddr,
    /// The last one that was not 0.
    pub priority: u8,
    /// It counts as gone from then on unless it is heard again.
    pub until: Mono,
    /// Heard while the group was not master, so it was the master. One that only interferes while the group
    /// is master never gets a right to stay.
    pub seated: bool,
}

impl Outsider {
    fn rank(&self) -> (u8, IpAddr) {
        (self.priority, self.from)
    }
}

/// All of them, each with its own timer: the silence of one says nothing about another.
#[derive(Clone, Default, Debug)]
pub(super) struct Outsiders(Vec<Outsider>);

impl Outsiders {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes an advertisement. A full table drops the lowest: whatever is dropped, the others rank higher.
    pub fn hear(&mut self, outsider: Outsider) {
        if let Some(known) = self.0.iter_mut().find(|o| o.from == outsider.from) {
            *known = outsider;
        } else if self.0.len() < MAX_OUTSIDERS {
            self.0.push(outsider);
        } else if let Some(lowest) = self.0.iter_mut().min_by_key(|o| o.rank())
            && lowest.rank() < outsider.rank()
        {
            *lowest = outsider;
        }
    }

    /// Notes that one gives up and lasts until `until` at most; says whether it was known.
    ///
    /// Never longer than before: otherwise priority 0 over and over would hold off a take-over for ever.
    pub fn resign(&mut self, from: IpAddr, until: Mono) -> bool {
        let known = self.0.iter_mut().find(|o| o.from == from);
        known.map(|o| o.until = o.until.min(until)).is_some()
    }

    /// Forgets those that are silent for too long.
    pub fn purge(&mut self, now: Mono) {
        self.0.retain(|o| o.until > now);
    }

    /// The group is master: none of them has a right to stay.
    pub fn unseat(&mut self) {
        for o in &mut self.0 {
            o.seated = false;
        }
    }

    /// The highest of those that `counts` is true for.
    pub fn best(&self, counts: impl Fn(&Outsider) -> bool) -> Option<&Outsider> {
        self.0.iter().filter(|o| counts(o)).max_by_key(|o| o.rank())
    }

    /// When the next one is to be forgotten.
    pub fn next(&self) -> Option<Mono> {
        self.0.iter().map(|o| o.until).min()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

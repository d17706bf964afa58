//! One virtual router as RFC 9568 section 6.4 has it, played by the whole Raft group.
//!
//! Every member runs a [`Router`] for every virtual router (one per address and family) and listens. The
//! member that holds the address under a lease advertises; all of them say in their [`Standing`] whether
//! an outsider, a router that is not of the group, is master in the group's place. The Raft leader decides
//! from the standings whether the group may own the address at all.
//!
//! No I/O and no clock: events and the time come in, effects go out.

mod machine;
mod outsiders;
#[cfg(test)]
mod tests;
mod timing;

use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;

pub use crate::accept::Version;
pub use machine::Router;
pub use outsiders::MAX_OUTSIDERS;
pub use timing::{MIN_ANSWER_GAP, MIN_INTERVAL, master_down_interval, skew_time};

/// What is configured of a virtual router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Priority of the group, 1 to 255 (0 counts as 1). 255 owns the addresses: it preempts without delay
    /// whatever [`preempt`](Self::preempt) says (RFC 9568 section 6.1, `Preempt_Mode`).
    pub priority: u8,
    /// Interval of the group's advertisements, at least [`MIN_INTERVAL`] (less counts as that).
    pub interval: Duration,
    /// Version spoken.
    pub version: Version,
    /// Whether the group takes over from a master of lower priority (RFC 9568 section 6.1, `Preempt_Mode`).
    pub preempt: bool,
    /// How long a master of lower priority is let be before the group takes over; only with `preempt`.
    pub preempt_delay: Duration,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The sockets on the interface are open: advertisements are heard from now on. Ignored if they were.
    Listening,
    /// The interface or a socket is gone.
    Deaf,
    /// This node holds the address under a lease and has announced it. Again with another source: that is
    /// where advertisements leave from now.
    Up {
        /// Where its advertisements leave from; decides between equal priorities.
        source: IpAddr,
    },
    /// This node no longer holds the address.
    Down {
        /// The group gives the address up (deleted, or nobody to take it). Otherwise another member takes
        /// over, and outsiders are to notice nothing.
        gives_up: bool,
    },
    /// An advertisement of another member of the group was heard, not of priority 0: the group is master.
    Member {
        /// Where it came from.
        source: IpAddr,
    },
    /// A valid advertisement of an outsider was heard; what does not match is refused before.
    Heard {
        /// Where it came from.
        from: IpAddr,
        /// Its priority, 0 if it gives up.
        priority: u8,
        /// Its interval; counts in version 3 only, 0 counts as the group's own.
        interval: Duration,
    },
    /// Time went by; due when [`Router::next`] says so, harmless at any other time.
    /// Advertisements that wait in a socket go first: after a stall an outsider must not count as silent
    /// because nobody read what it sent.
    Tick,
}

/// Why the addresses are announced again. The larger one takes in the smaller one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Again {
    /// An advertisement was heard of an outsider that does not outrank the group while the group is master.
    LowerPriority,
    /// The group begins to be master, and another one may have been until now.
    Takeover,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send an advertisement now, from the source of [`Event::Up`].
    Advertise {
        /// The group's priority, or 0: it gives up.
        priority: u8,
    },
    /// Announce the addresses again (gratuitous ARP, unsolicited neighbour advertisements): neighbours may
    /// have believed another master in the meantime.
    AnnounceAgain(Again),
    /// The standing is another one now.
    Standing(Standing),
}

/// What this member knows of outsiders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Hears nothing, so it says nothing about outsiders.
    Deaf,
    /// Began to listen only just: an outsider may be master. A holder must not begin before `until`
    /// unless another member tells better.
    Unsure {
        /// When a master would have been heard.
        until: Mono,
    },
    /// No outsider keeps the group from being master.
    Clear,
    /// An outsider is master and the group is not to be: the outsider outranks it, or it sits there and the
    /// group does not preempt it (yet).
    Outranked {
        /// The best of such outsiders.
        by: IpAddr,
        /// Its priority, the last one that was not 0.
        priority: u8,
    },
}

/// State of this member's machine as RFC 9568 section 6.4 names them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Deaf.
    Initialize,
    /// Listens.
    Backup,
    /// Advertises.
    Active,
}

/// Counters since the router was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Advertisements sent because the interval was over.
    pub regular: u64,
    /// Advertisements sent at once: at the beginning, or in answer to an outsider.
    pub prompt: u64,
    /// Advertisements of priority 0 sent.
    pub gave_up: u64,
    /// Times the addresses were announced again.
    pub announced_again: u64,
    /// Times the standing became [`Standing::Outranked`].
    pub outranked: u64,
    /// Advertisements of outsiders heard.
    pub heard: u64,
}

/// The effects of one step, at most one of each kind, in the order in which they are to be done.
#[must_use = "effects are to be carried out"]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Effects {
    advertise: Option<u8>,
    announce_again: Option<Again>,
    standing: Option<Standing>,
}

impl Effects {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Effects::default()
    }
}

/// Advertisement, announcement (as keepalived orders them), standing.
impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Effect>, 3>>;

    fn into_iter(self) -> Self::IntoIter {
        [
            self.advertise
                .map(|priority| Effect::Advertise { priority }),
            self.announce_again.map(Effect::AnnounceAgain),
            self.standing.map(Effect::Standing),
        ]
        .into_iter()
        .flatten()
    }
}

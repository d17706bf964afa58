//! Which interfaces go up and down too often to hold a VIP: one machine for all interfaces of a node.
//!
//! Without it a loose cable would move its VIPs with every flap, and a VIP with preemption would come
//! back each time. The driver tells of each link change and asks [`Flaps::fault`]; a fault ends by
//! itself at [`Flaps::next_deadline`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::time::Mono;

/// Downs within [`FLAP_WINDOW`] from which an interface is flapping. One down is a failure, two are a
/// cable that is plugged into another port or an operator's restart of the link; three are a pattern.
pub const FLAP_DOWNS: usize = 3;
/// Downs are counted over this time: a switch port that is set up anew takes up to about 10 s to forward
/// again, so a link that fails as fast as it comes back is still caught.
pub const FLAP_WINDOW: Duration = Duration::from_secs(30);
/// A flapping interface is usable again after so long up without a down: longer than the pauses of a
/// loose contact, short enough that a repaired cable does not have to be waited for.
pub const FLAP_CALM: Duration = Duration::from_secs(10);
/// Downs of one interface that are remembered, and the largest number that a fault names.
const MAX_DOWNS: usize = 100;
/// Interfaces that are remembered: hosts of containers make and remove interfaces all the time.
const MAX_INTERFACES: usize = 256;

/// What happened to an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FlapEvent {
    /// It can carry packets no more, or is gone. One that is down already does not go down again.
    Down,
    /// It can carry packets.
    Up,
}

/// The interfaces that went down lately, by name: an interface that is made anew is the same one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flaps {
    interfaces: BTreeMap<String, Interface>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Interface {
    /// When it went down, oldest first; none is older than [`FLAP_WINDOW`] at the last of them.
    downs: VecDeque<Mono>,
    /// Since when it is up; `None`: it is down.
    up_since: Option<Mono>,
    flapping: bool,
}

impl Interface {
    fn last_down(&self) -> Mono {
        self.downs.back().copied().unwrap_or_default()
    }

    /// When nothing of it has to be remembered any more, if it stays as it is.
    fn forget_at(&self) -> Option<Mono> {
        match self.flapping {
            true => self.up_since.map(|up| up + FLAP_CALM),
            false => Some(self.last_down() + FLAP_WINDOW),
        }
    }

    fn went_down(&mut self, now: Mono) {
        self.up_since = None;
        self.downs.retain(|at| now.since(*at) < FLAP_WINDOW);
        if self.downs.len() == MAX_DOWNS {
            self.downs.pop_front();
        }
        self.downs.push_back(now);
        self.flapping |= self.downs.len() >= FLAP_DOWNS;
    }
}

impl Flaps {
    /// Something happened to `interface` at `now`. The same event twice is one.
    pub fn handle(&mut self, now: Mono, interface: &str, event: FlapEvent) {
        self.on_deadline(now);
        match (self.interfaces.get_mut(interface), event) {
            (Some(known), FlapEvent::Down) if known.up_since.is_some() => known.went_down(now),
            (Some(known), FlapEvent::Up) => {
                known.up_since.get_or_insert(now);
            }
            (None, FlapEvent::Down) => {
                self.make_room();
                let mut new = Interface::default();
                new.went_down(now);
                self.interfaces.insert(interface.to_owned(), new);
            }
            // Down already; or up as ever.
            (Some(_), FlapEvent::Down) | (None, FlapEvent::Up) => {}
        }
    }

    /// When the next fault ends if nothing happens until then; `None`: none does.
    pub fn next_deadline(&self) -> Option<Mono> {
        let flapping = self.interfaces.values().filter(|i| i.flapping);
        flapping.filter_map(Interface::forget_at).min()
    }

    /// Faults that end by `now` are gone.
    pub fn on_deadline(&mut self, now: Mono) {
        self.interfaces
            .retain(|_, i| i.forget_at().is_none_or(|at| at > now));
    }

    /// Interfaces that were last heard of as down: the driver looks whether they are up meanwhile, in
    /// case an event was lost.
    pub fn down(&self) -> impl Iterator<Item = &str> {
        let down = self.interfaces.iter().filter(|(_, i)| i.up_since.is_none());
        down.map(|(name, _)| name.as_str())
    }

    /// Why an interface can hold no VIP at `now`; `None`: it is not flapping.
    pub fn fault(&self, now: Mono, interface: &str) -> Option<String> {
        let found = self.interfaces.get(interface)?;
        let over = found.forget_at().is_some_and(|at| at <= now);
        (found.flapping && !over).then(|| {
            format!(
                "interface {interface} is flapping: went down {} times within {} s; usable again after {} s without that",
                found.downs.len(),
                FLAP_WINDOW.as_secs(),
                FLAP_CALM.as_secs()
            )
        })
    }

    /// The interface whose last down is the longest ago goes, a flapping one last.
    fn make_room(&mut self) {
        if self.interfaces.len() < MAX_INTERFACES {
            return;
        }
        let all = self.interfaces.iter();
        let oldest = all.min_by_key(|(_, i)| (i.flapping, i.last_down()));
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.interfaces.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETH0: &str = "eth0";

    /// Goes down at each of these times, s, and up half a second later.
    fn after(downs: &[u64]) -> Flaps {
        let mut flaps = Flaps::default();
        for at in downs {
            flaps.handle(s(*at), ETH0, FlapEvent::Down);
            flaps.handle(s(*at) + Duration::from_millis(500), ETH0, FlapEvent::Up);
        }
        flaps
    }

    fn s(s: u64) -> Mono {
        Mono::from_millis(s * 1_000)
    }

    #[test]
    fn the_third_down_within_the_window_is_flapping() {
        assert_eq!(after(&[100, 105]).fault(s(106), ETH0), None);
        let flaps = after(&[100, 105, 129]);
        let fault = flaps.fault(s(130), ETH0).unwrap();
        assert_eq!(
            fault,
            "interface eth0 is flapping: went down 3 times within 30 s; usable again after 10 s without that"
        );
        assert_eq!(flaps.fault(s(130), "eth1"), None);
        // The first one is too long ago.
        assert_eq!(after(&[100, 105, 130]).fault(s(131), ETH0), None);
        assert!(after(&[100, 105, 130, 131]).fault(s(132), ETH0).is_some());
    }

    #[test]
    fn it_is_over_after_a_calm_time_up() {
        let mut flaps = after(&[100, 101, 102]);
        let end = Mono::from_millis(112_500);
        assert_eq!(flaps.next_deadline(), Some(end));
        assert!(flaps.fault(s(112), ETH0).is_some());
        assert_eq!(flaps.fault(end, ETH0), None);

        // Another down begins the calm time anew, and time that it is down does not count.
        flaps.handle(s(112), ETH0, FlapEvent::Down);
        assert_eq!(flaps.next_deadline(), None);
        let said = flaps.fault(s(500), ETH0).unwrap();
        assert!(said.contains("down 4 times"), "{said}");
        flaps.handle(s(500), ETH0, FlapEvent::Up);
        assert_eq!(flaps.next_deadline(), Some(s(510)));
        flaps.on_deadline(s(510));
        assert_eq!((flaps.next_deadline(), flaps.down().count()), (None, 0));
        assert_eq!(flaps, Flaps::default(), "nothing is left");
        // The count begins anew too.
        flaps.handle(s(511), ETH0, FlapEvent::Down);
        assert_eq!(flaps.fault(s(511), ETH0), None);
    }

    #[test]
    fn one_down_is_counted_once() {
        let mut flaps = Flaps::default();
        for at in 0..10 {
            flaps.handle(s(at), ETH0, FlapEvent::Down);
        }
        assert_eq!(flaps.fault(s(10), ETH0), None);
        assert_eq!(flaps.down().collect::<Vec<_>>(), [ETH0]);
        // Up twice: since the first time.
        flaps.handle(s(11), ETH0, FlapEvent::Up);
        for at in [12, 14] {
            flaps.handle(s(at), ETH0, FlapEvent::Down);
            flaps.handle(s(at + 1), ETH0, FlapEvent::Up);
            flaps.handle(s(at + 1) + Duration::from_millis(500), ETH0, FlapEvent::Up);
        }
        assert_eq!(flaps.next_deadline(), Some(s(25)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut flaps = after(&[1, 2, 3]);
        for n in 0..2 * MAX_INTERFACES {
            flaps.handle(s(4), &format!("veth{n}"), FlapEvent::Down);
        }
        assert_eq!(flaps.interfaces.len(), MAX_INTERFACES);
        assert!(flaps.fault(s(5), ETH0).is_some(), "the flapping one stays");
        for ms in 0..300 {
            let at = s(6) + Duration::from_millis(ms);
            flaps.handle(at, ETH0, FlapEvent::Up);
            flaps.handle(at, ETH0, FlapEvent::Down);
        }
        assert_eq!(flaps.interfaces[ETH0].downs.len(), MAX_DOWNS);
        // What was down only once is forgotten after the window.
        flaps.on_deadline(s(34));
        assert_eq!(flaps.interfaces.len(), 1);
    }
}

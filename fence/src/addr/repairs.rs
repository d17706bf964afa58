//! How often an address had to be repaired: fights with other programs are bounded and made visible.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;

/// Least time between two repairs of one address.
pub const REPAIR_GAP: Duration = Duration::from_millis(50);
/// Repairs are counted over this time.
pub const REPAIR_WINDOW: Duration = Duration::from_secs(10);
/// Repairs within [`REPAIR_WINDOW`] that are reported one by one; the next one is reported as a
/// contention, and then nothing until the next window.
pub const REPAIRS_REPORTED: u32 = 5;

/// What to say about a repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Report {
    /// That it happened.
    Repaired,
    /// That somebody keeps undoing what we do: so many repairs in so long a time.
    Contended(u32, Duration),
    /// Nothing: it has been said.
    Nothing,
}

/// Repairs of each address in its present window.
#[derive(Default)]
pub(super) struct Repairs {
    windows: BTreeMap<IpAddr, Window>,
}

struct Window {
    began: Mono,
    last: Mono,
    count: u32,
}

impl Repairs {
    /// When the next repair of `ip` may be done: now, or a little later.
    pub(super) fn not_before(&self, ip: IpAddr, now: Mono) -> Mono {
        let window = self.windows.get(&ip);
        window.map_or(now, |w| now.max(w.last + REPAIR_GAP))
    }

    /// Counts a repair that was done.
    pub(super) fn count(&mut self, ip: IpAddr, now: Mono) -> Report {
        let fresh = Window {
            began: now,
            last: now,
            count: 0,
        };
        let window = self.windows.entry(ip).or_insert(fresh);
        if now.since(window.began) > REPAIR_WINDOW {
            // A fight that goes on is told once a window, and at once.
            let fought = window.count > REPAIRS_REPORTED && now.since(window.last) <= REPAIR_WINDOW;
            window.began = now;
            window.count = if fought { REPAIRS_REPORTED } else { 0 };
        }
        window.last = now;
        window.count = window.count.saturating_add(1);
        match window.count {
            n if n <= REPAIRS_REPORTED => Report::Repaired,
            n if n == REPAIRS_REPORTED + 1 => Report::Contended(n, now.since(window.began)),
            _ => Report::Nothing,
        }
    }

    /// Forgets what lies further back than a window.
    pub(super) fn forget_old(&mut self, now: Mono) {
        self.windows
            .retain(|_, w| now.since(w.last) <= REPAIR_WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn repairs_are_spaced() {
        let mut repairs = Repairs::default();
        let t = Mono::from_millis(1000);
        assert_eq!(repairs.not_before(IP, t), t);
        repairs.count(IP, t);
        assert_eq!(
            repairs.not_before(IP, t + Duration::from_millis(10)),
            Mono::from_millis(1050)
        );
        let later = Mono::from_millis(1060);
        assert_eq!(repairs.not_before(IP, later), later);
    }

    #[test]
    fn a_fight_is_told_once_a_window() {
        let mut repairs = Repairs::default();
        let mut told = Vec::new();
        // 25 s of a fight, a repair each 100 ms.
        for n in 0..250 {
            match repairs.count(IP, Mono::from_millis(1000 + n * 100)) {
                Report::Nothing => {}
                report => told.push((n, report)),
            }
        }
        assert!(
            told[..5].iter().all(|(_, r)| *r == Report::Repaired),
            "{told:?}"
        );
        assert_eq!(
            told[5],
            (5, Report::Contended(6, Duration::from_millis(500)))
        );
        assert_eq!(told.len(), 8, "two more windows began: {told:?}");
        // Peace for a window: single repairs are told again.
        let later = Mono::from_millis(60_000);
        assert_eq!(repairs.count(IP, later), Report::Repaired);
        repairs.forget_old(later + Duration::from_secs(11));
        assert!(repairs.windows.is_empty());
    }
}

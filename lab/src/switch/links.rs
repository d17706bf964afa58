//! Every directed link between two ports: cut or not, and what goes wrong on it.

use super::protocol::{Faults, MAX_PORTS, REORDER_MS};
use crate::rng::{Chance, Rng};

/// What becomes of a frame on one link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is lost.
    Lost,
    /// It arrives after a delay (ns), and perhaps once more after another one.
    Arrives {
        /// Delay of the frame, ns.
        delay: u64,
        /// Delay of its duplicate, ns.
        again: Option<u64>,
    },
}

/// [`Faults`] of the link and of both ports together, ready for use.
#[derive(Clone, Copy, Default)]
struct Effective {
    loss: Chance,
    duplicate: Chance,
    reorder: Chance,
    delay_ns: u64,
    jitter_ns: u64,
}

/// All links of a switch.
pub struct Links {
    link: [[Faults; MAX_PORTS]; MAX_PORTS],
    port: [Faults; MAX_PORTS],
    effective: [[Effective; MAX_PORTS]; MAX_PORTS],
    /// For each port: the set of ports that its frames reach.
    open: [u16; MAX_PORTS],
}

impl Default for Links {
    fn default() -> Self {
        Self {
            link: [[Faults::default(); MAX_PORTS]; MAX_PORTS],
            port: [Faults::default(); MAX_PORTS],
            effective: [[Effective::default(); MAX_PORTS]; MAX_PORTS],
            open: [u16::MAX; MAX_PORTS],
        }
    }
}

impl Links {
    /// The bit set of ports that frames from `from` reach.
    #[must_use]
    pub fn reach(&self, from: usize) -> u16 {
        self.open[from]
    }

    /// Cuts or joins one direction.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        if cut {
            self.open[from] &= !(1 << to);
        } else {
            self.open[from] |= 1 << to;
        }
    }

    /// Replaces all cuts: `group[port]` of two ports differ -> cut both ways; `None` reaches all.
    pub fn partition(&mut self, group: &[Option<usize>; MAX_PORTS]) {
        for from in 0..MAX_PORTS {
            for to in 0..MAX_PORTS {
                let apart = matches!((group[from], group[to]), (Some(a), Some(b)) if a != b);
                self.cut(from, to, apart);
            }
        }
    }

    /// Faults of one direction.
    #[must_use]
    pub fn link_faults(&self, from: usize, to: usize) -> Faults {
        self.link[from][to]
    }

    /// Faults of a port.
    #[must_use]
    pub fn port_faults(&self, port: usize) -> Faults {
        self.port[port]
    }

    /// Sets the faults of one direction.
    pub fn set_link(&mut self, from: usize, to: usize, faults: Faults) {
        self.link[from][to] = faults;
        self.combine(from, to);
    }

    /// Sets the faults of a port, both directions.
    pub fn set_port(&mut self, port: usize, faults: Faults) {
        self.port[port] = faults;
        for other in 0..MAX_PORTS {
            self.combine(port, other);
            self.combine(other, port);
        }
    }

    fn combine(&mut self, from: usize, to: usize) {
        let parts = [self.link[from][to], self.port[from], self.port[to]];
        let any = |value: fn(&Faults) -> f64| {
            Chance::new(1.0 - parts.iter().map(|part| 1.0 - value(part)).product::<f64>())
        };
        let sum = |value: fn(&Faults) -> f64| ms_to_ns(parts.iter().map(value).sum());
        self.effective[from][to] = Effective {
            loss: any(|faults| faults.loss),
            duplicate: any(|faults| faults.duplicate),
            reorder: any(|faults| faults.reorder),
            delay_ns: sum(|faults| faults.delay_ms),
            jitter_ns: sum(|faults| faults.jitter_ms),
        };
    }

    /// Draws what becomes of a frame.
    pub fn fate(&self, from: usize, to: usize, rng: &mut Rng) -> Fate {
        if self.open[from] >> to & 1 == 0 {
            return Fate::Lost;
        }
        let faults = &self.effective[from][to];
        if rng.happens(faults.loss) {
            return Fate::Lost;
        }
        let mut delay = || {
            let jitter = rng.below(faults.jitter_ns);
            let held = if rng.happens(faults.reorder) {
                1 + rng.below(ms_to_ns(REORDER_MS))
            } else {
                0
            };
            faults.delay_ns + jitter + held
        };
        let first = delay();
        let second = delay();
        Fate::Arrives {
            delay: first,
            again: rng.happens(faults.duplicate).then_some(second),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be 0 to MAX_DELAY_MS where the request came in"
)]
fn ms_to_ns(ms: f64) -> u64 {
    (ms * 1e6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Fate = Fate::Arrives {
        delay: 0,
        again: None,
    };

    #[test]
    fn a_partition_cuts_between_groups_only() {
        let mut links = Links::default();
        let mut rng = Rng::new(1);
        let mut group = [None; MAX_PORTS];
        (group[0], group[1], group[2]) = (Some(0), Some(0), Some(1));
        links.partition(&group);
        assert_eq!(links.fate(0, 1, &mut rng), PLAIN);
        assert_eq!(links.fate(0, 2, &mut rng), Fate::Lost);
        assert_eq!(links.fate(2, 1, &mut rng), Fate::Lost);
        assert_eq!(links.fate(3, 2, &mut rng), PLAIN, "port 3 is in no group");
        links.partition(&[None; MAX_PORTS]);
        assert_eq!(links.fate(0, 2, &mut rng), PLAIN);
    }

    #[test]
    fn a_cut_has_one_direction() {
        let mut links = Links::default();
        let mut rng = Rng::new(1);
        links.cut(0, 1, true);
        assert_eq!(links.fate(0, 1, &mut rng), Fate::Lost);
        assert_eq!(links.fate(1, 0, &mut rng), PLAIN);
        assert_eq!(links.reach(0) & 0b11, 0b01);
    }

    #[test]
    fn faults_of_link_and_ports_add_up() {
        let mut links = Links::default();
        let mut rng = Rng::new(3);
        let half = Faults {
            loss: 0.5,
            ..Faults::default()
        };
        links.set_link(0, 1, half);
        links.set_port(1, half);
        let lost = |links: &Links, rng: &mut Rng, from, to| {
            (0..10_000)
                .filter(|_| links.fate(from, to, rng) == Fate::Lost)
                .count()
        };
        let both = lost(&links, &mut rng, 0, 1);
        assert!((7_200..7_800).contains(&both), "{both}");
        let back = lost(&links, &mut rng, 1, 0);
        assert!((4_700..5_300).contains(&back), "{back}");
        assert_eq!(lost(&links, &mut rng, 0, 2), 0);
    }

    #[test]
    fn delays_duplicates_and_reorders() {
        let mut links = Links::default();
        let mut rng = Rng::new(3);
        links.set_link(
            0,
            1,
            Faults {
                duplicate: 0.25,
                reorder: 0.5,
                delay_ms: 2.0,
                ..Faults::default()
            },
        );
        let (mut twice, mut held) = (0, 0);
        for _ in 0..10_000 {
            let Fate::Arrives { delay, again } = links.fate(0, 1, &mut rng) else {
                panic!("nothing is lost here");
            };
            assert!((2_000_000..=7_000_000).contains(&delay), "{delay}");
            twice += usize::from(again.is_some());
            held += usize::from(delay > 2_000_000);
        }
        assert!((2_200..2_800).contains(&twice), "{twice}");
        assert!((4_700..5_300).contains(&held), "{held}");
    }
}

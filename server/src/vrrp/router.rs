//! One router of this node: the state machine with what it needs to hear and to speak.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use buoy_core::health::Hearing;
use buoy_core::{Epoch, Mono};
use buoy_vrrp_compat::accept::{Version, judge};
use buoy_vrrp_compat::ah::{self, Sequence};
use buoy_vrrp_compat::ip::Packet;
use buoy_vrrp_compat::mark::Group;
use buoy_vrrp_compat::packet::PseudoHeader;
use buoy_vrrp_compat::router::{Effects, Event, Router, Standing, State, master_down_interval};
use tracing::warn;

use super::book::{Mismatches, Outsiders, RouterView};
use super::plan::{RouterId, Wish};
use super::port::Kind;

/// A packet, and where it goes to.
type Addressed = (IpAddr, Vec<u8>);

/// A router as it is played here.
pub struct Face {
    /// What it is to be.
    pub wish: Wish,
    /// The epoch under which its VIP is up here.
    pub up: Option<Epoch>,
    /// Advertisements sent, and those of priority 0 among them.
    pub sent: (u64, u64),
    /// Advertisements that were due without a live lease.
    pub withheld: u64,
    /// Advertisements that the kernel refused, and its last word.
    pub failed: (u64, Option<String>),
    router: Router,
    /// Since when it does not advertise any more, and nobody else was heard.
    left: Option<Mono>,
    mismatches: Mismatches,
    outsiders: Outsiders,
    members_heard: u64,
    sequence: Sequence,
    /// The form of checksum in which outsiders speak, and are answered.
    pseudo: PseudoHeader,
    /// What is sent for a priority; made anew when anything in it changes.
    ready: Option<(u8, Vec<Addressed>)>,
}

impl Face {
    /// One that hears nothing yet.
    pub fn new(wish: Wish, now: Mono) -> Face {
        Face {
            router: Router::new(wish.settings, now),
            wish,
            left: None,
            up: None,
            sent: (0, 0),
            withheld: 0,
            failed: (0, None),
            mismatches: Mismatches::default(),
            outsiders: Outsiders::default(),
            members_heard: 0,
            sequence: Sequence::default(),
            pseudo: PseudoHeader::Standard,
            ready: None,
        }
    }

    /// What it has to do now that it is to be otherwise.
    pub fn change(&mut self, wish: Wish, now: Mono) -> Vec<Effects> {
        if self.wish == wish {
            return Vec::new();
        }
        let mut effects = Vec::new();
        if self.wish.settings != wish.settings {
            effects.push(self.router.reconfigure(wish.settings, now));
        }
        let source = |w: &Wish| w.place.map(|p| p.source);
        let moved = source(&self.wish) != source(&wish);
        self.wish = wish;
        self.ready = None;
        if let Some(source) = source(&self.wish).filter(|_| moved && self.up.is_some()) {
            effects.push(self.router.step(Event::Up { source }, now));
        }
        effects
    }

    /// Something happened.
    pub fn step(&mut self, event: Event, now: Mono) -> Effects {
        match event {
            // A lease is denied before this node knows what the log says of the VIP: perhaps that nobody has it.
            Event::Down { gives_up } => {
                let was_active = self.router.state() == State::Active;
                self.left = (was_active && !gives_up).then_some(now);
            }
            Event::Up { .. } | Event::Member { .. } | Event::Heard { .. } => self.left = None,
            Event::Listening | Event::Deaf | Event::Tick => {}
        }
        self.router.step(event, now)
    }

    /// This node was the last of the group to advertise, and routers outside still take the group for master.
    pub fn left_lately(&self, now: Mono) -> bool {
        let settings = &self.wish.settings;
        let lasts = master_down_interval(settings.priority, settings.version, settings.interval);
        self.left.is_some_and(|at| now.since(at) < lasts)
    }

    /// When it is to be given [`Event::Tick`].
    pub fn next(&self) -> Option<Mono> {
        self.router.next()
    }

    /// Whether [`Event::Tick`] has something to do now.
    pub fn is_due(&self, now: Mono) -> bool {
        self.router.is_due(now)
    }

    /// Which sockets it needs.
    pub fn kinds(&self) -> &'static [Kind] {
        let v4 = self.wish.expected.addresses.iter().any(IpAddr::is_ipv4);
        let ah = self.wish.expected.version == Version::V2
            && matches!(
                self.wish.expected.auth,
                buoy_vrrp_compat::accept::Auth::Ah(_)
            );
        match (v4, ah) {
            (false, _) => &[Kind::V6],
            (true, false) => &[Kind::V4],
            // One that is configured without it is to be noticed.
            (true, true) => &[Kind::V4, Kind::V4Ah],
        }
    }

    /// A packet for its virtual router id came in on its interface.
    pub fn hear(
        &mut self,
        id: &RouterId,
        packet: &Packet<'_>,
        group: &Group,
        now: Mono,
    ) -> Effects {
        let mark = group.mark(self.wish.expected.vrid, packet.source);
        // Not by its address: a machine of the group may still run another router.
        if packet.mark == mark {
            self.members_heard += 1;
            return match priority(packet) {
                None | Some(0) => Effects::default(),
                Some(_) => {
                    let source = packet.source;
                    self.step(Event::Member { source }, now)
                }
            };
        }
        let own: Vec<IpAddr> = self.wish.place.iter().map(|p| p.source).collect();
        let heard = match judge(&self.wish.expected, packet, &own) {
            Ok(heard) => heard,
            Err(mismatch) => {
                if self.mismatches.note(packet.source, mismatch.cause(), now) {
                    warn!(vip = %id.vip, interface = %self.wish.interface, "{mismatch}; it changes nothing");
                }
                return Effects::default();
            }
        };
        if let (Some(number), IpAddr::V4(sender)) = (heard.sequence, heard.source)
            && let Err(replay) = self.fresh(sender, number, now)
        {
            let cause = buoy_vrrp_compat::accept::Cause::Authentication;
            if self.mismatches.note(packet.source, cause, now) {
                warn!(vip = %id.vip, interface = %self.wish.interface, "{replay}; it changes nothing");
            }
            return Effects::default();
        }
        if self.pseudo != heard.pseudo {
            self.pseudo = heard.pseudo;
            self.ready = None;
        }
        self.outsiders
            .note(heard.source, heard.priority, heard.interval, now);
        let event = Event::Heard {
            from: heard.source,
            priority: heard.priority,
            interval: heard.interval,
        };
        self.step(event, now)
    }

    /// keepalived counts from 1 again when it is started anew. One that was silent for so long that nobody takes it for
    /// master any more is believed, or two routers would be master for as long as it takes it to count up.
    fn fresh(
        &mut self,
        sender: std::net::Ipv4Addr,
        number: u32,
        now: Mono,
    ) -> Result<(), ah::Replay> {
        let settings = &self.wish.settings;
        let silence = master_down_interval(settings.priority, settings.version, settings.interval);
        let known = self.outsiders.heard(sender.into());
        if known.is_none_or(|at| now.since(at) > silence) {
            self.sequence.forget(sender);
        }
        self.sequence.check(sender, number)
    }

    /// What is to be sent for a priority, and where to; empty without a place.
    ///
    /// # Errors
    /// It cannot be written, in words.
    pub fn packets(&mut self, priority: u8, group: &Group) -> Result<&[Addressed], String> {
        let Some(place) = self.wish.place else {
            return Ok(&[]);
        };
        let expected = &self.wish.expected;
        let numbered = matches!(expected.auth, buoy_vrrp_compat::accept::Auth::Ah(_));
        if numbered || self.ready.as_ref().is_none_or(|(p, _)| *p != priority) {
            let sequence = match numbered {
                true => self.sequence.next(unix_seconds()),
                false => 0,
            };
            let mark = group.mark(expected.vrid, place.source);
            let packet = |to: &IpAddr| {
                let packet =
                    expected.packet(priority, place.source, *to, mark, self.pseudo, sequence);
                packet.map(|p| (*to, p)).map_err(|e| e.to_string())
            };
            let all = self.wish.destinations.iter().map(packet);
            self.ready = Some((priority, all.collect::<Result<_, _>>()?));
        }
        Ok(self.ready.as_ref().map_or(&[], |(_, packets)| packets))
    }

    /// What it says of routers outside; `None`: it hears nothing.
    pub fn hearing(&self) -> Option<Hearing> {
        match self.router.standing() {
            Standing::Deaf => None,
            Standing::Unsure { .. } => Some(Hearing::Unsure),
            Standing::Clear => Some(Hearing::Clear),
            Standing::Outranked { by, priority } => Some(Hearing::Outranked(format!(
                "the router {by} (VRRP priority {priority})"
            ))),
        }
    }

    /// What is shown of it.
    pub fn view(&self, id: &RouterId, now: Mono) -> RouterView {
        let expected = &self.wish.expected;
        RouterView {
            vip: id.vip.clone(),
            vrid: expected.vrid,
            v4: id.v4,
            version: match expected.version {
                Version::V2 => 2,
                Version::V3 => 3,
            },
            priority: self.wish.settings.priority,
            interface: self.wish.interface.clone(),
            source: self.wish.place.map(|p| p.source),
            state: self.state(),
            hearing: self.hearing(),
            stats: *self.router.stats(),
            sent: self.sent.0,
            sent_zero: self.sent.1,
            withheld: self.withheld,
            failed: self.failed.clone(),
            members_heard: self.members_heard,
            outsiders: self.outsiders.view(now),
            mismatches: self.mismatches.counts().clone(),
        }
    }

    fn state(&self) -> State {
        self.router.state()
    }
}

/// The priority of what looks like an advertisement.
fn priority(packet: &Packet<'_>) -> Option<u8> {
    let at = match packet.protocol {
        ah::IP_PROTOCOL_AH => ah::HEADER + 2,
        _ => 2,
    };
    packet.payload.get(at).copied()
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

//! A packet as it is shown: what it claims, and what is wrong with it. Whatever can be read is shown; no password is.

use std::net::IpAddr;

use buoy_vrrp_compat::accept::{self, Reason};
use buoy_vrrp_compat::ah;
use buoy_vrrp_compat::ip::{self, Packet, TTL};
use buoy_vrrp_compat::packet::{Advertisement, Body, DecodeError, PseudoHeader};
use serde_json::{Value, json};

use crate::text::{self, shown};

/// How a packet came along.
#[derive(Clone, Debug)]
pub struct Way {
    pub unix_ms: u64,
    pub interface: String,
    /// The VLAN, where the packet had a tag on this interface.
    pub vlan: Option<u16>,
    pub sent: bool,
    /// Of who sent it.
    pub mac: Option<[u8; 6]>,
}

/// How advertisements of version 2 are secured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Auth {
    None,
    Pass,
    Ah,
    Other(u8),
}

/// What the checksum of an advertisement is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Checksum {
    Good,
    /// As keepalived's `old_unicast_checksum` has it.
    OldUnicast,
    Wrong,
}

/// A packet, as far as it can be read.
#[derive(Debug)]
pub struct Seen {
    way: Way,
    ends: Option<(IpAddr, IpAddr)>,
    ttl: Option<u8>,
    vrid: Option<u8>,
    advert: Option<Claim>,
    auth: Option<Auth>,
    /// Number from the authentication header.
    sequence: Option<u32>,
    checksum: Option<Checksum>,
    problems: Vec<String>,
}

/// The part of an advertisement that may be shown.
#[derive(Debug)]
struct Claim {
    version: u8,
    priority: u8,
    interval: std::time::Duration,
    addresses: Vec<IpAddr>,
}

impl Seen {
    /// Reads a packet from its IP header on.
    pub fn read(way: Way, bytes: &[u8]) -> Seen {
        let mut seen = Seen {
            way,
            ends: ip::ends(bytes),
            ttl: None,
            vrid: None,
            advert: None,
            auth: None,
            sequence: None,
            checksum: None,
            problems: Vec::new(),
        };
        match Packet::read(bytes) {
            Ok(packet) => seen.packet(&packet),
            Err(e) => seen.problem(e),
        }
        seen
    }

    /// For which virtual router, if that can be read.
    pub fn vrid(&self) -> Option<u8> {
        self.vrid
    }

    fn problem(&mut self, words: impl ToString) {
        self.problems.push(words.to_string());
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        self.ttl = Some(packet.ttl);
        self.vrid = accept::vrid(packet);
        let authentic = packet.protocol == ah::IP_PROTOCOL_AH;
        let payload = if authentic {
            self.auth = Some(Auth::Ah);
            match ah::peek(packet) {
                Ok(claimed) => {
                    self.sequence = Some(claimed.sequence);
                    if let IpAddr::V4(source) = packet.source
                        && let Err(e) = claimed.check_spi(source)
                    {
                        self.problem(e);
                    }
                    claimed.payload
                }
                Err(e) => return self.problem(e),
            }
        } else {
            packet.payload
        };
        if let Some(advert) = Advertisement::peek(payload, packet.source) {
            self.claim(advert, authentic);
        }
        match Advertisement::decode(payload, packet.source, packet.destination) {
            Ok((_, PseudoHeader::Standard)) => self.checksum = Some(Checksum::Good),
            Ok((_, PseudoHeader::OldUnicast)) => self.checksum = Some(Checksum::OldUnicast),
            Err(e) => {
                if matches!(e, DecodeError::Checksum { .. }) {
                    self.checksum = Some(Checksum::Wrong);
                }
                self.problem(e);
            }
        }
        // A unicast packet may have come through routers.
        if packet.destination.is_multicast() && packet.ttl != TTL {
            self.problem(Reason::Ttl(packet.ttl));
        }
    }

    /// What of an advertisement nobody would accept, however he is configured, is a problem.
    fn claim(&mut self, advert: Advertisement, authentic: bool) {
        let interval = advert.interval();
        let version = match advert.body {
            Body::V2 {
                authentication_type: kind,
                ..
            } => {
                if authentic && kind != 2 {
                    self.problem(Reason::AuthenticationType {
                        expected: 2,
                        found: kind,
                    });
                }
                if !authentic && kind == 2 {
                    self.problem(Reason::NoAuthenticationHeader);
                }
                self.auth = Some(match kind {
                    _ if authentic => Auth::Ah,
                    0 => Auth::None,
                    1 => Auth::Pass,
                    2 => Auth::Ah,
                    other => Auth::Other(other),
                });
                2
            }
            Body::V3 { centiseconds } => {
                if authentic {
                    self.problem(Reason::UnwantedAuthenticationHeader);
                }
                if centiseconds == 0 {
                    self.problem(Reason::NoInterval);
                }
                self.auth.get_or_insert(Auth::None);
                3
            }
        };
        self.advert = Some(Claim {
            version,
            priority: advert.priority,
            interval,
            addresses: advert.addresses,
        });
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let way = &self.way;
        let arrow = if way.sent { '>' } else { '<' };
        let mut line = format!("{} {} {arrow}", text::time(way.unix_ms), way.interface);
        let mut add = |words: String| {
            line.push(' ');
            line.push_str(&words);
        };
        match self.ends {
            Some((source, destination)) => add(format!("{source} -> {destination}")),
            None => add("? -> ?".to_owned()),
        }
        if let Some(advert) = &self.advert {
            add(format!("v{}", advert.version));
        }
        if let Some(vrid) = self.vrid {
            add(format!("vrid {vrid}"));
        }
        if let Some(advert) = &self.advert {
            add(match advert.priority {
                0 => "priority 0 (gives up)".to_owned(),
                255 => "priority 255 (address owner)".to_owned(),
                other => format!("priority {other}"),
            });
            add(format!("interval {:?}", advert.interval));
        }
        if let Some(auth) = self.auth {
            add(format!("auth {}", auth.word()));
        }
        if let Some(advert) = &self.advert {
            let all: Vec<_> = advert.addresses.iter().map(IpAddr::to_string).collect();
            add(format!("addresses {}", text::dash(&all.join(","))));
        }
        if let Some(mac) = way.mac {
            add(format!("mac {}", mac_text(mac)));
        }
        if let Some(vlan) = way.vlan {
            add(format!("vlan {vlan}"));
        }
        if let Some(ttl) = self.ttl.filter(|ttl| *ttl != TTL) {
            add(format!("ttl {ttl}"));
        }
        if self.checksum == Some(Checksum::OldUnicast) {
            add("old unicast checksum".to_owned());
        }
        if !self.problems.is_empty() {
            add(format!("PROBLEM: {}", self.problems.join("; ")));
        }
        shown(&line)
    }

    /// One object for programs: always the same keys, null for what cannot be read.
    pub fn json(&self) -> Value {
        let way = &self.way;
        let advert = self.advert.as_ref();
        json!({
            "at_unix_ms": way.unix_ms,
            "interface": way.interface,
            "vlan": way.vlan,
            "direction": if way.sent { "sent" } else { "received" },
            "mac": way.mac.map(mac_text),
            "source": self.ends.map(|(source, _)| source),
            "destination": self.ends.map(|(_, destination)| destination),
            "ttl": self.ttl,
            "version": advert.map(|a| a.version),
            "vrid": self.vrid,
            "priority": advert.map(|a| a.priority),
            "interval_ms": advert.map(|a| a.interval.as_millis() as u64),
            "auth": self.auth.map(Auth::word),
            "sequence": self.sequence,
            "addresses": advert.map(|a| &a.addresses),
            "checksum": self.checksum.map(Checksum::word),
            "problems": self.problems,
        })
    }
}

impl Auth {
    fn word(self) -> String {
        match self {
            Auth::None => "none".to_owned(),
            Auth::Pass => "PASS".to_owned(),
            Auth::Ah => "AH".to_owned(),
            Auth::Other(kind) => format!("type-{kind}"),
        }
    }
}

impl Checksum {
    fn word(self) -> &'static str {
        match self {
            Checksum::Good => "good",
            Checksum::OldUnicast => "old-unicast",
            Checksum::Wrong => "wrong",
        }
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;

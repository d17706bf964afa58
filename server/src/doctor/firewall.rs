//! Does this host's firewall let the cluster's packets in? Judged from the rules as `nft` lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Command;

use serde_json::Value;

use super::Finding;

const ABOUT: &str = "firewall";
/// IP protocol number of VRRP (RFC 9568 section 5.1.1.4).
const VRRP: u64 = 112;
/// Deepest chain of jumps that is followed; the kernel allows 16.
const DEPTH: usize = 16;

/// What should come in.
#[derive(Clone, Copy, Debug)]
struct Packet {
    what: &'static str,
    /// Name and number of the protocol above IP.
    protocol: (&'static str, u64),
    port: Option<u16>,
}

pub(super) fn examine(port: u16) -> Vec<Finding> {
    let listed = match Command::new("nft").args(["-j", "list", "ruleset"]).output() {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return vec![Finding::warning(
                ABOUT,
                format!("the rules cannot be listed: {said}"),
                "run this as root",
            )];
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::warning(
                ABOUT,
                "the rules cannot be listed: there is no `nft` on this machine",
                "install nftables to have them looked at",
            )];
        }
        Err(e) => {
            return vec![Finding::warning(
                ABOUT,
                format!("the rules cannot be listed: {e}"),
                "",
            )];
        }
    };
    match serde_json::from_slice(&listed) {
        Ok(rules) => judge(&rules, port),
        Err(e) => vec![Finding::warning(
            ABOUT,
            format!("the list of rules is not understood: {e}"),
            "",
        )],
    }
}

fn judge(ruleset: &Value, port: u16) -> Vec<Finding> {
    let rules = Rules::read(ruleset);
    let packets = [
        Packet {
            what: "connections of other nodes and clients",
            protocol: ("tcp", 6),
            port: Some(port),
        },
        Packet {
            what: "lease renewals of other nodes",
            protocol: ("udp", 17),
            port: Some(port),
        },
        Packet {
            what: "VRRP advertisements",
            protocol: ("vrrp", VRRP),
            port: None,
        },
    ];
    let judged: Vec<Finding> = packets.iter().filter_map(|p| rules.finding(p)).collect();
    if judged.is_empty() {
        let found = format!("TCP and UDP port {port} and VRRP may come in");
        return vec![Finding::fine(ABOUT, found)];
    }
    judged
}

/// What becomes of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Fate {
    Accepted,
    /// By this.
    Dropped(String),
    /// The end of a chain: whoever jumped there, or its policy, decides.
    Onwards,
}

/// What becomes of it by the rules that are understood, and what may by others.
struct Outcome {
    fate: Fate,
    perhaps: Vec<Fate>,
}

impl Outcome {
    /// Whether the rules that are not understood make a difference.
    fn is_clear(&self) -> bool {
        let accepted = self.fate == Fate::Accepted;
        self.perhaps
            .iter()
            .all(|other| (*other == Fate::Accepted) == accepted)
    }
}

/// Base chain: where it stands, and what it does at its end.
struct Base {
    name: Key,
    priority: i64,
    drops: bool,
}

/// Family, table, chain.
type Key = (String, String, String);

#[derive(Default)]
struct Rules {
    bases: Vec<Base>,
    chains: BTreeMap<Key, Vec<Vec<Value>>>,
}

fn text(of: &Value, field: &str) -> String {
    of[field].as_str().unwrap_or_default().to_owned()
}

impl Rules {
    fn read(ruleset: &Value) -> Rules {
        let mut rules = Rules::default();
        for item in ruleset["nftables"].as_array().into_iter().flatten() {
            if let Some(chain) = item.get("chain") {
                let name = (
                    text(chain, "family"),
                    text(chain, "table"),
                    text(chain, "name"),
                );
                // Only what every packet to this host passes.
                let on_its_way = ["prerouting", "input"].contains(&text(chain, "hook").as_str())
                    && ["ip", "inet"].contains(&name.0.as_str())
                    && chain["type"] == "filter";
                if on_its_way {
                    rules.bases.push(Base {
                        name: name.clone(),
                        priority: chain["prio"].as_i64().unwrap_or(0),
                        drops: chain["policy"] == "drop",
                    });
                }
                rules.chains.entry(name).or_default();
            }
            if let Some(rule) = item.get("rule") {
                let name = (
                    text(rule, "family"),
                    text(rule, "table"),
                    text(rule, "chain"),
                );
                let statements = rule["expr"].as_array().cloned().unwrap_or_default();
                rules.chains.entry(name).or_default().push(statements);
            }
        }
        rules.bases.sort_by_key(|base| base.priority);
        rules
    }

    fn finding(&self, packet: &Packet) -> Option<Finding> {
        let Packet {
            what,
            protocol: (protocol, _),
            port,
        } = packet;
        let port = port.map_or_else(String::new, |p| format!(" dport {p}"));
        for base in &self.bases {
            let mut outcome = self.pass(&base.name, packet, 0);
            if outcome.fate == Fate::Onwards {
                outcome.fate = match base.drops {
                    true => Fate::Dropped(format!("the policy of chain {}", words(&base.name))),
                    false => Fate::Accepted,
                };
            }
            let advice = match packet.port {
                Some(_) => format!(
                    "let them in from the other nodes and clients: nft insert rule {} {protocol}{port} accept",
                    words(&base.name)
                ),
                None => format!(
                    "only if VRRP is used (vrrp settings, or keepalived beside Buoy): nft insert rule {} ip protocol vrrp accept",
                    words(&base.name)
                ),
            };
            if !outcome.is_clear() {
                return Some(Finding::warning(
                    ABOUT,
                    format!(
                        "it cannot be told whether {what} ({protocol}{port}) come in: chain {} has rules that were not understood",
                        words(&base.name)
                    ),
                    "look at the rules (nft list ruleset), or try it from another node",
                ));
            }
            let Fate::Dropped(by) = outcome.fate else {
                continue;
            };
            let found = format!("{what} ({protocol}{port}) are dropped by {by}");
            return Some(match packet.port {
                Some(_) => Finding::problem(ABOUT, found, advice),
                None => Finding::warning(ABOUT, found, advice),
            });
        }
        None
    }

    fn pass(&self, chain: &Key, packet: &Packet, depth: usize) -> Outcome {
        let mut perhaps = Vec::new();
        for rule in self.chains.get(chain).into_iter().flatten() {
            let (applies, then) = self.rule(chain, rule, packet, depth);
            perhaps.extend(then.perhaps);
            match (applies, then.fate) {
                (Match::No, _) | (_, Fate::Onwards) => {}
                (Match::Yes, fate) => return Outcome { fate, perhaps },
                (Match::Perhaps, fate) => perhaps.push(fate),
            }
        }
        Outcome {
            fate: Fate::Onwards,
            perhaps,
        }
    }

    /// Does the rule apply, and what does it do if it does?
    fn rule(&self, chain: &Key, rule: &[Value], packet: &Packet, depth: usize) -> (Match, Outcome) {
        let only = |fate| Outcome {
            fate,
            perhaps: Vec::new(),
        };
        let dropped = || only(Fate::Dropped(format!("a rule of chain {}", words(chain))));
        let mut applies = Match::Yes;
        for statement in rule {
            let Some((kind, value)) = statement.as_object().and_then(|s| s.iter().next()) else {
                applies = Match::Perhaps;
                continue;
            };
            match kind.as_str() {
                "match" => match matches(value, packet) {
                    Match::No => return (Match::No, only(Fate::Onwards)),
                    other => applies = applies.min(other),
                },
                "accept" => return (applies, only(Fate::Accepted)),
                "drop" | "reject" | "queue" => return (applies, dropped()),
                "return" => return (applies, only(Fate::Onwards)),
                "jump" | "goto" if depth < DEPTH => {
                    let target = (chain.0.clone(), chain.1.clone(), text(value, "target"));
                    return (applies, self.pass(&target, packet, depth + 1));
                }
                "counter" | "log" | "meta" | "ct" | "mangle" | "notrack" | "set" => {}
                // The verdict is not in sight: a map's, or that of an extension of iptables.
                "vmap" | "xt" => return (Match::Perhaps, dropped()),
                // What else it depends on (limits, quotas, ...) is not known here.
                _ => applies = Match::Perhaps,
            }
        }
        (applies, only(Fate::Onwards))
    }
}

fn words((family, table, chain): &Key) -> String {
    format!("{family} {table} {chain}")
}

/// Whether a condition holds for the packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Match {
    No,
    Perhaps,
    Yes,
}

fn matches(condition: &Value, packet: &Packet) -> Match {
    let (left, right) = (&condition["left"], &condition["right"]);
    let (protocol, number) = packet.protocol;
    let field = |what: &str, name: &str| left[what]["field"] == name || left[what]["key"] == name;
    let values: BTreeSet<String> = match () {
        () if field("meta", "l4proto")
            || (left["payload"]["protocol"] == "ip" && field("payload", "protocol")) =>
        {
            [protocol.to_owned(), number.to_string()].into()
        }
        () if field("payload", "dport") => {
            let of = text(&left["payload"], "protocol");
            match packet.port {
                Some(port) if of == protocol || of == "th" => [port.to_string()].into(),
                _ => return Match::No,
            }
        }
        // Ports and flags of other protocols.
        () if left["payload"]["protocol"].as_str().is_some_and(|p| {
            ["tcp", "udp", "icmp", "icmpv6", "sctp", "ip6"].contains(&p) && p != protocol
        }) =>
        {
            return Match::No;
        }
        () if field("ct", "state") => ["new".to_owned()].into(),
        () if field("meta", "iifname") || field("meta", "iif") => {
            // The cluster's packets come from other machines.
            return match among(right, &["lo".to_owned()].into()) {
                Match::Yes if right.is_string() => negated(condition, Match::No),
                _ => Match::Perhaps,
            };
        }
        () if field("meta", "nfproto") => ["ipv4".to_owned()].into(),
        () => return Match::Perhaps,
    };
    negated(condition, among(right, &values))
}

fn negated(condition: &Value, held: Match) -> Match {
    match (condition["op"] == "!=", held) {
        (true, Match::Yes) => Match::No,
        (true, Match::No) => Match::Yes,
        (_, held) => held,
    }
}

/// Is one of the values among those of the condition's right side?
fn among(right: &Value, values: &BTreeSet<String>) -> Match {
    let is = |value: &Value| match value {
        Value::String(s) if s.starts_with('@') => Match::Perhaps,
        Value::String(s) => yes_if(values.contains(s)),
        Value::Number(n) => yes_if(values.contains(&n.to_string())),
        _ => range(value, values),
    };
    let list = right.get("set").unwrap_or(right);
    match list.as_array() {
        Some(list) => list.iter().map(is).max().unwrap_or(Match::No),
        None => is(list),
    }
}

fn range(value: &Value, values: &BTreeSet<String>) -> Match {
    let Some([from, to]) = value["range"].as_array().map(Vec::as_slice) else {
        return Match::Perhaps;
    };
    let (Some(from), Some(to)) = (from.as_u64(), to.as_u64()) else {
        return Match::Perhaps;
    };
    let mut numbers = values.iter().filter_map(|v| v.parse::<u64>().ok());
    yes_if(numbers.any(|n| (from..=to).contains(&n)))
}

fn yes_if(yes: bool) -> Match {
    if yes { Match::Yes } else { Match::No }
}

#[cfg(test)]
mod tests;

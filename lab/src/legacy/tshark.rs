//! tshark's judgement of what passed.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::ns::search_path;

/// A packet, as tshark understands it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Its number in the file, from 1.
    pub number: u64,
    /// When it passed, ns of CLOCK_BOOTTIME in a recording of the lab.
    pub at: u64,
    /// Its protocols, outermost first: `eth:ethertype:ip:vrrp`.
    pub protocols: String,
    /// MAC that it comes from.
    pub mac: String,
    /// Address of the network layer that it comes from, if it has one.
    pub source: String,
    /// Address of the network layer that it goes to, if it has one.
    pub destination: String,
    /// What is in it, if it is one of VRRP.
    pub vrrp: Option<Advertisement>,
    /// What is wrong with it: bad checksums, lengths that do not fit, and whatever else tshark warns of.
    pub warnings: Vec<String>,
}

/// An advertisement of VRRP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// Version.
    pub version: u8,
    /// Number of the virtual router.
    pub vrid: u8,
    /// Priority of the sender.
    pub priority: u8,
}

/// By itself it does not check the checksums, and takes every takeover for a duplicate address.
const PREFERENCES: [&str; 4] = [
    "arp.detect_duplicate_ips:FALSE",
    "ip.check_checksum:TRUE",
    "udp.check_checksum:TRUE",
    "tcp.check_checksum:TRUE",
];

const FIELDS: [&str; 18] = [
    "frame.number",
    "frame.time_epoch",
    "frame.protocols",
    "eth.src",
    "ip.src",
    "ipv6.src",
    "arp.src.proto_ipv4",
    "ip.dst",
    "ipv6.dst",
    "arp.dst.proto_ipv4",
    "vrrp.version",
    "vrrp.virt_rtr_id",
    "vrrp.prio",
    "ip.checksum.status",
    "vrrp.checksum.status",
    "_ws.expert.severity",
    "_ws.expert.message",
    "_ws.malformed",
];

/// Between fields, and between the values of one.
const SEPARATOR: char = '\t';
const AGGREGATOR: char = '|';

/// Severity of what tshark calls a warning; an error is above it, notes and chat are below.
const WARN: u32 = 0x60_0000;
/// What tshark calls a good checksum.
const GOOD: &str = "1";

/// Has tshark dissect a recording, with all checksums validated. The integrity value of an authentication
/// header (AH) is not among them: tshark cannot.
///
/// # Errors
/// tshark is not there, or cannot read the file.
pub fn dissect(path: &Path) -> Result<Vec<Packet>> {
    let mut command = Command::new("tshark");
    command
        .env("PATH", search_path())
        // Whatever its user has set for himself is not for us.
        .env("WIRESHARK_CONFIG_DIR", "/nonexistent")
        .stdin(Stdio::null())
        .arg("-n")
        .arg("-r")
        .arg(path);
    for option in PREFERENCES {
        command.args(["-o", option]);
    }
    command.args(["-T", "fields", "-E", "separator=/t", "-E"]);
    command.arg(format!("aggregator={AGGREGATOR}"));
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().context("run tshark")?;
    ensure!(
        output.status.success(),
        "tshark cannot read {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| packet(line).with_context(|| format!("tshark says {line:?}")))
        .collect()
}

fn packet(line: &str) -> Result<Packet> {
    let fields: Vec<_> = line.split(SEPARATOR).collect();
    let Ok(fields) = <[&str; FIELDS.len()]>::try_from(fields) else {
        anyhow::bail!("not {} fields", FIELDS.len());
    };
    let [
        number,
        time,
        protocols,
        mac,
        source4,
        source6,
        source_arp,
        destination4,
        destination6,
        destination_arp,
        version,
        vrid,
        priority,
        ip_checksum,
        vrrp_checksum,
        severities,
        messages,
        malformed,
    ] = fields;
    let mut warnings = Vec::new();
    for (what, status) in [("IP", ip_checksum), ("VRRP", vrrp_checksum)] {
        if values(status).any(|status| status != GOOD) {
            warnings.push(format!("checksum of {what} is not good"));
        }
    }
    if !malformed.is_empty() {
        warnings.push(format!("malformed: {malformed}"));
    }
    for (severity, message) in values(severities).zip(values(messages)) {
        if severity.parse::<u32>()? >= WARN {
            warnings.push(message.to_owned());
        }
    }
    let first = |candidates: [&str; 3]| {
        let mut present = candidates.into_iter().flat_map(values);
        present.next().unwrap_or_default().to_owned()
    };
    let vrrp = if version.is_empty() {
        None
    } else {
        Some(Advertisement {
            version: version.parse()?,
            vrid: vrid.parse()?,
            priority: priority.parse()?,
        })
    };
    Ok(Packet {
        number: number.parse()?,
        at: nanoseconds(time)?,
        protocols: protocols.to_owned(),
        mac: mac.to_owned(),
        source: first([source4, source6, source_arp]),
        destination: first([destination4, destination6, destination_arp]),
        vrrp,
        warnings,
    })
}

/// The values of a field.
fn values(field: &str) -> impl Iterator<Item = &str> {
    field.split(AGGREGATOR).filter(|value| !value.is_empty())
}

/// Seconds with nine decimals, without the error of a float.
fn nanoseconds(time: &str) -> Result<u64> {
    let (seconds, decimals) = time.split_once('.').context("a time without decimals")?;
    ensure!(decimals.len() == 9, "a time of other than nine decimals");
    Ok(seconds.parse::<u64>()? * 1_000_000_000 + decimals.parse::<u64>()?)
}

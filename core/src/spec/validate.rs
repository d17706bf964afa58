//! What is wrong with a declaration, in words for whoever wrote it.
//!
//! [`VipSpec::validate`] judges one VIP by itself; [`validate_all`] judges VIPs and nodes together, as
//! a configuration file or the first log entry holds them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::{MAX_ADDRESSES, MAX_NODES, Preempt, VipSpec};

mod address;
mod cluster;

pub use cluster::validate_all;
pub(crate) use cluster::{
    check_group, check_node, clashes, node_address, references, too_many_addresses,
};

/// Longest name of a network interface, in bytes (Linux IFNAMSIZ without the closing zero).
pub const MAX_INTERFACE_NAME: usize = 15;
/// Largest priority: 255 belongs to the address owner in VRRP (RFC 9568 section 5.2.4).
pub const MAX_PRIORITY: u8 = 254;
/// Longest preempt delay (keepalived's limit).
pub const MAX_PREEMPT_DELAY: Duration = Duration::from_secs(1000);
/// Most VIPs that one VIP may name in `colocate_with`, and in `avoid`.
pub const MAX_RELATIONS: usize = 64;

/// Does a finding keep the declaration from being used?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// It is refused.
    Error,
    /// It is used, and is worth a word.
    Warning,
}

/// Something wrong with a declaration.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub struct SpecError {
    /// Whether it is refused.
    pub severity: Severity,
    /// Path of the field, such as `addresses[1].prefix` or, from [`validate_all`],
    /// `vips[0].addresses[1].prefix`.
    pub field: String,
    /// What came and what was expected.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)?;
        if self.hint.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.hint)
        }
    }
}

impl SpecError {
    pub(crate) fn error(
        field: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> SpecError {
        SpecError {
            severity: Severity::Error,
            field: field.into(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    fn within(mut self, parent: &str) -> SpecError {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}

impl VipSpec {
    /// Checks everything about the VIP that can be judged without other VIPs and nodes.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the fields. All of it has [`Severity::Error`].
    pub fn validate(&self) -> Result<(), Vec<SpecError>> {
        let mut found = Vec::new();
        self.check_addresses(&mut found);
        found.extend(check_interface(&self.interface));
        self.check_label(&mut found);
        self.check_placement(&mut found);
        if let Some(face) = &self.vrrp {
            face.check(self, &mut found);
        }
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    fn check_addresses(&self, found: &mut Vec<SpecError>) {
        let count = self.addresses.len();
        if count == 0 || count > MAX_ADDRESSES {
            found.push(SpecError::error(
                "addresses",
                format!(
                    "VIP {} has {count} addresses, expected 1 to {MAX_ADDRESSES}",
                    self.name
                ),
                if count == 0 {
                    "add an address such as 192.0.2.10/24"
                } else {
                    "split it into several VIPs"
                },
            ));
        }
        let mut seen = BTreeSet::new();
        for (i, a) in self.addresses.iter().enumerate().take(MAX_ADDRESSES) {
            if !seen.insert(a.ip) {
                found.push(SpecError::error(
                    format!("addresses[{i}].ip"),
                    format!("address {} is listed twice in VIP {}", a.ip, self.name),
                    "remove one of them",
                ));
            }
            found.extend(address::check(a).map(|e| e.within(&format!("addresses[{i}]"))));
        }
    }

    fn check_label(&self, found: &mut Vec<SpecError>) {
        let Some(label) = &self.label else { return };
        let mut refuse = |message: String, hint: &str| {
            found.push(SpecError::error("label", message, hint));
        };
        if label.len() > MAX_INTERFACE_NAME {
            refuse(
                format!(
                    "label {:?} has {} bytes, expected at most {MAX_INTERFACE_NAME}",
                    clip(label),
                    label.len()
                ),
                "shorten what follows the interface name",
            );
        } else if !label.starts_with(&self.interface) {
            refuse(
                format!(
                    "label {label:?} does not begin with the interface name {:?}",
                    self.interface
                ),
                "write it as in \"eth0:web\"",
            );
        } else if !label.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
            refuse(
                format!("label {label:?} holds a character that is not printable ASCII, or a '/'"),
                "use letters, digits, ':', '-', '_' and '.'",
            );
        }
        if !self.addresses.is_empty() && !self.addresses.iter().any(|a| a.ip.is_ipv4()) {
            refuse(
                format!(
                    "VIP {} has a label but no IPv4 address, and IPv6 addresses have no labels",
                    self.name
                ),
                "remove the label",
            );
        }
    }

    fn check_placement(&self, found: &mut Vec<SpecError>) {
        let p = &self.placement;
        let mut refuse = |field: String, message: String, hint: &str| {
            found.push(SpecError::error(
                format!("placement.{field}"),
                message,
                hint,
            ));
        };
        if p.priority.len() > MAX_NODES {
            let n = p.priority.len();
            refuse(
                "priority".into(),
                format!("{n} nodes are listed, expected at most {MAX_NODES}"),
                "list nodes of the cluster only; a node that is not listed has priority 100",
            );
        }
        for (node, priority) in p.priority.iter().filter(|(_, p)| **p > MAX_PRIORITY) {
            refuse(
                format!("priority.{node}"),
                format!(
                    "priority {priority} of node {node} is out of range, expected 0 to {MAX_PRIORITY}"
                ),
                "0 keeps the VIP away from the node; 255 is reserved by VRRP",
            );
        }
        if p.preempt_delay > MAX_PREEMPT_DELAY {
            refuse(
                "preempt_delay".into(),
                format!(
                    "preempt_delay is {:?}, expected at most {MAX_PREEMPT_DELAY:?}",
                    p.preempt_delay
                ),
                "use the sticky policy to keep a VIP where it is",
            );
        }
        if p.preempt == Preempt::Sticky && !p.preempt_delay.is_zero() {
            refuse(
                "preempt_delay".into(),
                format!(
                    "preempt_delay is {:?}, but a sticky VIP never preempts",
                    p.preempt_delay
                ),
                "set preempt = \"preempt\", or remove preempt_delay",
            );
        }
        self.check_relations(found);
    }

    fn check_relations(&self, found: &mut Vec<SpecError>) {
        let p = &self.placement;
        let mut refuse = |field: &str, message: String, hint: &str| {
            found.push(SpecError::error(
                format!("placement.{field}"),
                message,
                hint,
            ));
        };
        for (field, names) in [("colocate_with", &p.colocate_with), ("avoid", &p.avoid)] {
            if names.len() > MAX_RELATIONS {
                let n = names.len();
                refuse(
                    field,
                    format!("{n} VIPs are listed, expected at most {MAX_RELATIONS}"),
                    "name fewer VIPs",
                );
            }
            if names.contains(&self.name) {
                refuse(
                    field,
                    format!("VIP {} names itself", self.name),
                    "name other VIPs only",
                );
            }
        }
        for both in p
            .colocate_with
            .intersection(&p.avoid)
            .filter(|n| **n != self.name)
        {
            refuse(
                "avoid",
                format!(
                    "VIP {} must be with {both} (colocate_with) and away from it (avoid)",
                    self.name
                ),
                "remove one of the two",
            );
        }
    }
}

/// The rules of Linux (`dev_valid_name`), and no characters that a terminal could not show.
fn check_interface(name: &str) -> Option<SpecError> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_INTERFACE_NAME {
        "it is too long"
    } else if name == "." || name == ".." {
        "Linux reserves it"
    } else if name
        .bytes()
        .any(|b| b == b'/' || b == b':' || !b.is_ascii_graphic())
    {
        "it holds '/', ':', a blank or another character that is not printable ASCII"
    } else {
        return None;
    };
    Some(SpecError::error(
        "interface",
        format!(
            "{:?} is no name of a network interface: {problem} (expected 1 to {MAX_INTERFACE_NAME} bytes)",
            clip(name)
        ),
        "`ip -brief link` lists the interfaces of a machine",
    ))
}

/// Bounds what of a wrong value is repeated in a message.
fn clip(s: &str) -> String {
    s.chars().take(40).collect()
}

/// An address as error messages name the family.
fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests;

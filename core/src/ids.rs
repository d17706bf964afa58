//! Names and numbers that identify things.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Raft identity of a node: unique for ever, never given to another machine (or to the same one
/// after it lost its disk).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Log index of the entry that assigned a VIP: it grows, is never reused, and serves users as the
/// fencing token. Zero means "never assigned".
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random number drawn at each daemon start.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// One run of the daemon on one node (docs/leases.md, "Terms").
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Session {
    /// The node.
    pub node: NodeId,
    /// Which run of its daemon.
    pub incarnation: Incarnation,
}

/// Why a name was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{what} name {name:?} is not valid: {problem} (expected 1 to {max} characters of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or digit)"
)]
pub struct NameError {
    what: &'static str,
    name: String,
    problem: &'static str,
    max: usize,
}

/// Longest VIP or node name, in bytes.
pub const NAME_MAX: usize = 63;

fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_MAX {
        "it is too long"
    } else if !name.as_bytes()[0].is_ascii_alphanumeric() {
        "it begins with another character"
    } else if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        "it holds another character"
    } else {
        return Ok(());
    };
    Err(NameError {
        what,
        name: name.chars().take(80).collect(),
        problem,
        max: NAME_MAX,
    })
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                check_name($what, &s)?;
                Ok(Self(s))
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::try_from(s.to_owned())
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(
    /// Name of a VIP, as the user gave it.
    VipName,
    "VIP"
);
name_type!(
    /// Name of a node, as the user gave it.
    NodeName,
    "node"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(
            "web-1.a_B".parse::<VipName>().unwrap().as_str(),
            "web-1.a_B"
        );
        for bad in ["", "-a", "a b", "ü", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        let e = "a/b".parse::<VipName>().unwrap_err().to_string();
        assert!(e.contains("\"a/b\"") && e.contains("a-z"), "{e}");
    }
}

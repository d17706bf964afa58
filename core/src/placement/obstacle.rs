//! What keeps a node from holding a VIP.

use std::fmt;
use std::time::Duration;

use super::words::span;
use crate::health::{STOPPING, UNFENCED};
use crate::ids::VipName;
use crate::state::Cause;

/// One reason why a node cannot be given a VIP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Obstacle<'a> {
    /// Not heard for `silence`, which is `limit` or more.
    Silent { silence: Duration, limit: Duration },
    /// Not heard at all, although this node has listened for long enough.
    NeverHeard { listening: Duration },
    /// Not heard yet, but this node has not listened for long.
    NotHeardYet {
        listening: Duration,
        limit: Duration,
    },
    /// It has sent no report yet: its interfaces may be missing.
    NoReport,
    /// It reports that it can hold nothing.
    Fault(&'a str),
    /// It reports that it cannot hold this VIP.
    VipFault(&'a VipName, &'a str),
    /// An operator drained it.
    Drained(&'a str),
    /// It votes only.
    Witness,
    /// The VIP's placement gives it priority 0.
    PriorityZero(&'a VipName),
    /// The state does not know it.
    Unknown,
}

impl Obstacle<'_> {
    /// Does it take a VIP away from its owner? What is merely not known yet does not.
    pub(super) fn displaces(&self) -> bool {
        !matches!(self, Obstacle::NotHeardYet { .. } | Obstacle::NoReport)
    }

    /// The cause of a move away from a node with this obstacle.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Obstacle::Silent { .. }
            | Obstacle::NeverHeard { .. }
            | Obstacle::NotHeardYet { .. } => Cause::OwnerSilent,
            Obstacle::Fault(text) if text.starts_with(STOPPING) => Cause::OwnerStopping,
            Obstacle::VipFault(_, text) if text.starts_with(UNFENCED) => Cause::Unfenced,
            Obstacle::Fault(_)
            | Obstacle::VipFault(..)
            | Obstacle::NoReport
            | Obstacle::Unknown => Cause::OwnerUnfit,
            Obstacle::Drained(_) => Cause::Drained,
            Obstacle::Witness | Obstacle::PriorityZero(_) => Cause::Edited,
        }
    }
}

/// Follows the node's name: "n1 ...".
impl fmt::Display for Obstacle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Silent { silence, limit } => {
                write!(f, "silent for {} (limit {})", span(*silence), span(*limit))
            }
            Obstacle::NeverHeard { listening } => {
                write!(
                    f,
                    "never heard in the {} since this node began to listen",
                    span(*listening)
                )
            }
            Obstacle::NotHeardYet { listening, limit } => {
                write!(
                    f,
                    "not heard yet; this node has listened for {} of {}",
                    span(*listening),
                    span(*limit)
                )
            }
            Obstacle::NoReport => f.write_str("has sent no report about itself yet"),
            Obstacle::Fault(text) => write!(f, "reports: {text}"),
            Obstacle::VipFault(vip, text) => write!(f, "cannot hold {vip}: {text}"),
            Obstacle::Drained(reason) => write!(f, "drained: {reason}"),
            Obstacle::Witness => f.write_str("is a witness and never holds VIPs"),
            Obstacle::PriorityZero(vip) => write!(f, "has priority 0 for {vip}: it never holds it"),
            Obstacle::Unknown => f.write_str("is not known to the cluster"),
        }
    }
}

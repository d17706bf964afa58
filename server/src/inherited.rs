//! Addresses that only the packet gate of a dead predecessor knew: no longer fenced once nothing can come of it.
//!
//! A daemon that was killed leaves its gate in force, and the successor takes its addresses over, shut. One of them may
//! belong to no VIP any more: it was deleted while nobody ran here. Fenced for ever, it could not be used on this host
//! for anything else. It is let go when two things are certain:
//!
//! - **No VIP has it.** The state at the start may be older than what the predecessor had applied, so it says nothing;
//!   it does after a read barrier, that is when this node has applied everything that was committed at a moment after its
//!   start, as a leader with a quorum says. A VIP that is declared later is managed like any new one.
//! - **It is on no interface of this host.** Then the kernel answers for it neither before nor after, so letting it go
//!   opens nothing, whatever some other cluster still does with it. What the predecessor left goes with its lifetime.
//!
//! Both hold when the gate is told, and the gate itself refuses if the address has been managed since.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use buoy_fence::addr::VALID_LIFETIME;
use buoy_fence::gate::GateError;
use buoy_fence::link::{Links, Snapshot};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use crate::api::{ApiContext, barrier};
use crate::gatekeeper::on_gate;
use crate::lease::LeaseIn;

/// Time between two looks, and between two attempts to learn what was committed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a leader with a quorum is waited for in one attempt.
const PATIENCE: Duration = Duration::from_secs(3);

/// Lets the addresses go one by one. Runs for ever.
pub async fn settle(
    context: ApiContext,
    mut left: BTreeSet<IpAddr>,
    links: Links,
    lease: UnboundedSender<LeaseIn>,
) {
    if !left.is_empty() {
        while let Err(status) = barrier(&context, PATIENCE).await {
            debug!(
                "inherited addresses stay fenced, what is committed is not known: {}",
                status.message()
            );
            sleep(LOOK_EVERY).await;
        }
    }
    let mut told = BTreeSet::new();
    while !left.is_empty() {
        {
            let state = context.reader.read();
            left.retain(|ip| !state.addresses.contains_key(ip));
        }
        match tokio::task::block_in_place(|| links.snapshot()) {
            Ok(snapshot) => {
                let (absent, present) = look(&left, &snapshot);
                say(present, &mut told);
                let Some(refused) = forget(&lease, absent.clone()).await else {
                    // The lease thread is gone; that ends the daemon.
                    break;
                };
                for ip in absent.iter().filter(|ip| !refused.contains(ip)) {
                    info!(
                        "{ip}, which an earlier run of buoy fenced, belongs to no VIP: it is no longer fenced"
                    );
                    left.remove(ip);
                }
            }
            Err(e) => {
                warn!("inherited addresses stay fenced, this host's addresses cannot be read: {e}")
            }
        }
        if !left.is_empty() {
            sleep(LOOK_EVERY).await;
        }
    }
    std::future::pending().await
}

/// An address that is on this host: where, and whether it goes with its lifetime.
type Present = (IpAddr, String, bool);

/// Which of them are on no interface; and where the others are.
fn look(left: &BTreeSet<IpAddr>, snapshot: &Snapshot) -> (Vec<IpAddr>, Vec<Present>) {
    let (mut absent, mut present) = (Vec::new(), Vec::new());
    for ip in left {
        let mut found = snapshot.addresses.iter().filter(|a| a.ip == *ip).peekable();
        match found.peek() {
            None => absent.push(*ip),
            Some(first) => {
                let interface = snapshot.name(first.ifindex);
                present.push((*ip, interface, found.all(|a| a.valid <= VALID_LIFETIME)));
            }
        }
    }
    (absent, present)
}

/// Says once which addresses somebody else has put on this host: they are theirs to remove.
fn say(present: Vec<Present>, told: &mut BTreeSet<IpAddr>) {
    for (ip, interface, passes) in present {
        if !passes && told.insert(ip) {
            warn!(
                "{ip} is on {interface}, not by buoy, and no packet reaches it: it was a VIP of an earlier run and is fenced as long as it is there. No VIP has it now: remove it (`ip addr del {ip} dev {interface}`, with its prefix length) and add it again after the log says that it is no longer fenced"
            );
        }
    }
}

/// Tells the gate; returns those that it did not let go, `None` when the lease thread is gone.
async fn forget(lease: &UnboundedSender<LeaseIn>, absent: Vec<IpAddr>) -> Option<Vec<IpAddr>> {
    if absent.is_empty() {
        return Some(Vec::new());
    }
    let refusals = on_gate(lease, move |gate| -> Vec<(IpAddr, GateError)> {
        let forgotten = absent.into_iter();
        forgotten
            .filter_map(|ip| Some((ip, gate.forget_inherited(ip).err()?)))
            .collect()
    });
    let refusals = refusals.await?;
    for (ip, e) in &refusals {
        error!("the packet gate goes on fencing {ip}, which belongs to no VIP: {e}");
    }
    Some(refusals.into_iter().map(|(ip, _)| ip).collect())
}

#[cfg(test)]
mod tests {
    use buoy_fence::link::FoundAddress;

    use super::*;

    #[test]
    fn only_what_is_on_no_interface_is_let_go() {
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        let found = |last, valid| FoundAddress {
            ip: ip(last),
            prefix: 24,
            ifindex: 7,
            peer: ip(last),
            label: None,
            scope: 0,
            flags: 0,
            valid,
            preferred: valid,
        };
        let snapshot = Snapshot {
            addresses: vec![found(2, 3), found(3, u32::MAX), found(4, 2), found(4, 900)],
            ..Snapshot::default()
        };
        let (absent, present) = look(&(1..=4).map(ip).collect(), &snapshot);
        assert_eq!(absent, [ip(1)]);
        let of = |last, passes| (ip(last), "#7".to_owned(), passes);
        assert_eq!(present, [of(2, true), of(3, false), of(4, false)]);
    }
}

//! After a silence of a peer, the neighbours are told anew where the VIPs of this node are: while the network
//! was divided they may have been on the peer's side, and have heard nothing of a takeover.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use buoy_core::{Mono, NodeId};
use buoy_fence::announce::Announcer;
use buoy_fence::clock::boottime;
use buoy_fence::link::{ARPHRD_LOOPBACK, Links};
use tracing::{error, info};

use crate::lease::LeaseShared;

/// How often it is looked who was heard: as much a client on the healed side waits at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Peers that are silent.
struct Silences {
    /// A peer is silent when it was not heard for so long.
    after: Duration,
    silent: BTreeMap<NodeId, bool>,
}

impl Silences {
    fn new(after: Duration) -> Self {
        Self {
            after,
            silent: BTreeMap::new(),
        }
    }

    /// Takes note of when a peer was last heard; true when its silence is over. A peer that was never heard is
    /// silent.
    fn over(&mut self, peer: NodeId, heard: Option<Mono>, now: Mono) -> bool {
        let silent = heard.is_none_or(|at| now.since(at) >= self.after);
        let was = self.silent.insert(peer, silent);
        was == Some(true) && !silent
    }
}

/// Watches for ends of silences. Runs for ever.
pub async fn watch(shared: Arc<LeaseShared>, me: NodeId, after: Duration, announcer: Announcer) {
    let links = Links::open()
        .map_err(|e| error!("cannot ask the kernel for interfaces: {e}"))
        .ok();
    let mut silences = Silences::new(after);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = boottime();
        let mut again = false;
        for peer in shared.peers.keys().filter(|peer| **peer != me) {
            if silences.over(*peer, shared.heard(*peer), now) {
                info!(%peer, "heard again: announcing the VIPs that are here anew");
                again = true;
            }
        }
        if again && let Some(links) = &links {
            announce(links, &announcer).await;
        }
    }
}

async fn announce(links: &Links, announcer: &Announcer) {
    let snapshot = match links.snapshot() {
        Ok(snapshot) => snapshot,
        Err(e) => {
            error!("neighbours are not told anew, the interfaces cannot be listed: {e}");
            return;
        }
    };
    for link in snapshot.links.values() {
        if let Some(mac) = link.mac.filter(|_| link.arphrd != ARPHRD_LOOPBACK) {
            announcer.announce_again(link.index, mac).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_millis(200);
    const PEER: NodeId = NodeId(2);

    fn ms(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn a_silence_ends_once() {
        let mut silences = Silences::new(AFTER);
        let heard = [(100, 110), (175, 190), (175, 300), (175, 380), (175, 900)];
        for (heard, now) in heard {
            assert!(!silences.over(PEER, Some(ms(heard)), ms(now)), "at {now}");
        }
        assert!(silences.over(PEER, Some(ms(910)), ms(915)));
        assert!(!silences.over(PEER, Some(ms(910)), ms(940)));
        assert!(!silences.over(PEER, Some(ms(985)), ms(990)));
    }

    #[test]
    fn a_peer_that_is_heard_for_the_first_time_ends_a_silence() {
        let mut silences = Silences::new(AFTER);
        assert!(!silences.over(PEER, None, ms(5)));
        assert!(silences.over(PEER, Some(ms(10)), ms(12)));
    }

    #[test]
    fn peers_are_apart() {
        let mut silences = Silences::new(AFTER);
        assert!(!silences.over(PEER, Some(ms(0)), ms(500)));
        assert!(!silences.over(NodeId(3), Some(ms(490)), ms(500)));
        assert!(!silences.over(NodeId(3), Some(ms(510)), ms(520)));
        assert!(silences.over(PEER, Some(ms(510)), ms(520)));
    }
}

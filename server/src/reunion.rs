//! After a silence of a peer, the neighbours are told anew where the VIPs of this node are: while the network
//! was divided they may have been on the peer's side, and have heard nothing of a takeover.

use std::sync::Arc;

use buoy_fence::announce::Announcer;
use buoy_fence::link::{ARPHRD_LOOPBACK, Links};
use tracing::{error, info};

use crate::lease::LeaseShared;

/// Announces whenever a node is heard after a silence, and at its first word. Runs for ever.
pub async fn watch(shared: Arc<LeaseShared>, announcer: Announcer) {
    let links = Links::open()
        .map_err(|e| error!("cannot ask the kernel for interfaces: {e}"))
        .ok();
    let mut heard_again = shared.heard_again.subscribe();
    while heard_again.changed().await.is_ok() {
        let peer = *heard_again.borrow_and_update();
        if let (Some(peer), Some(links)) = (peer, &links) {
            info!(%peer, "heard again: announcing the VIPs that are here anew");
            announce(links, &announcer).await;
        }
    }
}

async fn announce(links: &Links, announcer: &Announcer) {
    let snapshot = match tokio::task::block_in_place(|| links.snapshot()) {
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

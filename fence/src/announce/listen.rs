//! Hears on an interface whether somebody else claims to have a VIP that is active here.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Targets;
use super::frames::{read_arp, read_na};
use super::wire::{ArpReceiver, NaReceiver};

/// Pause after an error of a receiving socket (an interface that goes down makes one).
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Somebody says that a VIP of ours is at its hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Heard {
    pub(super) ip: IpAddr,
    pub(super) mac: [u8; 6],
    pub(super) ifindex: u32,
}

/// Listens on one interface as long as it lives.
pub(super) struct Listener {
    _tasks: JoinSet<()>,
}

impl Listener {
    /// What is heard goes to `heard`; what does not fit is dropped, there is enough of it then.
    pub(super) fn start(
        ifindex: u32,
        interface: &str,
        targets: Arc<Targets>,
        heard: mpsc::Sender<Heard>,
    ) -> io::Result<Listener> {
        let arp = ArpReceiver::open(ifindex)?;
        let mut tasks = JoinSet::new();
        let ear = Ear {
            ifindex,
            targets,
            heard,
        };
        match NaReceiver::open(interface) {
            Ok(na) => drop(tasks.spawn(hear_na(na, ear.clone()))),
            // A host without IPv6 has no IPv6 VIPs either.
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(e) => return Err(e),
        }
        tasks.spawn(hear_arp(arp, ear));
        Ok(Listener { _tasks: tasks })
    }
}

#[derive(Clone)]
struct Ear {
    ifindex: u32,
    targets: Arc<Targets>,
    heard: mpsc::Sender<Heard>,
}

impl Ear {
    fn tell(&self, ip: IpAddr, mac: [u8; 6]) {
        let ifindex = self.ifindex;
        let with = |(at, ours): ([u8; 6], u32)| ours == ifindex && at != mac;
        if self.targets.place(ip).is_some_and(with) {
            // A full queue has enough conflicts to act on.
            let _ = self.heard.try_send(Heard { ip, mac, ifindex });
        }
    }
}

async fn hear_arp(arp: ArpReceiver, ear: Ear) {
    loop {
        match arp.next().await {
            Ok(packet) => {
                if let Some(said) = read_arp(&packet) {
                    ear.tell(said.ip.into(), said.mac);
                }
            }
            Err(e) => pause(ear.ifindex, "ARP", &e).await,
        }
    }
}

async fn hear_na(na: NaReceiver, ear: Ear) {
    loop {
        match na.next().await {
            Ok(message) => {
                if let Some(said) = read_na(&message) {
                    ear.tell(said.ip.into(), said.mac);
                }
            }
            Err(e) => pause(ear.ifindex, "neighbour advertisements", &e).await,
        }
    }
}

async fn pause(ifindex: u32, what: &str, error: &io::Error) {
    tracing::debug!(ifindex, what, %error, "cannot receive; trying again");
    tokio::time::sleep(AFTER_ERROR).await;
}

//! What the service manager is told (sd_notify(3)), on a thread of its own: the daemon never waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::time::Duration;

use buoy_core::NodeId;
use buoy_core::spec::NodeSpec;
use buoy_storage::Raft;
use openraft::async_runtime::WatchReceiver;
use sd_notify::NotifyState;
use tracing::{info, warn};

use crate::lease::{LeaseShared, Phase};
use crate::watchdog::{Feeding, Judge};

/// How long the daemon's end may wait until all is told.
const END: Duration = Duration::from_millis(100);
/// Changes of the status that follow each other within this time are told together.
const STATUS_PACE: Duration = Duration::from_millis(200);

/// Something to tell.
enum Note {
    Ready,
    Reloading,
    Stopping,
    Status(String),
    End,
}

/// Tells the service manager; nobody if the daemon runs under none. Clones tell the same one.
#[derive(Clone)]
pub struct Systemd(Option<Sender<Note>>);

/// Ends when dropped, once all is told.
pub struct Telling(Option<(Sender<Note>, Receiver<()>)>);

/// Begins to tell. With `WatchdogSec=` in the unit, its watchdog is fed from now on as the judge says.
///
/// # Errors
/// No thread can be had.
pub fn start(judge: Arc<Judge>) -> std::io::Result<(Systemd, Telling)> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok((Systemd(None), Telling(None)));
    }
    let feeding = watchdog().map(|timeout| {
        info!("the unit's watchdog (WatchdogSec={timeout:?}) is fed while leases are renewed or nothing is held");
        let name = "the unit's watchdog".to_owned();
        Feeding::new(judge, name, "systemd ends and restarts the daemon", timeout)
    });
    let (tell, notes) = channel();
    let (done, ended) = sync_channel(1);
    std::thread::Builder::new()
        .name("buoy-notify".to_owned())
        .spawn(move || {
            run(&notes, feeding);
            // Whoever waited may have given up.
            let _ = done.send(());
        })?;
    Ok((Systemd(Some(tell.clone())), Telling(Some((tell, ended)))))
}

/// The timeout of the unit's watchdog, if it has one.
pub fn watchdog() -> Option<Duration> {
    let notified = std::env::var_os("NOTIFY_SOCKET").is_some();
    sd_notify::watchdog_enabled().filter(|timeout| notified && !timeout.is_zero())
}

impl Systemd {
    /// Is anybody told?
    pub fn listens(&self) -> bool {
        self.0.is_some()
    }

    /// The daemon does its work: its gate is in force, it listens, and Raft runs.
    pub fn ready(&self) {
        self.tell(Note::Ready);
    }

    /// The configuration is read again, until [`Systemd::ready`] is told.
    pub fn reloading(&self) {
        self.tell(Note::Reloading);
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        self.tell(Note::Stopping);
    }

    fn tell(&self, note: Note) {
        if let Some(tell) = &self.0
            && tell.send(note).is_err()
        {
            warn!("the thread that talks to the service manager is gone");
        }
    }

    /// Tells a line about this node whenever it changes, for ever.
    pub async fn follow(
        self,
        (me, nodes): (NodeId, Vec<NodeSpec>),
        shared: Arc<LeaseShared>,
        raft: Raft,
    ) {
        let mut held = shared.changed.subscribe();
        let mut metrics = raft.server_metrics();
        let mut told = String::new();
        loop {
            held.borrow_and_update();
            let leader = metrics.borrow_and_update().current_leader.map(NodeId);
            let active = shared.held.load();
            let active = active.values().filter(|h| h.phase == Phase::Active);
            let line = status(active.count(), (me, leader), &nodes);
            if line != told {
                self.tell(Note::Status(line.clone()));
                told = line;
                tokio::time::sleep(STATUS_PACE).await;
            }
            tokio::select! {
                changed = held.changed() => if changed.is_err() { return },
                changed = metrics.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// The line that `systemctl status` shows.
fn status(active: usize, (me, leader): (NodeId, Option<NodeId>), nodes: &[NodeSpec]) -> String {
    let holds = match active {
        0 => "holds no VIP".to_owned(),
        1 => "holds 1 VIP".to_owned(),
        n => format!("holds {n} VIPs"),
    };
    let leader = leader.map(|leader| (leader, nodes.iter().find(|n| n.id == leader)));
    match leader {
        None => format!("{holds}; no leader known"),
        Some((id, _)) if id == me => format!("{holds}; leads the cluster"),
        Some((_, Some(node))) => format!("{holds}; leader {}", node.name),
        Some((id, None)) => format!("{holds}; leader node {id}"),
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let Some((tell, ended)) = &self.0 else { return };
        if tell.send(Note::End).is_ok() && ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout)
        {
            warn!("the service manager was not told everything in {END:?}");
        }
    }
}

fn run(notes: &Receiver<Note>, mut feeding: Option<Feeding>) {
    loop {
        let note = match &feeding {
            Some(feeding) => notes.recv_timeout(feeding.period()),
            None => notes.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match note {
            Ok(Note::End) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(note) => tell(&note),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if feeding.as_mut().is_some_and(Feeding::may_feed) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(note: &Note) {
    match note {
        Note::Ready => notify(&[NotifyState::Ready]),
        Note::Stopping => notify(&[NotifyState::Stopping]),
        Note::Status(line) => notify(&[NotifyState::Status(line)]),
        Note::End => {}
        // With Type=notify-reload the time tells this reload from an earlier one.
        Note::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(e) => warn!("the service manager is not told of the reload: {e}"),
        },
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        warn!("the service manager was not told {state:?}: {e}");
    }
}

#[cfg(test)]
mod tests {
    use buoy_core::spec::Role;

    use super::*;

    #[test]
    fn the_status_says_what_is_held_and_who_leads() {
        let nodes = [(1, "n1"), (2, "n2")].map(|(id, name)| NodeSpec {
            id: NodeId(id),
            name: name.parse().unwrap(),
            address: ([192, 0, 2, 1], 7400).into(),
            role: Role::Member,
        });
        let of =
            |active, leader: Option<u64>| status(active, (NodeId(1), leader.map(NodeId)), &nodes);
        assert_eq!(of(0, None), "holds no VIP; no leader known");
        assert_eq!(of(1, Some(1)), "holds 1 VIP; leads the cluster");
        assert_eq!(of(2, Some(2)), "holds 2 VIPs; leader n2");
        assert_eq!(of(2, Some(9)), "holds 2 VIPs; leader node 9");
    }
}

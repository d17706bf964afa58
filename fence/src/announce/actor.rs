//! The announcer's loop: drives the schedule, sends, and answers conflicts.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use buoy_core::Mono;
use tokio::sync::mpsc;

use crate::addr::LeaseCheck;
use crate::clock::boottime;
use crate::fault_point;
use crate::link::Links;

use super::frames::{ArpForm, gratuitous_arp, unsolicited_na};
use super::listen::{Heard, Listener};
use super::schedule::{Effect, Event, Part, Schedule};
use super::wire::FrameSender;
use super::{AnnounceEvent, Counters, Order, Target, Targets};

/// Conflicts heard that may wait; more of them are dropped.
const HEARD_QUEUE: usize = 256;
/// A conflict of one address is told at most this often, and the hardware addresses of this host are
/// read at most this often to tell its own packets from others'.
const TELL_GAP: Duration = Duration::from_secs(1);
/// Without anything to do the loop wakes this often.
const IDLE: Duration = Duration::from_secs(3600);
/// The runtime's clock counts in these.
const TICK: Duration = Duration::from_millis(1);
/// Sockets of an interface are closed so long after its last VIP went: the kernel takes tens of milliseconds for that
/// (packet(7) sockets wait for an RCU grace period), which must not hold up the announcements of a VIP that comes up.
const LINGER: Duration = Duration::from_secs(30);

/// What the announcer has on one interface.
struct Port {
    sender: FrameSender,
    _listener: Option<Listener>,
    /// When it is closed, where no VIP is on the interface any more.
    close_at: Option<Mono>,
}

pub(super) struct Actor {
    targets: Arc<Targets>,
    counters: Arc<Counters>,
    live: LeaseCheck,
    orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<AnnounceEvent>,
    heard: mpsc::Receiver<Heard>,
    hear: mpsc::Sender<Heard>,
    schedule: Schedule,
    ports: BTreeMap<u32, Port>,
    links: Links,
    own_macs: Option<(Mono, BTreeSet<[u8; 6]>)>,
    told: BTreeMap<IpAddr, Mono>,
    failing: BTreeSet<IpAddr>,
}

impl Actor {
    pub(super) fn open(
        targets: Arc<Targets>,
        counters: Arc<Counters>,
        live: LeaseCheck,
        orders: mpsc::Receiver<Order>,
        events: mpsc::Sender<AnnounceEvent>,
    ) -> io::Result<Actor> {
        let (hear, heard) = mpsc::channel(HEARD_QUEUE);
        Ok(Actor {
            targets,
            counters,
            live,
            orders,
            events,
            heard,
            hear,
            schedule: Schedule::default(),
            ports: BTreeMap::new(),
            links: Links::open()?,
            own_macs: None,
            told: BTreeMap::new(),
            failing: BTreeSet::new(),
        })
    }

    pub(super) async fn run(mut self) {
        loop {
            let now = boottime();
            let closing = self.ports.values().filter_map(|port| port.close_at);
            let next = closing.chain(self.schedule.next_deadline()).min();
            let wake = next.map_or(IDLE, |at| at.since(now));
            let exact = self.schedule.next_gap().is_some_and(|at| Some(at) == next);
            let mut effects = Vec::new();
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, &mut effects),
                    None => return,
                },
                () = sleep(wake, exact) => {
                    let now = boottime();
                    self.schedule.handle(now, Event::Tick, &mut effects);
                    let due = |port: &Port| port.close_at.is_some_and(|at| at <= now);
                    self.ports.retain(|_, port| !due(port));
                }
                Some(heard) = self.heard.recv() => self.conflict(heard, &mut effects),
            }
            let mut done = 0;
            while let Some(Effect::Announce(ip, part)) = effects.get(done).copied() {
                done += 1;
                self.announce(ip, part, &mut effects);
            }
        }
    }

    fn obey(&mut self, order: Order, effects: &mut Vec<Effect>) {
        let now = boottime();
        match order {
            Order::Up(ips) => {
                for ip in ips {
                    self.failing.remove(&ip);
                    // One that went down meanwhile has nothing to be announced.
                    let place = |t: &Target| (t.ifindex, t.pace);
                    if let Some((ifindex, pace)) = self.targets.with(ip, place) {
                        let up = Event::Up { ip, ifindex, pace };
                        self.schedule.note(now, up);
                    }
                }
                self.schedule.handle(now, Event::Tick, effects);
            }
            Order::LowerPriority(ips) => {
                for ip in ips {
                    self.schedule.note(now, Event::LowerPriority(ip));
                }
                self.schedule.handle(now, Event::Tick, effects);
            }
            Order::Down(ips) => {
                for ip in ips {
                    // It may be up again by a later order.
                    if self.targets.place(ip).is_none() {
                        self.forget(ip, effects);
                    }
                }
                self.note_unused(now);
            }
        }
    }

    fn forget(&mut self, ip: IpAddr, effects: &mut Vec<Effect>) {
        self.schedule.handle(boottime(), Event::Down(ip), effects);
        self.told.remove(&ip);
        self.failing.remove(&ip);
    }

    fn note_unused(&mut self, now: Mono) {
        let used: BTreeSet<u32> = self
            .targets
            .change(|all| all.values().map(|t| t.ifindex).collect());
        for (ifindex, port) in &mut self.ports {
            match used.contains(ifindex) {
                true => port.close_at = None,
                false => {
                    port.close_at.get_or_insert(now + LINGER);
                }
            }
        }
    }

    fn announce(&mut self, ip: IpAddr, part: Part, effects: &mut Vec<Effect>) {
        let Some(target) = self.targets.with(ip, Target::clone) else {
            // It went down while the order to say so found no room.
            self.forget(ip, effects);
            return;
        };
        let sent = self
            .open_port(&target)
            .and_then(|()| self.send(&target, part));
        match sent {
            Ok(()) => {
                fault_point!("up.frame", if ip.is_ipv4() { 4 } else { 6 });
                self.failing.remove(&ip);
            }
            Err(e) => {
                count(&self.counters.failed, 1);
                if self.failing.insert(ip) {
                    let (interface, error) = (target.interface, e.to_string());
                    self.tell(AnnounceEvent::Failed {
                        ip,
                        interface,
                        error,
                    });
                }
            }
        }
    }

    fn open_port(&mut self, target: &Target) -> io::Result<()> {
        let vacant = match self.ports.entry(target.ifindex) {
            Entry::Vacant(vacant) => vacant,
            Entry::Occupied(mut there) => {
                there.get_mut().close_at = None;
                return Ok(());
            }
        };
        let sender = FrameSender::open(target.ifindex)?;
        let targets = Arc::clone(&self.targets);
        let listener = Listener::start(
            target.ifindex,
            &target.interface,
            targets,
            self.hear.clone(),
        );
        let (listener, deaf) = match listener {
            Ok(listener) => (Some(listener), None),
            Err(e) => (None, Some(e.to_string())),
        };
        vacant.insert(Port {
            sender,
            _listener: listener,
            close_at: None,
        });
        if let Some(error) = deaf {
            let interface = target.interface.clone();
            self.tell(AnnounceEvent::Deaf { interface, error });
        }
        Ok(())
    }

    /// Asks for the lease and sends under the lock that `down` takes.
    fn send(&self, target: &Target, part: Part) -> io::Result<()> {
        let Some(port) = self.ports.get(&target.ifindex) else {
            return Ok(());
        };
        let sent = self.targets.with(target.ip, |now| {
            if !(self.live)(now.ip) {
                count(&self.counters.withheld, 1);
                return Ok(());
            }
            match now.ip {
                IpAddr::V4(ip) => {
                    let of = |form: &ArpForm| part == Part::Whole || part == Part::Form(*form);
                    for form in [ArpForm::Request, ArpForm::Reply].into_iter().filter(of) {
                        self.send_frame(port, &gratuitous_arp(now.mac, ip, form))?;
                    }
                    Ok(())
                }
                IpAddr::V6(ip) => {
                    let router = forwards(&now.interface);
                    self.send_frame(port, &unsolicited_na(now.mac, ip, router))
                }
            }
        });
        sent.unwrap_or(Ok(()))
    }

    fn send_frame(&self, port: &Port, frame: &[u8]) -> io::Result<()> {
        match port.sender.send(frame) {
            Ok(()) => count(&self.counters.sent, 1),
            // The gate says that this host may not speak for the address: it is not tried again.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {
                count(&self.counters.fenced, 1);
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn conflict(&mut self, heard: Heard, effects: &mut Vec<Effect>) {
        let now = boottime();
        if self.targets.place(heard.ip).is_none() || self.is_own(heard.mac, now) {
            return;
        }
        count(&self.counters.conflicts, 1);
        self.schedule
            .handle(now, Event::Conflict(heard.ip), effects);
        let told = self.told.get(&heard.ip);
        if told.is_none_or(|at| now.since(*at) >= TELL_GAP) {
            self.told.insert(heard.ip, now);
            let Heard { ip, mac, ifindex } = heard;
            self.tell(AnnounceEvent::Conflict { ip, mac, ifindex });
        }
    }

    /// Whether a hardware address is one of this host's: two of its interfaces may be on one link.
    fn is_own(&mut self, mac: [u8; 6], now: Mono) -> bool {
        let fresh = |(at, _): &(Mono, _)| now.since(*at) < TELL_GAP;
        if !self.own_macs.as_ref().is_some_and(fresh) {
            match self.links.macs() {
                Ok(macs) => self.own_macs = Some((now, macs)),
                Err(error) => tracing::warn!(%error, "cannot read this host's hardware addresses"),
            }
        }
        self.own_macs
            .as_ref()
            .is_some_and(|(_, macs)| macs.contains(&mac))
    }

    fn tell(&self, event: AnnounceEvent) {
        if let Err(e) = self.events.try_send(event) {
            tracing::debug!(error = %e, "nobody takes what the announcer tells");
        }
    }
}

/// Waits; where it is to be `exact`, shorter than the runtime's clock ticks, without it: nothing else is urgent then.
async fn sleep(time: Duration, exact: bool) {
    if exact && time < TICK {
        // Whoever else has something to do here does it first.
        tokio::task::yield_now().await;
        std::thread::sleep(time);
    } else {
        tokio::time::sleep(time).await;
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Whether this host routes IPv6 packets that arrive on an interface (RFC 4861: "router"); no IPv6, no routing.
fn forwards(interface: &str) -> bool {
    let file = format!("/proc/sys/net/ipv6/conf/{interface}/forwarding");
    std::fs::read_to_string(file).is_ok_and(|text| !matches!(text.trim(), "" | "0"))
}

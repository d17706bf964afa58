//! The VRRP thread: sockets, timers, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use buoy_core::Mono;
use buoy_core::VipName;
use buoy_core::health::Hearing;
use buoy_fence::announce::Doubt;
use buoy_fence::clock::boottime;
use buoy_vrrp_compat::accept;
use buoy_vrrp_compat::ip::Packet;
use buoy_vrrp_compat::mark::Group;
use buoy_vrrp_compat::packet::IP_PROTOCOL;
use buoy_vrrp_compat::router::{Again, Effect, Effects, Event};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::book::RouterView;
use super::plan::{Plan, RouterId, gives_up, is_free};
use super::planner::Planned;
use super::port::{Kind, Received};
use super::router::Face;
use super::sockets::{Arrived, Sockets};
use super::{Setup, Shared, lock};
use crate::guardian::until;

/// Sockets that could not be opened are tried again this often.
const RETRY_EVERY: Duration = Duration::from_secs(1);

pub struct Actor {
    setup: Setup,
    shared: Arc<Shared>,
    plans: watch::Receiver<Arc<Planned>>,
    asked: mpsc::UnboundedReceiver<oneshot::Sender<Vec<RouterView>>>,
    group: Group,
    sockets: Sockets,
    faces: BTreeMap<RouterId, Face>,
    /// By interface, family and virtual router id.
    by_id: BTreeMap<(u32, bool, u8), RouterId>,
    look_at: Mono,
    /// What is heard of routers outside has to be told anew.
    untold: bool,
}

impl Actor {
    pub fn new(
        setup: Setup,
        shared: Arc<Shared>,
        plans: watch::Receiver<Arc<Planned>>,
        asked: mpsc::UnboundedReceiver<oneshot::Sender<Vec<RouterView>>>,
    ) -> Actor {
        Actor {
            setup,
            shared,
            plans,
            asked,
            group: Group::new(0),
            sockets: Sockets::default(),
            faces: BTreeMap::new(),
            by_id: BTreeMap::new(),
            look_at: Mono::ZERO,
            untold: false,
        }
    }

    /// Runs until nobody can tell it anything any more.
    pub async fn run(mut self) {
        let mut received = Vec::new();
        let mut reports = self.setup.health.subscribe();
        let shared = self.shared.clone();
        loop {
            let retry = self.sockets.refused().then_some(self.look_at);
            let next = self.faces.values().filter_map(Face::next).chain(retry);
            let next = next.min();
            let sockets = &self.sockets;
            let (mut changed, mut woken) = (false, false);
            let waits = !lock(&shared.waiting).is_empty();
            tokio::select! {
                biased;
                () = poll_fn(|cx| sockets.poll(&mut received, cx)) => {}
                () = shared.wake.notified() => woken = true,
                plan = self.plans.changed() => match plan {
                    Ok(()) => changed = true,
                    Err(_) => return,
                },
                asked = self.asked.recv() => match asked {
                    Some(answer) => {
                        let now = boottime();
                        let view = self.faces.iter().map(|(id, face)| face.view(id, now));
                        // Whoever asked may have gone.
                        let _ = answer.send(view.collect());
                    }
                    None => return,
                },
                // Others may know that no router outside has a VIP that waits here.
                _ = reports.changed(), if waits => woken = true,
                () = until(next), if next.is_some() => {}
            }
            let now = boottime();
            let look = changed || retry.is_some_and(|at| at <= now);
            if look {
                self.look(now);
            }
            // Before the clock: after a stall nobody is silent only because nobody read what he sent.
            self.sockets.drain(&mut received);
            self.hear(&mut received);
            // What grows with the number of routers is done when there is something to do.
            if look || woken {
                self.follow_vips();
            }
            self.tick();
            if look || woken || self.untold {
                self.publish();
            }
        }
    }

    /// Takes over what is to be played, and where.
    fn look(&mut self, now: Mono) {
        let wanted = self.plans.borrow_and_update().clone();
        self.group = Group::new(wanted.history_id.into());
        self.look_at = now + RETRY_EVERY;
        let Plan {
            routers,
            mut problems,
        } = wanted.plan.clone();
        let gone: Vec<RouterId> = self
            .faces
            .iter()
            .filter(|(id, face)| routers.get(id).is_none_or(|w| w.is_another(&face.wish)))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.end(&id, now);
        }
        for (id, wish) in routers {
            let face = self.faces.entry(id.clone());
            let face = face.or_insert_with(|| Face::new(wish.clone(), now));
            let effects = face.change(wish, now);
            for effects in effects {
                self.carry_out(&id, effects);
            }
        }
        self.open_sockets(&mut problems);
        self.by_id = self
            .faces
            .iter()
            .filter_map(|(id, face)| {
                let place = face.wish.place?;
                Some(((place.ifindex, id.v4, face.wish.expected.vrid), id.clone()))
            })
            .collect();
        let mut shown = lock(&self.shared.problems);
        if *shown != problems {
            for (vip, problem) in problems.iter().filter(|(v, p)| shown.get(*v) != Some(p)) {
                warn!(%vip, "{problem}");
            }
            *shown = problems;
            self.setup.problems_changed.notify_one();
        }
    }

    /// The group gives this router up: its VIP, or its face, is gone, or it is another one now.
    fn end(&mut self, id: &RouterId, now: Mono) {
        if let Some(face) = self.faces.get_mut(id) {
            let left = face.left_lately(now);
            let effects = face.step(Event::Down { gives_up: true }, now);
            self.carry_out(id, effects);
            if left {
                self.advertise(id, 0);
            }
        }
        self.faces.remove(id);
    }

    fn open_sockets(&mut self, problems: &mut BTreeMap<VipName, String>) {
        self.sockets.open(self.faces.values());
        let now = boottime();
        let ids: Vec<RouterId> = self.faces.keys().cloned().collect();
        for id in ids {
            let Some(face) = self.faces.get_mut(&id) else {
                continue;
            };
            if let Some(why) = self.sockets.fault(face) {
                problems.insert(id.vip.clone(), why.clone());
            }
            let event = match self.sockets.hear(face) {
                true => Event::Listening,
                false => Event::Deaf,
            };
            let effects = face.step(event, now);
            self.carry_out(&id, effects);
        }
    }

    fn hear(&mut self, received: &mut Vec<Arrived>) {
        for ((ifindex, kind), received) in received.drain(..) {
            let packet = match &received {
                Received::V4(bytes) => match Packet::read(bytes) {
                    Ok(packet) => packet,
                    // Fragments and the like: no advertisement, and of no router that could be named.
                    Err(_) => continue,
                },
                Received::V6 {
                    source,
                    destination,
                    hop_limit,
                    flow_info,
                    payload,
                } => Packet::from_parts_v6(
                    *source,
                    *destination,
                    *hop_limit,
                    (flow_info >> 20) as u8,
                    flow_info & 0xf_ffff,
                    IP_PROTOCOL,
                    payload,
                ),
            };
            let Some(vrid) = accept::vrid(&packet) else {
                continue;
            };
            let v4 = kind != Kind::V6;
            let Some(id) = self.by_id.get(&(ifindex, v4, vrid)).cloned() else {
                continue;
            };
            let group = self.group;
            if let Some(face) = self.faces.get_mut(&id) {
                let effects = face.hear(&id, &packet, &group, boottime());
                self.carry_out(&id, effects);
            }
        }
    }

    /// VIPs came up, or are on their way down.
    fn follow_vips(&mut self) {
        let changed: Vec<(RouterId, bool)> = {
            let up = self.shared.up();
            let faces = self.faces.iter_mut();
            faces
                .filter_map(|(id, face)| {
                    let epoch = up.get(&id.vip).copied();
                    let before = std::mem::replace(&mut face.up, epoch);
                    (before.is_some() != epoch.is_some()).then(|| (id.clone(), epoch.is_some()))
                })
                .collect()
        };
        for (id, up) in changed {
            let gives_up = !up && self.gives_up(&id.vip);
            let Some(face) = self.faces.get_mut(&id) else {
                continue;
            };
            let event = match (up, face.wish.place) {
                (true, Some(place)) => Event::Up {
                    source: place.source,
                },
                // Without a place it is deaf, and says nothing; it begins when the place is there.
                (true, None) => {
                    face.up = None;
                    continue;
                }
                (false, _) => Event::Down { gives_up },
            };
            let effects = face.step(event, boottime());
            self.carry_out(&id, effects);
        }
    }

    /// A VIP that goes down here goes to nobody.
    fn gives_up(&self, vip: &VipName) -> bool {
        let stopping = self.shared.stopping.load(Ordering::Relaxed);
        gives_up(&self.setup.reader.read(), self.setup.me.id, vip, stopping)
    }

    fn tick(&mut self) {
        let now = boottime();
        let due: Vec<RouterId> = self
            .faces
            .iter()
            .filter(|(_, face)| face.is_due(now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            if let Some(face) = self.faces.get_mut(&id) {
                let effects = face.step(Event::Tick, boottime());
                self.carry_out(&id, effects);
            }
        }
    }

    fn carry_out(&mut self, id: &RouterId, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Advertise { priority } => self.advertise(id, priority),
                Effect::AnnounceAgain(again) => {
                    let doubt = match again {
                        Again::Takeover => Doubt::Takeover,
                        Again::LowerPriority => Doubt::LowerPriority,
                    };
                    if let Some(face) = self.faces.get(id) {
                        self.setup.announcer.repeat(&face.wish.addresses, doubt);
                    }
                }
                Effect::Standing(_) => self.untold = true,
            }
        }
    }

    fn advertise(&mut self, id: &RouterId, priority: u8) {
        let Some(face) = self.faces.get_mut(id) else {
            return;
        };
        let Some(way) = self.sockets.way(face) else {
            return;
        };
        // In hand until the packet is out: `Faces::down` waits for it.
        let up = self.shared.up();
        let permitted =
            up.contains_key(&id.vip) && face.wish.addresses.iter().all(|ip| (self.setup.live)(*ip));
        if priority != 0 && !permitted {
            face.withheld += 1;
            return;
        }
        let sent = match face.packets(priority, &self.group) {
            Ok(packets) => packets.iter().try_for_each(|(to, packet)| {
                way.send(*to, packet).map_err(|e| format!("to {to}: {e}"))
            }),
            Err(e) => Err(e),
        };
        match sent {
            Ok(()) => {
                face.sent.0 += 1;
                face.sent.1 += u64::from(priority == 0);
                face.failed.1 = None;
            }
            Err(e) => {
                face.failed.0 += 1;
                if face.failed.1.as_ref() != Some(&e) {
                    error!(vip = %id.vip, interface = %face.wish.interface, "an advertisement was not sent {e}");
                    face.failed.1 = Some(e);
                }
            }
        }
    }

    /// Tells the leader what is heard, and lets VIPs up that nobody outside can have any more.
    fn publish(&mut self) {
        self.untold = false;
        let mut heard: BTreeMap<VipName, Hearing> = BTreeMap::new();
        let mut deaf: BTreeSet<&VipName> = BTreeSet::new();
        for (id, face) in &self.faces {
            match face.hearing() {
                None => {
                    deaf.insert(&id.vip);
                }
                Some(hears) => {
                    let known = heard.entry(id.vip.clone()).or_insert(Hearing::Clear);
                    if weight(&hears) > weight(known) {
                        *known = hears;
                    }
                }
            }
        }
        // One of its families may have another master.
        heard.retain(|vip, hears| !deaf.contains(vip) || matches!(hears, Hearing::Outranked(_)));
        {
            let mut hearing = lock(&self.shared.hearing);
            if *hearing != heard {
                hearing.clone_from(&heard);
                self.setup.reporter.update(|r| r.vrrp.clone_from(&heard));
            }
        }
        let mut free = lock(&self.shared.waiting).clone();
        if free.is_empty() {
            return;
        }
        let now = boottime();
        let health = self.setup.health.view(now);
        let lately = now - self.setup.health.params(now).timing.suspect_after;
        {
            let state = self.setup.reader.read();
            let me = self.setup.me.id;
            free.retain(|vip, _| {
                let faced = |v: &buoy_core::state::Vip| v.spec.vrrp.is_some();
                is_free(heard.get(vip), vip, me, &health, lately)
                    || !state.vips.get(vip).is_some_and(faced)
            });
        }
        // Not with the state in hand: whoever adds to these holds it, and waits for this.
        let mut waiting = lock(&self.shared.waiting);
        waiting.retain(|vip, epoch| free.get(vip) != Some(epoch));
        drop(waiting);
        for key in free {
            info!(vip = %key.0, "no router outside has it: it may come up here");
            self.setup.holds.let_up(key);
        }
    }
}

fn weight(hearing: &Hearing) -> u8 {
    match hearing {
        Hearing::Clear => 0,
        Hearing::Unsure => 1,
        Hearing::Outranked(_) => 2,
    }
}

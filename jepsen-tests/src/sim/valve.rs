//! The packet gate in the hands of the lease thread, as in the real daemon: armed before renewals leave, moved after
//! the answers, told of addresses before they open; and a kernel that refuses now and then.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::lease::{HolderEvent, Renew};
use buoy_core::{Mono, NodeId};

use super::Sim;
use super::carrier::Key;
use super::clock::True;
use super::config::Bug;
use super::gate::{Count, Kind};
use super::node::{Origin, Work};

impl Sim {
    /// A renewal is to leave: the gate is armed first. The process may be stopped before each of these steps.
    pub(super) fn renew(&mut self, n: usize, to: NodeId, renew: Renew, until: Mono) {
        let timed = self.nodes[n].gate.kind() == Kind::Timed;
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        if timed && self.cfg.bug != Some(Bug::ArmedAfterAnswer) {
            p.work.push_front(Work::Renewal { to, renew });
            p.work.push_front(Work::Arm { until });
        } else {
            self.send_renewal(n, to, renew);
        }
    }

    pub(super) fn arm_gate(&mut self, n: usize, until: Mono) {
        let reading = self.nodes[n].read(self.now);
        let node = &mut self.nodes[n];
        let Some(p) = node.process.as_mut() else {
            return;
        };
        // Once for the renewals of one moment: what begins to count later was not there when the first one left.
        let first = p.armed.replace(until) != Some(until);
        if (first || self.cfg.bug == Some(Bug::ArmedAgain))
            && let Some(count) = node.gate.plan(until, reading)
        {
            p.work.push_front(Work::Count(count));
        }
    }

    /// The kernel begins to count, unless it refuses.
    pub(super) fn count(&mut self, n: usize, count: Count) {
        if self.refuses() {
            self.note(|s| {
                format!(
                    "node {}: the kernel does not count {count:?}",
                    s.nodes[n].id
                )
            });
            return;
        }
        self.stats.rounds += 1;
        let most = Kind::Timed.margin().as_nanos() as True;
        let late = Duration::from_nanos(self.gates.within(0..=most));
        let node = &mut self.nodes[n];
        let now = node.clock.read(self.now);
        node.gate.count(count, now, late);
        self.note(|s| {
            let id = s.nodes[n].id;
            format!("node {id}: the kernel counts {count:?} from {now:?} on, late by {late:?}")
        });
    }

    fn refuses(&mut self) -> bool {
        let chance = match self.cfg.bug {
            Some(Bug::ArmedAgain) => 25 * self.chaos.refused_gate,
            _ => self.chaos.refused_gate,
        };
        let refused = chance > 0 && self.gates.chance(chance);
        self.stats.refused += u64::from(refused);
        refused
    }

    /// Moves deadlines: all at once where the kernel can, else one after the other.
    pub(super) fn advance(&mut self, n: usize, mut moves: Vec<(u32, Mono)>, origin: Origin) {
        self.note(|s| format!("node {} moves {moves:?}", s.nodes[n].id));
        let timed = self.nodes[n].gate.kind() == Kind::Timed;
        if !timed && moves.len() > 1 {
            let moves = moves.split_off(1);
            if let Some(p) = self.nodes[n].process.as_mut() {
                p.work.push_front(Work::Advance { moves, origin });
            }
        }
        let refused = timed && self.refuses();
        for (slot, at) in &mut moves {
            *at = self.deadline_with_bug(n, *at, origin);
            if let Some(p) = self.nodes[n].process.as_mut() {
                match refused {
                    true => p.advanced.remove(slot),
                    false => p.advanced.insert(*slot, *at),
                };
            }
        }
        if refused {
            return;
        }
        let moved = self.nodes[n].gate.advance(&moves);
        moved.expect("the holder uses slots that exist");
        self.checker.gate_written(&self.nodes, n, self.now);
    }

    fn deadline_with_bug(&mut self, n: usize, at: Mono, origin: Origin) -> Mono {
        let node = &mut self.nodes[n];
        let reading = node.clock.read(self.now);
        let Some(p) = &node.process else { return at };
        match self.cfg.bug {
            Some(Bug::CountedFromReceipt) if origin.answer => origin.now + p.lease,
            Some(Bug::CountedFromPush) if origin.pushed => origin.now + p.lease,
            Some(Bug::RelativeGate) => reading + at.since(origin.now),
            Some(Bug::ArmedAfterAnswer) if node.gate.kind() == Kind::Timed => {
                let length = at.since(origin.now);
                let count = Count { until: at, length };
                node.gate.count(count, reading, Duration::ZERO);
                at
            }
            Some(Bug::AdvanceUnarmed) if !node.gate.is_armed(at) => match node.gate.kind() {
                Kind::Timed => Mono(u64::MAX),
                Kind::Exact => at,
            },
            _ => at,
        }
    }

    /// Rests addresses on a slot of the gate. Where that is refused, or where the slot may have a deadline that is
    /// somebody else's, the VIP is given up.
    pub(super) fn map(&mut self, n: usize, key: &Key, addresses: &[IpAddr], slot: u32) -> bool {
        let reading = self.nodes[n].read(self.now);
        let careless = self.cfg.bug == Some(Bug::RefusedAdvanceOpens);
        let node = &mut self.nodes[n];
        let Some(p) = node.process.as_mut() else {
            return false;
        };
        let holding = (p.session, key.0.clone(), key.1);
        let opened = careless || p.advanced.contains_key(&slot);
        for address in addresses {
            if p.managed.insert(*address) {
                node.gate.manage(*address).expect("the gate has place");
            }
            if opened {
                let opens = node.gate.open(*address, slot);
                opens.expect("a managed address and a slot that exists");
                node.opened_for.insert(*address, holding.clone());
            }
        }
        if !opened {
            self.shut_gate(n, addresses);
            let (vip, epoch) = key.clone();
            let reason = "the gate did not open".to_owned();
            let event = HolderEvent::GiveUp { vip, epoch, reason };
            self.holder(n, reading, event, false, false);
            return false;
        }
        for address in addresses {
            self.checker
                .opened(&self.nodes[n], *address, slot, key.1, self.now);
        }
        self.checker.gate_written(&self.nodes, n, self.now);
        true
    }

    /// Somebody changed the gate of node `n`, and its daemon has put it back.
    pub(super) fn repair_gate(&mut self, n: usize) {
        if self.nodes[n].is_awake() {
            self.note(|s| format!("node {} puts its gate back", s.nodes[n].id));
            self.nodes[n].gate.repair();
        }
    }

    pub(super) fn shut_gate(&mut self, n: usize, addresses: &[IpAddr]) {
        for address in addresses {
            // What the gate never took never went up.
            let _ = self.nodes[n].gate.shut(*address);
        }
    }

    /// The gate learns addresses before anybody can be assigned them here.
    pub(super) fn manage(&mut self, n: usize, addresses: BTreeSet<IpAddr>) {
        let node = &mut self.nodes[n];
        let Some(p) = node.process.as_mut() else {
            return;
        };
        for address in &addresses {
            if p.managed.insert(*address) {
                node.gate.manage(*address).expect("the gate has place");
            }
        }
        p.wanted = addresses;
        self.forget_unwanted(n);
    }

    /// The gate forgets addresses that no VIP has, once they are not held any more.
    pub(super) fn forget_unwanted(&mut self, n: usize) {
        let careless = self.cfg.bug == Some(Bug::ForgottenWhileHeld);
        let Some(p) = self.nodes[n].process.as_mut() else {
            return;
        };
        let held = match careless {
            true => BTreeSet::new(),
            false => p.holder.addresses(),
        };
        let kept = |a: &IpAddr| p.wanted.contains(a) || held.contains(a);
        let gone: Vec<IpAddr> = p.managed.iter().copied().filter(|a| !kept(a)).collect();
        p.managed.retain(|a| !gone.contains(a));
        for address in gone {
            self.checker.forgetting(&self.nodes[n], address, self.now);
            let node = &mut self.nodes[n];
            node.gate.forget(address);
            node.opened_for.remove(&address);
        }
    }
}

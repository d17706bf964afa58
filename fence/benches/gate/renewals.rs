//! What a renewal costs: the store or transaction in the kernel, and the whole path of the lease machines.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::lease::{
    Holder, HolderEffect, HolderEvent, HolderParams, HolderView, LogView, Renew, Voter,
    VoterEffect, VoterEvent, Wanted,
};
use buoy_core::membership::{ConfigId, Membership};
use buoy_core::time::Allowance;
use buoy_core::{Epoch, Incarnation, Mono, NodeId, Session};
use buoy_fence::clock::boottime;
use buoy_fence::gate::{EbpfGate, EbpfOptions, Gate, SlotId};

use crate::common::NetNs;
use crate::contender::Contender;
use crate::percentile;
use crate::setting::{name, other};

const LEASE: Duration = Duration::from_millis(300);
/// As in the default timing: four renewals a lease.
const RENEW: Duration = Duration::from_millis(75);
const VIPS: u32 = 1_000;
const ROUNDS: usize = 400;

pub fn run() {
    stores();
    transactions();
    paths();
}

/// The clock is read once a renewal, as in the daemon.
fn stores() {
    const RENEWALS: u32 = 1_000_000;
    for mapped in [true, false] {
        let gate = EbpfGate::new(EbpfOptions {
            mapped,
            ..EbpfOptions::default()
        })
        .expect("a gate");
        let start = Instant::now();
        for _ in 0..RENEWALS {
            gate.store(1, black_box(boottime())).expect("store");
        }
        let each = start.elapsed() / RENEWALS;
        let how = if mapped {
            "mapped table"
        } else {
            "call of bpf(2)"
        };
        println!("ebpf: clock read and deadline stored ({how}): {each:?}");
    }
}

/// Arming and moving cost the same whatever is fenced.
fn transactions() {
    /// Renewals closer to each other than a 32nd of the lease share a round.
    const APART: Duration = Duration::from_millis(12);
    const RENEWALS: u32 = 200;
    let ns = NetNs::new("many");
    let lo = ns.ifindex("lo");
    for count in [1, 1_000, 10_000] {
        let mut gate = Contender::Nft.make(&ns);
        (0..count).for_each(|n| gate.manage(other(n)).expect("manage"));
        gate.attach(lo).expect("attach");
        (0..count.min(500)).for_each(|n| gate.open(other(n), 1).expect("open"));
        let mut times: [Vec<Duration>; 2] = Default::default();
        for _ in 0..RENEWALS {
            std::thread::sleep(APART);
            let until = boottime() + LEASE;
            let begun = Instant::now();
            gate.arm(until).expect("arm");
            times[0].push(begun.elapsed());
            let begun = Instant::now();
            gate.advance(&[(1, until), (2, until)]).expect("advance");
            times[1].push(begun.elapsed());
        }
        let [arm, advance] = times
            .each_mut()
            .map(|all| (percentile(all, 50), percentile(all, 99)));
        println!(
            "nft, {count:>6} addresses: arm {:.1?} / {:.1?}, move two slots {:.1?} / {:.1?} (p50 / p99)",
            arm.0, arm.1, advance.0, advance.1
        );
        gate.detach(lo).expect("detach");
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(rc, 0);
    Duration::new(
        time.tv_sec.cast_unsigned(),
        time.tv_nsec.cast_unsigned() as u32,
    )
}

fn vip(n: u32) -> Wanted {
    Wanted {
        vip: format!("vip-{n}").parse().expect("a name"),
        epoch: Epoch(u64::from(n) + 10),
        addresses: vec![other(n)],
    }
}

/// One node's holder and gate, and the voters of three nodes, in one thread.
struct Path {
    holder: Holder,
    voters: Vec<(NodeId, Voter)>,
    log: Arc<LogView>,
    gate: Box<dyn Gate>,
    moves: Vec<(SlotId, Mono)>,
    sent: Vec<(NodeId, Renew)>,
}

fn paths() {
    println!(
        "\nrenewal path with {VIPS} VIPs, CPU time of one round (p50 / p99 / max of {ROUNDS}); goal: p99 at most 50 us"
    );
    for contender in Contender::ALL {
        let ns = NetNs::new("path");
        let mut path = Path::new(&ns, contender);
        let mut times: [Vec<Duration>; 3] = Default::default();
        for _ in 0..ROUNDS {
            std::thread::sleep(RENEW);
            for (all, one) in times.iter_mut().zip(path.round()) {
                all.push(one);
            }
        }
        let what = [
            "send to three voters",
            "answer of a voter's own renewal",
            "majority answered to deadline stored",
        ];
        for (what, all) in what.into_iter().zip(&mut times) {
            let of = |percent| percentile(&mut all.clone(), percent);
            println!(
                "  {:5} {what:40} {:>8.1?} / {:>8.1?} / {:>8.1?}",
                name(Some(contender)),
                of(50),
                of(99),
                of(100)
            );
        }
        assert!(path.is_up(), "the lease of all VIPs held throughout");
    }
}

impl Path {
    fn new(ns: &NetNs, contender: Contender) -> Path {
        let me = NodeId(1);
        let voters: BTreeSet<NodeId> = (1..=3).map(NodeId).collect();
        let membership = Membership {
            id: ConfigId { term: 1, index: 1 },
            halves: vec![voters.clone()],
        };
        let wanted: Vec<Wanted> = (0..VIPS).map(vip).collect();
        let assigned: BTreeMap<IpAddr, (NodeId, Epoch)> = wanted
            .iter()
            .flat_map(|w| w.addresses.iter().map(|a| (*a, (me, w.epoch))))
            .collect();
        let log = Arc::new(LogView {
            membership: membership.clone(),
            assigned,
            ..LogView::default()
        });
        let allowance = Allowance {
            max_drift_ppm: 10_000,
            guard: Duration::from_millis(20),
        };
        let session = Session {
            node: me,
            incarnation: Incarnation(1),
        };
        let params = HolderParams {
            lease: LEASE,
            gate_margin: Duration::ZERO,
            renew_every: RENEW,
            retry_after: LEASE / 12,
        };
        let mut gate = contender.make(ns);
        log.assigned
            .keys()
            .for_each(|ip| gate.manage(*ip).expect("manage"));
        gate.attach(ns.ifindex("lo")).expect("attach");
        let longest = allowance.voter_length(LEASE);
        let voter = |id: &NodeId| {
            let mut voter = Voter::new(*id, allowance, Mono::ZERO, Duration::ZERO, LEASE);
            voter.handle(boottime(), VoterEvent::MaxRaised(longest), &mut Vec::new());
            (*id, voter)
        };
        let mut path = Path {
            holder: Holder::new(session, params),
            voters: voters.iter().map(voter).collect(),
            log,
            gate,
            moves: Vec::with_capacity(8),
            sent: Vec::with_capacity(8),
        };
        let view = HolderView {
            membership,
            assignments: wanted,
        };
        path.handle(HolderEvent::Applied(view));
        // A list this long is claimed in several renewals.
        while !path.is_up() {
            path.round();
            std::thread::sleep(RENEW);
        }
        path
    }

    fn is_up(&self) -> bool {
        let active = self
            .holder
            .status()
            .filter(|v| v.deadline.is_some_and(|d| d > boottime()));
        active.count() == VIPS as usize
    }

    /// What the lease thread does with an event, up to the socket.
    fn handle(&mut self, event: HolderEvent) {
        let mut effects = Vec::new();
        self.holder.handle(boottime(), event, &mut effects);
        for effect in effects {
            if !matches!(effect, HolderEffect::Deadline { .. }) {
                self.advance();
            }
            match effect {
                HolderEffect::Send { to, renew, until } => {
                    self.gate.arm(until).expect("arm");
                    self.sent.push((to, renew));
                }
                HolderEffect::Deadline { slot, at } => self.moves.push((slot.0, at)),
                HolderEffect::Open {
                    addresses, slot, ..
                }
                | HolderEffect::Remap {
                    addresses, slot, ..
                } => {
                    for ip in addresses {
                        self.gate.open(ip, slot.0).expect("open");
                    }
                }
                other => panic!("nothing should end here: {other:?}"),
            }
        }
        self.advance();
    }

    fn advance(&mut self) {
        if !self.moves.is_empty() {
            self.gate.advance(&self.moves).expect("advance");
            self.moves.clear();
        }
    }

    /// A round of renewals, in which the voters answer at once: what each part of it cost.
    fn round(&mut self) -> [Duration; 3] {
        let begun = cpu();
        self.handle(HolderEvent::Tick);
        let mut times = vec![cpu() - begun];
        for (to, renew) in std::mem::take(&mut self.sent) {
            let (_, voter) = self
                .voters
                .iter_mut()
                .find(|(id, _)| *id == to)
                .expect("a voter");
            let mut effects = Vec::new();
            let log = self.log.clone();
            voter.handle(boottime(), VoterEvent::Renew { renew, log }, &mut effects);
            for effect in effects {
                if let VoterEffect::Answer(answer) = effect {
                    let begun = cpu();
                    self.handle(HolderEvent::Answer(answer));
                    times.push(cpu() - begun);
                }
            }
        }
        times.resize(4, Duration::ZERO);
        [times[0], times[1], times[2]]
    }
}

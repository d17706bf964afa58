//! A cluster on one virtual clock: the lease machines of `buoy-core` under every fault that they are
//! meant to survive, with the promises of `docs/leases.md` checked after every step.
//!
//! Everything follows from the seed. Each node has a clock of its own (offset, and a rate within the
//! allowed drift), a disk (Raft log, term, longest promise), a kernel (the packet gate, which goes on by
//! the clock whatever the process does) and a daemon, whose lease thread can be stopped between any
//! two steps: reading the clock, loading the view of the log, deciding, each single effect.

pub mod bugs;
pub mod carrier;
pub mod check;
pub mod clock;
pub mod config;
mod disk;
mod faults;
pub mod gate;
mod leader;
mod lease;
pub mod log;
pub mod net;
pub mod node;
mod process;
pub mod raft;
pub mod rng;
mod scenario;
mod settle;
mod steps;
mod valve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use buoy_core::time::Allowance;
use buoy_core::{Mono, NodeId};

pub use check::Violation;
pub use config::{Bug, Config, Faults, Invariant, Scenario};

use check::Checker;
use clock::{Clock, MS, True};
use faults::Chaos;
use gate::{Gate, Kind};
use log::{Command, Entry};
use net::{Message, Network};
use node::{Input, Node};
use raft::Raft;
use rng::Rng;
use scenario::Stage;

/// Largest difference of two clocks' rates.
const MAX_DRIFT_PPM: u32 = 10_000;
/// Clocks run up to this much too fast; less than the above, as the rates must differ by less.
const FASTEST_PPM: u64 = 9_900;
/// Lease of a run without differing lengths.
const LEASE: Duration = Duration::from_millis(300);
/// Time from one heartbeat of a leader to the next.
const HEARTBEAT: u64 = 30 * MS;
/// Makes the numbers for the gates others than those for the rest of a seed.
const GATES: u64 = 0x6761_7465;
/// Lines of the trace that are kept.
const TRACE_LINES: usize = 4_000;

/// What a run amounted to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Events of the heap.
    pub events: u64,
    /// VIPs that went down.
    pub shuts: u64,
    /// Addresses that stayed from one epoch to the next.
    pub kept: u64,
    /// Assignments that a leader proposed.
    pub assigns: u64,
    /// Memberships that a leader proposed.
    pub memberships: u64,
    /// Daemons that ended, in whatever way.
    pub ends: u64,
    /// Times that a longest promise was lowered on disk.
    pub lowered: u64,
    /// Rounds that kernels counted down.
    pub rounds: u64,
    /// What kernels refused to count or to move.
    pub refused: u64,
    /// Times that a daemon was stopped.
    pub pauses: u64,
    /// Time from healing until every VIP was up, milliseconds.
    pub recovery_ms: u64,
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
enum Event {
    /// A message arrives.
    Deliver { to: NodeId, message: Message },
    /// The lease thread's deadline.
    Tick {
        n: usize,
        generation: u64,
        due: Mono,
    },
    /// An input for the lease thread from the rest of its daemon.
    Later {
        n: usize,
        generation: u64,
        input: Input,
    },
    /// The disk writes, or confirms, the longest promise.
    Disk { n: usize, generation: u64 },
    /// The kernel does what it was asked for.
    Netlink { n: usize, generation: u64 },
    /// The next epoch of a VIP that was shut has been waited for long enough.
    DecideAtLast {
        n: usize,
        generation: u64,
        key: carrier::Key,
    },
    /// Committed entries get applied.
    Apply { n: usize, generation: u64 },
    /// A stopped process goes on.
    Resume { n: usize, generation: u64 },
    /// A daemon begins.
    Start { n: usize },
    /// A daemon that was told to stop ends.
    Exit { n: usize, generation: u64 },
    /// Raft's and the planner's beat at a node.
    Beat { n: usize },
    /// The next step of a directed run.
    Scenario(Stage),
    /// The next fault.
    Fault,
    /// All faults end.
    Heal,
    /// Are all VIPs up again?
    Look,
    /// The quiet time is over.
    End,
}

/// A running simulation.
#[derive(Debug)]
pub struct Sim {
    cfg: Config,
    rng: Rng,
    /// For the kinds of the gates, and for what their kernels do.
    gates: Rng,
    now: True,
    order: u64,
    heap: BTreeMap<(True, u64), Event>,
    nodes: Vec<Node>,
    everybody: Vec<NodeId>,
    vips: usize,
    allowance: Allowance,
    network: Network,
    chaos: Chaos,
    /// What operators want of the next leader that listens.
    wishes: VecDeque<Command>,
    /// Entries that any node knows to be committed.
    committed: usize,
    checker: Checker,
    stats: Stats,
    healed: Option<True>,
    /// Nodes that are dead or cut off for the rest of the run.
    gone: BTreeSet<NodeId>,
    /// Lease of the next daemon that begins, if it was chosen.
    next_lease: Option<Duration>,
    /// Since when all VIPs are up after healing; and shuts and assignments until then.
    settled: Option<(u64, u64)>,
    over: bool,
    trace: Option<VecDeque<String>>,
}

/// Runs one seed.
///
/// # Errors
/// The first violation of an invariant.
pub fn run(seed: u64, cfg: &Config) -> Result<Stats, Box<Violation>> {
    let mut sim = Sim::new(seed, cfg);
    while !sim.over && sim.checker.found.is_none() {
        let Some(((at, _), event)) = sim.heap.pop_first() else {
            break;
        };
        sim.now = at;
        sim.stats.events += 1;
        sim.happen(event);
    }
    match sim.checker.found.take() {
        None => Ok(sim.stats),
        Some(mut violation) => {
            violation.trace = sim.trace.take().into_iter().flatten().collect();
            Err(Box::new(violation))
        }
    }
}

impl Sim {
    fn new(seed: u64, cfg: &Config) -> Self {
        let mut rng = Rng::new(seed);
        let count = rng.within(3..=5);
        let everybody: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let voters = if rng.chance(500_000) {
            3
        } else {
            count as usize
        };
        let first: BTreeSet<NodeId> = everybody.iter().copied().take(voters).collect();
        let first = Entry {
            term: 1,
            command: Command::Members(vec![first]),
        };
        let node = |rng: &mut Rng, id: NodeId| Node {
            id,
            clock: Clock::new(0, rng.below(1 << 50), rng.below(FASTEST_PPM + 1)),
            raft: Raft::new(first.clone()),
            durable_max: Duration::ZERO,
            gate: Gate::new(Kind::Exact),
            opened_for: BTreeMap::new(),
            addresses: BTreeSet::new(),
            announced: BTreeSet::new(),
            process: None,
            generation: 0,
        };
        let mut nodes: Vec<Node> = everybody.iter().map(|id| node(&mut rng, *id)).collect();
        let mut gates = Rng::new(seed ^ GATES);
        for node in &mut nodes {
            node.gate = Gate::new(cfg.gate(&mut gates));
        }
        let guard = if cfg.bug == Some(Bug::NoMargin) {
            0
        } else {
            20
        };
        let drift = if cfg.bug == Some(Bug::NoMargin) {
            0
        } else {
            MAX_DRIFT_PPM
        };
        let vips = match cfg.scenario {
            Some(_) => scenario::VIPS,
            None => rng.within(1..=3) as usize,
        };
        let chaos = Chaos::choose(&mut rng, &cfg.faults);
        let mut sim = Self {
            cfg: cfg.clone(),
            rng,
            gates,
            now: 0,
            order: 0,
            heap: BTreeMap::new(),
            nodes,
            everybody,
            vips,
            allowance: Allowance {
                max_drift_ppm: drift,
                guard: Duration::from_millis(guard),
            },
            network: Network::calm(),
            chaos,
            wishes: VecDeque::new(),
            committed: 0,
            checker: Checker::new(&cfg.checked),
            stats: Stats::default(),
            healed: None,
            gone: BTreeSet::new(),
            next_lease: None,
            settled: None,
            over: false,
            trace: cfg.trace.then(VecDeque::new),
        };
        for n in 0..sim.nodes.len() {
            let at = sim.rng.below(50 * MS);
            sim.schedule(at, Event::Start { n });
            sim.schedule(at, Event::Beat { n });
        }
        if let Some(scenario) = cfg.scenario {
            sim.begin(scenario);
            return sim;
        }
        sim.schedule(1_000 * MS, Event::Fault);
        sim.schedule((1_000 + cfg.chaos_ms) * MS, Event::Heal);
        sim
    }

    fn schedule(&mut self, at: True, event: Event) {
        self.order += 1;
        self.heap.insert((at, self.order), event);
    }

    fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_none() {
            return;
        }
        let line = format!("{:10.3} {}", self.now as f64 / 1e6, line(self));
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LINES {
                trace.pop_front();
            }
            trace.push_back(line);
        }
    }

    fn index(&self, node: NodeId) -> usize {
        self.everybody
            .binary_search(&node)
            .expect("messages go to nodes of the cluster only")
    }

    fn send(&mut self, n: usize, to: NodeId, message: Message) {
        let from = self.nodes[n].id;
        for at in self.network.arrivals(&mut self.rng, self.now, from, to) {
            self.schedule(
                at,
                Event::Deliver {
                    to,
                    message: message.clone(),
                },
            );
        }
    }

    fn send_to_others(&mut self, n: usize, message: &Message) {
        for to in self.everybody.clone() {
            if to != self.nodes[n].id {
                self.send(n, to, message.clone());
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let alive = |s: &Self, n: usize, generation: u64| {
            s.nodes[n].process.is_some() && s.nodes[n].generation == generation
        };
        match event {
            Event::Deliver { to, message } => self.deliver(to, message),
            Event::Tick { n, generation, due } if alive(self, n, generation) => self.tick(n, due),
            Event::Later {
                n,
                generation,
                input,
            } if alive(self, n, generation) => {
                self.lease_input(n, input);
            }
            Event::Disk { n, generation } if alive(self, n, generation) => self.disk(n),
            Event::Netlink { n, generation } if alive(self, n, generation) => self.netlink(n),
            Event::DecideAtLast { n, generation, key } if alive(self, n, generation) => {
                self.decide_at_last(n, key);
            }
            Event::Apply { n, generation } if alive(self, n, generation) => self.apply(n),
            Event::Resume { n, generation } if alive(self, n, generation) => self.resume(n),
            Event::Exit { n, generation } if alive(self, n, generation) => self.exit(n),
            Event::Start { n } => self.start(n),
            Event::Beat { n } => self.beat(n),
            Event::Scenario(stage) => self.scenario(stage),
            Event::Fault => self.fault(),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
            Event::End => self.end(),
            // Of a daemon that is no more.
            Event::Tick { .. }
            | Event::Later { .. }
            | Event::Disk { .. }
            | Event::Netlink { .. }
            | Event::DecideAtLast { .. }
            | Event::Apply { .. }
            | Event::Resume { .. }
            | Event::Exit { .. } => {}
        }
    }

    fn tick(&mut self, n: usize, due: Mono) {
        if let Some(p) = self.nodes[n].process.as_mut()
            && p.tick == Some(due)
        {
            p.tick = None;
            self.lease_input(n, Input::Tick);
        }
    }
}

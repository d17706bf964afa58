//! The daemon: puts its parts together in the order that safety asks for, runs, and stops.
//!
//! Order of the start: the machine is checked, the packet gate stands on every interface, what a dead
//! predecessor left is removed; only then does the lease thread run and Raft take part.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use buoy_core::{Incarnation, NodeId, NodeName, Session};
use buoy_fence::announce::Announcer;
use buoy_fence::link::Links;
use buoy_storage::{Identity, Opened, Raft};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::applied::Specs;
use crate::carrier::Carrier;
use crate::choice;
use crate::config::{self, Config};
use crate::external::Keeper;
use crate::faults::LinkHistory;
use crate::fencing::{self, Fencing, known, lease_check};
use crate::gatekeeper::Gatekeeper;
use crate::guardian::{Guardian, Refusals};
use crate::health::HealthKeeper;
use crate::holds::Holds;
use crate::lease::{
    self, LeaseIn, LeaseShared, LeaseThread, longest_promise, longest_promise_to_any,
};
use crate::logging::Log;
use crate::longest::LongestPromise;
use crate::outer::Outer;
use crate::peer::{Admission, PeerPool, RaftNetwork, raft_config};
use crate::reporter::Reporter;
use crate::start::StartError;
use crate::tasks::{Tasks, run_forever};
use crate::tls::Tls;
use crate::vrrp::{self, Faces};
use crate::{checks, form, logging, reunion, signals, sys, vmac};

mod parts;

use parts::Parts;

/// Version of this daemon, as peers and clients see it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Threads for everything but leases, addresses and the log. Nothing on it waits for disk or kernel, and a second
/// one would cost a wake-up for every second message.
const WORKERS: usize = 1;

/// Runs the daemon until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// Why it did not start. A fault later on ends the process with an error as well.
pub fn serve(config: Config) -> Result<(), StartError> {
    let log = logging::start(config.log_level);
    let slack = slack(&config.timing);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .on_thread_start(move || {
            if let Err(e) = sys::timer_slack(slack) {
                warn!("the kernel wakes this process more often than needed: {e}");
            }
        })
        .enable_all()
        .build()
        .map_err(|e| StartError::System("start the runtime", e))?;
    // What is said last is still written: the log ends with its last owner, which is this function.
    let result = runtime.block_on(run(config, log.clone()));
    // A task that hangs must not hold up the end of the process.
    runtime.shutdown_background();
    result
}

/// How late the threads that run Raft may be woken. Raft looks at its clock about five times in a heartbeat interval;
/// with this slack two of three looks fall together, and a heartbeat is late by less than this.
fn slack(timing: &buoy_core::spec::timing::Timing) -> Duration {
    timing.raft_heartbeat / 2
}

async fn run(config: Config, log: Log) -> Result<(), StartError> {
    let config = Arc::new(config);
    let me = config.me.id;
    let hup = signals::hangup(&config).map_err(|e| StartError::System("handle SIGHUP", e))?;
    info!(version = VERSION, node = %config.me.name, cluster = %config.cluster, "buoy starts");
    if let Err(e) = sys::lock_memory() {
        warn!("memory is not locked, renewals may wait for swap: {e}");
    }
    let tls = match &config.tls {
        Some(files) => Tls::load(&files.ca, &files.cert, &files.key, &config.me.name)?,
        None => Tls::insecure(&config.cluster)?,
    };
    let identity = Identity {
        cluster: config.cluster.clone(),
        node: config.me.name.clone(),
        id: me,
    };
    let opened = buoy_storage::open(&config.data_dir, &identity)?;
    let _charge = checks::take_charge()?;
    let applied_before = opened.reader.read().applied;
    let differing = config::differences(&config, &opened.reader.read());
    let mut warnings = checks::run(&config, form::is_empty(&opened), differing).await?;
    warnings.extend(tls.warnings().iter().cloned());

    let (gate, of_gate) = choice::make_gate(config.fence)?;
    of_gate.iter().for_each(|warning| warn!("{warning}"));
    warnings.extend(of_gate);
    let shared = Arc::new(LeaseShared::new(config.nodes.iter().map(|n| n.id)));
    let deadlines = gate.deadlines();
    let live = lease_check(shared.clone(), deadlines.clone());
    let (interfaces, known) = known(&config, &opened.reader);
    let virtual_links = vmac::wanted(&config.me, &opened.reader.read());
    let fencing = Fencing::begin(gate, &interfaces, &virtual_links, &known, live.clone()).await?;
    let no_netlink = |e| StartError::System("announce addresses", e);
    let (announcer, announced) = Announcer::start(live.clone()).map_err(no_netlink)?;

    let incarnation = Incarnation(
        getrandom::u64()
            .map_err(|e| StartError::System("draw a random number", std::io::Error::other(e)))?,
    );
    let reporter = Reporter::new(me, incarnation);
    reporter.update(|r| r.warnings = warnings);
    let outer = Outer::begin(&config, &shared, deadlines.clone(), &reporter)?;
    let longest = longest_promise(&config.timing, fencing.gate.kind());
    let empty = form::is_empty(&opened);
    if empty {
        // Should this disk be a lost one after all, then its promises have ended with this quarantine: also those to
        // nodes whose gates need longer ones.
        let longest = longest_promise_to_any(&config.timing);
        write_longest(&opened, longest).await?;
    }
    let thread = LeaseThread::spawn(lease::Setup {
        session: Session {
            node: me,
            incarnation,
        },
        listen: config.listen,
        peers: others(&config),
        timing: config.timing.clone(),
        max_promise: opened.meta.max_promise(),
        log_view: opened.views.shared(),
        log_view_changed: opened.views.subscribe(),
        gate: fencing.gate,
        quic_server: tls.quic_server_config(),
        quic_client: tls.quic_client_config(),
        insecure: tls.is_insecure(),
        managed: known,
        shared: shared.clone(),
    })
    .map_err(StartError::listen(config.listen))?;
    if let Some(why) = &thread.realtime_refused {
        warn!("renewals run without realtime scheduling: {why}");
    }
    let (lease_in, lease_out, lease_guard) = thread.split();
    let mut tasks = Tasks::new();
    outer.watch(&mut tasks, &lease_in);
    // Ahead of the first claim, so that none has to wait for the disk.
    write_longest(&opened, longest).await?;
    drop(lease_in.send(LeaseIn::MaxRaised(longest)));

    let pool = PeerPool::new(&config.cluster, me, &config.nodes, tls, &config.timing);
    let Opened {
        log: raft_log,
        machine,
        reader,
        meta,
        ..
    } = opened;
    let raft_config = raft_config(&config.timing).map_err(|e| StartError::Raft(e.to_string()))?;
    let raft = Raft::new(
        me.0,
        raft_config,
        RaftNetwork::new(pool.clone()),
        raft_log,
        machine,
    )
    .await
    .map_err(|e| StartError::Raft(e.to_string()))?;
    let health = Arc::new(HealthKeeper::new(me, config.timing.clone(), shared.clone()));
    let kernel_changed = Arc::<Notify>::default();
    let holds = Holds::new(lease_in.clone());
    let faces = Faces::start(
        vrrp::Setup {
            me: config.me.clone(),
            reader: reader.clone(),
            live,
            announcer: announcer.clone(),
            reporter: reporter.clone(),
            health: health.clone(),
            holds: holds.clone(),
            problems_changed: kernel_changed.clone(),
        },
        &mut tasks,
    )
    .map_err(|e| StartError::System("speak VRRP", e))?;
    let guardian = Guardian {
        me: config.me.clone(),
        reader: reader.clone(),
        reporter: reporter.clone(),
        shared: shared.clone(),
        lease: lease_in.clone(),
        links: fencing.links,
        kernel_changed,
        gatekeeper: Gatekeeper::new(
            fencing.sentry,
            fencing.gated,
            fencing.broken,
            lease_in.clone(),
        ),
        refusals: Refusals::default(),
        links_lately: LinkHistory::default(),
        faces: faces.clone(),
        vmacs: fencing.vmacs,
    };
    let keeper = Keeper::new(
        &config,
        applied_before,
        (lease_in.clone(), holds.clone()),
        (reporter.clone(), guardian.refusals.clone()),
    )
    .map_err(|e| StartError::System("go on with external fencing", e))?;
    let carrier = Carrier {
        external: keeper.as_ref().map(Keeper::handle),
        faces: faces.clone(),
        addresses: fencing.addresses.clone(),
        announcer: announcer.clone(),
        links: Links::open().map_err(|e| StartError::System("ask the kernel for interfaces", e))?,
        gated: guardian.gatekeeper.gated.clone(),
        timing: config.timing.clone(),
        specs: Specs::default(),
        reporter: reporter.clone(),
        refusals: guardian.refusals.clone(),
        longest: LongestPromise::keep(meta, lease_in.clone()),
        lease: lease_in.clone(),
    };
    let parts = Parts {
        config,
        reader,
        pool,
        admission: Admission::new(!empty),
        raft,
        health,
        reporter: reporter.clone(),
        shared,
        deadlines,
        inherited: fencing.inherited,
        faces,
        holds,
    };
    let reunions = reunion::watch(parts.shared.clone(), announcer.clone());
    run_forever(&mut tasks, "the watch for reunions", reunions);
    let told = reporter.again_when_heard(parts.shared.heard_again.subscribe());
    run_forever(&mut tasks, "reports to nodes that are heard again", told);
    run_forever(
        &mut tasks,
        "the count of lost log lines",
        log.clone().tell_losses(),
    );
    let tables = fencing::watch_tables(fencing.tables, guardian.kernel_changed.clone());
    let kernel = fencing::watch(
        fencing.events,
        guardian.links_lately.clone(),
        (
            guardian.kernel_changed.clone(),
            guardian.gatekeeper.gated.clone(),
            guardian.gatekeeper.attempts.clone(),
        ),
        (parts.shared.clone(), guardian.refusals.clone()),
        announcer,
    );
    run_forever(&mut tasks, "the watch on the kernel", kernel);
    run_forever(&mut tasks, "the watch on the packet gate's tables", tables);
    run_forever(&mut tasks, "the announcer", fencing::listen(announced));
    if let Some(keeper) = keeper {
        run_forever(&mut tasks, "external fencing", keeper.run());
    }
    parts.follow(&mut tasks, &carrier, fencing.addresses);
    run_forever(
        &mut tasks,
        "the carrier of addresses",
        carrier.run(lease_out),
    );
    run_forever(
        &mut tasks,
        "the guardian of the packet gate",
        guardian.run(),
    );
    let around = (hup, log, outer);
    parts.serve(tasks, around, lease_in, lease_guard).await
}

async fn write_longest(opened: &Opened, longest: Duration) -> Result<(), StartError> {
    let on_disk = opened.meta.raise_max_promise(longest).await;
    on_disk.map_err(|e| StartError::System("write the longest promise down", e))
}

fn others(config: &Config) -> Vec<(NodeId, NodeName, SocketAddr)> {
    let others = config.nodes.iter().filter(|n| n.id != config.me.id);
    others.map(|n| (n.id, n.name.clone(), n.address)).collect()
}

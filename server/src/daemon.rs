//! The daemon: puts its parts together in the order that safety asks for, runs, and stops.
//!
//! Order of the start: the machine is checked, the packet gate stands on every interface, what a dead
//! predecessor left is removed; only then does the lease thread run and Raft take part.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use buoy_core::{Incarnation, NodeId, NodeName, Session};
use buoy_fence::addr::Addresses;
use buoy_fence::announce::Announcer;
use buoy_fence::clock::boottime;
use buoy_fence::gate::Deadlines;
use buoy_fence::link::Links;
use buoy_storage::{Identity, Opened, Raft, StateReader};
use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::api::{self, ApiContext};
use crate::applied::{self, Managed, Specs};
use crate::carrier::Carrier;
use crate::config::{self, Config};
use crate::faults::LinkHistory;
use crate::fencing::{self, Fencing, known, lease_check, make_gate};
use crate::gatekeeper::Gatekeeper;
use crate::guardian::{Guardian, Refusals};
use crate::health::HealthKeeper;
use crate::leader::Leader;
use crate::lease::{self, LeaseGuard, LeaseIn, LeaseShared, LeaseThread};
use crate::lease_info::LeaseReader;
use crate::logging::Log;
use crate::longest::LongestPromise;
use crate::peer::{Admission, PeerPool, RaftNetwork, raft_config};
use crate::reporter::Reporter;
use crate::signals::Hangup;
use crate::start::StartError;
use crate::stop::Stopper;
use crate::tls::Tls;
use crate::{checks, form, inherited, listen, logging, reunion, signals, sys};

/// Version of this daemon, as peers and clients see it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Tasks that run as long as the daemon does. One that ends by itself is a fault.
pub(crate) type Tasks = JoinSet<&'static str>;

pub(crate) fn run_forever(
    tasks: &mut Tasks,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(async move {
        // A panic is an end as well, and the name says whose.
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            error!("{name} panicked");
        }
        name
    });
}

/// How long the daemon's tasks may take to end once all else has stopped.
const TASKS_END: Duration = Duration::from_millis(50);
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
    let result = runtime.block_on(run(config, log));
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
    let differing = config::differences(&config, &opened.reader.read());
    let mut warnings = checks::run(&config, form::is_empty(&opened), differing).await?;
    warnings.extend(tls.warnings().iter().cloned());

    let (gate, fence_warning) = make_gate(config.fence)?;
    warnings.extend(fence_warning);
    let shared = Arc::new(LeaseShared::new(config.nodes.iter().map(|n| n.id)));
    let deadlines = gate.deadlines();
    let live = lease_check(shared.clone(), deadlines.clone());
    let (interfaces, known) = known(&config, &opened.reader);
    let fencing = Fencing::begin(gate, &interfaces, &known, live.clone()).await?;
    let no_netlink = |e| StartError::System("announce addresses", e);
    let (announcer, announced) = Announcer::start(live).map_err(no_netlink)?;

    let incarnation = Incarnation(
        getrandom::u64()
            .map_err(|e| StartError::System("draw a random number", std::io::Error::other(e)))?,
    );
    let reporter = Reporter::new(me, incarnation);
    reporter.update(|r| r.warnings = warnings);
    let longest = config.timing.voter_lease();
    let empty = form::is_empty(&opened);
    if empty {
        // Should this disk be a lost one after all, then its promises have ended with this quarantine.
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
    let guardian = Guardian {
        me: config.me.clone(),
        reader: reader.clone(),
        reporter: reporter.clone(),
        shared: shared.clone(),
        lease: lease_in.clone(),
        links: fencing.links,
        kernel_changed: Arc::default(),
        gatekeeper: Gatekeeper::new(
            fencing.sentry,
            fencing.gated,
            fencing.broken,
            lease_in.clone(),
        ),
        refusals: Refusals::default(),
        links_lately: LinkHistory::default(),
    };
    let carrier = Carrier {
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
        reporter,
        shared,
        deadlines,
        inherited: fencing.inherited,
    };
    let mut tasks = Tasks::new();
    let reunions = reunion::watch(parts.shared.clone(), announcer.clone());
    run_forever(&mut tasks, "the watch for reunions", reunions);
    run_forever(
        &mut tasks,
        "the count of lost log lines",
        log.clone().tell_losses(),
    );
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
    run_forever(&mut tasks, "the announcer", fencing::listen(announced));
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
    parts.serve(tasks, (hup, log), lease_in, lease_guard).await
}

async fn write_longest(opened: &Opened, longest: Duration) -> Result<(), StartError> {
    let on_disk = opened.meta.raise_max_promise(longest).await;
    on_disk.map_err(|e| StartError::System("write the longest promise down", e))
}

/// What the running daemon is made of.
struct Parts {
    config: Arc<Config>,
    reader: StateReader,
    pool: PeerPool,
    admission: Admission,
    raft: Raft,
    health: Arc<HealthKeeper>,
    reporter: Reporter,
    shared: Arc<LeaseShared>,
    deadlines: Deadlines,
    inherited: BTreeSet<IpAddr>,
}

impl Parts {
    /// The applied state goes to the lease thread, to the gate, and to the keeper of addresses.
    fn follow(&self, tasks: &mut Tasks, carrier: &Carrier, addresses: Addresses) {
        let (managed_tx, mut managed) = watch::channel(Managed::default());
        let follow = applied::follow(
            self.config.me.id,
            self.reader.clone(),
            carrier.specs.clone(),
            carrier.lease.clone(),
            managed_tx,
        );
        run_forever(tasks, "the follower of the applied state", follow);
        run_forever(tasks, "the list of managed addresses", async move {
            while managed.changed().await.is_ok() {
                let all = managed.borrow_and_update().clone();
                addresses.set_managed(all.as_ref().clone());
            }
        });
    }

    /// Takes part in the cluster until the signal to stop.
    async fn serve(
        mut self,
        mut tasks: Tasks,
        (hup, log): (Hangup, Log),
        lease_in: mpsc::UnboundedSender<LeaseIn>,
        lease_guard: LeaseGuard,
    ) -> Result<(), StartError> {
        let (stopping_tx, stopping) = watch::channel(false);
        let context = self.context(&lease_in, stopping);
        listen::start(&mut tasks, &self.config, &context).await?;
        let settle = inherited::settle(
            context,
            std::mem::take(&mut self.inherited),
            Links::open().map_err(|e| StartError::System("ask the kernel for interfaces", e))?,
            lease_in.clone(),
        );
        run_forever(&mut tasks, "the inheritance of an earlier run", settle);
        let stopper = Stopper {
            me: self.config.me.id,
            reader: self.reader.clone(),
            raft: self.raft.clone(),
            reporter: self.reporter.clone(),
            shared: self.shared.clone(),
            lease: lease_in,
            suspect_after: self.config.timing.suspect_after,
        };
        let mut signal = std::pin::pin!(signals::wait(hup, self.config.clone(), log));
        let mut lease_ended = std::pin::pin!(lease_guard.ended());
        // A node that waits for others before it takes part is stopped like any other.
        let mut formed = false;
        let fault = loop {
            let form = form::form(&self.config, &self.pool, &self.raft, &self.admission);
            tokio::select! {
                () = &mut signal => break None,
                ended = tasks.join_next() => break Some(ended),
                () = &mut lease_ended => break Some(Some(Ok("the lease thread"))),
                result = form, if !formed => {
                    result?;
                    formed = true;
                    self.start_health(&mut tasks);
                }
            }
        };
        if let Some(ended) = &fault {
            error!("{} ended by itself: stopping", describe(ended));
        }
        stopping_tx.send_replace(true);
        stopper.stop().await;
        // Each ends at its next pause; one that does not is cut off with the runtime.
        if tokio::time::timeout(TASKS_END, tasks.shutdown())
            .await
            .is_err()
        {
            warn!("some tasks did not end in {TASKS_END:?}");
        }
        match fault {
            None => Ok(()),
            Some(ended) => Err(StartError::Fault(describe(&ended))),
        }
    }

    fn context(
        &self,
        lease_in: &mpsc::UnboundedSender<LeaseIn>,
        stopping: watch::Receiver<bool>,
    ) -> ApiContext {
        let (health, reports) = (self.health.clone(), self.health.clone());
        ApiContext {
            raft: self.raft.clone(),
            reader: self.reader.clone(),
            me: self.config.me.id,
            pool: self.pool.clone(),
            admission: self.admission.clone(),
            health: Arc::new(move || {
                let now = boottime();
                (health.view(now), health.params(now))
            }),
            reports: Arc::new(move |report| reports.report(report)),
            lease: Arc::new(LeaseReader {
                shared: self.shared.clone(),
                deadlines: self.deadlines.clone(),
                input: lease_in.clone(),
                last: tokio::sync::Mutex::default(),
            }),
            watchers: api::watcher_places(),
            version: VERSION.to_owned(),
            stopping,
        }
    }

    fn start_health(&self, tasks: &mut Tasks) {
        let health = &self.health;
        run_forever(
            tasks,
            "the watch on Raft",
            health.clone().follow(self.raft.clone()),
        );
        run_forever(tasks, "the record of health", health.clone().listen());
        run_forever(
            tasks,
            "this node's report",
            self.reporter.clone().keep(health.clone()),
        );
        for peer in self.pool.others() {
            let send = self
                .reporter
                .clone()
                .send_to(peer, self.pool.clone(), VERSION);
            run_forever(tasks, "a sender of reports", send);
        }
        let leader = Leader {
            raft: self.raft.clone(),
            reader: self.reader.clone(),
            health: health.clone(),
            nodes: self.config.nodes.clone(),
            vips: self.config.vips.clone(),
        };
        run_forever(
            tasks,
            "the leader's planning",
            leader.run(self.shared.changed.subscribe()),
        );
    }
}

fn describe(ended: &Option<Result<&'static str, tokio::task::JoinError>>) -> String {
    match ended {
        Some(Ok(name)) => (*name).to_owned(),
        Some(Err(e)) => format!("a task ({e})"),
        None => "every task".to_owned(),
    }
}

fn others(config: &Config) -> Vec<(NodeId, NodeName, SocketAddr)> {
    let others = config.nodes.iter().filter(|n| n.id != config.me.id);
    others.map(|n| (n.id, n.name.clone(), n.address)).collect()
}

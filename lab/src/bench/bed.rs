//! A lab that is measured: one contender on two members and a witness, and how it is brought back into a
//! known state before each measurement.

use std::cell::Cell;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::ground::topology;
use crate::backend::{BackendSpec, Buoy, Keepalived, keepalived_config};
use crate::cli::OTHER_CLUSTER;
use crate::cluster::{DaemonState, Lab, Record};
use crate::observer::Judgement;
use crate::process::Process;
use crate::sys::clock::now_ns;
use crate::topology::Role;

/// How long a cluster may take until it does its work.
const READY: Duration = Duration::from_secs(60);
/// How long a VIP may take to be moved into place.
const PLACE: Duration = Duration::from_secs(15);
/// Rest between the moment a cluster is ready and what is done to it.
const REST: Duration = Duration::from_millis(400);
/// How long a daemon that was told to stop may take before it is started again.
const STOPPED: Duration = Duration::from_secs(15);
/// How often the leader and the owner are brought together or apart before it is given up.
const TRIES: usize = 12;
/// keepalived's priority of a master that is to hand over.
const DEMOTED: u8 = 50;
/// Labs made by this process, for their names.
static LABS: AtomicU32 = AtomicU32::new(1);
/// The VIP of a lab with one.
pub const VIP: &str = "vip1";

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contender {
    /// Buoy with the profile `lan`.
    Buoy,
    /// keepalived, VRRPv2, `advert_int 1`.
    KeepalivedV2,
    /// keepalived, VRRPv3, `advert_int 0.1`.
    KeepalivedV3,
}

impl Contender {
    /// All, in the order of the tables.
    pub const ALL: [Self; 3] = [Self::Buoy, Self::KeepalivedV2, Self::KeepalivedV3];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Buoy => "Buoy (lan)",
            Self::KeepalivedV2 => "keepalived v2, 1 s",
            Self::KeepalivedV3 => "keepalived v3, 0.1 s",
        }
    }

    /// Whether it takes seconds to notice a dead master.
    #[must_use]
    pub fn is_slow(self) -> bool {
        self == Self::KeepalivedV2
    }

    fn short(self) -> &'static str {
        match self {
            Self::Buoy => "b",
            Self::KeepalivedV2 => "k2",
            Self::KeepalivedV3 => "k3",
        }
    }

    fn spec(self, program: &Path) -> BackendSpec {
        let keepalived = |advert_ms, version| {
            BackendSpec::Keepalived(Keepalived {
                advert_ms,
                version,
                nopreempt: false,
            })
        };
        match self {
            Self::Buoy => BackendSpec::buoy(program),
            Self::KeepalivedV2 => keepalived(1_000, 2),
            Self::KeepalivedV3 => keepalived(100, 3),
        }
    }
}

/// How Buoy's Raft leader and the owner of the VIP must stand to each other. keepalived has no leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// As it comes.
    Any,
    /// The owner leads.
    OwnerLeads,
    /// Another node leads.
    OwnerFollows,
}

/// Who does what before a measurement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Situation {
    /// Owner of the VIP.
    pub owner: String,
    /// The other member.
    pub other: String,
    /// Raft leader, of a contender that has one.
    pub leader: Option<String>,
}

/// A lab that is measured.
pub struct Bed {
    /// Who is measured.
    pub contender: Contender,
    /// The lab.
    pub lab: Lab,
    probe: Duration,
    demoted: Cell<bool>,
    /// Since when the observer looks, ns of CLOCK_BOOTTIME.
    since: Cell<u64>,
}

impl Bed {
    /// A running lab with `vips` VIPs, all of them at home on n1, probed once per `probe` when it is observed;
    /// `buoy` is the daemon's program.
    ///
    /// # Errors
    /// The lab cannot be made, or does not form.
    pub fn start(contender: Contender, vips: usize, probe: Duration, buoy: &Path) -> Result<Self> {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench{}-{}-{number}", std::process::id(), contender.short());
        let program = std::env::current_exe().context("find the path of this program")?;
        let lab = Lab::create(Record {
            topology: topology(&name, vips)?,
            backend: contender.spec(buoy),
            program,
            ephemeral: true,
        })?;
        let bed = Self {
            contender,
            lab,
            probe,
            demoted: Cell::new(false),
            since: Cell::new(0),
        };
        bed.observe()?;
        bed.lab.start_all()?;
        bed.lab.wait_ready(READY)?;
        bed.look_away()?;
        Ok(bed)
    }

    /// Starts the observer anew.
    ///
    /// # Errors
    /// The switch is gone.
    pub fn observe(&self) -> Result<()> {
        let addresses = self.lab.topology().vip_addresses();
        self.since
            .set(self.lab.switch().observe(&addresses, self.probe)?);
        Ok(())
    }

    /// What the observer has seen since it was started.
    ///
    /// # Errors
    /// It is off, or the switch is gone.
    pub fn judge(&self) -> Result<Judgement> {
        let (from, to) = (self.since.get(), now_ns());
        let seen = self.lab.switch().observed(from, to)?;
        Ok(Judgement::of(&seen, from, to))
    }

    /// Stops the observer: a lab whose turn it is not costs no CPU time.
    ///
    /// # Errors
    /// The switch is gone.
    pub fn look_away(&self) -> Result<()> {
        self.lab.switch().observe(&[], self.probe).map(drop)
    }

    /// Undoes what the last measurement did, without waiting for the cluster to be whole again.
    ///
    /// # Errors
    /// A daemon or machine cannot be started, or the switch is gone.
    pub fn repair(&self) -> Result<()> {
        self.lab.heal()?;
        if self.demoted.replace(false) {
            self.reprioritise(None)?;
        }
        for node in &self.lab.topology().nodes {
            if self.lab.is_crashed(&node.name) {
                self.lab.boot(&node.name)?;
            } else if self.lab.backend().runs_on(node)
                && self.lab.daemon_state(&node.name)? == DaemonState::Stopped
            {
                self.lab.start_daemon(&node.name)?;
            }
        }
        Ok(())
    }

    /// Undoes what the last measurement did. Buoy is observed until it is whole again: the return of a node
    /// belongs to what is judged. keepalived, of whom nothing is promised, has until its next turn.
    ///
    /// # Errors
    /// As [`Bed::repair`], or Buoy does not get well.
    pub fn recover(&self) -> Result<()> {
        self.repair()?;
        if self.contender == Contender::Buoy {
            self.lab.wait_ready(READY)?;
        }
        Ok(())
    }

    /// Waits until all is well and arranges who owns and who leads. The observer is on afterwards.
    ///
    /// # Errors
    /// The cluster does not get well, or the arrangement does not come about.
    pub fn prepare(&self, want: Want) -> Result<Situation> {
        self.observe()?;
        self.repair()?;
        self.lab.wait_ready(READY)?;
        if self.contender != Contender::Buoy {
            // It preempts: the better node gets the VIP back by itself.
            self.lab.wait_owner(VIP, "n1", PLACE)?;
            std::thread::sleep(REST);
            return self.situation();
        }
        for _ in 0..TRIES {
            let now = self.situation()?;
            let leader = now.leader.clone().unwrap_or_default();
            let witness_leads = self.lab.topology().node(&leader)?.role == Role::Witness;
            match want {
                Want::OwnerLeads if witness_leads => self.restart(&leader)?,
                Want::OwnerLeads if now.owner != leader => self.place(&leader)?,
                Want::OwnerFollows if now.owner == leader => self.place(&now.other)?,
                _ => {
                    std::thread::sleep(REST);
                    if self.situation()? == now {
                        return Ok(now);
                    }
                }
            }
        }
        bail!("the owner and the leader did not get into the places that are wanted ({want:?})")
    }

    fn place(&self, node: &str) -> Result<()> {
        self.lab.backend().move_vip(&self.lab, VIP, node)?;
        self.lab.wait_owner(VIP, node, PLACE)
    }

    /// Stops a daemon with SIGTERM, by which it hands its leadership over, and starts it again.
    fn restart(&self, node: &str) -> Result<()> {
        self.lab.stop_daemon(node)?;
        self.lab.start_daemon(node)?;
        self.lab.wait_ready(READY).map(drop)
    }

    /// Who owns and who leads now.
    ///
    /// # Errors
    /// Not exactly one node answers, or no leader is known.
    pub fn situation(&self) -> Result<Situation> {
        let owner = self.lab.owner_of(VIP)?;
        let owner = owner.context("nobody answers for the VIP")?;
        let mut members = self.lab.topology().members();
        let other = members.find(|node| node.name != owner);
        Ok(Situation {
            other: other.context("the lab has one member only")?.name.clone(),
            leader: match self.contender {
                Contender::Buoy => Some(self.leader()?),
                _ => None,
            },
            owner,
        })
    }

    /// The Raft leader of a Buoy cluster that is well.
    fn leader(&self) -> Result<String> {
        let status = self.status()?;
        let leader = status.get("leader").and_then(|leader| leader.as_str());
        leader.map(str::to_owned).context("no leader is known")
    }

    /// What `buoy status --json` says.
    ///
    /// # Errors
    /// No node answers, or the answer is not understood.
    pub fn status(&self) -> Result<serde_json::Value> {
        // It exits with 1 while something is not well, and says so on standard output all the same.
        let output = self.output(&["--json", "status"])?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let words = String::from_utf8_lossy(&output.stderr);
            format!("understand what `buoy status` says ({})", words.trim())
        })
    }

    /// Runs `buoy` against the first node whose daemon runs; it must succeed.
    ///
    /// # Errors
    /// No daemon runs, or the command fails.
    pub fn buoy(&self, arguments: &[&str]) -> Result<()> {
        let output = self.output(arguments)?;
        ensure!(
            output.status.success(),
            "`buoy {}` ended with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    fn output(&self, arguments: &[&str]) -> Result<Output> {
        let BackendSpec::Buoy(Buoy { program }) = &self.lab.record().backend else {
            bail!("{} has no such command", self.contender.name());
        };
        let topology = self.lab.topology();
        let mut nodes = topology.nodes.iter();
        let node = nodes.find(|node| self.lab.daemon_runs(&node.name));
        let node = node.context("no daemon runs")?;
        let mut command = Command::new(program);
        for name in OTHER_CLUSTER {
            command.env_remove(name);
        }
        command
            .arg("--socket")
            .arg(topology.socket(&node.name))
            .args(arguments)
            .output()
            .with_context(|| format!("run {}", program.display()))
    }

    /// Tells keepalived's master to give the VIP up, by a lower priority and SIGHUP.
    ///
    /// # Errors
    /// The configuration cannot be written, or the daemon does not run.
    pub fn demote(&self, node: &str) -> Result<()> {
        self.demoted.set(true);
        self.reprioritise(Some(node))
    }

    fn reprioritise(&self, demoted: Option<&str>) -> Result<()> {
        let BackendSpec::Keepalived(settings) = &self.lab.record().backend else {
            bail!("only keepalived is moved by its priority");
        };
        for node in self.lab.topology().members() {
            let mut topology = self.lab.topology().clone();
            for vip in &mut topology.vips {
                if let Some(name) = demoted {
                    vip.priority.insert(name.to_owned(), DEMOTED);
                }
            }
            let path = topology.place(&node.name).join("keepalived.conf");
            std::fs::write(&path, keepalived_config(settings, &topology, node))
                .with_context(|| format!("write {}", path.display()))?;
            if demoted.is_none_or(|name| name == node.name)
                && let Some(process) = self.lab.daemon(&node.name)?
            {
                process.signal(libc::SIGHUP)?;
            }
        }
        Ok(())
    }

    /// The processes of the daemon on a node: keepalived has several.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn daemons(&self, node: &str) -> Result<Vec<Process>> {
        let main = self.lab.daemon(node)?.map(|process| process.id());
        let mut found = self.lab.netns(node)?.processes()?;
        found.retain(|process| {
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", process.id().pid));
            Some(process.id()) == main || comm.is_ok_and(|comm| comm.trim() == "keepalived")
        });
        Ok(found)
    }

    /// Waits until the daemon of a node has ended.
    ///
    /// # Errors
    /// It still runs after 15 s.
    pub fn wait_stopped(&self, node: &str) -> Result<()> {
        match self.lab.daemon(node)? {
            Some(process) => process.wait_exit(STOPPED),
            None => Ok(()),
        }
    }
}

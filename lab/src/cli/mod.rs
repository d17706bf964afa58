//! The subcommands of `buoy lab`.

mod faults;
mod show;
mod up;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::backend::{BackendSpec, Keepalived};
use crate::cluster::{BrokenLab, Lab, NoSuchLab, teardown};
use crate::say::say;
use crate::switch::End;
use crate::topology::Profile;
use crate::{bench, client, demo, switch};

/// All is well.
pub const OK: u8 = 0;
/// What was asked about is not well, or something failed.
pub const UNHEALTHY: u8 = 1;
/// The command makes no sense.
pub const USAGE: u8 = 2;
/// There is no such lab, or it does not answer.
pub const UNREACHABLE: u8 = 3;

/// What leads `buoy` to another cluster than that of its socket.
pub(crate) const OTHER_CLUSTER: [&str; 4] = ["BUOY_SERVER", "BUOY_CA", "BUOY_CERT", "BUOY_KEY"];

/// Which lab is meant.
#[derive(Args, Debug, Clone)]
pub struct Which {
    /// Name of the lab.
    #[arg(long, default_value = "lab")]
    name: String,
}

/// What floats the VIPs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum With {
    /// Buoy.
    Buoy,
    /// keepalived with VRRPv3 and an interval of 100 ms, to compare.
    Keepalived,
}

impl With {
    fn spec(self, program: &std::path::Path) -> BackendSpec {
        match self {
            Self::Buoy => BackendSpec::buoy(program),
            Self::Keepalived => BackendSpec::Keepalived(Keepalived {
                advert_ms: 100,
                version: 3,
                nopreempt: true,
            }),
        }
    }
}

/// Whether a cable is plugged in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Cable {
    /// Plugged in.
    Up,
    /// Pulled.
    Down,
}

/// `buoy lab ...`: a cluster on this machine, on a network that can be broken.
#[derive(Subcommand, Debug)]
pub enum LabCommand {
    /// Show in two minutes what Buoy does: a cluster, a crash, a return, a move, and what a client lost.
    Demo(demo::DemoArgs),
    /// Measure Buoy and keepalived side by side: what events cost a client, and what daemons cost idle.
    Bench(bench::BenchArgs),
    /// Run a cluster on a bad network for a while and count what its leases notice.
    Soak(bench::SoakArgs),
    /// Start a lab and leave it running.
    Up(up::UpArgs),
    /// Take a lab down, also what a crashed one left behind.
    Down(Which),
    /// Run a command on a node, or on `client`.
    Exec {
        /// Which lab.
        #[command(flatten)]
        which: Which,
        /// Node, or `client`.
        node: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Pull or plug in the cable of a node.
    Link {
        /// Which lab.
        #[command(flatten)]
        which: Which,
        /// Node, or `client`.
        node: String,
        /// What to do with the cable.
        cable: Cable,
    },
    /// Divide the network: `n1,n2 / n3`. Who is in no group (the client, say) reaches all.
    Partition {
        /// Which lab.
        #[command(flatten)]
        which: Which,
        /// Groups of nodes with `/` between them.
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// End every partition, loss and delay, and plug in every cable.
    Heal(Which),
    /// Make the network bad: replaces what an earlier `loss` has set; without options it is good again.
    Loss(faults::LossArgs),
    /// Kill the daemon of a node (SIGKILL); the machine lives on.
    Kill(OneNode),
    /// Start the daemon of a node, or boot a crashed machine.
    Start(OneNode),
    /// Stop the daemon of a node (SIGTERM).
    Stop(OneNode),
    /// Stop the daemon of a node in its tracks (SIGSTOP).
    Pause(OneNode),
    /// Let a paused daemon go on (SIGCONT).
    Resume(OneNode),
    /// Take the power from a machine: all processes and the cable at once. `start` boots it.
    Crash(OneNode),
    /// Show how a lab stands; without --name, which labs there are.
    Status(show::StatusArgs),
    /// Watch the network for a while: who answers for each VIP, for how long nobody, for how long two.
    Observe(show::ObserveArgs),
    /// The switch of a lab (started by `up`).
    #[command(hide = true)]
    Switch {
        /// The lab's directory.
        #[arg(long)]
        dir: PathBuf,
        /// End, and take the lab down, when standard input ends.
        #[arg(long)]
        ephemeral: bool,
    },
    /// A client of a lab (started by `demo`).
    #[command(hide = true)]
    Client(client::ClientSpec),
}

/// A node of a lab.
#[derive(Args, Debug)]
pub struct OneNode {
    #[command(flatten)]
    which: Which,
    /// The node.
    node: String,
}

/// The command makes no sense; exit code [`USAGE`].
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Runs a subcommand to its end and returns the exit code: [`OK`], [`UNHEALTHY`], [`USAGE`],
/// [`UNREACHABLE`], or that of the command that was run on a node. To be called before the process starts
/// threads: it blocks signals.
#[must_use]
pub fn run(command: LabCommand) -> u8 {
    match dispatch(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("buoy lab: {error:#}");
            if error.is::<Usage>() {
                USAGE
            } else if error.is::<NoSuchLab>() || error.is::<BrokenLab>() {
                UNREACHABLE
            } else {
                UNHEALTHY
            }
        }
    }
}

fn dispatch(command: LabCommand) -> Result<u8> {
    match command {
        LabCommand::Switch { dir, ephemeral } => return serve_switch(&dir, ephemeral),
        LabCommand::Client(spec) => client::serve(&spec)?,
        _ if !crate::sys::is_root() => {
            bail!("a lab needs root (network namespaces and TAP devices)")
        }
        LabCommand::Demo(args) => return demo::run(&args),
        LabCommand::Bench(args) => return bench::run(&args),
        LabCommand::Soak(args) => return bench::soak(&args),
        LabCommand::Up(args) => up::up(&args)?,
        LabCommand::Down(which) => {
            teardown(&which.name)?;
            say!("Lab '{}' is down.", which.name);
        }
        LabCommand::Exec {
            which,
            node,
            command,
        } => return exec(&which, &node, &command),
        LabCommand::Link { which, node, cable } => faults::link(&which, &node, cable)?,
        LabCommand::Partition { which, groups } => faults::partition(&which, &groups)?,
        LabCommand::Heal(which) => Lab::open(&which.name)?.heal()?,
        LabCommand::Loss(args) => faults::loss(&args)?,
        LabCommand::Kill(one) => one.with(Lab::kill_daemon)?,
        LabCommand::Start(one) => one.with(start)?,
        LabCommand::Stop(one) => one.with(Lab::stop_daemon)?,
        LabCommand::Pause(one) => one.with(Lab::pause_daemon)?,
        LabCommand::Resume(one) => one.with(Lab::resume_daemon)?,
        LabCommand::Crash(one) => one.with(|lab, node| lab.crash(node).map(drop))?,
        LabCommand::Status(args) => return show::status(&args),
        LabCommand::Observe(args) => return show::observe(&args),
    }
    Ok(OK)
}

impl OneNode {
    fn with(&self, act: impl FnOnce(&Lab, &str) -> Result<()>) -> Result<()> {
        let lab = Lab::open(&self.which.name)?;
        known(&lab, &self.node, false)?;
        act(&lab, &self.node)
    }
}

/// Refuses a name that is no node of the lab.
fn known(lab: &Lab, node: &str, or_client: bool) -> Result<()> {
    let topology = lab.topology();
    if or_client && node == crate::topology::CLIENT {
        return Ok(());
    }
    match topology.node(node) {
        Ok(_) => Ok(()),
        Err(error) => bail!(Usage(error.to_string())),
    }
}

fn start(lab: &Lab, node: &str) -> Result<()> {
    if lab.is_crashed(node) {
        lab.boot(node)
    } else {
        lab.start_daemon(node)
    }
}

fn exec(which: &Which, node: &str, command: &[String]) -> Result<u8> {
    let lab = Lab::open(&which.name)?;
    known(&lab, node, true)?;
    let (program, arguments) = command.split_first().context("no command was given")?;
    let mut run = lab.netns(node)?.foreground_command(program)?;
    // So that `buoy status` on a node asks that node, and not a cluster of the caller's own.
    for name in OTHER_CLUSTER {
        run.env_remove(name);
    }
    let status = run
        .args(arguments)
        .env("BUOY_SOCKET", lab.topology().socket(node))
        .status()
        .with_context(|| format!("run {program} on {node}"))?;
    // Ended by a signal: 128 and its number, as a shell reports it.
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or(signal.map(|signal| 128 + signal));
    Ok(code
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(UNHEALTHY))
}

fn serve_switch(dir: &std::path::Path, ephemeral: bool) -> Result<u8> {
    if switch::serve(dir, ephemeral)? == End::Orphaned
        && let Some(name) = dir.file_name().and_then(|name| name.to_str())
        && crate::topology::directory_of(name) == dir
    {
        match teardown(name) {
            Err(error) if !error.is::<NoSuchLab>() => return Err(error),
            _ => {}
        }
    }
    Ok(OK)
}

/// Arguments that say what a lab runs.
#[derive(Args, Debug)]
pub struct What {
    /// Timing profile.
    #[arg(long, value_enum, default_value_t = Profile::Lan)]
    pub profile: Profile,
    /// What floats the VIPs.
    #[arg(long, value_enum, default_value_t = With::Buoy)]
    pub with: With,
}

impl What {
    /// The record of a lab with this topology.
    ///
    /// # Errors
    /// The path of this program cannot be found out.
    pub fn record(
        &self,
        mut topology: crate::topology::Topology,
        ephemeral: bool,
    ) -> Result<crate::cluster::Record> {
        let program = std::env::current_exe().context("find the path of this program")?;
        topology.profile = self.profile;
        Ok(crate::cluster::Record {
            topology,
            backend: self.with.spec(&program),
            program,
            ephemeral,
        })
    }
}

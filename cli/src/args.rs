//! The command line: commands, options and their help.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use buoy_lab::cli::LabCommand;
use buoy_server::config::parse_duration;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

/// Keeps virtual IPs on machines that are alive: decided by Raft, permitted by a quorum lease,
/// enforced by the kernel.
#[derive(Parser, Debug)]
#[command(name = "buoy", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 fine; 1 the thing asked about is unhealthy or the command was refused; \
2 wrong usage; 3 the cluster cannot be reached";

/// Options of every command that talks to a node.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Options of commands that talk to a node")]
pub struct Global {
    /// Unix socket of the daemon on this machine
    #[arg(long, global = true, value_name = "PATH", env = "BUOY_SOCKET", default_value = buoy_proto::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Talk to this node over TCP instead: http://HOST:PORT, or https://HOST:PORT with --ca, --cert and --key
    #[arg(long, global = true, value_name = "URL", env = "BUOY_SERVER")]
    pub server: Option<String>,
    /// Certificate of the cluster's authority, for https
    #[arg(long, global = true, value_name = "FILE", env = "BUOY_CA")]
    pub ca: Option<PathBuf>,
    /// Certificate of this client, for https
    #[arg(long, global = true, value_name = "FILE", env = "BUOY_CERT")]
    pub cert: Option<PathBuf>,
    /// Private key of this client, for https
    #[arg(long, global = true, value_name = "FILE", env = "BUOY_KEY")]
    pub key: Option<PathBuf>,
    /// Name that the node's certificate carries, where it is not the host of the URL
    #[arg(long, global = true, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Print JSON, for programs (one object a line with --watch)
    #[arg(long, global = true)]
    pub json: bool,
    /// Longest time to wait for an answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,
}

fn timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("no answer can arrive within 0s".to_owned()),
        d => Ok(d),
    }
}

impl Command {
    /// Does it talk to a node?
    fn connects(&self) -> bool {
        matches!(
            self,
            Command::Status { .. }
                | Command::Vip(_)
                | Command::Node(_)
                | Command::Fence(FenceCommand::Show)
                | Command::Vrrp(VrrpCommand::Status)
        )
    }
}

/// The whole definition. Options about connections are not shown where there is none.
pub fn command() -> clap::Command {
    let mut command = Cli::command();
    let global: Vec<Arg> = command
        .get_arguments()
        .filter(|a| a.is_global_set())
        .cloned()
        .collect();
    let hidden = |keep: &str| -> Vec<Arg> {
        let others = global.iter().filter(|a| a.get_id() != keep);
        others.map(|a| a.clone().hide(true)).collect()
    };
    for (name, shown) in [
        ("serve", ""),
        ("completions", ""),
        ("lab", ""),
        ("tls", "json"),
        ("check-config", "json"),
        ("doctor", "json"),
    ] {
        command = command.mut_subcommand(name, |c| c.args(hidden(shown)));
    }
    command.mut_subcommand("vrrp", |c| {
        c.mut_subcommand("watch", |c| c.args(hidden("json")))
    })
}

/// Reads the command line. Ends the process with a message if it is wrong, or asks for help.
pub fn parse() -> Cli {
    let matches = command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    match (given(&matches, "socket"), given(&matches, "server")) {
        (true, true) => {
            let message = "--socket and --server cannot be used together";
            command().error(ErrorKind::ArgumentConflict, message).exit();
        }
        // What was typed is meant; the environment is for where nothing was.
        (true, false) => cli.global.server = None,
        (false, _) => {}
    }
    if !cli.command.connects()
        && let Some(option) = connection_option(&matches)
    {
        let message = format!("--{option} is for commands that talk to a node; this one does not");
        command().error(ErrorKind::ArgumentConflict, message).exit();
    }
    cli
}

/// Does the option stand on the command line?
fn given(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// An option about the connection that stands on the command line (the environment does not count).
fn connection_option(matches: &ArgMatches) -> Option<String> {
    let found = ["socket", "server", "ca", "cert", "key", "server_name"]
        .into_iter()
        .find(|id| given(matches, id))?;
    Some(found.replace('_', "-"))
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the daemon
    Serve {
        /// Configuration of this node (see docs/configuration.md)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show quorum, leader, nodes and VIPs at a glance
    Status {
        /// Go on showing it whenever it changes
        #[arg(long)]
        watch: bool,
    },
    /// Look after VIPs
    #[command(subcommand)]
    Vip(VipCommand),
    /// Look after nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look after the packet gate of this machine
    #[command(subcommand)]
    Fence(FenceCommand),
    /// Look at VRRP around this machine
    #[command(subcommand)]
    Vrrp(VrrpCommand),
    /// Check a configuration file
    CheckConfig {
        /// The file
        file: PathBuf,
        /// Don't compare it with the network interfaces of this machine
        #[arg(long)]
        no_host: bool,
    },
    /// Look for what on this machine stands in Buoy's way, and say what to do about it
    Doctor {
        /// Look at it for this configuration
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Make certificates for mutual TLS
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Run clusters in network namespaces on this machine
    #[command(subcommand)]
    Lab(LabCommand),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand, Debug)]
pub enum VipCommand {
    /// Show all VIPs
    List {
        /// Go on with every change
        #[arg(long)]
        watch: bool,
    },
    /// Show one VIP
    Show {
        /// Its name, or one of its addresses
        name: String,
        /// Go on showing it whenever it changes
        #[arg(long)]
        watch: bool,
    },
    /// Declare VIPs, or change their declarations
    #[command(
        override_usage = "buoy vip put NAME --address IP[/PREFIX] --interface IF [OPTIONS]\n       buoy vip put --file FILE"
    )]
    Put(PutArgs),
    /// Delete a VIP
    Delete {
        /// Its name
        name: String,
    },
    /// Move a VIP to a node, or give it back to automatic placement
    Move {
        /// Its name, or one of its addresses
        name: String,
        #[command(flatten)]
        target: MoveTarget,
        /// Move it even though the node says that it cannot hold it
        #[arg(long, conflicts_with = "auto")]
        force: bool,
    },
    /// Show the ownership history
    History {
        /// Only events of this VIP
        name: Option<String>,
        /// Most events to show, up to 10000
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Go on with every new event
        #[arg(long)]
        watch: bool,
    },
    /// Say for every node why it is, or is not, the owner of a VIP
    Explain {
        /// Its name, or one of its addresses
        name: String,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct MoveTarget {
    /// To this node, which ranks first from now on
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// To where automatic placement wants it
    #[arg(long)]
    pub auto: bool,
}

/// Either a file of `[[vip]]` tables, or one VIP by options.
#[derive(Args, Debug)]
pub struct PutArgs {
    /// Name of the VIP
    #[arg(required_unless_present = "file", requires_all = ["addresses", "interface"])]
    pub name: Option<String>,
    /// TOML file that declares VIPs as the configuration does; "-" reads standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["name", "addresses", "interface", "label", "scope", "priority", "preempt", "preempt_delay", "colocate_with", "avoid", "vrid", "vrrp_version", "vrrp_priority", "vrrp_interval"])]
    pub file: Option<PathBuf>,
    /// An address, with the prefix length to configure it with; may be repeated
    #[arg(long = "address", value_name = "IP[/PREFIX]")]
    pub addresses: Vec<String>,
    /// Network interface that carries it
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Label of its IPv4 addresses
    #[arg(long)]
    pub label: Option<String>,
    /// Scope of its addresses
    #[arg(long, value_enum, default_value_t = ScopeArg::Global)]
    pub scope: ScopeArg,
    /// Priority of a node, 1 to 254 (0: never there); may be repeated
    #[arg(long, value_name = "NODE=N")]
    pub priority: Vec<String>,
    /// Move it to a better node when there is one
    #[arg(long)]
    pub preempt: bool,
    /// How long a better node must have been well before
    #[arg(long, value_name = "DURATION", requires = "preempt", value_parser = parse_duration)]
    pub preempt_delay: Option<Duration>,
    /// A VIP that must be on the same node; may be repeated
    #[arg(long, value_name = "VIP")]
    pub colocate_with: Vec<String>,
    /// A VIP that should be on another node; may be repeated
    #[arg(long, value_name = "VIP")]
    pub avoid: Vec<String>,
    /// Speak VRRP for it, as this virtual router; a file can say more about that
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub vrid: Option<u8>,
    /// Version of VRRP, 2 or 3 (default 3)
    #[arg(long, value_name = "N", requires = "vrid", value_parser = clap::value_parser!(u8).range(2..=3))]
    pub vrrp_version: Option<u8>,
    /// VRRP priority of the whole cluster, 1 to 254 (default 100)
    #[arg(long, value_name = "N", requires = "vrid", value_parser = clap::value_parser!(u8).range(1..=254))]
    pub vrrp_priority: Option<u8>,
    /// Between two VRRP advertisements (default 1s)
    #[arg(long, value_name = "DURATION", requires = "vrid", value_parser = parse_duration)]
    pub vrrp_interval: Option<Duration>,
    /// Do not wait until the VIPs are up
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum ScopeArg {
    Global,
    Link,
    Host,
}

#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// Show all nodes
    List {
        /// Go on showing them whenever something changes
        #[arg(long)]
        watch: bool,
    },
    /// Keep VIPs away from a node, for maintenance
    Drain {
        /// Its name or id
        node: String,
        /// Why, for the other operators
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a drained node take part again
    Undrain {
        /// Its name or id
        node: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum FenceCommand {
    /// Show what this machine's kernel fences: each address, its gate, lease and drops
    Show,
    /// Remove the addresses and the gate that a dead daemon left
    Remove {
        /// Also a gate whose addresses cannot be read: they must be gone from this machine
        #[arg(long)]
        force: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum VrrpCommand {
    /// What the answering node says and hears as VRRP router; exit code 1 if a router outside outranks the
    /// cluster, or the node hears or sends nothing
    Status,
    /// Print VRRP advertisements as they pass this machine's interfaces (needs CAP_NET_RAW, and no daemon)
    Watch(VrrpWatch),
}

#[derive(Args, Debug)]
pub struct VrrpWatch {
    /// Only on this interface
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Only of this virtual router
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub vrid: Option<u8>,
    /// End after so many lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub duration: Option<Duration>,
}

#[derive(Subcommand, Debug)]
pub enum TlsCommand {
    /// Make the cluster's own certificate authority
    Init {
        /// Directory for ca.crt and ca.key; made if it does not exist
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Name of the cluster
        #[arg(long, value_name = "NAME")]
        cluster: String,
        /// How long it is valid
        #[arg(long, default_value_t = 3650, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Issue a certificate for a node or a client
    Issue {
        /// Name of the node as in the configuration, or of the client
        name: String,
        /// Directory with ca.crt and ca.key; NAME.crt and NAME.key are written there
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// An IP address that clients may use in https://IP:PORT; may be repeated
        #[arg(long, value_name = "IP")]
        address: Vec<IpAddr>,
        /// How long it is valid
        #[arg(long, default_value_t = 730, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Replace NAME.crt and NAME.key if they exist
        #[arg(long)]
        force: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }
}

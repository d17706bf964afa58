//! The node's configuration file: read, checked, and refused with place, reason and hint.

mod cluster;
mod contents;
mod external;
mod host;
mod page;
mod places;
mod problem;
mod reload;
pub mod schema;
mod stored;
mod table;
mod timing;
mod value;
mod vip;
mod vrrp;
mod words;

use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use buoy_core::spec::timing::{Profile, Timing};
use buoy_core::spec::{NodeSpec, Role, VipSpec};
use toml::de::DeTable;

pub use contents::Contents;
pub use external::{ExternalFence, OnFailure, check_program};
pub use host::{HostInterface, check_against_host, interfaces};
pub use page::{EXAMPLE, configuration_page};
pub use problem::{ConfigErrors, MAX_PROBLEMS, Problem, Source};
pub use reload::{Change, Reload};
pub use stored::differences;
pub use value::{MAX_DURATION, format_duration, parse_duration, parse_socket};

use places::{Judged, Places};
use problem::Problems;
use table::Table;

/// Default of `node.data_dir`.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/buoy";
/// What `node.fence = "userspace-only"` means: addresses live 3 s, and the kernel looks at that in whole
/// seconds and some.
pub const WITHOUT_GATE: &str =
    "a stopped or killed daemon goes on answering for its VIPs for up to 3.5 s";
/// Largest configuration file, in bytes.
pub const MAX_FILE: u64 = 8 << 20;

/// Which gate in the kernel enforces the leases (`node.fence`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fence {
    /// eBPF, or nftables where no BPF program can be loaded. Without either, no start.
    #[default]
    Auto,
    /// eBPF or no start.
    Ebpf,
    /// nftables or no start.
    Nft,
    /// None: a stopped daemon may go on answering.
    UserspaceOnly,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fence::Auto => "auto",
            Fence::Ebpf => "ebpf",
            Fence::Nft => "nft",
            Fence::UserspaceOnly => "userspace-only",
        })
    }
}

/// Paths of the certificates (`[tls]`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A configuration that keeps every rule that can be checked without the machine and the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from.
    pub path: PathBuf,
    /// Name of the cluster.
    pub cluster: String,
    /// There is no TLS, and the file says so.
    pub insecure: bool,
    /// All nodes, this one included, in the order of the file.
    pub nodes: Vec<NodeSpec>,
    /// This node.
    pub me: NodeSpec,
    /// Directory of the Raft log.
    pub data_dir: PathBuf,
    /// The local CLI's unix socket.
    pub socket: PathBuf,
    /// Where to listen, TCP and UDP.
    pub listen: SocketAddr,
    /// The gate.
    pub fence: Fence,
    /// The hardware watchdog to use.
    pub watchdog: Option<PathBuf>,
    /// The certificates; `None`: insecure.
    pub tls: Option<TlsFiles>,
    /// Profile that the timings started from.
    pub profile: Profile,
    /// Timings.
    pub timing: Timing,
    /// What fences silent nodes from outside; `None`: nothing.
    pub external_fence: Option<ExternalFence>,
    /// VIPs of a new cluster; a cluster that exists ignores them.
    pub vips: Vec<VipSpec>,
    /// How much is logged.
    pub log_level: tracing::Level,
    /// What is allowed but hardly meant, in words.
    pub warnings: Vec<String>,
    source: Source,
    places: Places,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        Config::parse(path, &read_file(path)?)
    }

    /// Checks the content of a file. Relative paths in it are taken from the directory of `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(path: &Path, content: &[u8]) -> Result<Config, ConfigErrors> {
        Config::parse_on(path, content, None).result
    }

    /// As [`Config::load`], and compares with the interfaces of this machine, if given, what could be read, whatever is
    /// wrong with the rest.
    pub fn check(path: &Path, host: Option<&[HostInterface]>) -> Checked {
        match read_file(path) {
            Ok(content) => Config::parse_on(path, &content, host),
            Err(errors) => Checked {
                result: Err(errors),
                notes: Vec::new(),
            },
        }
    }

    fn parse_on(path: &Path, content: &[u8], host: Option<&[HostInterface]>) -> Checked {
        let base = path.parent().unwrap_or(Path::new(""));
        let mut notes = Vec::new();
        let result = with_document(path, content, |root, source, problems| {
            read_config(root, (path, base), source, (host, &mut notes), problems)
        });
        Checked { result, notes }
    }
}

/// A file, checked against the machine.
#[derive(Debug)]
pub struct Checked {
    /// The configuration, or everything that is wrong with it.
    pub result: Result<Config, ConfigErrors>,
    /// Things to know about the machine.
    pub notes: Vec<String>,
}

/// Reads a file that holds `[[vip]]` tables and nothing else, as `buoy vip put -f` takes it. Nodes and
/// VIPs that it refers to may exist in the cluster only.
///
/// # Errors
/// Everything that is wrong with it, or why it cannot be read.
pub fn load_vips(path: &Path) -> Result<Vec<VipSpec>, ConfigErrors> {
    parse_vips(path, &read_file(path)?)
}

/// Like [`load_vips`], for content that was read already.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_vips(path: &Path, content: &[u8]) -> Result<Vec<VipSpec>, ConfigErrors> {
    with_document(path, content, |root, _, problems| {
        let mut places = Places::default();
        let vips = vip::read_vips(root, &mut places, problems);
        if vips.is_empty() && problems.is_empty() {
            let problem = Problem::new(
                0..0,
                "there is no VIP in this file",
                "expected [[vip]] tables",
            );
            problems.push(
                problem
                    .hint("begin each VIP with a line `[[vip]]`")
                    .absence(),
            );
        }
        Judged {
            vips: &vips,
            nodes: &[],
            places: &places,
        }
        .check_vips_alone(problems);
        Some(vips)
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, ConfigErrors> {
    let fail = |e: std::io::Error| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "check the file's permissions, or run as root",
            _ => "expected a readable file",
        };
        ConfigErrors::unreadable(path, format!("cannot read {}: {e}", path.display()), hint)
    };
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut content)
        .map_err(fail)?;
    if content.len() as u64 > MAX_FILE {
        let message = format!("{} is larger than {MAX_FILE} bytes", path.display());
        return Err(ConfigErrors::unreadable(
            path,
            message,
            "expected a configuration file",
        ));
    }
    Ok(content)
}

/// Parses TOML, lets `read` collect what it finds, and answers with it or with all problems.
fn with_document<T>(
    path: &Path,
    content: &[u8],
    read: impl FnOnce(&Table<'_>, &Source, &mut Problems) -> Option<T>,
) -> Result<T, ConfigErrors> {
    let name = path.display().to_string();
    let mut problems = Problems::default();
    let text = match std::str::from_utf8(content) {
        Ok(text) => text.to_owned(),
        Err(e) => {
            let at = e.valid_up_to();
            problems.push(
                Problem::new(at..at + 1, "this is no UTF-8 text", "expected UTF-8")
                    .hint("save the file in UTF-8"),
            );
            let source = Source::new(name, String::from_utf8_lossy(content).into_owned());
            problems.into_errors(&source)?;
            return Err(ConfigErrors::unreadable(
                path,
                "this is no UTF-8 text",
                "save it in UTF-8",
            ));
        }
    };
    let source = Source::new(name, text);
    let (document, syntax) = DeTable::parse_recoverable(source.text());
    let root = Table::open("", document.get_ref(), 0..0, &mut problems);
    let found = root.and_then(|root| read(&root, &source, &mut problems));
    problems.add_syntax_errors(source.text(), &syntax);
    problems.into_errors(&source)?;
    found.ok_or_else(|| {
        ConfigErrors::unreadable(
            path,
            "the file holds no configuration",
            "see docs/configuration.md",
        )
    })
}

/// A table without which there is no configuration.
fn required<'a>(root: &Table<'a>, name: &str, problems: &mut Problems) -> Option<Table<'a>> {
    let found = root.table(name, problems);
    if found.is_none() && !root.has(name) {
        let problem = Problem::new(
            0..0,
            format!("table [{name}] is missing"),
            "not in this file",
        );
        problems.push(
            problem
                .expected(format!("a table [{name}]"))
                .hint(format!(
                    "add `[{name}]`; docs/configuration.md has an example"
                ))
                .absence(),
        );
    }
    found
}

fn read_config(
    root: &Table<'_>,
    (path, base): (&Path, &Path),
    source: &Source,
    (host, notes): (Option<&[HostInterface]>, &mut Vec<String>),
    problems: &mut Problems,
) -> Option<Config> {
    let mut places = Places::default();
    let cluster_table = required(root, "cluster", problems);
    let cluster = cluster_table
        .as_ref()
        .map(|t| cluster::read_cluster(t, &mut places, problems));
    let own = required(root, "node", problems).map(|t| cluster::read_own(&t, base, problems));
    let tls = root
        .table("tls", problems)
        .map(|t| read_tls(&t, base, problems));
    let (profile, timing) = match root.table("timing", problems) {
        Some(table) => timing::read_timing(&table, problems),
        None => (Profile::default(), Timing::default()),
    };
    let external_fence = root
        .table("external_fence", problems)
        .map(|t| external::read(&t, &mut places, problems));
    let log_level = root
        .table("log", problems)
        .and_then(|t| read_level(&t, problems));
    let vips = vip::read_vips(root, &mut places, problems);
    let (cluster_table, cluster) = cluster_table.zip(cluster)?;
    check_security(&cluster_table, cluster.insecure, root.has("tls"), problems);
    let nodes = cluster.nodes;
    let mut warnings = Judged {
        vips: &vips,
        nodes: &nodes,
        places: &places,
    }
    .check(problems);
    warnings.extend(few_nodes(&nodes));
    let own = own?;
    let me = cluster::find_me(&own, &nodes, problems)?;
    if external_fence.is_some() && me.role == Role::Witness {
        warnings.push(external::ON_A_WITNESS.to_owned());
    }
    let external_fence = external_fence.flatten();
    if let Some(host) = host {
        notes.extend(host::compare(&me, &vips, &places, host, problems));
        external::compare(external_fence.as_ref(), &places, problems);
    }
    Some(Config {
        path: path.to_owned(),
        cluster: cluster.name?,
        insecure: cluster.insecure,
        listen: own.listen.unwrap_or(me.address),
        warnings,
        nodes,
        me,
        data_dir: own.data_dir,
        socket: own.socket,
        fence: own.fence,
        watchdog: own.watchdog,
        tls: tls.flatten(),
        profile,
        timing,
        external_fence,
        vips,
        log_level: log_level.unwrap_or(tracing::Level::INFO),
        source: source.clone(),
        places,
    })
}

fn read_tls(table: &Table<'_>, base: &Path, problems: &mut Problems) -> Option<TlsFiles> {
    let ca = cluster::read_path(table, "ca", base, problems);
    let cert = cluster::read_path(table, "cert", base, problems);
    let key = cluster::read_path(table, "key", base, problems);
    Some(TlsFiles {
        ca: ca?.value,
        cert: cert?.value,
        key: key?.value,
    })
}

fn read_level(table: &Table<'_>, problems: &mut Problems) -> Option<tracing::Level> {
    let level = table.word("level", problems, |word| match word {
        "error" => Some(tracing::Level::ERROR),
        "warn" => Some(tracing::Level::WARN),
        "info" => Some(tracing::Level::INFO),
        "debug" => Some(tracing::Level::DEBUG),
        "trace" => Some(tracing::Level::TRACE),
        _ => None,
    });
    level.map(|l| l.value)
}

/// Running without TLS is a decision, not an omission.
fn check_security(cluster: &Table<'_>, insecure: bool, tls: bool, problems: &mut Problems) {
    if !tls && !insecure {
        problems.push(
            Problem::new(
                cluster.span.clone(),
                "there is no [tls], so everybody who reaches the port could move VIPs",
                "expected [tls] with ca, cert and key, or `insecure = true` here",
            )
            .hint("`buoy tls init` and `buoy tls issue` make certificates in two commands; `insecure = true` is for networks that nobody else is on")
            .absence(),
        );
    }
    if tls && insecure {
        problems.push(
            Problem::new(
                cluster.span.clone(),
                "`cluster.insecure = true` stands beside [tls]",
                "expected one of the two",
            )
            .hint("remove `insecure = true`: [tls] is used"),
        );
    }
}

/// Clusters that survive no failure.
fn few_nodes(nodes: &[NodeSpec]) -> Option<String> {
    let members = nodes.iter().filter(|n| n.role == Role::Member).count();
    match (nodes.len(), members) {
        (count @ 1..=2, _) => Some(format!(
            "with {count} node(s) no failure is survived: use three, one of them a witness if need be"
        )),
        (_, 1) => {
            Some("only one node is a member: its VIPs have nowhere to go when it fails".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! What runs on the nodes and floats the VIPs: Buoy, or keepalived for comparison.

mod buoy;
mod keepalived;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cluster::Lab;
use crate::ns::Netns;
use crate::process::Process;
use crate::topology::{Node, Topology};

pub use buoy::{Buoy, node_config};
pub use keepalived::{Keepalived, keepalived_config};

/// Which daemon, with its settings; it is kept in the lab's directory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendSpec {
    /// Buoy itself.
    Buoy(Buoy),
    /// keepalived.
    Keepalived(Keepalived),
}

impl BackendSpec {
    /// Buoy, with this program.
    #[must_use]
    pub fn buoy(program: &Path) -> Self {
        Self::Buoy(Buoy {
            program: program.to_owned(),
        })
    }

    /// The backend that it describes.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        match self {
            Self::Buoy(buoy) => buoy,
            Self::Keepalived(keepalived) => keepalived,
        }
    }
}

/// A program and its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Invocation {
    /// A program with these arguments.
    pub fn new(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }

    /// Runs it inside a namespace; what it prints is added to the file `log`.
    ///
    /// # Errors
    /// The program cannot be run, or the file not be written.
    pub(crate) fn spawn(&self, ns: &Netns, log: &Path) -> Result<Process> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let log = file.with_context(|| format!("open {}", log.display()))?;
        let child = ns
            .command(&self.program)?
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("run {} in {}", self.program.display(), ns.name()))?;
        Process::from_child(&child)
    }
}

/// A daemon that floats VIPs.
pub trait Backend: Send + Sync {
    /// Its name, for reports.
    fn name(&self) -> String;

    /// Whether it runs on this node.
    fn runs_on(&self, node: &Node) -> bool;

    /// Writes what it needs into the node's directory ([`Topology::place`]) before each start.
    ///
    /// # Errors
    /// A file cannot be written.
    fn prepare(&self, topology: &Topology, node: &Node) -> Result<()>;

    /// How it is run on a node, in the foreground.
    fn daemon(&self, topology: &Topology, node: &Node) -> Invocation;

    /// Asks the daemons whether all is well; `Err` says what is not.
    ///
    /// # Errors
    /// Something is not well, or nobody can be asked.
    fn healthy(&self, lab: &Lab) -> Result<()>;

    /// Moves a VIP to a node, the way an operator would.
    ///
    /// # Errors
    /// It is refused; the words are the daemon's.
    fn move_vip(&self, lab: &Lab, vip: &str, to: &str) -> Result<()>;
}

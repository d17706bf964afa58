//! Why the daemon does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use buoy_core::NodeId;
use buoy_fence::gate::GateError;
use buoy_storage::OpenError;

use crate::api::RouterError;
use crate::config::ConfigErrors;
use crate::tls::TlsError;
use crate::watchdog::DeviceError;

/// A reason not to start: what happened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error("{0}")]
    Config(ConfigErrors),
    /// This machine cannot carry the timings.
    #[error("this machine cannot keep the leases of its timing profile:\n  - {}", .0.join("\n  - "))]
    Unfit(Vec<String>),
    /// The certificates are refused.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The data directory is refused.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The packet gate cannot be installed.
    #[error(
        "the packet gate, without which a stopped daemon goes on answering for its VIPs, cannot be installed: {0}\n(to run without it, which is not safe, set node.fence = \"userspace-only\")"
    )]
    Gate(#[from] GateError),
    /// The packet gate is not in force where no VIP can do without it.
    #[error("the packet gate cannot be put on interface {0}: {1}")]
    NoGate(String, String),
    /// The hardware watchdog cannot be used.
    #[error(transparent)]
    Watchdog(#[from] DeviceError),
    /// A port or socket cannot be had.
    #[error(
        "cannot listen on {what}: {source}; is another buoy running, and does this machine have the address?"
    )]
    Listen {
        /// Where.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Raft refused its settings or its storage.
    #[error("Raft does not start: {0}")]
    Raft(String),
    /// The services cannot be put together.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// This node took part before, and its disk is empty now.
    #[error(
        "node {node} (id {id}) has taken part in this cluster before, as {peer} knows, but {} is empty: a voter that forgot its vote and its promises can undo what was decided; {}",
        .data_dir.display(), buoy_storage::LOST_DATA_ADVICE
    )]
    LostDisk {
        /// This node.
        node: String,
        /// Its id.
        id: NodeId,
        /// Its data directory.
        data_dir: PathBuf,
        /// Who knows.
        peer: String,
    },
    /// A part of the running daemon failed.
    #[error("{0} ended by itself; the log says why")]
    Fault(String),
    /// Anything else that the system refused.
    #[error("cannot {0}: {1}")]
    System(&'static str, io::Error),
}

impl StartError {
    /// A TCP or UDP address that cannot be listened on.
    pub fn listen(address: SocketAddr) -> impl FnOnce(io::Error) -> StartError {
        move |source| StartError::Listen {
            what: address.to_string(),
            source,
        }
    }

    /// A unix socket that cannot be listened on.
    pub fn socket(path: &std::path::Path) -> impl FnOnce(io::Error) -> StartError {
        let path: PathBuf = path.to_owned();
        move |source| StartError::Listen {
            what: path.display().to_string(),
            source,
        }
    }
}

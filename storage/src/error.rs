//! Why a data directory cannot be opened, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

/// What to do about a node whose data are lost or damaged. A copy made earlier is no remedy: it has
/// forgotten what was promised since.
pub const LOST_DATA_ADVICE: &str = "this node cannot take part any more. Where its disk can still be \
brought back as it was when the node last ran, do that. Otherwise leave the node stopped (the others go \
on as long as they are a majority); to have all nodes again, form a new cluster: stop all of them, move \
every data directory away, and start them under another cluster.name";

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried ("create", "read", ...).
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },

    /// Another process has the directory open.
    #[error(
        "the data directory {} is in use by {}: stop that process first (or give this node a data \
         directory of its own; two nodes never share one)",
        dir.display(),
        match pid { Some(pid) => format!("process {pid}"), None => "another process".to_owned() }
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The process that holds the lock, if it wrote its number.
        pid: Option<u32>,
    },

    /// The directory belongs to another node or another cluster.
    #[error(
        "the data directory {} belongs to {found}, but the configuration says {configured}: correct the \
         configuration, or give this node another data directory (never delete the old one while that \
         node may still be a voter of its cluster)",
        dir.display()
    )]
    OtherIdentity {
        /// The data directory.
        dir: PathBuf,
        /// Whose it is, in words: node, id, cluster.
        found: String,
        /// Whose it should be, in the same words.
        configured: String,
    },

    /// The directory was written by a newer version.
    #[error(
        "{} is written in format {found}, and this version of buoy knows formats up to {known}: install the \
         version that wrote it, or a newer one (a downgrade cannot read it)",
        path.display()
    )]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },

    /// Something that was stored is not there, or not what was stored.
    #[error("the data in {} is damaged: {what}. Do not start this node on it again, a voter that forgets part of its log can undo decisions that it has confirmed: {LOST_DATA_ADVICE}.", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What was found, and what was expected; names the log index or key where one is known.
        what: String,
    },
}

impl OpenError {
    /// An [`OpenError::Io`], for `map_err`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.to_owned();
        move |source| OpenError::Io { what, path, source }
    }

    /// An [`OpenError::Damaged`].
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> OpenError {
        OpenError::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

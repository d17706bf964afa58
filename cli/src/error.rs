//! How a command ends: exit codes, and messages for the person at the terminal.

use std::io;

use buoy_proto::client::ConnectError;
use tonic::{Code, Status};

/// How a command that ran to its end ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// What was asked about is fine.
    Fine,
    /// It is not.
    Unhealthy,
}

impl Verdict {
    /// Fine or not.
    pub fn fine_if(fine: bool) -> Verdict {
        if fine {
            Verdict::Fine
        } else {
            Verdict::Unhealthy
        }
    }

    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Fine => 0,
            Verdict::Unhealthy => 1,
        }
    }
}

/// Why a command did not run to its end.
#[derive(Debug)]
pub enum Failure {
    /// The cluster refused, or cannot do it now: exit code 1.
    Refused(String),
    /// The command was not understood: exit code 2.
    Usage(String),
    /// Nobody answers: exit code 3.
    Unreachable(String),
    /// Whoever read the output has seen enough: exit code 0, nothing is said.
    NobodyReads,
}

impl Failure {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::NobodyReads => 0,
            Failure::Refused(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
        }
    }

    /// What to print; empty: nothing.
    pub fn message(&self) -> &str {
        match self {
            Failure::NobodyReads => "",
            Failure::Refused(m) | Failure::Usage(m) | Failure::Unreachable(m) => m,
        }
    }
}

impl From<io::Error> for Failure {
    /// Of standard output.
    fn from(e: io::Error) -> Failure {
        if e.kind() == io::ErrorKind::BrokenPipe {
            return Failure::NobodyReads;
        }
        Failure::Refused(format!("cannot write the output: {e}"))
    }
}

impl From<ConnectError> for Failure {
    fn from(e: ConnectError) -> Failure {
        match e {
            ConnectError::Unreachable { .. } => Failure::Unreachable(e.to_string()),
            _ => Failure::Usage(e.to_string()),
        }
    }
}

/// What a call's status means, for a call to `target`.
pub fn from_status(status: &Status, target: &str) -> Failure {
    let message = status.message();
    // Statuses that a node sent have no source; those made on this side have the transport's error.
    if let Some(source) = std::error::Error::source(status) {
        let mut bottom = source;
        while let Some(deeper) = bottom.source() {
            bottom = deeper;
        }
        let hint = if target.starts_with("http://") {
            "; if the cluster uses TLS, give https:// with --ca, --cert and --key"
        } else if target.starts_with("https://") {
            // The refusal of a certificate can arrive as an alert, or as a closed connection.
            "; if this happens each time, the node refuses this client's certificate: was --cert issued by the cluster's authority, and is it still valid?"
        } else {
            ""
        };
        return Failure::Unreachable(format!("lost the connection to {target}: {bottom}{hint}"));
    }
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => {
            Failure::Unreachable(format!("no answer from {target} in time: {message}"))
        }
        Code::Unimplemented => Failure::Refused(format!(
            "the node at {target} does not know this command (is it older?): {message}"
        )),
        _ => Failure::Refused(message.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_exit_codes() {
        for (code, exit) in [
            (Code::NotFound, 1),
            (Code::Unavailable, 1),
            (Code::FailedPrecondition, 1),
            (Code::InvalidArgument, 1),
            (Code::DeadlineExceeded, 3),
        ] {
            let failure = from_status(&Status::new(code, "why"), "unix:///s");
            assert_eq!(failure.code(), exit, "{code:?}");
            assert!(failure.message().contains("why"));
        }
        let broken = Status::from_error(Box::new(io::Error::other("pipe")));
        let failure = from_status(&broken, "http://n1:7400");
        assert_eq!(failure.code(), 3);
        assert!(
            failure.message().contains("https://"),
            "{}",
            failure.message()
        );
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code(), failure.message()), (0, ""));
    }
}

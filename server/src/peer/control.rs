//! Calls that a node passes on: commands and read indexes to the leader, lease questions to an owner,
//! reports to everybody.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use buoy_core::health::NodeReport;
use buoy_core::state::{Entry, Outcome};
use buoy_core::{Epoch, NodeId, VipName};
use buoy_proto::PEER_PROTOCOL;
use buoy_proto::peer::{
    JoinedRequest, LeaseRequest, ProposeRequest, ReadIndexRequest, ReportRequest, Standing,
    propose_response, read_index_response,
};
use tonic::{Code, Response, Status};

use super::pool::{Client, PeerPool, Purpose};
use super::{decode, encode};

/// A command that stands in the log and was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposed {
    /// Log index of its entry.
    pub index: u64,
    /// What the state made of it.
    pub outcome: Outcome,
}

/// Why a command that was passed on has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// It was not proposed: the node asked does not lead.
    #[error("node {asked} does not lead")]
    NotLeader {
        /// Who was asked.
        asked: NodeId,
        /// Whom that node follows.
        leader: Option<NodeId>,
    },
    /// It was not proposed: the node could not be reached, or refused the call.
    #[error("node {asked} cannot be asked: {problem}")]
    NotSent {
        /// Who was asked.
        asked: NodeId,
        /// What went wrong.
        problem: String,
    },
    /// It may have been proposed, and may be applied or not.
    #[error("no answer from node {asked}: {problem}")]
    Unknown {
        /// Who was asked.
        asked: NodeId,
        /// What went wrong.
        problem: String,
    },
}

/// Why there is no read index.
#[derive(Debug, thiserror::Error)]
pub enum ReadIndexError {
    /// The node asked does not lead.
    #[error("node {asked} does not lead")]
    NotLeader {
        /// Who was asked.
        asked: NodeId,
    },
    /// It could not be asked, or could not confirm its leadership.
    #[error("node {asked}: {problem}")]
    Failed {
        /// Who was asked.
        asked: NodeId,
        /// What went wrong.
        problem: String,
    },
}

/// What an owner said of its lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseAnswer {
    /// It held the lease when it answered.
    pub active: bool,
    /// Epoch that it holds or wants; zero: none.
    pub epoch: Epoch,
    /// Until its deadline.
    pub remaining: Duration,
    /// Revision of its history.
    pub revision: u64,
    /// When the assignment was proposed, milliseconds since 1970; 0: it knows of none.
    pub since_unix_ms: u64,
}

/// Did the call fail before anything was sent?
fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Codes with which a peer refuses a call before it looks at its content.
fn refused(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::ResourceExhausted
    )
}

/// The innermost message: the outer ones only say "transport error".
pub(crate) fn reason(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

impl PeerPool {
    async fn control<R, F, Fut>(&self, to: NodeId, limit: Duration, send: F) -> Result<R, Status>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let client = self.client(to, Purpose::Control);
        let client = client.map_err(|e| Status::failed_precondition(e.to_string()))?;
        match tokio::time::timeout(limit, send(client)).await {
            Ok(result) => result.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "no answer within {limit:?}"
            ))),
        }
    }

    /// Asks `to`, which should lead, to write `entry`.
    ///
    /// # Errors
    /// Whether the command may have been proposed is what the kinds of error tell apart.
    pub async fn propose(
        &self,
        to: NodeId,
        entry: &Entry,
        limit: Duration,
    ) -> Result<Proposed, ProposeError> {
        let asked = to;
        let unknown = |problem: String| ProposeError::Unknown { asked, problem };
        let entry = encode("command", entry).map_err(|s| ProposeError::NotSent {
            asked,
            problem: reason(&s),
        })?;
        let request = ProposeRequest {
            protocol: PEER_PROTOCOL,
            entry,
        };
        let send = |mut c: Client| async move { c.propose(request).await };
        let answer = self.control(to, limit, send).await.map_err(|status| {
            let problem = reason(&status);
            if refused(&status) || never_connected(&status) {
                ProposeError::NotSent { asked, problem }
            } else {
                ProposeError::Unknown { asked, problem }
            }
        })?;
        match answer.result {
            Some(propose_response::Result::Applied(applied)) => {
                let outcome = decode("outcome", &applied.outcome);
                let outcome = outcome.map_err(|s| unknown(reason(&s)))?;
                Ok(Proposed {
                    index: applied.index,
                    outcome,
                })
            }
            Some(propose_response::Result::NotLeader(n)) => Err(ProposeError::NotLeader {
                asked,
                leader: n.leader.map(NodeId),
            }),
            None => Err(unknown("its answer is empty".to_owned())),
        }
    }

    /// Asks `to`, which should lead, for the index that a linearizable read must have applied.
    ///
    /// # Errors
    /// It does not lead, or could not confirm that it does.
    pub async fn read_index(&self, to: NodeId, limit: Duration) -> Result<u64, ReadIndexError> {
        let asked = to;
        let request = ReadIndexRequest {
            protocol: PEER_PROTOCOL,
        };
        let send = |mut c: Client| async move { c.read_index(request).await };
        let answer = self.control(to, limit, send).await;
        let answer = answer.map_err(|s| ReadIndexError::Failed {
            asked,
            problem: reason(&s),
        })?;
        match answer.result {
            Some(read_index_response::Result::Index(index)) => Ok(index),
            Some(read_index_response::Result::NotLeader(_)) => {
                Err(ReadIndexError::NotLeader { asked })
            }
            None => Err(ReadIndexError::Failed {
                asked,
                problem: "its answer is empty".to_owned(),
            }),
        }
    }

    /// Asks the owner `to` for its lease of `vip`; with `wait`, for up to that long until the VIP is
    /// active with `epoch` or a later one.
    ///
    /// # Errors
    /// It could not be asked.
    pub async fn lease(
        &self,
        to: NodeId,
        vip: &VipName,
        epoch: Epoch,
        wait: Duration,
        limit: Duration,
    ) -> Result<LeaseAnswer, Status> {
        let request = LeaseRequest {
            protocol: PEER_PROTOCOL,
            vip: vip.to_string(),
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            epoch: epoch.0,
        };
        let send = |mut c: Client| async move { c.lease(request).await };
        let answer = self.control(to, limit + wait, send).await?;
        Ok(LeaseAnswer {
            active: answer.active,
            epoch: Epoch(answer.epoch),
            remaining: Duration::from_millis(answer.remaining_ms),
            revision: answer.revision,
            since_unix_ms: answer.since_unix_ms,
        })
    }

    /// Asks `to` what it knows of this node's past.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn joined(&self, to: NodeId, limit: Duration) -> Result<Standing, Status> {
        let request = JoinedRequest {
            protocol: PEER_PROTOCOL,
        };
        let ask = |mut c: Client| async move { c.joined(request).await };
        self.control(to, limit, ask)
            .await
            .map(|answer| answer.standing())
    }

    /// Sends this node's report to `to`.
    ///
    /// # Errors
    /// It did not arrive.
    pub async fn report(
        &self,
        to: NodeId,
        report: &NodeReport,
        version: &str,
        limit: Duration,
    ) -> Result<(), Status> {
        let request = ReportRequest {
            protocol: PEER_PROTOCOL,
            report: encode("report", report)?,
            version: version.to_owned(),
        };
        let send = |mut c: Client| async move { c.report(request).await };
        self.control(to, limit, send).await.map(|_| ())
    }
}

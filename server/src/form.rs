//! The first start of a node: is its disk new or lost? If new, it forms the cluster from its file.
//!
//! A voter that comes back with an empty disk has forgotten its vote, its part of the log and its
//! promises, and could undo with them what was decided. So a node whose disk is empty takes no part in
//! Raft until it knows that it never did before:
//!
//! - a peer that knows it to have taken part ends the matter;
//! - a leader that a quorum confirms without this node, and whose state has never heard of it, proves it
//!   new: whatever this node had helped to decide stands in the log of such a leader;
//! - where no cluster is found, as many nodes as a majority needs must say that they know of none. All of
//!   them are asked first. (The others could hold a cluster only if one of this majority has lost its
//!   disk as well, or this node has and every other that took part is out of reach.)
//! - anything else (a peer with a log and no leader) decides nothing: it goes on asking.

use std::collections::BTreeMap;
use std::time::Duration;

use buoy_core::NodeId;
use buoy_proto::peer::Standing;
use buoy_storage::{Opened, PeerNode, Raft};
use openraft::errors::{InitializeError, RaftError};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::config::Config;
use crate::peer::{Admission, PeerPool, reason};
use crate::start::StartError;

/// For one peer's answer; a leader needs a round to its followers for it.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Between two rounds of questions.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// So long is every peer waited for before a majority of new nodes is enough.
const ALL_LIMIT: Duration = Duration::from_secs(1);
/// How often it is said what is waited for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Nothing of the cluster is on this node's disk.
pub(crate) fn is_empty(opened: &Opened) -> bool {
    opened.views.load().membership.halves.is_empty() && opened.reader.read().log_id().is_none()
}

/// Lets this node take part; a node with an empty disk only once it is known to be new.
///
/// # Errors
/// Its disk was lost, or Raft failed.
pub(crate) async fn form(
    config: &Config,
    pool: &PeerPool,
    raft: &Raft,
    admission: &Admission,
) -> Result<(), StartError> {
    let raft_error = |e: &dyn std::fmt::Display| StartError::Raft(e.to_string());
    if !admission.is_open() {
        prove_new(config, pool).await?;
        admission.open();
    }
    let initialized = raft.is_initialized().await;
    if initialized.map_err(|e| raft_error(&e))? {
        return Ok(());
    }
    let members: BTreeMap<u64, PeerNode> = config
        .nodes
        .iter()
        .map(|n| {
            let node = PeerNode {
                name: n.name.to_string(),
                address: n.address.to_string(),
            };
            (n.id.0, node)
        })
        .collect();
    info!(
        nodes = members.len(),
        "first start of this node: forming the cluster"
    );
    match raft.initialize(members).await {
        Ok(()) => Ok(()),
        // A peer that was faster has sent us its log meanwhile.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(e) => Err(raft_error(&e)),
    }
}

/// Asks until the answers decide; see the module page.
async fn prove_new(config: &Config, pool: &PeerPool) -> Result<(), StartError> {
    let began = Instant::now();
    let mut say_at = began + ALL_LIMIT;
    loop {
        let ask = pool.others().into_iter().map(|peer| async move {
            let answer = pool.joined(peer, ANSWER_LIMIT).await;
            (peer, answer.map_err(|e| reason(&e)))
        });
        let answers = futures::future::join_all(ask).await;
        let standings = answers
            .iter()
            .map(|(peer, answer)| (*peer, answer.as_ref().ok().copied()))
            .collect();
        match judge(&standings, began.elapsed() >= ALL_LIMIT) {
            Verdict::New => return Ok(()),
            Verdict::Lost(peer) => {
                return Err(StartError::LostDisk {
                    node: config.me.name.to_string(),
                    id: config.me.id,
                    data_dir: config.data_dir.clone(),
                    peer: pool.name(peer).unwrap_or_else(|| peer.to_string()),
                });
            }
            Verdict::Open => {}
        }
        if Instant::now() >= say_at {
            say_at = Instant::now() + SAY_EVERY;
            warn!(
                "this node's disk is empty, and it takes no part until others can tell that it is new: {}",
                words(pool, &answers)
            );
        }
        sleep(ASK_EVERY).await;
    }
}

/// What the answers amount to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    New,
    /// Says who knows.
    Lost(NodeId),
    Open,
}

/// `answers`: all peers; `None`: no answer. `waited`: those without an answer had their time.
fn judge(answers: &BTreeMap<NodeId, Option<Standing>>, waited: bool) -> Verdict {
    let count = |wanted: Option<Standing>| answers.values().filter(|a| **a == wanted).count();
    let joined = answers
        .iter()
        .find(|(_, a)| **a == Some(Standing::Joined))
        .map(|(peer, _)| *peer);
    if let Some(peer) = joined {
        return Verdict::Lost(peer);
    }
    if count(Some(Standing::New)) > 0 {
        return Verdict::New;
    }
    let nodes = answers.len() + 1;
    let majority = nodes / 2 + 1;
    let enough = count(Some(Standing::Fresh)) + 1 >= majority;
    let complete = count(None) == 0 || waited;
    if enough && complete && count(Some(Standing::Unknown)) == 0 {
        return Verdict::New;
    }
    Verdict::Open
}

fn words(pool: &PeerPool, answers: &[(NodeId, Result<Standing, String>)]) -> String {
    let one = |(peer, answer): &(NodeId, Result<Standing, String>)| {
        let name = pool.name(*peer).unwrap_or_else(|| peer.to_string());
        match answer {
            Ok(Standing::Fresh) => format!("{name} is new as well"),
            Ok(_) => format!("{name} has a log and follows no leader that could tell"),
            Err(e) => format!("{name}: {e}"),
        }
    };
    let all: Vec<String> = answers.iter().map(one).collect();
    format!(
        "{} (start the other nodes, or look why they do not answer)",
        all.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Fresh, Joined, New, Unknown};

    fn verdict(answers: &[Option<Standing>], waited: bool) -> Verdict {
        let answers = answers.iter().copied();
        let peers = (2..).map(NodeId).zip(answers).collect();
        judge(&peers, waited)
    }

    #[test]
    fn one_node_alone_is_its_own_majority() {
        assert_eq!(verdict(&[], false), Verdict::New);
    }

    #[test]
    fn a_peer_that_knows_decides() {
        for other in [None, Some(Fresh), Some(New), Some(Unknown)] {
            let verdict = verdict(&[other, Some(Joined)], false);
            assert_eq!(verdict, Verdict::Lost(NodeId(3)), "{other:?}");
        }
    }

    #[test]
    fn a_confirmed_leader_needs_no_second_word() {
        assert_eq!(verdict(&[None, Some(New)], false), Verdict::New);
        assert_eq!(verdict(&[Some(Unknown), Some(New)], false), Verdict::New);
    }

    #[test]
    fn a_majority_of_new_nodes_forms_the_cluster_once_the_rest_had_its_time() {
        assert_eq!(verdict(&[Some(Fresh), Some(Fresh)], false), Verdict::New);
        assert_eq!(verdict(&[Some(Fresh), None], false), Verdict::Open);
        assert_eq!(verdict(&[Some(Fresh), None], true), Verdict::New);
        assert_eq!(verdict(&[None, None], true), Verdict::Open);
        let one_of_four = [Some(Fresh), None, None, None];
        assert_eq!(verdict(&one_of_four, true), Verdict::Open);
    }

    #[test]
    fn a_log_without_a_leader_keeps_it_open() {
        assert_eq!(verdict(&[Some(Unknown), Some(Fresh)], true), Verdict::Open);
        assert_eq!(verdict(&[Some(Unknown), None], true), Verdict::Open);
    }
}
